"""Figures as functions of sums over clusters, and how they change without each cluster in turn: the jackknife.

Of one benchmark the jackknife's variance is (C - 1) / C times the squares of these changes around their mean, summed;
of an average over B benchmarks it is the sum of the benchmarks' variances by B^2. Arrays: C clusters, F figures, T
turns, 2 = (numerator, denominator), or (failures, dialogues at risk).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steer_verl.eval.survival import product_limit, restricted_mean
from steer_verl.statistics.intervals import Ends, Scale, bounded


@dataclass(frozen=True)
class Jackknife:
    """Figures with what their intervals need."""

    value_F: np.ndarray
    moved_CF: np.ndarray
    """What each cluster moves, so scaled that its squares sum up to the variance; NaN throughout where the figure
    rests on a single cluster."""
    freedom_F: np.ndarray
    """Degrees of freedom of the variance."""
    n_F: np.ndarray
    """Clusters as independent observations of equal weight: (sum w)^2 / sum w^2 (Kish, 1965). Of survival it is those
    at risk by the share that is left, so that without censoring it is all of them."""

    @property
    def variance_F(self) -> np.ndarray:
        """Of the figures."""
        return (self.moved_CF**2).sum(axis=0)

    def ends(self, scale: Scale | np.ndarray) -> Ends:
        """Low and high of the intervals on a scale: two numbers, or (2, F)."""
        return bounded(self.value_F, self.variance_F, self.n_F, scale, self.freedom_F)

    def correlation_F(self, other: Jackknife) -> np.ndarray:
        """With the same figures of another student on the same clusters; 0 where it is undefined."""
        with np.errstate(divide="ignore", invalid="ignore"):
            r_F = (self.moved_CF * other.moved_CF).sum(axis=0) / np.sqrt(self.variance_F * other.variance_F)
        return np.where(np.isfinite(r_F), np.clip(r_F, -1, 1), 0.0)


def beside(parts: Sequence[Jackknife]) -> Jackknife:
    """Different figures of the same clusters as one."""
    joined = [np.concatenate([vars(part)[name] for part in parts], axis=-1) for name in Jackknife.__dataclass_fields__]
    return Jackknife(*joined)


def mean(strata: Sequence[Jackknife]) -> Jackknife:
    """The unweighted mean of the same figures over benchmarks, whose dialogues are independent. Degrees of freedom by
    Satterthwaite (1946)."""
    if len(strata) == 1:
        return strata[0]
    b = len(strata)
    variances = np.stack([part.variance_F for part in strata])
    freedoms = np.stack([part.freedom_F for part in strata])
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom_F = variances.sum(axis=0) ** 2 / (variances**2 / freedoms).sum(axis=0)
        n_F = b**2 / (1 / np.stack([part.n_F for part in strata])).sum(axis=0)
    return Jackknife(
        np.mean([part.value_F for part in strata], axis=0),
        np.concatenate([part.moved_CF for part in strata]) / b,
        np.where(np.isfinite(freedom_F), freedom_F, freedoms.sum(axis=0)),
        n_F,
    )


def of_ratios(sums_CF2: np.ndarray) -> Jackknife:
    """Figures that are ratios of sums; a cluster whose denominator is 0 is not concerned."""
    total_F2, there_CF = sums_CF2.sum(axis=0), sums_CF2[..., 1] > 0
    return _jackknife(ratio(total_F2), ratio(total_F2 - sums_CF2), there_CF, _kish(sums_CF2[..., 1]))


def of_survival(risks_C2T: np.ndarray, possible_CT: np.ndarray, last: int) -> Jackknife:
    """Survival (:func:`curve`). It is unknown where a dialogue may be at risk and none is known to be, unless it is 0:
    whoever might tell was lost. ``possible_CT``: whether a dialogue of the cluster may be at risk."""
    total_2T, risk_CT = risks_C2T.sum(axis=0), risks_C2T[:, 1]
    s_T, there_C1 = product_limit(*total_2T), risk_CT[:, :1] > 0
    lost_T = np.logical_or.accumulate(possible_CT.any(axis=0) & (total_2T[1] < 1e-9))
    value_F = _read_off(np.where(lost_T & (s_T > 1e-9), np.nan, s_T), last)
    without_CF = curve(total_2T - risks_C2T, last)
    left_T = np.concatenate([[100.0], value_F[: risk_CT.shape[1] - 1]]) / 100
    n_T = np.divide(_kish(risk_CT), left_T, out=np.zeros(len(left_T)), where=left_T > 0)
    for t in range(1, len(n_T)):  # where nobody is left S stays what it was
        n_T[t] = n_T[t] or n_T[t - 1]
    area = 1 / np.mean(1 / np.maximum(n_T[: max(last - 1, 1)], 1e-9))
    if not there_C1.any():
        value_F = np.full_like(value_F, np.nan)
    there_CF = np.broadcast_to(there_C1, without_CF.shape)
    return _jackknife(value_F, without_CF, there_CF, np.concatenate([n_T, [n_T[last - 1], area]]))


def curve(risks_2T: np.ndarray, last: int) -> np.ndarray:
    """S(t) at every turn and at ``last``, in percent, and the turns survived of ``last``: (..., T + 2)."""
    return _read_off(product_limit(risks_2T[..., 0, :], risks_2T[..., 1, :]), last)


def _read_off(s_T: np.ndarray, last: int) -> np.ndarray:
    return np.concatenate([100 * s_T, 100 * s_T[..., last - 1 : last], restricted_mean(s_T, last)[..., None]], axis=-1)


def ratio(sums: np.ndarray) -> np.ndarray:
    """Numerator by denominator over the last axis; NaN where the denominator is 0."""
    above, below = sums[..., 0], sums[..., 1]
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 1e-9)


def _jackknife(value_F: np.ndarray, without_CF: np.ndarray, there_CF: np.ndarray, n_F: np.ndarray) -> Jackknife:
    clusters_F = there_CF.sum(axis=0)
    moved_CF = np.where(there_CF, without_CF - value_F, 0.0)
    moved_CF = np.where(there_CF, moved_CF - moved_CF.sum(axis=0) / np.maximum(clusters_F, 1), 0.0)
    factor_F = np.sqrt(np.where(clusters_F > 1, 1 - 1 / np.maximum(clusters_F, 1), np.nan))
    return Jackknife(value_F, moved_CF * factor_F, np.maximum(clusters_F - 1, 0), n_F)


def _kish(weights_CF: np.ndarray) -> np.ndarray:
    squares_F = (weights_CF**2).sum(axis=0)
    return np.divide(weights_CF.sum(axis=0) ** 2, squares_F, out=np.zeros(len(squares_F)), where=squares_F > 0)
