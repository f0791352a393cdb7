"""Tests between two students that played the same dialogues, and the correction for many of them.

Paired by dialogue: if the two do not differ, who made which of the two records of a dialogue is a
toss of a coin. The permutation test tosses these coins (for means it is the sign-flip test); for passes and failures
McNemar's exact test counts the dialogues in which the two disagree. Arrays: C clusters, X sums, K statistics, B draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from steer_verl.eval.library import scipy_stats

SWAPS = 9999
"""Draws of the permutation test: p is never below 1 / 10,000."""

CHUNK = 1111
"""Draws at a time, for the memory's sake."""

Statistic = Callable[[np.ndarray], np.ndarray]
"""From sums over clusters (..., X) to the values of interest (..., K)."""

ALIKE = 1e-9
"""Differences nearer than this are the same number computed twice."""


def mcnemar(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """The two-sided exact p that two students pass dialogues equally often; 1 where they never disagree.

    Args:
        first_N: whether the first passes each of N dialogues.
        second_N: whether the second does.
    """
    only_first, only_second = int((first_N & ~second_N).sum()), int((second_N & ~first_N).sum())
    if not only_first + only_second:
        return 1.0
    return float(scipy_stats().binomtest(only_first, only_first + only_second, 0.5).pvalue)


def swapped(
    first_CX: np.ndarray, second_CX: np.ndarray, statistic: Statistic, seed: int | tuple[int, ...] = 0
) -> np.ndarray:
    """``statistic`` of the first minus that of the second, had a coin said whose each dialogue is: (SWAPS, K)."""
    rng, gap_CX = np.random.default_rng(seed), second_CX - first_CX
    first_X, second_X = first_CX.sum(axis=0), second_CX.sum(axis=0)
    draws = []
    for _ in range(SWAPS // CHUNK):
        moved_BX = rng.integers(0, 2, (CHUNK, len(gap_CX)), dtype=np.int8).astype(float) @ gap_CX
        draws.append(statistic(first_X + moved_BX) - statistic(second_X - moved_BX))
    return np.concatenate(draws)


def p_value(seen: float, null_B: np.ndarray) -> float:
    """The two-sided p of a difference against its permutations; one that is undefined counts as extreme."""
    if not np.isfinite(seen):
        return float("nan")
    extreme = ~(np.abs(null_B) < abs(seen) - ALIKE)
    return float((1 + extreme.sum()) / (1 + len(null_B)))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p of a family of tests (Holm, 1979), in their order; NaN is no test and stays what it is."""
    adjusted = [float("nan")] * len(values)
    ranked = sorted((p, i) for i, p in enumerate(values) if np.isfinite(p))
    highest = 0.0
    for rank, (p, i) in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - rank) * p))
        adjusted[i] = highest
    return adjusted
