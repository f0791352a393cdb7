"""TCSR against a plain-Python twin over thousands of generated groups, and what makes it a fair comparison."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch

from steer_verl.config import TCSR_PRESETS, TcsrConfig, tcsr_config
from steer_verl.errors import ConfigError
from steer_verl.tcsr import compute_tcsr_advantage, find_turns, group_advantages, hold_last, tcsr_advantage
from tests.tcsr_twin import advantages_of, fmean, on_tokens, random_batch, twin_advantages, twin_to_go

CONFIGS = [
    TcsrConfig(alpha=alpha, shaping=shaping, aggregation=aggregation, credit=credit, normalize_std=std)  # type: ignore[arg-type]
    for alpha, shaping, aggregation, credit, std in itertools.product(
        (0.0, 0.3, 1.0),
        ("prefix", "trajectory", "none"),
        ("sum", "mean", "last", "own"),
        ("trajectory", "turn"),
        (True, False),
    )
    if (aggregation, credit) != ("own", "trajectory")
]

INVARIANT = [config for config in CONFIGS if config.alpha == 0.3]


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_twin_on_generated_groups(seed: int) -> None:
    rng = random.Random(seed)
    for config in CONFIGS:  # 4 x 126 batches of 12 groups
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


@pytest.mark.parametrize("config", INVARIANT)
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


@pytest.mark.parametrize("config", INVARIANT)
def test_removing_an_invalid_member_changes_nothing_for_its_siblings(config: TcsrConfig) -> None:
    rewards, mask, index = random_batch(random.Random(7), groups=30).tensors()
    valid = mask.any(1)
    assert not valid.all()
    with_invalid = tcsr_advantage(rewards, mask, index, config)[0]
    alone = tcsr_advantage(rewards[valid], mask[valid], index[valid.numpy()], config)[0]
    torch.testing.assert_close(with_invalid[valid], alone, rtol=0, atol=1e-12)
    assert not with_invalid[~valid].any()


def test_what_an_invalid_member_returns_does_not_matter() -> None:
    returns = torch.tensor([[0.2], [0.6], [99.0], [0.5]], dtype=torch.float64)
    found = group_advantages(returns, torch.tensor([0, 0, 0, 1]), torch.tensor([3, 2, 0, 4]), normalize_std=False)
    assert found[:, 0].tolist() == pytest.approx([-0.2, 0.2, 0, 0])


@pytest.mark.parametrize("config", INVARIANT)
def test_the_order_of_members_does_not_matter(config: TcsrConfig) -> None:
    rewards, mask, index = random_batch(random.Random(11)).tensors()
    order = torch.randperm(len(mask), generator=torch.Generator().manual_seed(0))
    advantages = tcsr_advantage(rewards, mask, index, config)[0]
    shuffled = tcsr_advantage(rewards[order], mask[order], index[order.numpy()], config)[0]
    torch.testing.assert_close(shuffled, advantages[order], rtol=0, atol=1e-9)


@pytest.mark.parametrize("config", INVARIANT)
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
    scale = math.sqrt(fmean([2 * h * h for h in halves]))
    assert steer[0].tolist() == pytest.approx([h / (scale + 1e-6) for h in halves])


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
        ({"tcsr": {"preset": "paper", "aggregation": "own"}}, ["u"], "algorithm.tcsr: aggregation=own .* first turn"),
        ({"tcsr": {"gamma": 1.0}}, ["u"], "algorithm.tcsr.gamma: unknown key"),
        ({"tcsr": {"preset": "papre"}}, ["u"], "algorithm.tcsr.preset"),
        ({}, None, "no uid"),
    ],
)
def test_entry_refuses_what_cannot_work(section: dict[str, object], index: list[str] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compute_tcsr_advantage(torch.zeros(1, 4), torch.ones(1, 4), index, AlgorithmSection(section))


def test_what_a_cut_dialogue_would_do_to_its_siblings() -> None:
    """The example of docs/method.md: why a dialogue that a server has cut is no member of its group."""
    first, second = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], [0.8, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4]
    equal = advantages_of(tcsr_config({"preset": "paper"}), [0.8] * 8, [0.8] * 3)[:, 0]
    assert equal.tolist() == pytest.approx([2, -2])
    expected = {
        "paper": ([0.09, -0.09], [1.02, 0.84, -1.86]),
        "released": ([-0.71, 0.71], [-0.80, -0.32, 1.12]),
        "steer": ([0.36, -0.36], [-0.37, -0.55, 0.92]),
    }
    for preset, (alone, cut) in expected.items():
        config = tcsr_config({"preset": preset})
        assert advantages_of(config, first, second)[:, 0].tolist() == pytest.approx(alone, abs=0.005)
        assert advantages_of(config, first, second, first[:3])[:, 0].tolist() == pytest.approx(cut, abs=0.005)
