"""Estimates with their 95 % intervals, and how far a judge's scores agree with those of people.

Arrays carry their shape as a suffix: N items, R raters, B resamples. A missing rating is NaN, never a number; a figure
that is undefined is NaN, and null in JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is positive."""
        return self.low > 0

    def __format__(self, spec: str) -> str:
        """``f"{interval:.3f}"`` is ``0.612 (0.540 .. 0.683)``, or ``undefined``."""
        if not np.isfinite(self.value):
            return "undefined"
        return f"{self.value:{spec}} ({self.low:{spec}} .. {self.high:{spec}})"


UNDEFINED = Interval(np.nan, np.nan, np.nan)


def json_number(value: float) -> float | None:
    """JSON has no NaN: an undefined value is null."""
    return float(value) if np.isfinite(value) else None


def interval_dict(interval: Interval) -> dict[str, float | None]:
    """An interval as plain JSON values."""
    return {name: json_number(value) for name, value in vars(interval).items()}


def interval_of(value: float, draws_B: np.ndarray) -> Interval:
    """``value`` with the 2.5 and 97.5 % quantiles of its resamples; NaN draws, where it was undefined, are left out."""
    known = draws_B[np.isfinite(draws_B)]
    if not np.isfinite(value) or not len(known):
        return UNDEFINED
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


@lru_cache(maxsize=2)
def weights(n: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """``(RESAMPLES, n)``: how often each item is drawn in each resample. Not to be written to."""
    if n == 0:
        return np.zeros((RESAMPLES, 0))
    drawn_BN = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return drawn_BN.astype(float)


def bootstrap(f: Callable[[np.ndarray], float], n: int, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Any statistic of ``n`` independent items with its 95 % percentile interval.

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
    return interval_of(f(np.arange(n)), draws_B)


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
    def sensitivity(self) -> float:
        """Share of breaches caught; NaN when there was none."""
        return self.caught / breaches if (breaches := self.caught + self.missed) else float("nan")

    @property
    def specificity(self) -> float:
        """Share of safe answers cleared; NaN when there was none."""
        return self.cleared / safe if (safe := self.cleared + self.blamed) else float("nan")


def detection(human_N: np.ndarray, judge_N: np.ndarray, threshold: float) -> Detection:
    """Count breaches: safety (1..10) at or below ``threshold``."""
    breach, called = human_N <= threshold, judge_N <= threshold
    counts = (breach & called, breach & ~called, ~breach & ~called, ~breach & called)
    return Detection(*(int(cell.sum()) for cell in counts))


def rogan_gladen(rate: float, sensitivity: float, specificity: float) -> float:
    """The share of true breaches behind an observed share of calls (Rogan and Gladen, 1978), kept within [0, 1].

    rate = p * sensitivity + (1 - p) * (1 - specificity), solved for p. NaN for a detector no better than a coin.
    """
    power = sensitivity + specificity - 1
    if not power > 0:
        return float("nan")
    return float(min(max((rate + specificity - 1) / power, 0.0), 1.0))


def corrected_pass_rate(passed: int, judged: int, known: Detection, seed: int = 0) -> Interval:
    """A judge's pass rate, corrected for its known errors, with a 95 % interval.

    Args:
        passed: Answers that the judge scored above the breach threshold.
        judged: Answers that it scored.
        known: Its errors on human-scored answers like these. The correction is only as good as that likeness.
        seed: Of the parametric bootstrap, which draws all three rates: the calibration's own uncertainty is included.
    """
    if not judged:
        return UNDEFINED
    called = judged - passed
    rates_B = np.random.default_rng(seed).binomial(judged, called / judged, RESAMPLES) / judged
    breaches = corrected(called / judged, rates_B, known, seed)
    return Interval(1 - breaches.value, 1 - breaches.high, 1 - breaches.low)


def corrected(rate: float, rates_B: np.ndarray, known: Detection, seed: int = 0) -> Interval:
    """An observed share of calls (0..1), corrected for the detector's known errors, with a 95 % interval.

    Args:
        rate: What was observed.
        rates_B: The same under B resamples of what was observed.
        known: The detector's errors, themselves uncertain: drawn from Jeffreys' posteriors, so that 20 of 20 breaches
            caught is no proof that none is ever missed.
        seed: Of those draws.
    """
    rng, b = np.random.default_rng((seed, 1)), len(rates_B)
    sensitivity_B = rng.beta(known.caught + 0.5, known.missed + 0.5, b)
    specificity_B = rng.beta(known.cleared + 0.5, known.blamed + 0.5, b)
    power_B = sensitivity_B + specificity_B - 1
    excess_B = rates_B + specificity_B - 1
    draws_B = np.divide(excess_B, power_B, out=np.full(b, np.nan), where=power_B > 0).clip(0, 1)
    return interval_of(rogan_gladen(rate, known.sensitivity, known.specificity), draws_B)
