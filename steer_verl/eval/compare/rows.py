"""The rows of a comparison: one measure of one benchmark (or average) for every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from steer_verl.eval.compare.models import Model, Seed
from steer_verl.eval.compare.paired import Difference, Pairing, average, pair, pair_survival
from steer_verl.eval.compare.seeds import OverSeeds, Read
from steer_verl.eval.contributions import Estimate
from steer_verl.eval.life_table import mean_turns, survival_at
from steer_verl.eval.metrics import SCALES
from steer_verl.eval.published import published, published_average
from steer_verl.eval.significance import holm
from steer_verl.eval.summary import SHOWN, corrected_failures, known_errors, measure_about
from steer_verl.eval.summary import average as average_of
from steer_verl.eval.summary_shape import MeasureAbout
from steer_verl.eval.summary_table import NAMES, SURVIVAL_ABOUT
from steer_verl.eval.survival import restricted_mean
from steer_verl.statistics import Interval

PAPERS_TURNS = (1, 3, 5, 8)
"""Where the paper's survival can be read off."""

UNTESTED = frozenset(("well_formed", "unrated"))
"""Measures of the machinery: shown, but no part of the family of tests."""

CORRECTED = "failed_turns_corrected"


@dataclass(frozen=True)
class Row:
    """One measure in one place."""

    place: str
    """A benchmark, or the name of an average."""
    measure: str
    about: MeasureAbout
    values: Mapping[str, Estimate]
    """Model -> its figure over all of its own dialogues."""
    differences: Mapping[str, Difference] = field(default_factory=dict)
    """Model -> what it has over the baseline on the dialogues of both."""
    published: Mapping[str, float] = field(default_factory=dict)
    """The paper's model -> its figure."""
    seeds: Mapping[str, Interval] = field(default_factory=dict)
    """Pooled model -> mean over its training seeds with Student's t interval."""


def rows_of(models: Sequence[Model], baseline: Model, *, paper: bool, seed: int = 0) -> list[Row]:
    """All rows: benchmark by benchmark, then the averages. ``paper``: with its figures beside ours."""
    benchmarks = list(dict.fromkeys(benchmark for model in models for benchmark in model.found))
    rows: list[Row] = []
    pairs: dict[tuple[str, str], Pairing] = {}
    for i, benchmark in enumerate(benchmarks, start=1):
        there = [model for model in models if benchmark in model.found]
        rivals = [model for model in there if model is not baseline] if baseline in there else []
        for model in rivals:
            pairs[model.name, benchmark] = pair(model, baseline, benchmark, (seed, i))
        gaps = {m.name: pairs[m.name, benchmark] for m in rivals}
        rows += _measures(benchmark, there, baseline, gaps, (seed, i), paper)
        rows += _survival(benchmark, there, baseline, (seed, i), paper)
        rows += _corrected(benchmark, there, (seed, i))
    rows += _averages(models, baseline, benchmarks, pairs, seed, paper)
    return _adjusted([row for row in rows if row.values])


def _measures(
    benchmark: str,
    there: Sequence[Model],
    baseline: Model,
    pairs: Mapping[str, Pairing],
    seed: tuple[int, ...],
    paper: bool,
) -> list[Row]:
    figures = {model.name: model.found[benchmark].estimates(seed) for model in there}
    multi_turn = all(benchmark not in model.single for model in there)
    over = OverSeeds(there, baseline, [benchmark])
    return [
        Row(
            place=benchmark,
            measure=name,
            about=measure_about(measure),
            values={model: found[name] for model, found in figures.items() if name in found},
            differences=over.add_to(
                _tested(name, {model: found.differences[name] for model, found in pairs.items()}),
                _measure(k),
                measure.scale,
            ),
            published=published(benchmark, name) if paper and multi_turn else {},
            seeds=over.spread(_measure(k), measure.scale),
        )
        for k, (name, measure) in enumerate(SHOWN.items())
    ]


def _measure(k: int) -> Read:
    def read(seed: Seed) -> float:
        return float(seed.values_K[k])

    return read


def _tested(name: str, differences: Mapping[str, Difference]) -> dict[str, Difference]:
    if name not in UNTESTED:
        return dict(differences)
    return {model: replace(d, p=float("nan"), test="") for model, d in differences.items()}


def _survival(benchmark: str, there: Sequence[Model], baseline: Model, seed: tuple[int, ...], paper: bool) -> list[Row]:
    played = [model for model in there if benchmark in model.lives]
    if not played:
        return []
    last = min(model.lives[benchmark].reach for model in played)
    turns = [*(t for t in PAPERS_TURNS if t < last), last]
    found = {
        model.name: pair_survival(model, baseline, benchmark, turns, seed)
        for model in played
        if model is not baseline and baseline in played
    }
    over = OverSeeds(played, baseline, [benchmark])
    rows = [
        Row(
            place=benchmark,
            measure=f"survival:{t}" if t != last else "survival",
            about={**SURVIVAL_ABOUT["at"], "title": f"survival to turn {t}"},
            values={model.name: survival_at(model.lives[benchmark], t, seed) for model in played},
            differences=over.add_to(
                _named(found, f"survival:{t}" if t != last else "survival"), _survival_to(t), SCALES["%"]
            ),
            published=published(benchmark, f"survival:{t}") if paper else {},
            seeds=over.spread(_survival_to(t), SCALES["%"]),
        )
        for t in turns
    ]
    about: MeasureAbout = {**SURVIVAL_ABOUT["mean_turns"], "title": f"turns survived of {last}"}
    values = {model.name: mean_turns(model.lives[benchmark], last, seed) for model in played}
    read, scale = _turns_of(last), (1.0, float(last))
    differences = over.add_to(_named(found, "mean_turns"), read, scale)
    return [*rows, Row(benchmark, "mean_turns", about, values, differences, seeds=over.spread(read, scale))]


def _survival_to(turn: int) -> Read:
    def read(seed: Seed) -> float:
        return 100 * float(seed.survival_T[turn - 1])

    return read


def _turns_of(last: int) -> Read:
    def read(seed: Seed) -> float:
        return float(restricted_mean(seed.survival_T, last))

    return read


def _named(found: Mapping[str, Mapping[str, Difference]], name: str) -> dict[str, Difference]:
    return {model: differences[name] for model, differences in found.items() if name in differences}


def _corrected(benchmark: str, there: Sequence[Model], seed: tuple[int, ...]) -> list[Row]:
    """Failing turns, corrected for the judge's errors, of models whose judge was calibrated."""
    values = {}
    for model in there:
        known = {known_errors(run.about) for run in model.runs}
        figures = model.found[benchmark].estimates(seed)
        if len(known) == 1 and (errors := known.pop()) is not None and "failed_turns" in figures:
            found = model.found[benchmark]
            values[model.name] = corrected_failures(figures["failed_turns"], found, errors, seed)
    about = measure_about(SHOWN["failed_turns"])
    about["title"] += ", corrected for the judge"
    return [Row(benchmark, CORRECTED, about, values)]


def _averages(
    models: Sequence[Model],
    baseline: Model,
    benchmarks: Sequence[str],
    pairs: Mapping[tuple[str, str], Pairing],
    seed: int,
    paper: bool,
) -> list[Row]:
    """Unweighted means over the attacked benchmarks that every model has, of several turns and of one."""
    shared = [b for b in benchmarks if all(b in model.attacked for model in models)]
    rows = []
    for sort, title in NAMES.items():
        names = [b for b in shared if all((b in model.single) == (sort == "single_turn") for model in models)]
        if len(names) > 1:
            seeds = {b: (seed, i) for i, b in enumerate(benchmarks, start=1) if b in names}
            place = f"{title} ({', '.join(names)})"
            rows += _average(place, names, models, baseline, pairs, seeds, paper and sort == "multi_turn")
    return rows


def _average(
    place: str,
    names: Sequence[str],
    models: Sequence[Model],
    baseline: Model,
    pairs: Mapping[tuple[str, str], Pairing],
    seeds: Mapping[str, tuple[int, ...]],
    paper: bool,
) -> list[Row]:
    figures = {model.name: average_of({b: model.found[b] for b in names}, seeds) for model in models}
    over = OverSeeds(models, baseline, names)
    gaps = {m.name: average([pairs[m.name, b] for b in names], SHOWN) for m in models if m is not baseline}
    return [
        Row(
            place=place,
            measure=name,
            about=measure_about(measure),
            values={model: found[name] for model, found in figures.items() if np.isfinite(found[name].value)},
            differences=over.add_to(
                _tested(name, {model: found[name] for model, found in gaps.items()}), _measure(k), measure.scale
            ),
            published=published_average(names, name) if paper else {},
            seeds=over.spread(_measure(k), measure.scale),
        )
        for k, (name, measure) in enumerate(SHOWN.items())
    ]


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows with Holm's correction over all tests in them."""
    places = [(i, model) for i, row in enumerate(rows) for model in row.differences]
    adjusted = holm([rows[i].differences[model].p for i, model in places])
    found: list[dict[str, Difference]] = [{} for _ in rows]
    for (i, model), p in zip(places, adjusted, strict=True):
        found[i][model] = replace(rows[i].differences[model], adjusted=p)
    return [replace(row, differences=differences) for row, differences in zip(rows, found, strict=True)]
