"""What the length of a dialogue does to returns, advantages and gradients, measured."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from steer_verl.config import TcsrConfig, tcsr_config
from steer_verl.tcsr import group_advantages, returns_to_go, shape_rewards
from tests.tcsr_twin import advantages_of, fmean, twin_to_go


def mean_return_by_length(aggregation: str, shaping: str = "prefix", dialogues: int = 4000) -> dict[int, float]:
    """Mean return of dialogues whose turn rewards are independent of their length."""
    generator = torch.Generator().manual_seed(0)
    means = {}
    for turns in (2, 5, 10):
        rewards = torch.rand(dialogues, turns, generator=generator, dtype=torch.float64)
        count = torch.full((dialogues,), turns)
        shaped = shape_rewards(rewards, count, 0.3, shaping)
        means[turns] = float(returns_to_go(shaped, count, aggregation)[:, 0].mean())
    return means


def test_length_bias_sum_pays_for_length_and_mean_hardly_charges_for_it() -> None:
    total, mean, whole = (
        mean_return_by_length("sum"),
        mean_return_by_length("mean"),
        mean_return_by_length("last", "trajectory"),
    )
    assert total[10] > 4 * total[2]  # 5 times the turns, over 4 times the return: length alone
    assert 0.8 * mean[2] < mean[10] < mean[2]  # the minimum falls with length, by nature
    assert whole[10] < 0.95 * whole[2]
    perfect = {n: twin_to_go([1.0] * n, tcsr_config(None))[0] for n in (2, 5, 10)}
    assert set(perfect.values()) == {1.0}


def test_length_alone_decides_an_advantage_under_sum_and_not_under_mean() -> None:
    same_quality = [[0.8] * n for n in (2, 4, 6, 8)]
    by_sum = advantages_of(tcsr_config({"aggregation": "sum", "credit": "trajectory"}), *same_quality)[:, 0]
    assert (by_sum.diff() > 0).all() and by_sum[0] < -1 and by_sum[-1] > 1
    assert not advantages_of(tcsr_config(None), *same_quality).any()


def gradient_weights(held: bool) -> list[float]:
    """Exact expected gradient of each turn over that without any baseline, when the first answer decides on length.

    Three members, two turns. A good first answer (chance .4) gets a second turn, a bad one ends the dialogue: length
    is the policy's own doing and goes with the reward. All 27 groups are enumerated, nothing is sampled.
    """
    chance = (0.4, 0.7)
    outcomes = [  # (probability, rewards, score function of each turn)
        (1 - chance[0], [0.1], [-chance[0]]),
        (chance[0] * (1 - chance[1]), [0.9, 0.2], [1 - chance[0], -chance[1]]),
        (chance[0] * chance[1], [0.9, 1.0], [1 - chance[0], 1 - chance[1]]),
    ]
    config = tcsr_config({"normalize_std": False})
    ideal, found = [0.0, 0.0], [0.0, 0.0]
    for probability, rewards, score in outcomes:
        for t, value in enumerate(twin_to_go(rewards, config)):
            ideal[t] += probability * score[t] * value
    for members in itertools.product(outcomes, repeat=3):
        probability = math.prod(p for p, _, _ in members)
        rows = [rewards for _, rewards, _ in members]
        advantages = advantages_of(config, *rows) if held else reachers_only(rows, config)
        for row, (_, rewards, score) in enumerate(members):
            for t in range(len(rewards)):
                found[t] += probability * score[t] * float(advantages[row, t]) / 3
    return [f / i for f, i in zip(found, ideal, strict=True)]


def reachers_only(rows: list[list[float]], config: TcsrConfig) -> torch.Tensor:
    """The baseline that suggests itself: at each turn the mean of those who got there."""
    to_go = [twin_to_go(rewards, config) for rewards in rows]
    reached = [[g[t] for g in to_go if len(g) > t] for t in range(2)]
    means = [fmean(values) if values else 0.0 for values in reached]
    return torch.tensor([[g[t] - means[t] if len(g) > t else 0.0 for t in range(2)] for g in to_go])


def test_held_returns_keep_the_gradient_unbiased_when_the_policy_decides_on_the_length() -> None:
    """Up to the factor 1 - 1/K of any mean that holds the member itself, equal for all turns: the right direction."""
    assert gradient_weights(held=True) == pytest.approx([2 / 3, 2 / 3])
    first, second = gradient_weights(held=False)
    assert first == pytest.approx(2 / 3) and second < 0.6 * first  # the late turn learns too little


def test_a_lone_long_dialogue_is_blamed_for_its_late_failure() -> None:
    advantages = advantages_of(tcsr_config(None), [0.9, 0.9, 0.9, 0.0], [0.9, 0.9], [0.8, 0.9])
    assert advantages[0, 3] < -1


def test_length_that_goes_with_nothing_earns_next_to_nothing() -> None:
    """Constant quality with noise, random lengths: by length, the mean advantage of a turn stays small."""
    generator = torch.Generator().manual_seed(1)
    members = 5 * 4000
    count = torch.randint(2, 8, (members,), generator=generator)
    rewards = 0.6 + 0.2 * torch.rand(members, 7, generator=generator, dtype=torch.float64)
    to_go = returns_to_go(shape_rewards(rewards, count, 0.3), count)
    advantages = group_advantages(to_go, torch.arange(members) // 5, count)
    for turns in range(2, 8):
        assert abs(float(advantages[count == turns, 0].mean())) < 0.25
    sums = returns_to_go(shape_rewards(rewards, count, 0.3), count, "sum")
    by_sum = group_advantages(sums, torch.arange(members) // 5, count)
    assert float(by_sum[count == 7, 0].mean()) > 1 and float(by_sum[count == 2, 0].mean()) < -1
