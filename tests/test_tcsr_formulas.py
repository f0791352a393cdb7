"""The formulas of docs/method.md on what TCSR is, each by brute force."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from steer_verl.config import tcsr_config
from steer_verl.tcsr import returns_to_go, shape_rewards
from tests.tcsr_twin import twin_to_go

PLAIN = {"shaping": "none", "aggregation": "mean", "credit": "trajectory"}


def harmonic(n: int) -> float:
    return sum(1 / k for k in range(1, n + 1))


@pytest.mark.parametrize("turns", range(1, 9))
def test_summed_prefix_means_are_a_fixed_front_loaded_weighting(turns: int) -> None:
    rng = random.Random(turns)
    config = tcsr_config({"preset": "paper", "alpha": 0.0})
    weights = [harmonic(turns) - harmonic(j - 1) for j in range(1, turns + 1)]
    assert weights == sorted(weights, reverse=True) and sum(weights) == pytest.approx(turns)
    for _ in range(20):
        rewards = [rng.random() for _ in range(turns)]
        assert twin_to_go(rewards, config)[0] == pytest.approx(
            sum(w * r for w, r in zip(weights, rewards, strict=True))
        )


@pytest.mark.parametrize("turns", range(1, 9))
def test_summed_prefix_minima_of_0_and_1_count_the_turns_survived(turns: int) -> None:
    config = tcsr_config({"preset": "paper", "alpha": 1.0})
    for rewards in itertools.product((0.0, 1.0), repeat=turns):
        survived = next((t for t, reward in enumerate(rewards) if reward == 0), turns)
        assert twin_to_go(list(rewards), config)[0] == survived


def cost(settings: dict[str, object], turns: int, failed: int) -> float:
    """Share of the return that one turn of reward 0 takes from an otherwise perfect dialogue."""
    config = tcsr_config(settings)
    rewards = torch.ones(1, turns, dtype=torch.float64)
    rewards[0, failed - 1] = 0
    count = torch.tensor([turns])
    shaped = shape_rewards(rewards, count, config.alpha, config.shaping)
    own = float(returns_to_go(shaped, count, config.aggregation)[0, 0])
    return 1 - own / (turns if config.aggregation == "sum" else 1)


def test_what_one_failed_turn_costs() -> None:
    for preset in ("paper", "steer"):
        costs = [cost({"preset": preset}, 4, t) for t in (1, 2, 3, 4)]
        assert costs == pytest.approx([0.66, 0.41, 0.25, 0.12], abs=0.006)
        assert [cost({"preset": preset}, 8, t) for t in (1, 8)] == pytest.approx([0.54, 0.05], abs=0.006)
        assert costs[3] < cost(PLAIN, 4, 4) / 2, "a late breach costs less than half of what it costs the mean"
    assert [cost({"preset": "released"}, n, 1) for n in (4, 8)] == pytest.approx([0.475, 0.3875])
    assert [cost(PLAIN, n, t) for n, t in ((4, 1), (4, 4), (8, 8))] == pytest.approx([1 / 4, 1 / 4, 1 / 8])
    assert twin_to_go([1.0, 1.0, 1.0, 0.0], tcsr_config(None))[3] == pytest.approx(0.525)


def test_a_return_is_never_above_the_mean_of_the_turns_that_it_weighs() -> None:
    """Averse to risk: the same weighting without the minimum is an upper bound, reached where all turns are equal."""
    rng = random.Random(0)
    for preset in ("paper", "released", "steer"):
        cautious, neutral = tcsr_config({"preset": preset}), tcsr_config({"preset": preset, "alpha": 0.0})
        for _ in range(200):
            rewards = [rng.random() for _ in range(rng.randint(2, 8))]
            assert twin_to_go(rewards, cautious)[0] < twin_to_go(rewards, neutral)[0]
        assert twin_to_go([0.7] * 5, cautious) == pytest.approx(twin_to_go([0.7] * 5, neutral))
