"""One step over many items: bounded, resumed, counted. It knows nothing of what the step does.

=============  ==================================================================================
``step``       what a step is, what it finds on its desk, and what becomes of an item
``run``        the door: a :class:`~steer_verl.work.run.Job`, worked through here or on Ray
``engine``     the loop: items in flight, tries, and when to stop
``desk``       where one item is worked on, and what was paid for is remembered
``store``      the state of one shard on disk
``outcomes``   the final word on every item, as JSON lines
``plan``       what a folder was begun with, so that nothing else is mixed into it
``cluster``    the shards as Ray tasks
``tally``      counts, rate and time left of a running step
``progress``   showing that
``manifest``   what went in and came out of every step, from the outcomes themselves
=============  ==================================================================================
"""
