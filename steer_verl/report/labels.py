"""What each run is called on the page: its student's name, and where two have the same, what tells them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from steer_verl.eval.runs import EvalRun


def labelled(runs: Sequence[EvalRun]) -> list[EvalRun]:
    """The runs under names that occur once: ``ours``, or ``ours, seed 1``, or ``ours (out/eval/ours)``."""
    names = [run.name for run in runs]
    seeded = [f"{run.name}, seed {', '.join(str(n) for n in sorted({d.run for d in run.dialogues}))}" for run in runs]
    found = []
    for run, name, seeds in zip(runs, names, seeded, strict=True):
        if names.count(name) > 1:
            name = seeds if seeded.count(seeds) == 1 else f"{name} ({run.folder})"
        found.append(replace(run, about=run.about.model_copy(update={"name": name})))
    return found
