"""What one model has over another on the same dialogues: differences with intervals, and tests.

Only clusters that both have take part, and of them, for each measure, those in which both have something rated.
Arrays: C clusters, K measures, T turns, B draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from steer_verl.eval.compare.models import Model
from steer_verl.eval.contributions import Contributions, at_the_edge, ratio
from steer_verl.eval.life_table import LifeTable
from steer_verl.eval.metrics import Measure
from steer_verl.eval.significance import mcnemar, p_value, swapped
from steer_verl.eval.survival import log_rank, product_limit, restricted_mean
from steer_verl.statistics import Interval, interval_of, weights

MCNEMAR, PERMUTATION, LOG_RANK = "McNemar", "permutation", "log-rank (unpaired)"

SURE = 0.05
"""Adjusted p below which a difference is clear."""


@dataclass(frozen=True)
class Difference:
    """A model minus the baseline. NaN where it is undefined."""

    value: float
    low: float
    high: float
    pairs: int
    """Dialogues that both played and that were rated for both."""
    left_out: int
    """Dialogues that only one of them has, or that were rated for one alone or for none."""
    p: float = float("nan")
    test: str = ""
    """Empty: not tested."""
    adjusted: float = float("nan")
    """``p`` after Holm's correction over the whole table."""
    over_seeds: Interval | None = None
    """Of ways of training rather than of these students: over the training seeds that both have, each one observation
    (Student's t, paired by seed). ``None``: both do not have several."""

    @property
    def clear(self) -> bool:
        """Whether it can be told from none: by the test, and over seeds where both have several."""
        between = self.over_seeds is not None and not (self.over_seeds.low > 0 or self.over_seeds.high < 0)
        return self.adjusted < SURE and not between


@dataclass(frozen=True)
class Pairing:
    """The differences of two models on one benchmark, with what an average over benchmarks needs."""

    differences: Mapping[str, Difference]
    values_K: np.ndarray
    draws_BK: np.ndarray
    null_BK: np.ndarray
    """Under the hypothesis that the two do not differ."""


def pair(model: Model, baseline: Model, benchmark: str, seed: tuple[int, ...]) -> Pairing:
    """Compare two models on one benchmark in every measure."""
    one, other = model.found[benchmark], baseline.found[benchmark]
    common = sorted(model.keys(benchmark) & baseline.keys(benchmark))
    everyone = len(model.keys(benchmark) | baseline.keys(benchmark))
    a_CK2, b_CK2 = _both(one.choose(common), other.choose(common))
    a_CK2, b_CK2 = a_CK2 / model.played, b_CK2 / baseline.played
    values_K, draws_BK = _gap(a_CK2, b_CK2, weights(len(common), seed))
    null_BK = _null(a_CK2, b_CK2, seed)
    pairs_K = (a_CK2[..., 1] > 0).sum(axis=0)
    pooled = model.pooled or baseline.pooled
    differences = {}
    for k, (name, measure) in enumerate(one.measures.items()):
        test = MCNEMAR if measure.binary and not pooled else PERMUTATION
        p = _mcnemar(a_CK2[:, k], b_CK2[:, k]) if test == MCNEMAR else p_value(values_K[k], null_BK[:, k])
        found = _difference(measure, values_K[k], draws_BK[:, k], int(pairs_K[k]), everyone)
        differences[name] = replace(found, p=p, test=test) if pairs_K[k] else found
    return Pairing(differences, values_K, draws_BK, null_BK)


def average(pairings: Sequence[Pairing], measures: Mapping[str, Measure]) -> dict[str, Difference]:
    """The unweighted mean of differences over benchmarks, each resampled and permuted for itself."""
    values_K = np.mean([p.values_K for p in pairings], axis=0)
    draws_BK = np.mean([p.draws_BK for p in pairings], axis=0)
    null_BK = np.mean([p.null_BK for p in pairings], axis=0)
    differences = {}
    for k, (name, measure) in enumerate(measures.items()):
        parts = [p.differences[name] for p in pairings]
        pairs, left = sum(part.pairs for part in parts), sum(part.left_out for part in parts)
        found = _difference(measure, values_K[k], draws_BK[:, k], pairs, pairs + left)
        if np.isfinite(values_K[k]):
            found = replace(found, p=p_value(values_K[k], null_BK[:, k]), test=PERMUTATION)
        differences[name] = found
    return differences


def pair_survival(
    model: Model, baseline: Model, benchmark: str, turns: Sequence[int], seed: tuple[int, ...]
) -> dict[str, Difference]:
    """The same of survival on one benchmark: ``survival:<t>`` at each of ``turns`` in percent, ``survival`` (the curves
    up to the last of them, by the log-rank test) and ``mean_turns`` up to there."""
    common = set(model.lives[benchmark].keys) & set(baseline.lives[benchmark].keys)
    everyone = len(set(model.lives[benchmark].keys) | set(baseline.lives[benchmark].keys))
    one, other = (side.lives[benchmark].choose(common) for side in (model, baseline))
    if not common:
        return {}
    a_CX, b_CX = _sums(one) / model.played, _sums(other) / baseline.played
    w_BC = weights(len(common), seed)

    def statistic(sums_X: np.ndarray) -> np.ndarray:
        failed, at_risk = np.split(sums_X, 2, axis=-1)
        s = product_limit(failed, at_risk)
        return np.concatenate([100 * s[..., [t - 1 for t in turns]], restricted_mean(s, turns[-1])[..., None]], axis=-1)

    values_K = statistic(a_CX.sum(axis=0)) - statistic(b_CX.sum(axis=0))
    draws_BK = statistic(w_BC @ a_CX) - statistic(w_BC @ b_CX)
    null_BK = swapped(a_CX, b_CX, statistic, (*seed, 1))
    names = [*(f"survival:{t}" for t in turns), "mean_turns"]
    found = {}
    for k, name in enumerate(names):
        interval = interval_of(values_K[k], draws_BK[:, k])
        found[name] = Difference(interval.value, interval.low, interval.high, len(common), everyone - len(common))
    found["mean_turns"] = replace(found["mean_turns"], p=p_value(values_K[-1], null_BK[:, -1]), test=PERMUTATION)
    at_end = found[f"survival:{turns[-1]}"]
    if model.pooled or baseline.pooled:  # one dialogue stands there several times: the log-rank test would not know
        found["survival"] = replace(at_end, p=p_value(values_K[-2], null_BK[:, -2]), test=PERMUTATION)
    else:
        found["survival"] = replace(at_end, p=log_rank(one.lives, other.lives), test=LOG_RANK)
    return found


def _both(one: Contributions, other: Contributions) -> tuple[np.ndarray, np.ndarray]:
    """What two models add to each measure in the clusters where both add something."""
    a_CK2, b_CK2 = one.known_CK2, other.known_CK2
    both_CK1 = ((a_CK2[..., 1] > 0) & (b_CK2[..., 1] > 0))[..., None]
    return np.where(both_CK1, a_CK2, 0.0), np.where(both_CK1, b_CK2, 0.0)


def _gap(a_CK2: np.ndarray, b_CK2: np.ndarray, w_BC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The differences, and under each resample: both models are resampled alike."""
    c, k, _ = a_CK2.shape
    values_K = ratio(a_CK2.sum(axis=0)) - ratio(b_CK2.sum(axis=0))
    draws_BK = [ratio((w_BC @ side.reshape(c, 2 * k)).reshape(-1, k, 2)) for side in (a_CK2, b_CK2)]
    return values_K, draws_BK[0] - draws_BK[1]


def _null(a_CK2: np.ndarray, b_CK2: np.ndarray, seed: tuple[int, ...]) -> np.ndarray:
    c, k, _ = a_CK2.shape
    flat = a_CK2.reshape(c, 2 * k), b_CK2.reshape(c, 2 * k)
    return swapped(*flat, lambda sums: ratio(sums.reshape(*sums.shape[:-1], k, 2)), (*seed, 0))


def _mcnemar(a_C2: np.ndarray, b_C2: np.ndarray) -> float:
    paired_C = a_C2[:, 1] > 0
    return mcnemar(a_C2[paired_C, 0] > 0, b_C2[paired_C, 0] > 0)


def _difference(measure: Measure, value: float, draws_B: np.ndarray, pairs: int, everyone: int) -> Difference:
    interval = interval_of(value, draws_B)
    low, high = interval.low, interval.high
    if measure.unit == "%" and value == low == high == 0:  # they never differ: how often might they?
        high = at_the_edge(0.0, pairs)[1]
        low = -high
    return Difference(interval.value, low, high, pairs, everyone - pairs)


def _sums(table: LifeTable) -> np.ndarray:
    return np.concatenate([table.failed_CT, table.at_risk_CT], axis=1)
