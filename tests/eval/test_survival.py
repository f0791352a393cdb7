"""Kaplan-Meier against a brute-force twin and the textbooks, and what a band must obey."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import chi2

from steer_verl.errors import ConfigError
from steer_verl.eval.intervals import over_runs
from steer_verl.eval.survival import (
    Lifetime,
    counts,
    curve_dict,
    curve_from,
    first_below,
    kaplan_meier,
    lifetime,
    log_rank,
    product_limit,
    restricted_mean,
)


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


# Remission in weeks of 21 patients under 6-MP and of 21 under placebo (Freireich et al., 1963); minus: still in
# remission. S, its log-log interval and the log-rank statistic stand in every textbook.
SIX_MP = (6, 6, 6, -6, 7, -9, 10, -10, -11, 13, 16, -17, -19, -20, 22, 23, -25, -32, -32, -34, -35)
PLACEBO = (1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23)


def weeks(values: tuple[int, ...]) -> list[Lifetime]:
    return [Lifetime(abs(value), value > 0) for value in values]


def test_the_textbook_example() -> None:
    curve = kaplan_meier(weeks(SIX_MP), horizon=35)
    at = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448, 35: 0.448}
    assert {t: round(curve.survival[t], 3) for t in at} == pytest.approx(at)
    assert (curve.low[6], curve.high[6]) == pytest.approx((0.620, 0.952), abs=5e-4)
    assert (curve.low[23], curve.high[23]) == pytest.approx((0.188, 0.680), abs=5e-4)
    assert first_below(curve.survival) == 23 and first_below(kaplan_meier(weeks(PLACEBO), 35).survival, 0.5001) == 8
    assert log_rank(weeks(SIX_MP), weeks(PLACEBO)) == pytest.approx(chi2.sf(16.793, 1), rel=1e-3)


def test_the_product_of_many_weightings_is_what_scipy_says_of_each() -> None:
    rng = random.Random(4)
    lives = [Lifetime(rng.randint(0, 10), False) for _ in range(25)]
    lives = [Lifetime(life.turns, life.turns > 0 and rng.random() < 0.6) for life in lives]
    failed_NT, risk_NT = counts(lives)
    weights_BN = np.array([[rng.randint(0, 3) for _ in lives] for _ in range(20)])
    survival_BT = product_limit(weights_BN @ failed_NT, weights_BN @ risk_NT)
    for weights_N, survival_T in zip(weights_BN, survival_BT, strict=True):
        repeated = [life for life, w in zip(lives, weights_N, strict=True) for _ in range(w)]
        assert kaplan_meier(repeated).survival[1:] == pytest.approx(survival_T)


def test_restricted_mean_is_what_dialogues_survive_on_average() -> None:
    lives = [Lifetime(t, True) for t in (1, 2, 2, 5)] + [Lifetime(10, False)]
    s_T = np.array(kaplan_meier(lives).survival[1:])
    assert restricted_mean(s_T, 10) == pytest.approx((1 + 2 + 2 + 5 + 10) / 5)
    assert restricted_mean(s_T, 3) == pytest.approx((1 + 2 + 2 + 3 + 3) / 5)


def test_a_band_without_a_failure_is_no_certainty() -> None:
    curve = kaplan_meier([Lifetime(4, False)] * 20 + [Lifetime(10, False)] * 10)
    assert curve.survival[10] == 1.0 and curve.high[10] == 1.0
    assert curve.low[4] == pytest.approx(0.025 ** (1 / 30)) and curve.low[10] == pytest.approx(0.025 ** (1 / 10))
    dead = kaplan_meier([Lifetime(1, True)] * 3 + [Lifetime(2, True)] * 3)
    assert dead.survival[2] == 0 and 0 < dead.high[2] < dead.high[1] and dead.high[2] == dead.high[10]


def test_log_rank_of_nothing() -> None:
    held, broke = [Lifetime(3, False)], [Lifetime(2, True)]
    assert math.isnan(log_rank(held, held)) and math.isnan(log_rank([], broke))
    assert log_rank(broke * 20, held * 20) < 1e-6


def test_without_scipy_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ConfigError, match=r"steer-verl\[eval\]"):
        kaplan_meier([Lifetime(1, True)])
    with pytest.raises(ConfigError, match="scipy"):
        over_runs([1.0, 2.0])


def test_nobody_loads_scipy_by_importing() -> None:
    names = ("summary", "compare.write", "significance", "survival", "intervals")
    code = f"import sys, {', '.join(f'steer_verl.eval.{name}' for name in names)}; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
