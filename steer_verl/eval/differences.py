"""What one model has over another on the same dialogues: differences with intervals, and tests.

Only clusters that both have take part, and of them, for each figure, those in which both have something rated. If the
two do not differ, who made which of the two records of a cluster is a toss of a coin: the permutation test tosses these
coins, for every figure. Arrays: C clusters, K measures, T turns, F figures, 2 models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steer_verl.eval.figures import Figures, last_of, scales_of
from steer_verl.eval.jackknife import Jackknife, beside, curve, mean, of_ratios, of_survival, ratio
from steer_verl.statistics.intervals import Interval, difference, json_number, over_repetitions
from steer_verl.statistics.tests import paired_permutation
from steer_verl.types import Record

PRIMARY = ("survival", "harmless_pass", "helpful_pass", "refusal_full")
"""The figures by which a model is judged, and the only ones whose p is corrected for their number (Holm) and starred:
on the mean of dialogues, or on the only benchmark. All other p are shown as they are."""

SURE = 0.05
"""Adjusted p below which a difference is clear, if its interval leaves zero out."""


class Difference(Record):
    """A model minus the baseline, over the dialogues of both. ``None`` where it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    pairs: int
    """Dialogues that both played and that were rated for both."""
    left_out: int
    """Dialogues that only one of them has, or that were rated for one alone or for none."""
    p: float | None
    """Paired permutation test, two-sided; ``None``: no pairs."""
    adjusted: float | None = None
    """``p`` after Holm's correction over the primary figures; ``None``: it is none of them."""
    over_seeds: Interval | None = None
    """Of ways of training rather than of these students: over the training seeds that both have, each one observation,
    paired. ``None``: both do not have several."""

    @property
    def sure(self) -> bool:
        """Whether these students differ: by the corrected test, and by the interval."""
        if self.adjusted is None or self.low is None or self.high is None:
            return False
        return self.adjusted < SURE and not self.low <= 0 <= self.high

    @property
    def clear(self) -> bool:
        """Whether the difference can be told from none, over seeds too where both have several."""
        over = self.over_seeds
        return self.sure and (over is None or (over.low > 0 if (self.value or 0) > 0 else over.high < 0))


def differences(one: Figures, other: Figures, *, last: int | None = None) -> dict[str, Difference]:
    """``one`` minus ``other`` on one benchmark, in every figure (names as of :mod:`steer_verl.eval.figures`).

    Args:
        one: The model.
        other: The baseline; the same measures.
        last: Where survival is read off; unset, the lesser reach. Give the same for all models of a table.
    """
    return average_differences([(one, other)], last=last)


def average_differences(pairs: Sequence[tuple[Figures, Figures]], *, last: int | None = None) -> dict[str, Difference]:
    """The unweighted mean of :func:`differences` over benchmarks, one pair each."""
    last = last_of([figures for pair in pairs for figures in pair], last)
    scales, sets = scales_of(pairs[0], last), [_Pair(*pair, last) for pair in pairs]
    one, other = _mean(sets, 0), _mean(sets, 1)
    scale_2F = np.array(list(scales.values())).reshape(-1, 2).T
    ends = (one.value_F, one.ends(scale_2F)), (other.value_F, other.ends(scale_2F))
    low_F, high_F = difference(*ends, one.correlation_F(other), np.minimum(one.n_F, other.n_F))
    gap_F = one.value_F - other.value_F
    columns = zip(gap_F, low_F, high_F, np.where(np.isfinite(gap_F), _tested(sets, last), np.nan), strict=True)
    counts = zip(*np.sum([pair.counts_2F for pair in sets], axis=0), strict=True)
    over, found = _over_seeds(sets, last), {}
    for name, figures, (both, everyone) in zip(scales, columns, counts, strict=True):
        value, low, high, p = map(json_number, figures)
        counted = {"pairs": int(both), "left_out": int(everyone - both)}
        if everyone:
            found[name] = Difference(value=value, low=low, high=high, p=p, over_seeds=over.get(name), **counted)
    return found


class _Pair:
    """Two models on one benchmark: what each adds (2 models first), where both add something."""

    def __init__(self, one: Figures, other: Figures, last: int) -> None:
        keys = set(one.keys) & set(other.keys)
        self.common = one.choose(keys), other.choose(keys)
        counts_2C11 = [side.by_cluster(np.ones((len(side.key_N), 1, 1))) for side in self.common]
        measured, risks = (
            np.stack([getattr(side, name) / count for side, count in zip(self.common, counts_2C11, strict=True)])
            for name in ("known_CK2", "risks_C2T")
        )  # a cluster counts once, however many records either model has of it
        self.measured_2CK2 = measured * (measured[..., 1:] > 0).all(axis=0)
        followed_C11 = np.logical_and(*risks[:, :, 1:, :1] > 0)
        self.risks_2C2T = risks * followed_C11
        self.sides = [
            beside([of_ratios(sums), *[of_survival(risk, side.possible_CT & followed_C11[:, 0], last)] * bool(last)])
            for side, sums, risk in zip(self.common, self.measured_2CK2, self.risks_2C2T, strict=True)
        ]
        concerned = [side.concerned_CF(last) for side in (one, other, *self.common)]
        both_F = (concerned[2] & concerned[3]).sum(axis=0)
        self.counts_2F = np.stack([self._pairs_F(last), concerned[0].sum(axis=0) + concerned[1].sum(axis=0) - both_F])
        """Pairs, and the dialogues that a figure concerns in either model."""

    def _pairs_F(self, last: int) -> np.ndarray:
        measured_K = (self.measured_2CK2[0, ..., 1] > 0).sum(axis=0)
        if not last:
            return measured_K
        one_CF, other_CF = (side.by_cluster(side.seen_NF(last)) > 0 for side in self.common)
        return np.append(measured_K, (one_CF & other_CF).sum(axis=0))


def _tested(sets: Sequence[_Pair], last: int) -> np.ndarray:
    """The p of every figure."""

    def mean_ratio(sums: np.ndarray) -> np.ndarray:
        return ratio(sums.reshape(*sums.shape[:-1], len(sets), 1, 2)).mean(axis=-2)

    def mean_curve(sums: np.ndarray) -> np.ndarray:
        return curve(sums.reshape(*sums.shape[:-1], len(sets), 2, -1), last).mean(axis=-2)

    measures = range(sets[0].measured_2CK2.shape[2])
    found = [paired_permutation(_blocks([s.measured_2CK2[:, :, k] for s in sets]), mean_ratio) for k in measures]
    if last:
        risks = [np.concatenate([s.risks_2C2T[:, :, 0], s.risks_2C2T[:, :, 1]], axis=-1) for s in sets]
        found.append(paired_permutation(_blocks(risks), mean_curve))
    return np.concatenate(found)


def _blocks(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Sums (2, C, X) of several benchmarks as one (2, all C, X of all): each has columns of its own."""
    found = np.zeros((2, sum(part.shape[1] for part in parts), len(parts), parts[0].shape[2]))
    row = 0
    for b, part in enumerate(parts):
        found[:, row : row + part.shape[1], b] = part
        row += part.shape[1]
    return found.reshape(2, row, len(parts) * found.shape[3])


def _over_seeds(sets: Sequence[_Pair], last: int) -> dict[str, Interval]:
    """Differences over the training seeds that both models have, on the dialogues that all these played."""
    shared = set.intersection(*(set(side.runs) for pair in sets for side in pair.common))
    if len(shared) < 2:
        return {}
    sets = [_Pair(one.of_all(shared), other.of_all(shared), last) for one, other in (pair.common for pair in sets)]
    commons = [pair.common for pair in sets]
    seeds = [[_Pair(one.of_run(seed), other.of_run(seed), last) for one, other in commons] for seed in sorted(shared)]
    gaps_FS = np.stack([_mean(played, 0).value_F - _mean(played, 1).value_F for played in seeds], axis=1)
    n_F = np.minimum(_mean(sets, 0).n_F, _mean(sets, 1).n_F)
    return {
        name: over_repetitions(gaps_S, n, (bottom - top, top - bottom))
        for (name, (bottom, top)), gaps_S, n in zip(scales_of(sets[0].common, last).items(), gaps_FS, n_F, strict=True)
        if np.isfinite(gaps_S).all()
    }


def _mean(sets: Sequence[_Pair], side: int) -> Jackknife:
    """The figures of one of the two models, averaged over benchmarks."""
    return mean([pair.sides[side] for pair in sets])
