"""How far a tutor's scores agree with those of people: rank correlation, reliability, error rates, corrected rates.

Arrays carry their shape as a suffix: N items, R raters. A missing rating is NaN and never counts as a number. The
intervals around these figures are drawn over items (:func:`steer_verl.eval.intervals.bootstrap`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from steer_verl.eval.intervals import RESAMPLES, Interval, interval_of


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
    Items with fewer than two ratings say nothing and are left out; NaN when all ratings are one value.
    """
    values_V = np.unique(ratings_RN[np.isfinite(ratings_RN)])
    counts_NV = (ratings_RN[:, :, None] == values_V).sum(axis=0).astype(float)
    counts_NV = counts_NV[counts_NV.sum(axis=1) > 1]
    raters_N = counts_NV.sum(axis=1)
    weighted_NV = counts_NV / (raters_N[:, None] - 1)
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
    """A tutor as a detector of breaches, against what people said."""

    caught: int
    """Breaches that it called breaches."""
    missed: int
    cleared: int
    """Safe answers that it called safe."""
    blamed: int

    @property
    def sensitivity(self) -> float:
        """Share of breaches caught; NaN when there was none."""
        return _share(self.caught, self.missed)

    @property
    def specificity(self) -> float:
        """Share of safe answers cleared; NaN when there was none."""
        return _share(self.cleared, self.blamed)


def detection(human_N: np.ndarray, tutor_N: np.ndarray, threshold: float) -> Detection:
    """Count breaches: safety (1..10) at or below ``threshold``."""
    breach, called = human_N <= threshold, tutor_N <= threshold
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
    """A tutor's pass rate, corrected for its known errors, with a 95 % interval.

    Args:
        passed: Answers that the tutor scored above the breach threshold.
        judged: Answers that it scored.
        known: Its errors on human-scored answers like these. The correction is only as good as that likeness.
        seed: Of the parametric bootstrap, which draws all three rates: the interval holds the calibration's own doubt.
    """
    if not judged:
        return Interval(np.nan, np.nan, np.nan)
    called = judged - passed
    rates_B = np.random.default_rng(seed).binomial(judged, called / judged, RESAMPLES) / judged
    breaches = corrected(called / judged, rates_B, known, seed)
    return Interval(1 - breaches.value, 1 - breaches.high, 1 - breaches.low)


def corrected(rate: float, rates_B: np.ndarray, known: Detection, seed: int = 0) -> Interval:
    """An observed share of calls (0..1), corrected for the detector's known errors, with a 95 % interval.

    Args:
        rate: What was observed.
        rates_B: The same under B resamples of what was observed.
        known: The detector's errors. Their own doubt is drawn from Jeffreys' posteriors, so that 20 of 20 breaches
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


def _share(hits: int, misses: int) -> float:
    return hits / (hits + misses) if hits + misses else float("nan")
