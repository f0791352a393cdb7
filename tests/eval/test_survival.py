"""Kaplan-Meier against a brute-force twin, and what a band must obey."""

from __future__ import annotations

import random

import pytest

from steer_verl.eval.survival import Lifetime, curve_dict, curve_from, kaplan_meier, lifetime


def brute_force(lives: list[Lifetime], horizon: int) -> list[float]:
    """S(t) by walking the dialogues turn by turn, as the textbook says it."""
    survival, curve = 1.0, [1.0]
    for turn in range(1, horizon + 1):
        entered = sum(1 for life in lives if life.turns >= turn)
        broke = sum(1 for life in lives if life.turns == turn and life.failed)
        if entered:
            survival *= (entered - broke) / entered
        curve.append(survival)
    return curve


def test_equals_the_brute_force_twin_on_generated_sets() -> None:
    rng = random.Random(3)
    for _ in range(300):
        lives = [Lifetime(rng.randint(0, 12), rng.random() < 0.5) for _ in range(rng.randint(0, 40))]
        lives = [life if 0 < life.turns <= 10 else Lifetime(min(life.turns, 10), False) for life in lives]
        curve = kaplan_meier(lives)
        assert curve.survival == pytest.approx(brute_force(lives, 10))
        for s, low, high in zip(curve.survival, curve.low, curve.high, strict=True):
            assert 0 <= low <= s + 1e-12 and s - 1e-12 <= high <= 1
        assert list(curve.survival) == sorted(curve.survival, reverse=True)


def test_without_censoring_it_is_the_plain_share() -> None:
    lives = [Lifetime(3, True)] * 4 + [Lifetime(10, False)] * 6
    curve = kaplan_meier(lives)
    assert curve.survival[2] == 1.0 and curve.survival[3] == pytest.approx(0.6) == curve.survival[10]


def test_greenwood_log_log_band_by_hand() -> None:
    """4 of 10 fail at turn 1: S = .6, Greenwood's sum V = 4 / (10 * 6); lower = .6 ** exp(1.96 sqrt(V) / |ln .6|)."""
    curve = kaplan_meier([Lifetime(1, True)] * 4 + [Lifetime(2, False)] * 6)
    assert curve.low[1] == pytest.approx(0.2527, abs=2e-4) and curve.high[1] == pytest.approx(0.8272, abs=2e-4)


def test_the_band_narrows_with_more_dialogues() -> None:
    lives = [Lifetime(2, True), Lifetime(4, False), Lifetime(4, False), Lifetime(1, True)]
    few, many = kaplan_meier(lives), kaplan_meier(lives * 25)
    assert few.survival == pytest.approx(many.survival)
    assert many.high[2] - many.low[2] < few.high[2] - few.low[2]


@pytest.mark.parametrize(
    ("harmless", "expected"),
    [
        ([3, 2, 3], Lifetime(3, False)),
        ([3, 1, 3], Lifetime(2, True)),
        ([-3], Lifetime(1, True)),
        ([3, None, -3], Lifetime(1, False)),  # what could not be judged is no failure, and nothing is known after it
        ([], Lifetime(0, False)),
        ([3] * 10 + [-3], Lifetime(10, False)),
    ],
)
def test_lifetime(harmless: list[int | None], expected: Lifetime) -> None:
    assert lifetime(harmless) == expected


def test_the_last_known_turn() -> None:
    assert kaplan_meier([Lifetime(3, False), Lifetime(5, True)]).last == 5
    assert kaplan_meier([]).last == 0


def test_json_round_trip() -> None:
    curve = kaplan_meier([Lifetime(3, False), Lifetime(5, True)])
    assert curve_from(curve_dict(curve)) == curve
