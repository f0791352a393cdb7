"""Tests of differences: by hand, against slow twins, and about nominal where there is nothing to find."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

from steer_verl.eval.jackknife import ratio
from steer_verl.statistics import tests
from steer_verl.statistics.tests import ENUMERATED, holm, paired_permutation


def mean_ratio(sums: np.ndarray) -> np.ndarray:
    return ratio(sums)[..., None]


def every_way(first_C2: np.ndarray, second_C2: np.ndarray) -> float:
    """The exact p by going through every way to toss the coins."""
    seen = ratio(first_C2.sum(axis=0)) - ratio(second_C2.sum(axis=0))
    extreme = []
    for coins in itertools.product([False, True], repeat=len(first_C2)):
        moved = np.array(coins)[:, None]
        one, other = np.where(moved, second_C2, first_C2), np.where(moved, first_C2, second_C2)
        extreme.append(abs(ratio(one.sum(axis=0)) - ratio(other.sum(axis=0))) >= abs(seen) - 1e-9)
    return float(np.mean(extreme))


def some(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.stack([[rng.integers(0, 4, n), rng.integers(1, 5, n)] for _ in range(2)]).swapaxes(1, 2).astype(float)


@pytest.mark.parametrize("n", [1, 2, 7, 10])
def test_few_clusters_are_enumerated(n: int) -> None:
    for seed in range(8):
        sums = some(np.random.default_rng((n, seed)), n)
        assert paired_permutation(sums, mean_ratio) == pytest.approx([every_way(*sums)])


def test_draws_estimate_what_enumeration_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = some(np.random.default_rng(3), 11)
    exact = paired_permutation(sums, mean_ratio)
    monkeypatch.setattr(tests, "ENUMERATED", 5)
    assert paired_permutation(sums, mean_ratio, seed=1) == pytest.approx(exact, abs=0.015)


def test_of_passes_it_is_the_sign_test_of_the_disagreements() -> None:
    """Eight dialogues only the first passes, one only the second: p = 2 (C(9,0) + C(9,1)) / 2^9, as McNemar's exact."""
    first = np.array([1.0] * 8 + [0] + [1] * 30 + [0] * 10)
    second = np.array([0.0] * 8 + [1] + [1] * 30 + [0] * 10)
    sums = np.stack([np.stack([passed, np.ones(49)], axis=-1) for passed in (first, second)])
    assert ENUMERATED >= 9
    assert paired_permutation(sums, mean_ratio) == pytest.approx([20 / 512]) == [binomtest(8, 9).pvalue]


def test_of_means_it_is_the_sign_flip_test() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.normal(0.4, 1, 30), rng.normal(0, 1, 30)
    sums = np.stack([np.stack([values, np.ones(30)], axis=-1) for values in (first, second)])
    scipys = permutation_test(
        (first, second), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=9999
    )
    assert paired_permutation(sums, mean_ratio) == pytest.approx([scipys.pvalue], abs=0.02)


@pytest.mark.parametrize("n", [1, 13, 40])
def test_the_same_is_no_difference_and_swapping_changes_nothing(n: int) -> None:
    sums = some(np.random.default_rng(n), n)
    assert paired_permutation(sums[[0, 0]], mean_ratio) == [1.0]
    assert paired_permutation(sums, mean_ratio) == pytest.approx(paired_permutation(sums[::-1], mean_ratio), abs=0.02)


def test_what_is_undefined_has_no_p() -> None:
    assert math.isnan(paired_permutation(np.zeros((2, 3, 2)), mean_ratio)[0])
    assert math.isnan(paired_permutation(np.zeros((2, 0, 2)), mean_ratio)[0])


def test_it_finds_what_is_there() -> None:
    rng = random.Random(2)
    sums = np.array([[[rng.random() < chance, 1.0] for _ in range(120)] for chance in (0.8, 0.5)], dtype=float)
    assert paired_permutation(sums, mean_ratio)[0] < 0.01


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    nan = float("nan")
    assert holm([nan, 0.04, 0.9]) == pytest.approx([nan, 0.08, 0.9], nan_ok=True) and holm([]) == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_stepping_down_rejects(values: list[float]) -> None:
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
            if values[i] * (len(values) - rank) > level:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(holm(values)) if p <= level} == rejected
