"""The miniature laboratory over many training seeds, one folder of runs for all pages: ``python -m benchmarks.lab``.

===============  ==========================================================================
``arms``         what is trained: the ways that pages compare
``runs``         where it lies, the stages that make it, and the record
``page``         what pages are made of: figures over seeds, tables, the machine
``mini``         mini.md: base, SFT and GRPO over ten seeds
``ablations``    ablations.md: the method without one of its parts
``worlds``       tcsr_worlds.md: TCSR's settings in two worlds
``gaming``       gaming.md: students that may game their tutor
``sizes``        sizes.md: students of three sizes
``fast``         Stage III and its evaluation without verl, for many short trainings
``student``      its student, by transformers alone
``window``       what is exact about the leak rates
``toy``          four worlds without a language model
===============  ==========================================================================

A page is a module with ``NEEDS``, the arms that it reads, ``MARKED``, whether it reads how ``steer eval run`` marked
their last students' dialogues, and ``write_page(lab, folder)``, which writes its Markdown and plots of the finished
seeds and returns their paths. The figures of the students on the way are kept beside this file, in ``students.jsonl``.
"""
