"""Tests between two students that played the same dialogues, and the correction for several of them.

If the two do not differ, who made which of the two records of a dialogue is a toss of a coin. The permutation test
tosses these coins; of means it is the sign-flip test. Arrays: C clusters, X sums, F figures, B draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

DRAWS = 9999
"""Of the permutation test: p is then never below 1 / 10,000."""

ENUMERATED = 13
"""Up to so many clusters that differ, every way to toss the coins is gone through instead."""

CHUNK = 1111
"""Draws at a time, for the memory's sake."""

ALIKE = 1e-9
"""Differences nearer than this are the same number computed twice."""


def paired_permutation(
    sums_2CX: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> np.ndarray:
    """The two-sided p (F,) of each figure's difference; NaN where it is undefined.

    Args:
        sums_2CX: What the records of each cluster add to the sums, one student's and the other's.
        statistic: From sums over clusters (..., X) to figures (..., F).
        seed: Of the draws.
    """
    gap_CX = sums_2CX[1] - sums_2CX[0]
    gap_CX = gap_CX[gap_CX.any(axis=1)]
    one_X, other_X = sums_2CX.sum(axis=1)
    seen_F = np.abs(statistic(one_X) - statistic(other_X))
    extreme_F, draws = np.zeros(seen_F.shape), 0
    for coins_BC in _coins(len(gap_CX), seed):
        moved_BX = coins_BC @ gap_CX
        null_BF = np.abs(statistic(one_X + moved_BX) - statistic(other_X - moved_BX))
        extreme_F += (~(null_BF < seen_F - ALIKE)).sum(axis=0)  # one that is undefined counts as extreme
        draws += len(coins_BC)
    itself = len(gap_CX) > ENUMERATED  # among all ways there is the one that was seen; among draws it is added
    return np.where(np.isfinite(seen_F), (extreme_F + itself) / (draws + itself), np.nan)


def _coins(clusters: int, seed: int) -> Iterator[np.ndarray]:
    """Tosses (B, clusters) of 0 and 1: all ways at once, or draws, chunk by chunk."""
    if clusters <= ENUMERATED:
        yield (np.arange(2**clusters)[:, None] >> np.arange(clusters) & 1).astype(float)
        return
    rng = np.random.default_rng(seed)
    for _ in range(0, DRAWS, CHUNK):
        yield rng.integers(0, 2, (CHUNK, clusters), dtype=np.int8).astype(float)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p of a family of tests (Holm, 1979), in their order; NaN is no test and stays what it is."""
    adjusted = [float("nan")] * len(values)
    ranked = sorted((p, i) for i, p in enumerate(values) if np.isfinite(p))
    highest = 0.0
    for rank, (p, i) in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - rank) * p))
        adjusted[i] = highest
    return adjusted
