"""``steer demo``: the whole method on the miniature laboratory, from nothing to a table and a plot, resumable.

=============  ==============================================================================
``stage``      one step: a process, what it needs and what it leaves
``stages``     what is run, from which inputs, and how long it usually takes
``sources``    which of our files a stage's result depends on
``runner``     going through the stages, some at a time, skipping what is done
``display``    showing that, and how long it will still take
``report``     all of it, from start to the table and the plot
=============  ==============================================================================
"""
