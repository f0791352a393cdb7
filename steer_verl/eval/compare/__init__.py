"""Any number of finished evaluations beside each other: intervals, paired differences, tests, the paper's figures.

:func:`compare` makes the comparison; :mod:`steer_verl.eval.compare.write` puts it into Markdown, CSV, JSON and a
terminal's table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steer_verl.errors import ConfigError
from steer_verl.eval.compare.models import Model, find, models_of
from steer_verl.eval.compare.rows import Row, rows_of
from steer_verl.eval.runs import EvalRun

STATIC = "static"


@dataclass(frozen=True)
class Comparison:
    """A finished comparison."""

    models: tuple[Model, ...]
    baseline: Model
    rows: tuple[Row, ...]
    """Place by place (a benchmark, then the averages), measure by measure."""
    primary: tuple[Row, ...]
    """Of ``rows`` the few that say who is safer, and at what price: survival to the last turn, harmless pass, helpful
    pass, full refusals of benign requests, in this order, each where it occurs. They alone are tested as one family
    (Holm): ``Difference.adjusted`` is known for them alone."""
    notes: tuple[str, ...]
    """What a reader must know: how it was computed, and what makes the runs hard to compare."""


def compare(runs: Sequence[EvalRun], baseline: str | None = None, seed: int = 0) -> Comparison:
    """Compare finished evaluations.

    Args:
        runs: in the order of columns. Runs of one name and different training seeds are pooled into one model.
        baseline: what the others are compared with: the name or the folder of a run; unset, the first.
        seed: of resamples and permutations.

    Raises:
        ConfigError: no runs, no such baseline, scipy is not installed, or a calibration cannot be read.
        DataError: a run has no dialogues.
    """
    if not runs:
        raise ConfigError("no runs to compare; give the folders of finished evaluations")
    first = find(models_of(runs, runs[0].about.mark_settings), baseline)
    settings = first.runs[0].about.mark_settings
    models = models_of(runs, settings)
    first = find(models, baseline)
    static = all(run.about.attack == STATIC for run in runs)
    rows = rows_of(models, first, paper=static, seed=seed)
    return Comparison(tuple(models), first, tuple(rows), (), tuple(_notes(models, first, rows, static)))


def _notes(models: Sequence[Model], baseline: Model, rows: Sequence[Row], static: bool) -> list[str]:
    tests = sum(bool(d.test) for row in rows for d in row.differences.values())
    told = [
        "Intervals: 95 %, bootstrap of whole dialogues (of Kaplan-Meier for survival). Bounds: all that is missing had "
        "turned out badly, or well; they know of failures rated after a gap, where Kaplan-Meier has lost sight of a "
        "dialogue, so that survival can lie a little outside.",
    ]
    if len(models) > 1:
        told.append(
            f"Differences: minus {baseline.name}, paired by dialogue over those that both have. Tests: McNemar's exact "
            "one for passes, permutation for other figures, log-rank for survival, which is not paired; p after Holm's "
            f"correction over all {tests} tests of the table. They speak of these students: what another training "
            "seed would give is seen from several seeds of each, evaluated under one name."
        )
    told += [*_unlike(models), *_pooled(models)]
    if any(row.published for row in rows):
        told.append(
            "The paper's figures stand beside sets of the same name; its files and its judge are not public, so these "
            "need not be the same dialogues, and it gives no intervals."
        )
    elif not static:
        told.append("The paper asked fixed questions only: its figures stand beside no adaptive attack.")
    return told


def _unlike(models: Sequence[Model]) -> list[str]:
    """What the runs do not share."""
    abouts = [run.about for model in models for run in model.runs]
    told = []
    for what, values in (
        ("judges", {about.judge for about in abouts}),
        ("attacks", {f"{about.attack} {about.tutor}".strip() for about in abouts}),
    ):
        if len(values) > 1:
            told.append(f"Not the same {what}: {', '.join(sorted(values))}. Differences are not the students' alone.")
    if len({about.mark_settings for about in abouts}) > 1:
        told.append("The runs were made under different thresholds; all are measured under the baseline's.")
    return told


def _pooled(models: Sequence[Model]) -> list[str]:
    names = [model.name for model in models if model.pooled]
    if not names:
        return []
    return [
        f"Several training seeds are pooled in {', '.join(names)}: resampling draws dialogues, each with all that the "
        "seeds' students made of it. Over seeds: each seed is one observation (Student's t, differences paired by "
        "seed). A difference of two models that share several seeds is marked only if it is clear over seeds too. "
        "Against a model of fewer seeds the permutation test is an approximation."
    ]
