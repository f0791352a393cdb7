"""TCSR against a plain-Python twin over thousands of generated groups, and the invariants that make it a fair comparison."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass
from statistics import fmean, variance

import numpy as np
import pytest
import torch

from steer_verl.config import TCSR_PRESETS, TcsrConfig, tcsr_config
from steer_verl.errors import ConfigError
from steer_verl.tcsr import (
    compute_tcsr_advantage,
    find_turns,
    group_advantages,
    hold_last,
    returns_to_go,
    shape_rewards,
    tcsr_advantage,
)

CONFIGS = [
    TcsrConfig(alpha=alpha, shaping=shaping, aggregation=aggregation, credit=credit, normalize_std=std)  # type: ignore[arg-type]
    for alpha, shaping, aggregation, credit, std in itertools.product(
        (0.0, 0.3, 1.0), ("prefix", "trajectory"), ("sum", "mean", "last"), ("trajectory", "turn"), (True, False)
    )
]


@dataclass
class Batch:
    """A generated batch and the turn rewards that it was laid out from; ``rewards[b]`` is empty for an invalid member."""

    uids: list[str]
    rewards: list[list[float]]
    spans: list[list[tuple[int, int]]]
    tokens: int = 64

    def tensors(self, dtype: torch.dtype = torch.float64, noise: bool = False) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        mask = torch.zeros(len(self.uids), self.tokens, dtype=torch.int64)
        rewards = torch.full(mask.shape, math.nan if noise else 0.0, dtype=dtype)
        for row, (values, spans) in enumerate(zip(self.rewards, self.spans, strict=True)):
            for value, (start, stop) in zip(values, spans, strict=True):
                mask[row, start:stop] = 1
                rewards[row, stop - 1] = value
        return rewards, mask, np.array(self.uids, dtype=object)


def lay_out(uids: list[str], rewards: list[list[float]], rng: random.Random | None = None, tokens: int = 64) -> Batch:
    """Turns of random length with at least one token between them; the last may end at the very edge."""
    rng = rng or random.Random(0)
    spans = []
    for values in rewards:
        cuts = sorted(rng.sample(range(tokens + 1), 2 * len(values)))
        spans.append(list(zip(cuts[0::2], cuts[1::2], strict=True)))
    return Batch(uids, rewards, spans, tokens)


def random_batch(rng: random.Random, groups: int = 12) -> Batch:
    """Interleaved groups of 1-6 members of 0-9 turns; a third of the rewards from {0, 0.5, 1}, so that ties are common."""
    members: list[tuple[str, list[float]]] = []
    for group in range(groups):
        tied = rng.random() < 0.15
        for _ in range(rng.randint(1, 6)):
            turns = 0 if rng.random() < 0.15 else rng.randint(1, 9)
            coarse = rng.random() < 0.33
            members.append(
                (f"uid{group}", [0.7 if tied else rng.choice((0.0, 0.5, 1.0)) if coarse else rng.random() for _ in range(turns)])
            )
    rng.shuffle(members)
    return lay_out([uid for uid, _ in members], [rewards for _, rewards in members], rng)


# The twin: one member and one turn at a time, straight from the definition.


def twin_to_go(rewards: list[float], config: TcsrConfig) -> list[float]:
    shaped = [
        config.alpha * min(rewards[: t + 1]) + (1 - config.alpha) * fmean(rewards[: t + 1]) for t in range(len(rewards))
    ]
    if config.shaping == "trajectory":
        shaped = shaped[-1:] * len(shaped)
    aggregate = {"sum": math.fsum, "mean": fmean, "last": lambda values: values[-1]}[config.aggregation]
    to_go = [aggregate(shaped[t:]) for t in range(len(shaped))]
    return to_go[:1] * len(to_go) if config.credit == "trajectory" else to_go


def twin_advantages(batch: Batch, config: TcsrConfig) -> list[list[float]]:
    """Per member and turn."""
    to_go = [twin_to_go(rewards, config) for rewards in batch.rewards]
    advantages: list[list[float]] = [[0.0] * len(g) for g in to_go]
    for uid in set(batch.uids):
        group = [b for b, other in enumerate(batch.uids) if other == uid and to_go[b]]
        if len(group) < 2:
            continue
        depth = 1 if config.credit == "trajectory" else max(len(to_go[b]) for b in group)
        columns = [[to_go[b][min(t, len(to_go[b]) - 1)] for b in group] for t in range(depth)]
        scale = math.sqrt(fmean(variance(column) for column in columns))
        for b in group:
            for t, value in enumerate(to_go[b]):
                centred = value - fmean(columns[min(t, depth - 1)])
                if scale > 1e-8:
                    advantages[b][t] = centred / (scale + 1e-6) if config.normalize_std else centred
    return advantages


def on_tokens(batch: Batch, values: list[list[float]]) -> torch.Tensor:
    tokens = torch.zeros(len(batch.uids), batch.tokens, dtype=torch.float64)
    for row, (spans, own) in enumerate(zip(batch.spans, values, strict=True)):
        for (start, stop), value in zip(spans, own, strict=True):
            tokens[row, start:stop] = value
    return tokens


def advantages_of(config: TcsrConfig, *rewards: list[float]) -> torch.Tensor:
    """Advantages (B, N) of one group of dialogues of one token a turn, padded with 0."""
    longest = max(map(len, rewards))
    mask = torch.zeros(len(rewards), 2 * longest)
    tokens = torch.zeros(len(rewards), 2 * longest, dtype=torch.float64)
    for row, values in enumerate(rewards):
        mask[row, : 2 * len(values) : 2] = 1
        tokens[row, : 2 * len(values) : 2] = torch.tensor(values, dtype=torch.float64)
    return tcsr_advantage(tokens, mask, ["u"] * len(rewards), config)[0][:, ::2]


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_twin_on_generated_groups(seed: int) -> None:
    rng = random.Random(seed)
    for config in CONFIGS:  # 8 x 72 batches of 12 groups
        batch = random_batch(rng)
        advantages, returns = tcsr_advantage(*batch.tensors(noise=True), config)
        torch.testing.assert_close(advantages, on_tokens(batch, twin_advantages(batch, config)), rtol=1e-7, atol=1e-7)
        to_go = [twin_to_go(rewards, config) for rewards in batch.rewards]
        torch.testing.assert_close(returns, on_tokens(batch, to_go), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dtype_is_kept_and_a_float_or_bool_mask_is_as_good(dtype: torch.dtype) -> None:
    batch = random_batch(random.Random(3))
    config = tcsr_config(None)
    rewards, mask, index = batch.tensors(dtype)
    exact, _ = tcsr_advantage(rewards.double(), mask, index, config)
    for same_mask in (mask, mask.float(), mask.bool()):
        advantages, returns = tcsr_advantage(rewards, same_mask, index, config)
        assert advantages.dtype == returns.dtype == dtype
        assert torch.equal(advantages, exact.to(dtype))


def test_turns_are_the_runs_of_the_mask() -> None:
    mask = torch.tensor([[1, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    turns = find_turns(mask)
    assert turns.count_B.tolist() == [3, 0, 1, 1]
    assert turns.member_K.tolist() == [0, 0, 0, 2, 3]
    assert turns.number_K.tolist() == [0, 1, 2, 0, 0]
    assert (turns.stop_K - 1).tolist() == [1, 3, 5, 12, 23]


def test_a_zero_reward_is_a_turn_too() -> None:
    perfect, failed = advantages_of(tcsr_config({"preset": "paper"}), [1.0, 1.0], [1.0, 0.0])[:, 0]
    assert perfect > 0 > failed


@pytest.mark.parametrize("config", CONFIGS)
def test_never_nan_whatever_stands_off_the_turn_ends(config: TcsrConfig) -> None:
    rewards, mask, index = random_batch(random.Random(5)).tensors(torch.float32, noise=True)
    rewards[0, :] = math.nan if not mask[0].any() else rewards[0]
    for values in tcsr_advantage(rewards, mask, index, config):
        assert values.isfinite().all()
        assert (values[mask == 0] == 0).all()


def test_a_reward_that_is_no_number_makes_its_member_invalid(caplog: pytest.LogCaptureFixture) -> None:
    rows = [[0.2, 0.9], [1.0, 0.4], [0.3, 0.6]]
    config = tcsr_config(None)
    with caplog.at_level("WARNING"):
        poisoned = advantages_of(config, *rows, [0.5, math.nan])
    assert torch.equal(poisoned[:3], advantages_of(config, *rows)) and not poisoned[3].any()
    assert "1 members" in caplog.text


@pytest.mark.parametrize("config", CONFIGS)
def test_removing_an_invalid_member_changes_nothing_for_its_siblings(config: TcsrConfig) -> None:
    rewards, mask, index = random_batch(random.Random(7), groups=30).tensors()
    valid = mask.any(1)
    assert not valid.all()
    with_invalid = tcsr_advantage(rewards, mask, index, config)[0]
    alone = tcsr_advantage(rewards[valid], mask[valid], index[valid.numpy()], config)[0]
    torch.testing.assert_close(with_invalid[valid], alone, rtol=0, atol=1e-12)
    assert not with_invalid[~valid].any()


@pytest.mark.parametrize("config", CONFIGS)
def test_the_order_of_members_does_not_matter(config: TcsrConfig) -> None:
    rewards, mask, index = random_batch(random.Random(11)).tensors()
    order = torch.randperm(len(mask), generator=torch.Generator().manual_seed(0))
    advantages = tcsr_advantage(rewards, mask, index, config)[0]
    shuffled = tcsr_advantage(rewards[order], mask[order], index[order.numpy()], config)[0]
    torch.testing.assert_close(shuffled, advantages[order], rtol=0, atol=1e-9)


@pytest.mark.parametrize("config", CONFIGS)
def test_ties_and_lone_members_get_exactly_zero(config: TcsrConfig) -> None:
    lengths = (3, 3, 3) if config.aggregation == "sum" else (1, 4, 7)  # of equal turns, more is more under sum
    assert not advantages_of(config, *[[0.1] * n for n in lengths]).any()
    assert not advantages_of(config, [0.2, 0.9, 0.4]).any()
    assert not advantages_of(config, [0.2, 0.9, 0.4], []).any()
    assert not advantages_of(config, [], []).any()


@pytest.mark.parametrize("credit", ["trajectory", "turn"])
def test_std_normalisation_takes_the_scale_out(credit: str) -> None:
    rows = [[0.2, 0.9, 0.4], [1.0, 0.4], [0.3, 0.6, 0.8, 0.1]]
    config = tcsr_config({"credit": credit})
    advantages = advantages_of(config, *rows)
    halved = advantages_of(config, *[[0.5 * r + 0.25 for r in row] for row in rows])
    torch.testing.assert_close(halved, advantages, rtol=1e-4, atol=1e-4)  # up to epsilon
    if credit == "trajectory":
        assert float(advantages[:, 0].std()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("preset", sorted(TCSR_PRESETS))
def test_a_perfect_dialogue_has_the_maximum_return_and_each_turn_counts(preset: str) -> None:
    """Raising any turn's reward never lowers a return, and only four times 1 reaches the top."""
    config = tcsr_config({"preset": preset})
    grid = [list(rewards) for rewards in itertools.product((0.0, 0.5, 1.0), repeat=4)]
    total = {tuple(rewards): twin_to_go(rewards, config)[0] for rewards in grid}
    assert max(total.values()) == total[1.0, 1.0, 1.0, 1.0] == (4.0 if preset == "paper" else 1.0)
    for rewards in grid:
        for t in range(4):
            raised = (*rewards[:t], 1.0, *rewards[t + 1 :])
            assert total[raised] > total[tuple(rewards)] or rewards[t] == 1.0


@pytest.mark.parametrize("preset", sorted(TCSR_PRESETS))
def test_one_bad_last_turn_lowers_the_advantage_of_earlier_turns(preset: str) -> None:
    siblings = [[0.9, 0.8, 1.0, 0.9], [0.7, 1.0, 0.8, 1.0], [0.9, 0.9, 0.9, 0.8], [1.0, 0.7, 0.9, 0.9]]
    config = tcsr_config({"preset": preset})
    good = advantages_of(config, [1.0, 1.0, 1.0, 1.0], *siblings)[0]
    bad = advantages_of(config, [1.0, 1.0, 1.0, 0.0], *siblings)[0]
    assert (bad < good).all() and (good > 0).all()
    if preset == "steer":  # nearer to the failure, more of the blame; the failing turn itself has the most
        assert (bad.diff() < 0).all() and bad[3] < -1


def test_presets_compute_what_the_method_says() -> None:
    """METHOD.md's table on one pair, by hand: m = (.8 .2 .2), mean = (.8 .5 .6), against three times .5."""
    rows = ([0.8, 0.2, 0.8], [0.5, 0.5, 0.5])
    prefix = [0.3 * 0.8 + 0.7 * 0.8, 0.3 * 0.2 + 0.7 * 0.5, 0.3 * 0.2 + 0.7 * 0.6]
    paper = advantages_of(tcsr_config({"preset": "paper"}), *rows)
    assert paper[0].tolist() == pytest.approx([(sum(prefix) - 1.5) / 2] * 3)
    released = advantages_of(tcsr_config({"preset": "released"}), *rows)
    half = (0.3 * 0.2 + 0.7 * 0.6 - 0.5) / 2
    assert released[0].tolist() == pytest.approx([half / (abs(half) * math.sqrt(2) + 1e-6)] * 3)
    steer = advantages_of(tcsr_config(None), *rows)
    to_go = [fmean(prefix), fmean(prefix[1:]), prefix[2]]
    halves = [(g - 0.5) / 2 for g in to_go]
    scale = math.sqrt(fmean(2 * h * h for h in halves))
    assert steer[0].tolist() == pytest.approx([h / (scale + 1e-6) for h in halves])


def mean_return_by_length(aggregation: str, shaping: str = "prefix", dialogues: int = 4000) -> dict[int, float]:
    """Mean return of dialogues whose turn rewards are independent of their length."""
    generator = torch.Generator().manual_seed(0)
    means = {}
    for turns in (2, 5, 10):
        rewards = torch.rand(dialogues, turns, generator=generator, dtype=torch.float64)
        count = torch.full((dialogues,), turns)
        means[turns] = float(returns_to_go(shape_rewards(rewards, count, 0.3, shaping), count, aggregation)[:, 0].mean())
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
    """Exact expected gradient of each turn over that of an ideal baseline, when the first answer decides on the length.

    Three members, two turns. A good first answer (chance .4) gets a second turn, a bad one ends the dialogue: the number of
    turns is the policy's own doing and goes with the reward. All 27 groups are enumerated, nothing is sampled.
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
    means = [fmean(g[t] for g in to_go if len(g) > t) if any(len(g) > t for g in to_go) else 0.0 for t in range(2)]
    return torch.tensor([[g[t] - means[t] if len(g) > t else 0.0 for t in range(2)] for g in to_go])


def test_held_returns_keep_the_gradient_unbiased_when_the_policy_decides_on_the_length() -> None:
    """Up to the one factor 1 - 1/K of any mean that holds the member itself, equal for all turns: the right direction."""
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


def test_hold_last_fills_from_the_members_own_last_turn() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    held = hold_last(values, torch.tensor([1, 3, 0]))
    assert held.tolist() == [[1, 1, 1], [4, 5, 6], [7, 7, 7]]


# The entry that verl calls.


class AlgorithmSection(dict):  # type: ignore[type-arg]
    """Stands for verl's DictConfig: a mapping with ``get``."""


def test_entry_reads_the_section_and_ignores_what_other_estimators_get() -> None:
    rewards, mask, index = random_batch(random.Random(2)).tensors()
    section = AlgorithmSection(tcsr={"preset": "paper", "alpha": 0.5}, use_kl_in_reward=False, gamma=1.0)
    found = compute_tcsr_advantage(
        token_level_rewards=rewards, response_mask=mask, index=index, config=section, reward_baselines=None
    )
    wanted = tcsr_advantage(rewards, mask, index, tcsr_config({"preset": "paper", "alpha": 0.5}))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    default = compute_tcsr_advantage(rewards, mask, index)
    assert torch.equal(default[0], tcsr_advantage(rewards, mask, index, tcsr_config(None))[0])


def test_entry_reads_an_omegaconf_section_in_struct_mode() -> None:
    omegaconf = pytest.importorskip("omegaconf")
    rewards, mask, index = random_batch(random.Random(2)).tensors()
    section = omegaconf.OmegaConf.create({"adv_estimator": "tcsr", "use_kl_in_reward": False})
    omegaconf.OmegaConf.set_struct(section, True)
    assert compute_tcsr_advantage(rewards, mask, index, section)[0].isfinite().all()


@pytest.mark.parametrize(
    ("section", "index", "message"),
    [
        ({"use_kl_in_reward": True}, ["u"], "use_kl_loss"),
        ({"tcsr": {"alpha": 1.5}}, ["u"], "algorithm.tcsr.alpha"),
        ({"tcsr": {"gamma": 1.0}}, ["u"], "algorithm.tcsr.gamma: unknown key"),
        ({"tcsr": {"preset": "papre"}}, ["u"], "algorithm.tcsr.preset"),
        ({}, None, "no uid"),
    ],
)
def test_entry_refuses_what_cannot_work(section: dict[str, object], index: list[str] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compute_tcsr_advantage(torch.zeros(1, 4), torch.ones(1, 4), index, AlgorithmSection(section))
