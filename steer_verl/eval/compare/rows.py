"""The rows of a comparison: one figure of one benchmark, or of an average over several, for every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from steer_verl.eval import published
from steer_verl.eval.compare.models import Model
from steer_verl.eval.differences import PRIMARY, Difference, average_differences
from steer_verl.eval.estimate import Estimate
from steer_verl.eval.figures import average, over_seeds
from steer_verl.eval.measures import MEASURES
from steer_verl.eval.shape import MeasureAbout
from steer_verl.eval.summary import known_errors
from steer_verl.eval.summary_table import NAMES, SURVIVAL_ABOUT
from steer_verl.statistics.intervals import Interval
from steer_verl.statistics.tests import holm
from steer_verl.types import Record

AVERAGES = (*NAMES.values(), "mean of benign sets")
"""How places that average over benchmarks begin."""

PAPERS_TURNS = (1, 3, 5, 8)
"""Where the paper's survival was read off."""

STATIC = "static"

T = TypeVar("T")

ATTACKED = "failed_turns"
"""A figure that attacked dialogues have, and no others."""

CORRECTED = "failed_turns_corrected"


class Row(Record):
    """One figure in one place."""

    place: str
    """A benchmark, or the name of an average."""
    benchmarks: tuple[str, ...]
    """The one, or those that are averaged."""
    measure: str
    about: MeasureAbout
    values: Mapping[str, Estimate]
    """Model -> its figure over all of its own dialogues."""
    differences: Mapping[str, Difference] = {}
    """Model -> what it has over the baseline on the dialogues of both."""
    published: Mapping[str, float] = {}
    """The paper's model -> its figure."""
    seeds: Mapping[str, Interval] = {}
    """Pooled model -> mean over its training seeds."""


def rows_of(models: Sequence[Model], baseline: Model) -> list[Row]:
    """All rows: benchmark by benchmark, then the averages over those that every model has."""
    names = list(dict.fromkeys(benchmark for model in models for benchmark in model.figures))
    rows = []
    for name in names:
        corrected = _corrected(name, models, baseline)
        rows += [*_rows(name, [name], models, baseline), *[corrected] * bool(corrected.values)]

    def shared(measure: str) -> list[str]:
        return [row.place for row in rows if row.measure == measure and len(row.values) == len(models)]

    reached, benign = shared("survival"), shared("refusal_full")
    single = [name for name in shared(ATTACKED) if not any(model.figures[name].reach for model in models)]
    groups = [reached, single, benign if benign not in (reached, single) else []]
    for title, group in zip(AVERAGES, groups, strict=True):
        if len(group) > 1:
            rows += _rows(f"{title} ({', '.join(group)})", group, models, baseline)
    return rows


def primary_of(rows: Sequence[Row]) -> list[Row]:
    """The rows that say who is safer, and at what price, with Holm's correction over all tests in them.

    Over-refusal has a place of its own. For each the place is the one where most models are compared, then the one that
    most have: of several turns, if there is one, and the widest average of those.
    """
    reached = {row.place for row in rows if row.measure == "survival"}

    def width(row: Row) -> tuple[int, ...]:
        compared = sum(d.value is not None for d in row.differences.values())
        return compared, len(row.values), row.place in reached, len(row.benchmarks)

    def place(measure: str) -> str:
        candidates = [row for row in rows if row.measure == measure]
        widest = max(candidates, key=width, default=None)
        return widest.place if widest else ""

    attacked, benign = place(ATTACKED), place("refusal_full")
    helpful = attacked or benign or place("helpful_pass")
    places = dict.fromkeys(PRIMARY, attacked) | {"helpful_pass": helpful, "refusal_full": benign}
    chosen = [row for measure in PRIMARY for row in rows if row.measure == measure and row.place == places[measure]]
    return _adjusted(chosen)


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows with Holm's correction over all tests in them."""
    tests = [(i, model, d.p) for i, row in enumerate(rows) for model, d in row.differences.items() if d.p is not None]
    found = [dict(row.differences) for row in rows]
    for (i, model, _), p in zip(tests, holm([p for *_, p in tests]), strict=True):
        found[i][model] = found[i][model].model_copy(update={"adjusted": p})
    return [row.model_copy(update={"differences": some}) for row, some in zip(rows, found, strict=True)]


def _rows(place: str, benchmarks: Sequence[str], models: Sequence[Model], baseline: Model) -> list[Row]:
    there = {
        model.name: [model.figures[name] for name in benchmarks]
        for model in models
        if all(name in model.figures for name in benchmarks)
    }
    last = min((found.reach for side in there.values() for found in side if found.reach), default=None)
    values = {name: average(side, last) for name, side in there.items()}
    base, gaps = there.get(baseline.name), {}
    for name, side in there.items():
        if base and name != baseline.name:
            gaps[name] = average_differences(list(zip(side, base, strict=True)), last=last)
    seeds = {name: over_seeds(side, last) for name, side in there.items()}
    paper = not last or all(run.about.attack == STATIC for model in models for run in model.runs)
    paper = paper and published.comparable(baseline.runs[0].about.mark_settings)
    paper = paper and all(model.whole(benchmarks) for model in models)
    measures = dict.fromkeys(measure for found in values.values() for measure in found)
    return [
        Row(
            place=place,
            benchmarks=tuple(benchmarks),
            measure=measure,
            about=_about(measure, last),
            values=_of(values, measure),
            differences=_of(gaps, measure),
            published=_published(benchmarks, measure, last) if paper else {},
            seeds=_of(seeds, measure),
        )
        for measure in measures
        if _kept(measure, last)
    ]


def _of(found: Mapping[str, Mapping[str, T]], measure: str) -> dict[str, T]:
    """Model -> one figure of each that has it."""
    return {name: figures[measure] for name, figures in found.items() if measure in figures}


def _kept(measure: str, last: int | None) -> bool:
    """Of survival by turn, what the paper's can stand beside."""
    name, _, turn = measure.partition(":")
    return name != "survival" or not turn or (int(turn) in PAPERS_TURNS and int(turn) < (last or 0))


def _published(benchmarks: Sequence[str], measure: str, last: int | None) -> dict[str, float]:
    name, _, turn = measure.partition(":")
    if name != "survival" or len(benchmarks) > 1:
        return published.passes(benchmarks, measure, single=not last)
    at = int(turn or last or 0)
    return {model: curve[at] for model, curve in published.survival(benchmarks[0]).items() if at in curve}


def _about(measure: str, last: int | None) -> MeasureAbout:
    if measure in MEASURES:
        return MEASURES[measure].about
    name, _, turn = measure.partition(":")
    about, end = SURVIVAL_ABOUT[name], f"of {last}" if name == "mean_turns" else turn or last
    return about.model_copy(update={"title": f"{about.title} {end}"})


def _corrected(benchmark: str, models: Sequence[Model], baseline: Model) -> Row:
    """Failing turns, corrected for the judge's errors, of models whose judge was calibrated for this very threshold."""
    below, values = baseline.runs[0].about.mark_settings.fail_below, {}
    for model in models:
        figures = model.figures.get(benchmark)
        played = [run.about for run in model.runs if any(d.benchmark == benchmark for d in run.dialogues)]
        known = {known_errors(about) if about.mark_settings.fail_below == below else None for about in played}
        if figures and len(known) == 1 and (errors := known.pop()) and ATTACKED in figures.estimates():
            values[model.name] = figures.corrected(errors)
    about = MEASURES[ATTACKED].about
    about = about.model_copy(update={"title": f"{about.title}, corrected for the judge"})
    return Row(place=benchmark, benchmarks=(benchmark,), measure=CORRECTED, about=about, values=values)
