"""How far a judge's scores agree with those of people, and what its errors make of a rate.

Arrays carry their shape as a suffix: N items, R raters, B resamples. A missing rating is NaN, never a number; a figure
that is undefined is NaN, and null in JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from steer_verl.statistics.intervals import UNDEFINED, Interval, Z, hidden_share, share
from steer_verl.statistics.tests import ALIKE

RESAMPLES = 2000


def bootstrap(f: Callable[[np.ndarray], float], n: int, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Any statistic of ``n`` independent items with its 95 % interval; without one where it is the same in all draws:
    they cannot tell how little is known.

    The interval is the expanded percentile one (Hesterberg, The American Statistician 69, 2015): plain percentiles are
    too narrow for few items, by (n / (n - 1)) ** 0.5 and by what Student's t takes.

    Args:
        f: From indices of the items drawn, shape (n,), to the value; NaN where it is undefined.
        n: Number of items. Pass whole dialogues where what is measured lies within dialogues.
        seed: Of the draws.
        resamples: How often ``n`` items are drawn with replacement.
    """
    if n == 0:
        return UNDEFINED
    rng = np.random.default_rng(seed)
    draws_B = np.array([f(rng.integers(0, n, n)) for _ in range(resamples)], dtype=float)
    value, known = f(np.arange(n)), draws_B[np.isfinite(draws_B)]
    if not np.isfinite(value) or not len(known):
        return UNDEFINED
    if n == 1 or np.ptp(known) <= ALIKE:
        return Interval(float(value), np.nan, np.nan)
    tail = NormalDist().cdf(-((n / (n - 1)) ** 0.5) * _student_t(n - 1))
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))


def _student_t(freedom: int) -> float:
    """The 97.5 % quantile without scipy, which is not of the base install: Fisher's and Cornish's series, to 0.3 % from
    4 degrees of freedom on."""
    z, v = Z, freedom
    second, third = 5 * z**5 + 16 * z**3 + 3 * z, 3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z
    return z + (z**3 + z) / (4 * v) + second / (96 * v**2) + third / (384 * v**3)


def midranks(values_N: np.ndarray) -> np.ndarray:
    """Ranks 1..N; equal values share the mean of their ranks."""
    _, inverse_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse_N]


def spearman(x_N: np.ndarray, y_N: np.ndarray) -> float:
    """Spearman's rank correlation with midranks for ties, in [-1, 1]; NaN when either side is constant."""
    x, y = midranks(x_N), midranks(y_N)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def krippendorff_alpha(ratings_RN: np.ndarray, metric: Literal["nominal", "ordinal", "interval"] = "interval") -> float:
    """Krippendorff's alpha: 1 is perfect agreement, 0 that of chance, below 0 systematic disagreement.

    alpha = 1 - D_o / D_e from the coincidence matrix (Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011).
    Items with fewer than two ratings are left out; NaN when all ratings are one value.
    """
    values_V = np.unique(ratings_RN[np.isfinite(ratings_RN)])
    counts_NV = (ratings_RN[:, :, None] == values_V).sum(axis=0).astype(float)
    counts_NV = counts_NV[counts_NV.sum(axis=1) > 1]
    weighted_NV = counts_NV / (counts_NV.sum(axis=1)[:, None] - 1)
    observed_VV = weighted_NV.T @ counts_NV - np.diag(weighted_NV.sum(axis=0))
    totals_V = observed_VV.sum(axis=0)
    distance_VV = _squared_distance(values_V, totals_V, metric)
    expected = float(totals_V @ distance_VV @ totals_V)
    if expected <= 0:
        return float("nan")
    return float(1 - (totals_V.sum() - 1) * (observed_VV * distance_VV).sum() / expected)


def _squared_distance(values_V: np.ndarray, totals_V: np.ndarray, metric: str) -> np.ndarray:
    if metric == "nominal":
        return (values_V[:, None] != values_V).astype(float)
    if metric == "ordinal":  # how many ratings lie between two values, half of those at either end included
        values_V = np.cumsum(totals_V) - totals_V / 2
    return (values_V[:, None] - values_V) ** 2


@dataclass(frozen=True)
class Detection:
    """A judge as a detector of breaches, against what people said."""

    caught: int
    """Breaches that it called breaches."""
    missed: int
    cleared: int
    """Safe answers that it called safe."""
    blamed: int

    @property
    def sensitivity(self) -> Interval:
        """Share of breaches caught; undefined when there was none."""
        return share(self.caught, self.caught + self.missed)

    @property
    def specificity(self) -> Interval:
        """Share of safe answers cleared; undefined when there was none."""
        return share(self.cleared, self.cleared + self.blamed)


def detection(breach_N: np.ndarray, called_N: np.ndarray) -> Detection:
    """Count: which answers are breaches to people, and which the judge called so."""
    counts = (breach_N & called_N, breach_N & ~called_N, ~breach_N & ~called_N, ~breach_N & called_N)
    return Detection(*(int(cell.sum()) for cell in counts))


def rogan_gladen(rate: float, sensitivity: float, specificity: float) -> float:
    """The share of true breaches behind an observed share of calls (Rogan and Gladen, 1978), kept within [0, 1].

    rate = p * sensitivity + (1 - p) * (1 - specificity), solved for p. NaN for a detector no better than a coin.
    """
    power = sensitivity + specificity - 1
    if not power > 0:
        return float("nan")
    return float(min(max((rate + specificity - 1) / power, 0.0), 1.0))


def corrected_pass_rate(passed: int, judged: int, known: Detection) -> Interval:
    """A judge's pass rate, corrected for its known errors, with a 95 % interval.

    Args:
        passed: Answers that the judge scored above the breach threshold.
        judged: Answers that it scored.
        known: Its errors on human-scored answers like these. The correction is only as good as that likeness.
    """
    if not judged:
        return UNDEFINED
    breaches = corrected(1 - passed / judged, judged, known)
    return Interval(1 - breaches.value, 1 - breaches.high, 1 - breaches.low)


def corrected(rate: float, n: float, known: Detection) -> Interval:
    """An observed share of calls (0..1), corrected for the detector's known errors, with a 95 % interval.

    The interval is that of Lang and Reiczigel (Preventive Veterinary Medicine 113, 2014): each of the three rates is
    drawn towards the middle, so that 20 of 20 breaches caught is no proof that none is ever missed. It is never
    narrower than ``n`` equal observations allow.

    Args:
        rate: What was observed.
        n: Observations behind it, or the number of independent ones that know as much.
        known: The detector's errors.
    """
    value = rogan_gladen(rate, known.sensitivity.value, known.specificity.value)
    if not np.isfinite(value):
        return UNDEFINED
    bad, good = known.caught + known.missed + 2, known.cleared + known.blamed + 2
    caught, cleared = (known.caught + 1) / bad, (known.cleared + 1) / good
    called = (n * rate + Z**2 / 2) / (n + Z**2)
    power = caught + cleared - 1
    if power <= 0:
        return Interval(value, 0.0, 1.0)
    middle = (called + cleared - 1) / power
    of_bad, of_good = caught * (1 - caught) / bad, cleared * (1 - cleared) / good
    half = Z * (called * (1 - called) / (n + Z**2) + middle**2 * of_bad + (1 - middle) ** 2 * of_good) ** 0.5 / power
    middle += 2 * Z**2 * (middle * of_bad - (1 - middle) * of_good)
    unseen = float(hidden_share(n))
    low, high = min(middle - half, value * (1 - unseen)), max(middle + half, value + (1 - value) * unseen)
    return Interval(value, max(low, 0.0), min(high, 1.0))
