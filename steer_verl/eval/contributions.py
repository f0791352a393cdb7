"""What dialogues add to measures, as arrays: figures with intervals and bounds come out of a few matrix products.

Arrays carry their shape as a suffix: C clusters, K measures, 2 = (numerator, denominator), F fills, B resamples. A
cluster is one dialogue of a benchmark, whoever played it: where several training seeds of one model played the same
dialogues, all that they made of one dialogue is drawn together. Turns of one dialogue are never drawn apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from steer_verl.eval.marks import FILLS, DialogueMarks, filled
from steer_verl.eval.metrics import PAPER, MarkSettings, Measure
from steer_verl.eval.summary_shape import EstimateJson
from steer_verl.eval.survival import TAIL
from steer_verl.statistics import interval_of, weights

Key = tuple[str, str]
"""Of a cluster: benchmark and dialogue."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its doubts; for the fields see :class:`~steer_verl.eval.summary_shape.EstimateJson`. NaN where it
    is undefined."""

    value: float
    low: float
    high: float
    n: int
    of: int
    worst: float
    best: float

    def json(self) -> EstimateJson:
        """As plain JSON: what is undefined is null."""
        value, low, high, worst, best = (
            float(v) if np.isfinite(v) else None for v in (self.value, self.low, self.high, self.worst, self.best)
        )
        return EstimateJson(value=value, low=low, high=high, n=self.n, of=self.of, worst=worst, best=best)


@dataclass(frozen=True)
class Contributions:
    """Of some dialogues to some measures, by cluster."""

    measures: Mapping[str, Measure]
    keys: tuple[Key, ...]
    """The clusters, sorted."""
    known_CK2: np.ndarray
    """From what was rated."""
    filled_FCK2: np.ndarray
    """From the same dialogues with everything that is missing filled in, one way after the other."""

    def choose(self, keys: Sequence[Key]) -> Contributions:
        """Only these clusters, in this order; all of them must be there."""
        place = {key: i for i, key in enumerate(self.keys)}
        index = [place[key] for key in keys]
        return replace(self, keys=tuple(keys), known_CK2=self.known_CK2[index], filled_FCK2=self.filled_FCK2[:, index])

    @property
    def values_K(self) -> np.ndarray:
        """The measures over what was rated."""
        return ratio(self.known_CK2.sum(axis=0))

    def draws_BK(self, seed: int | tuple[int, ...]) -> np.ndarray:
        """The measures under each resample of the clusters."""
        c, k, _ = self.known_CK2.shape
        return ratio((weights(c, seed) @ self.known_CK2.reshape(c, 2 * k)).reshape(-1, k, 2))

    @property
    def bounds_2K(self) -> np.ndarray:
        """The least and the greatest that each measure could have been."""
        extremes_FK = ratio(self.filled_FCK2.sum(axis=1))
        missing_K = np.array([measure.missing for measure in self.measures.values()])
        extremes_FK = np.where(missing_K, self.values_K, extremes_FK)
        return np.stack([extremes_FK.min(axis=0), extremes_FK.max(axis=0)])

    @property
    def counts_K2(self) -> np.ndarray:
        """How many dialogues or turns each value rests on, and how many it concerns."""
        return np.stack([self.known_CK2[..., 1].sum(axis=0), self.filled_FCK2[0, ..., 1].sum(axis=0)], axis=-1)

    def estimates(self, seed: int | tuple[int, ...] = 0) -> dict[str, Estimate]:
        """Every measure that applies to these dialogues: one that nothing is known of is left out unless it rests on
        the judge's marks alone."""
        counts_K2 = self.counts_K2
        rows = zip(self.values_K, self.draws_BK(seed).T, self.bounds_2K.T, counts_K2, strict=True)
        found = dict(zip(self.measures.items(), rows, strict=True))
        clusters_K = (self.known_CK2[..., 1] > 0).sum(axis=0)
        return {
            name: estimate_of(measure, value, draws_B, bounds_2, counts_2, int(clusters))
            for ((name, measure), (value, draws_B, bounds_2, counts_2)), clusters in zip(
                found.items(), clusters_K, strict=True
            )
            if counts_2[0] or (measure.core and counts_2[1])
        }


def contributions(
    dialogues: Sequence[DialogueMarks], measures: Mapping[str, Measure], marks: MarkSettings = PAPER
) -> Contributions:
    """What ``dialogues`` add to ``measures`` under the thresholds ``marks``."""
    keys = tuple(sorted({key_of(d) for d in dialogues}))
    place = {key: i for i, key in enumerate(keys)}
    known_CK2 = np.zeros((len(keys), len(measures), 2))
    filled_FCK2 = np.zeros((len(FILLS), *known_CK2.shape))
    for d in dialogues:
        row = place[key_of(d)]
        known_K2 = np.array([measure(d, marks) for measure in measures.values()], dtype=float).reshape(-1, 2)
        known_CK2[row] += known_K2
        for f, fill in enumerate(FILLS):
            whole = filled(d, fill)
            filled_FCK2[f, row] += known_K2 if whole is d else [measure(whole, marks) for measure in measures.values()]
    return Contributions(measures, keys, known_CK2, filled_FCK2)


def key_of(d: DialogueMarks) -> Key:
    """The cluster of a dialogue."""
    return d.benchmark, d.seed_id


def ratio(sums: np.ndarray) -> np.ndarray:
    """Numerator by denominator over the last axis; NaN where the denominator is 0."""
    above, below = sums[..., 0], sums[..., 1]
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def estimate_of(
    measure: Measure, value: float, draws_B: np.ndarray, bounds_2: np.ndarray, counts_2: np.ndarray, clusters: int
) -> Estimate:
    """Put a figure together; ``bounds_2`` are least and greatest, ``counts_2`` what is known and what is concerned."""
    interval = interval_of(value, draws_B)
    low, high = interval.low, interval.high
    if measure.unit == "%" and value in (0, 100) and low == high:
        low, high = at_the_edge(value, clusters)
    least, greatest = bounds_2
    worst, best = (least, greatest) if measure.better == "high" else (greatest, least)
    return Estimate(float(value), low, high, int(counts_2[0]), int(counts_2[1]), float(worst), float(best))


def at_the_edge(value: float, clusters: int) -> tuple[float, float]:
    """The 95 % interval (Clopper and Pearson) of a share that is 0 or 100 % in all of ``clusters``: resampling knows
    only what was seen and would give none."""
    reach = 100 * TAIL ** (1 / clusters)
    return (0.0, 100 - reach) if value == 0 else (reach, 100.0)
