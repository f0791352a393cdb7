"""Tests of differences: by hand, against slow twins, and about nominal where there is nothing to find."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from steer_verl.eval import significance
from steer_verl.eval.contributions import ratio
from steer_verl.eval.significance import holm, mcnemar, p_value, swapped
from steer_verl.eval.survival import Lifetime, log_rank


def test_mcnemar_by_hand() -> None:
    """Eight dialogues only the first passes, one only the second: p = 2 (C(9,0) + C(9,1)) / 2^9."""
    first = np.array([True] * 8 + [False] + [True] * 30 + [False] * 10)
    second = np.array([False] * 8 + [True] + [True] * 30 + [False] * 10)
    assert mcnemar(first, second) == pytest.approx(20 / 512) == mcnemar(second, first)
    assert mcnemar(first, first) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    nan = float("nan")
    assert holm([nan, 0.04, 0.9]) == pytest.approx([nan, 0.08, 0.9], nan_ok=True) and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_stepping_down_rejects(values: list[float]) -> None:
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, i in enumerate(sorted(range(len(values)), key=values.__getitem__)):
            if values[i] * (len(values) - rank) > level:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(holm(values)) if p <= level} == rejected


def test_coins_equal_every_way_to_toss_them() -> None:
    """Of seven dialogues there are 128 ways: their p is what the draws estimate."""
    rng = np.random.default_rng(3)
    first_C2, second_C2 = (np.stack([rng.integers(0, 4, 7), rng.integers(1, 5, 7)], axis=-1) for _ in range(2))
    seen = ratio(first_C2.sum(axis=0)) - ratio(second_C2.sum(axis=0))
    every = []
    for coins in itertools.product([False, True], repeat=7):
        moved = np.array(coins)[:, None]
        one, other = np.where(moved, second_C2, first_C2), np.where(moved, first_C2, second_C2)
        every.append(ratio(one.sum(axis=0)) - ratio(other.sum(axis=0)))
    exact = np.mean(np.abs(every) >= abs(seen) - 1e-9)
    null_B = swapped(first_C2, second_C2, ratio, seed=1)
    assert len(null_B) == significance.SWAPS
    assert p_value(float(seen), null_B) == pytest.approx(exact, abs=0.015)


def test_of_means_it_is_the_sign_flip_test() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.normal(0.4, 1, 30), rng.normal(0, 1, 30)
    sums = [np.stack([values, np.ones(30)], axis=-1) for values in (first, second)]
    ours = p_value(float(first.mean() - second.mean()), swapped(*sums, ratio))
    scipys = permutation_test(
        (first, second), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=9999
    )
    assert ours == pytest.approx(scipys.pvalue, abs=0.02)


def test_what_is_undefined_is_no_evidence() -> None:
    assert math.isnan(p_value(float("nan"), np.zeros(9)))
    assert p_value(1.0, np.array([0.0, np.nan, 2.0])) == 3 / 4
    assert p_value(0.0, np.zeros(99)) == 1.0


def test_about_nominal_under_the_null(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two students of one kind on the same 40 dialogues of 6 turns, dialogues being hard or easy for both."""
    monkeypatch.setattr(significance, "SWAPS", 999)
    monkeypatch.setattr(significance, "CHUNK", 999)
    rng, runs = np.random.default_rng(8), 400
    hits = np.zeros(3)
    for run in range(runs):
        hardness_C = rng.beta(1, 3, 40)
        failed_2C = rng.binomial(6, hardness_C, (2, 40))
        sums = [np.stack([failed_C, np.full(40, 6)], axis=-1).astype(float) for failed_C in failed_2C]
        gap = float(ratio(sums[0].sum(axis=0)) - ratio(sums[1].sum(axis=0)))
        lives = [[Lifetime(int(t), True) for t in rng.geometric(0.2, 40)] for _ in range(2)]
        hits += (
            p_value(gap, swapped(*sums, ratio, seed=run)) < 0.05,
            mcnemar(failed_2C[0] == 0, failed_2C[1] == 0) < 0.05,
            log_rank(*lives) < 0.05,
        )
    permutation, exact, logs = hits / runs  # standard error 0.011
    assert 0.02 <= permutation <= 0.085 and 0.02 <= logs <= 0.085
    assert exact <= 0.07  # being discrete it keeps below


def test_it_finds_what_is_there() -> None:
    rng = random.Random(2)
    good = np.array([[rng.random() < 0.8, 1.0] for _ in range(120)], dtype=float)
    bad = np.array([[rng.random() < 0.5, 1.0] for _ in range(120)], dtype=float)
    gap = float(ratio(good.sum(axis=0)) - ratio(bad.sum(axis=0)))
    assert p_value(gap, swapped(good, bad, ratio)) < 0.01
