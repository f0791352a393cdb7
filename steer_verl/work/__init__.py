"""One step over many items: bounded, resumed, counted. It knows nothing of what the step does.

============  ==============================================================================
``step``      what a step is, what becomes of an item, and the settings of the work
``job``       a step over its items, and one process's part of the work
``run``       the door: a job worked through here or on Ray
``engine``    the loop: items in flight, tries, and when to stop
``shards``    the open shards of a process: they know the items and keep every reply
``store``     the state of one shard on disk
``outcomes``  the final word on every item, as JSON lines
``manifest``  by what a folder was begun, and what went in and came out of it
``cluster``   the shards as Ray tasks
``progress``  how a running step is faring, and showing it
============  ==============================================================================

::

    <folder>/plan.json                        the settings by which all outcomes below were made
    <folder>/secret                           key of the ids in a tutor's prompts; its owner's alone
    <folder>/shard-000/outcomes-000000.jsonl  one line an item: kept or rejected, and what it cost
    <folder>/shard-000/state.sqlite           items met, their cost, every terminal reply
    <folder>/shard-000/retried.jsonl          outcomes that count no more: their items were worked again (``retry``),
    <folder>/shard-000/gone.jsonl             their items have left the source, or hold something else now,
    <folder>/shard-000/earlier-1.jsonl        or they were made under the first of the plan's earlier settings
"""
