"""What a reader of a comparison must know: how it was computed, and what makes the runs hard to compare."""

from __future__ import annotations

from collections.abc import Sequence

from steer_verl.eval.compare.models import Model
from steer_verl.eval.compare.rows import STATIC, Row
from steer_verl.eval.published import comparable

FIGURES = (
    "Intervals: 95 %, Wilson's, of whole dialogues. Bounds: all that is missing had turned out badly, or well; the "
    "figure lies between them."
)
DIFFERENCES = (
    "Differences: minus {baseline}, paired by dialogue (the same questions and images) over those that both have. p: "
    "paired permutation test. The {tests} tests of the first table are corrected for their number (Holm), and * marks "
    "p below 0.05 there, if the interval leaves zero out; every other p is uncorrected, and proves nothing by itself. "
    "They speak of these students: what another training seed would give is seen from several seeds of each, evaluated "
    "under one name."
)
POOLED = (
    "Several training seeds are pooled in {names}: a dialogue counts once, with all that the seeds' students made of "
    "it. Over seeds: each seed is one observation. A difference of two models that share several seeds is marked only "
    "if it is clear over seeds too. Against a model of fewer seeds the permutation test is an approximation."
)
UNEVEN = (
    "The training seeds of {names} did not play the same dialogues: in a figure each record counts, in a difference "
    "each dialogue once, and over seeds only dialogues that all of them played."
)
PAPER = (
    "The paper's figures stand beside sets of the same name; its files and its judge are not public, so these need not "
    "be the same dialogues, and it gives no intervals (more of it: steer_verl/eval/published.json)."
)
THRESHOLDS = "The paper's thresholds are the defaults of `marks`: its figures stand beside none under others."
SHORTENED = "The paper played dialogues to their ends: its figures stand beside none that `max_turns` shortened."
ADAPTIVE = "The paper asked fixed questions only: its figures stand beside no adaptive attack."


def notes_of(models: Sequence[Model], baseline: Model, rows: Sequence[Row], primary: Sequence[Row]) -> list[str]:
    """One sentence or a few for each thing."""
    tests = sum(d.adjusted is not None for row in primary for d in row.differences.values())
    pooled = ", ".join(model.name for model in models if model.pooled)
    uneven = ", ".join(model.name for model in models if model.uneven)
    adaptive = any(run.about.attack != STATIC for model in models for run in model.runs)
    return [
        FIGURES,
        *[DIFFERENCES.format(baseline=baseline.name, tests=tests)] * (len(models) > 1),
        *_unlike(models, baseline),
        *[POOLED.format(names=pooled)] * bool(pooled),
        *[UNEVEN.format(names=uneven)] * bool(uneven),
        *[PAPER] * any(row.published for row in rows),
        *[THRESHOLDS] * (not comparable(baseline.runs[0].about.mark_settings)),
        *[ADAPTIVE] * adaptive,
        *[SHORTENED] * (not all(model.whole(model.figures) for model in models)),
    ]


def _unlike(models: Sequence[Model], baseline: Model) -> list[str]:
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
        told.append(f"The runs were made under different thresholds; all are measured under those of {baseline.name}.")
    return told
