"""Figures of evaluated dialogues: every measure, and survival by turn, with interval and bounds.

A figure is a function of sums over clusters. A cluster is one dialogue of a benchmark with all that the pooled training
seeds' students made of it; turns of a dialogue are never taken apart. The function without each cluster in turn (the
jackknife) gives a figure's variance, and how it varies together with another model's.

Names of figures: those of the measures and, where dialogues of several turns are attacked, ``survival:<t>`` (S at turn
t, in percent), ``survival`` (at turn ``last``) and ``mean_turns`` (turns survived of the first ``last``). Arrays: N
dialogues, C clusters, K measures, T turns, F figures; 3 = by what is known, at the least, at the greatest; 2 =
(numerator, denominator).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from steer_verl.eval.config import MarkSettings
from steer_verl.eval.estimate import Estimate
from steer_verl.eval.jackknife import Jackknife, beside, mean, of_ratios, of_survival, ratio
from steer_verl.eval.marks import DialogueMarks, Grid, Key, grid_of
from steer_verl.eval.measures import MEASURES, SCALES, Measure
from steer_verl.eval.survival import Lives, lives_of, restricted_mean
from steer_verl.statistics.agreement import Detection, corrected, rogan_gladen
from steer_verl.statistics.intervals import Interval, effective_number, json_number, over_repetitions

FAILED = "failed_turns"

REACHED_BY = 20
"""Attacked dialogues that must be that long for a turn to be spoken of: beyond, a single failure decides."""


@dataclass(frozen=True, eq=False)
class Figures:
    """Dialogues of one benchmark, or of several together, ready to be measured."""

    measures: Mapping[str, Measure]
    key_N: tuple[Key, ...]
    """Whose cluster each dialogue belongs to."""
    run_N: np.ndarray
    """Training seed of the student that played it."""
    sums_NK32: np.ndarray
    lives: Lives

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """The clusters, sorted: ``(benchmark, digest or id)``."""
        return tuple(sorted(set(self.key_N)))

    @property
    def runs(self) -> tuple[int, ...]:
        """The training seeds whose students played, sorted."""
        return tuple(int(run) for run in np.unique(self.run_N))

    @property
    def reach(self) -> int:
        """The last turn to speak of: that 20 attacked dialogues have, or half of fewer than 40. 0: nobody is attacked
        over several turns, and there is no survival. Dialogues go on after a failure, so this is the benchmark's, not
        the student's."""
        lengths_C = np.zeros(len(self.keys), dtype=int)
        np.maximum.at(lengths_C, self.cluster_N, self.lives.length_N)
        lengths_C = np.sort(lengths_C[lengths_C > 0])[::-1]
        return int(lengths_C[min(REACHED_BY, (len(lengths_C) + 1) // 2) - 1]) if len(lengths_C) else 0

    def choose(self, keys: Collection[Key]) -> Figures:
        """Only these clusters."""
        wanted = frozenset(keys)
        return self._take(np.array([key in wanted for key in self.key_N], dtype=bool))

    def of_run(self, run: int) -> Figures:
        """Only what the student of this training seed made."""
        return self._take(self.run_N == run)

    def of_all(self, runs: Collection[int]) -> Figures:
        """Only the clusters that the students of all these training seeds played."""
        return self.choose(set.intersection(*(set(self.of_run(run).keys) for run in runs)))

    def _take(self, rows_N: np.ndarray) -> Figures:
        keys = tuple(key for key, taken in zip(self.key_N, rows_N, strict=True) if taken)
        lives = self.lives.take(rows_N)
        return replace(self, key_N=keys, run_N=self.run_N[rows_N], sums_NK32=self.sums_NK32[rows_N], lives=lives)

    @cached_property
    def known_CK2(self) -> np.ndarray:
        """What each cluster adds to each measure by what is known."""
        return self.by_cluster(self.sums_NK32[:, :, 0])

    @cached_property
    def risks_C2T(self) -> np.ndarray:
        """How many dialogues of each cluster fail at turn t, and how many entered it."""
        return self.by_cluster(np.stack([self.lives.fails_NT, self.lives.at_risk_NT], axis=1).astype(float))

    @cached_property
    def possible_CT(self) -> np.ndarray:
        """Whether a dialogue of each cluster may be at risk at turn t, rated or not."""
        return self.by_cluster(self.lives.possible_NT) > 0

    @cached_property
    def cluster_N(self) -> np.ndarray:
        """The cluster of each dialogue."""
        place = {key: i for i, key in enumerate(self.keys)}
        return np.array([place[key] for key in self.key_N], dtype=int)

    def by_cluster(self, array: np.ndarray) -> np.ndarray:
        """Sums over the dialogues (first axis) of each cluster."""
        found = np.zeros((len(self.keys), *array.shape[1:]))
        np.add.at(found, self.cluster_N, array)
        return found

    @property
    def horizon(self) -> int:
        """Turns; survival is followed so far."""
        return self.lives.failed_NT.shape[1]

    def jackknife(self, last: int) -> Jackknife:
        """The figures (:func:`scales_of`) with what their intervals need."""
        measured = of_ratios(self.known_CK2)
        return beside([measured, of_survival(self.risks_C2T, self.possible_CT, last)]) if last else measured

    def bounds_2F(self, last: int) -> np.ndarray:
        """The figures if all that is missing had turned out badly, and well."""
        extremes_2K = ratio(self.sums_NK32[:, :, 1:].sum(axis=0)).T
        low_F = np.array([measure.better == "low" for measure in self.measures.values()], dtype=bool)
        measured_2K = np.where(low_F, extremes_2K[::-1], extremes_2K)
        if not last:
            return measured_2K
        s_2T = self.lives.bounds_2T
        return np.hstack([measured_2K, 100 * s_2T, 100 * s_2T[:, [last - 1]], restricted_mean(s_2T, last)[:, None]])

    def counts_2F(self, last: int) -> np.ndarray:
        """How many dialogues or turns each figure rests on, and how many it concerns."""
        weights_2NK = np.moveaxis(self.sums_NK32[:, :, :2, 1], 2, 0)
        turns_K = np.array([measure.per == "turn" for measure in self.measures.values()], dtype=bool)
        measured_2K = np.where(turns_K, weights_2NK, weights_2NK > 0).sum(axis=1)
        if not last:
            return measured_2K
        seen_F = self.seen_NF(last).sum(axis=0)
        return np.hstack([measured_2K, np.stack([seen_F, np.full(len(seen_F), self.lives.there_N.sum())])])

    def seen_NF(self, last: int) -> np.ndarray:
        """Whether a dialogue tells what each figure of survival asks: it was not lost to view before that turn."""
        lives, turns_F = self.lives, np.array([*range(1, self.horizon + 1), last, last])
        return lives.there_N[:, None] & ~(lives.lost_N[:, None] & (lives.end_N[:, None] < turns_F))

    def concerned_CF(self, last: int) -> np.ndarray:
        """Whether a figure concerns a cluster, rated or not."""
        measured_CK = self.by_cluster(self.sums_NK32[:, :, 1, 1]) > 0
        there_C1 = self.by_cluster(self.lives.there_N[:, None].astype(int)) > 0
        return np.hstack([measured_CK, *[there_C1] * self.extra(last)])

    def extra(self, last: int) -> int:
        """How many figures of survival there are."""
        return self.horizon + 2 if last else 0

    def estimates(self, last: int | None = None) -> dict[str, Estimate]:
        """Every figure that applies to these dialogues: a measure that nothing is known of is left out unless it rests
        on the judge's marks alone. ``last`` (unset: :attr:`reach`) is where survival is read off."""
        return average([self], last)

    def hazard(self) -> list[Estimate]:
        """Share of those at risk at turn 1..T that fail there, in percent."""
        risk_CT = self.risks_C2T[:, 1]
        found = of_ratios(np.stack([100 * self.risks_C2T[:, 0], risk_CT], axis=-1))
        ends = found.ends(SCALES["%"])
        counts = risk_CT.sum(axis=0), self.lives.possible_NT.sum(axis=0)
        rows = zip(found.value_F, *ends, *counts, *100 * self.lives.hazard_bounds_2T[::-1], strict=True)
        return [_estimate(*row) for row in rows]

    def corrected(self, known: Detection) -> Estimate:
        """The share of failing turns, corrected for the judge's errors (Rogan and Gladen); bounds likewise."""
        seen, k = self.estimates()[FAILED], list(self.measures).index(FAILED)
        if seen.value is None:
            return seen
        found = self.jackknife(0)
        n = effective_number(found.value_F[k], found.variance_F[k], found.n_F[k], SCALES["%"], found.freedom_F[k])
        fixed = corrected(seen.value / 100, min(float(n), seen.n), known)
        rates = known.sensitivity.value, known.specificity.value
        low, high, worst, best = (
            100 * rogan_gladen((end or 0.0) / 100, *rates) for end in (seen.low, seen.high, seen.worst, seen.best)
        )
        ends = min(low, 100 * fixed.low), max(high, 100 * fixed.high)  # errors of the judge never narrow it
        return _estimate(100 * fixed.value, *ends, seen.n, seen.of, worst, best)


def figures_of(
    dialogues: Sequence[DialogueMarks], thresholds: MarkSettings, measures: Mapping[str, Measure] = MEASURES
) -> Figures:
    """``dialogues`` measured under ``thresholds``."""
    return figures_of_grid(grid_of(dialogues), thresholds, measures)


def figures_of_grid(grid: Grid, thresholds: MarkSettings, measures: Mapping[str, Measure] = MEASURES) -> Figures:
    """The same of marks that are arrays already."""
    return Figures(
        measures,
        tuple(d.key for d in grid.dialogues),
        np.array([d.run for d in grid.dialogues], dtype=int),
        np.stack([measure.add(grid, thresholds) for measure in measures.values()], axis=1),
        lives_of(grid, thresholds),
    )


def average(figures: Sequence[Figures], last: int | None = None) -> dict[str, Estimate]:
    """Unweighted mean of every figure that all of ``figures`` (one a benchmark) have; survival up to turn ``last``
    (unset: the least :attr:`Figures.reach`), where all have it."""
    last = last_of(figures, last)
    found, scales = mean([part.jackknife(last) for part in figures]), scales_of(figures, last)
    bounds_2F = np.mean([part.bounds_2F(last) for part in figures], axis=0)
    counts_2BF = np.stack([part.counts_2F(last) for part in figures], axis=1)
    measures = figures[0].measures
    core_F = np.array([name not in measures or measures[name].core for name in scales], dtype=bool)
    applies_F = ((counts_2BF[0] > 0) | (core_F & (counts_2BF[1] > 0))).all(axis=0)
    ends = found.ends(np.array(list(scales.values())).reshape(-1, 2).T)
    rows = zip(found.value_F, *ends, *counts_2BF.sum(axis=1), *bounds_2F, strict=True)
    return {name: _estimate(*row) for name, row, applies in zip(scales, rows, applies_F, strict=True) if applies}


def over_seeds(figures: Sequence[Figures], last: int | None = None) -> dict[str, Interval]:
    """Every figure of a way of training: its mean over training seeds, each one observation; empty for a single seed.
    Of several ``figures`` (one a benchmark) it is that of their average, over the seeds that played all, on the
    dialogues that all of these played."""
    by_seed = values_by_seed(figures, last)
    if len(by_seed) < 2:
        return {}
    last = last_of(figures, last)
    n_F = mean([part.of_all(by_seed).jackknife(last) for part in figures]).n_F
    each_SF = np.array([list(values.values()) for values in by_seed.values()])
    return {
        name: over_repetitions(each_S, n, scale)
        for (name, scale), each_S, n in zip(scales_of(figures, last).items(), each_SF.T, n_F, strict=True)
        if np.isfinite(each_S).all()
    }


def values_by_seed(figures: Sequence[Figures], last: int | None = None) -> dict[int, dict[str, float]]:
    """Training seed that played all of ``figures`` -> every figure, averaged over them, on the dialogues that all these
    seeds played; NaN where it is undefined."""
    last = last_of(figures, last)
    names, found = scales_of(figures, last), {}
    if not (seeds := set.intersection(*(set(part.runs) for part in figures))):
        return {}
    common = [part.of_all(seeds) for part in figures]
    for seed in sorted(seeds):
        values_F = np.mean([part.of_run(seed).jackknife(last).value_F for part in common], axis=0)
        found[seed] = dict(zip(names, map(float, values_F), strict=True))
    return found


def last_of(figures: Sequence[Figures], last: int | None) -> int:
    """Where survival is read off: ``last``, or what all of ``figures`` reach; 0: nowhere."""
    reach = min(part.reach for part in figures)
    return min(last, figures[0].horizon) if last and reach else reach


def scales_of(figures: Sequence[Figures], last: int) -> dict[str, tuple[float, float]]:
    """Name of every figure, in the order of their arrays -> its scale."""
    found = {name: measure.scale for name, measure in figures[0].measures.items()}
    if last:
        turns = (*(f"survival:{t}" for t in range(1, figures[0].horizon + 1)), "survival")
        found |= {**dict.fromkeys(turns, SCALES["%"]), "mean_turns": (1.0, float(last))}
    return found


def _estimate(value: float, low: float, high: float, n: float, of: float, worst: float, best: float) -> Estimate:
    figures = zip(("value", "low", "high", "worst", "best"), (value, low, high, worst, best), strict=True)
    return Estimate(**{name: json_number(number) for name, number in figures}, n=round(n), of=round(of))
