"""The runs as the page shows them: under names that occur once, and by the thresholds of the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from steer_verl.eval.runs import EvalRun


def labelled(runs: Sequence[EvalRun]) -> list[EvalRun]:
    """The runs, called ``ours``, or where two have one name ``ours, seed 1`` or ``ours (out/eval/ours)``.

    One page, one measure: all of them get the first one's thresholds.
    """
    names = [run.name for run in runs]
    seeded = [f"{run.name}, seed {', '.join(str(n) for n in sorted({d.run for d in run.dialogues}))}" for run in runs]
    found = []
    for run, name, seeds in zip(runs, names, seeded, strict=True):
        if names.count(name) > 1:
            name = seeds if seeded.count(seeds) == 1 else f"{name} ({run.folder})"
        about = run.about.model_copy(update={"name": name, "marks": runs[0].about.mark_settings.model_dump()})
        found.append(replace(run, about=about))
    return found
