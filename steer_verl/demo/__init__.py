"""``steer demo``: the whole method on the miniature laboratory, from nothing to a table and a plot, resumable.

=============  ==================================================================================
``stages``     what is run, in which order, from which inputs, and how long it usually takes
``timing``     how long it will still take
``display``    showing that
``cures``      what to do when a stage fails
``runner``     going through the stages, skipping what is done
``report``     the table and the plot
``main``       all of it, from start to end
=============  ==================================================================================
"""
