"""Turn spans travel with the rewards: whatever is taken out of the mask, nobody else's advantage moves by a bit."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.config import PLAIN_GRPO, TCSR_PRESETS, TcsrConfig, tcsr_config
from steer_verl.errors import ConfigError
from steer_verl.tcsr import (
    compute_tcsr_advantage,
    lay_out_rewards,
    read_turns,
    tcsr_advantage,
    turn_rewards,
)
from tests.tcsr_twin import Batch, lay_out, on_tokens, random_batch, twin_advantages

PRESETS = [tcsr_config({"preset": name}) for name in TCSR_PRESETS]
CONFIGS = st.one_of(
    st.sampled_from(PRESETS),
    st.builds(
        TcsrConfig,
        alpha=st.floats(0, 1),
        shaping=st.sampled_from(("prefix", "trajectory")),
        aggregation=st.sampled_from(("sum", "mean", "last")),
        credit=st.sampled_from(("trajectory", "turn")),
        normalize_std=st.booleans(),
    ),
)
STEADY = settings(deadline=None, derandomize=True, max_examples=150)
REWARDS = st.one_of(st.sampled_from((0.0, 0.5, 1.0, 1e-50, 0.7)), st.floats(0, 1))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Up to 3 interleaved groups of up to 5 members of up to 10 turns; one in six members is lost."""
    members = draw(st.lists(st.tuples(st.sampled_from("abc"), st.lists(REWARDS, max_size=10)), min_size=1, max_size=15))
    uids, rewards = [uid for uid, _ in members], [turns for _, turns in members]
    return lay_out(uids, rewards, random.Random(draw(st.integers(0, 999))), tokens=draw(st.sampled_from((20, 40))))


def marked(batch: Batch) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Rewards, mask and uids of a batch that our agent loop played; as doubles, so that no bit is rounded away."""
    _, mask, index = batch.tensors()
    rows = zip(batch.rewards, batch.spans, strict=True)
    laid = torch.stack([lay_out_rewards(values, spans, batch.tokens) for values, spans in rows])
    return laid.double(), mask, index


@STEADY
@given(batches())
def test_what_was_laid_out_is_read_back(batch: Batch) -> None:
    rewards, mask, _ = marked(batch)
    turns = read_turns(rewards, torch.zeros_like(mask), mask_edited=True)
    assert turns.count_B.tolist() == [len(values) for values in batch.rewards]
    spans = [(row, start, stop) for row, own in enumerate(batch.spans) for start, stop in own]
    at = turns.member_K * batch.tokens
    assert (
        list(zip(*(t.tolist() for t in (turns.member_K, turns.start_K - at, turns.stop_K - at)), strict=True)) == spans
    )
    found = turn_rewards(rewards, turns)
    for row, values in enumerate(batch.rewards):
        assert found[row, : len(values)].tolist() == torch.tensor(values, dtype=torch.float32).tolist()


@STEADY
@given(batches())
def test_whatever_verl_computes_from_the_rewards_is_unchanged(batch: Batch) -> None:
    rewards = marked(batch)[0].float()
    plain = batch.tensors(torch.float32)[0]
    assert torch.equal(rewards, plain)
    for same in (torch.sum, torch.mean, torch.amax, torch.amin):
        assert bits(same(rewards, -1) + 0.0).equal(bits(same(plain, -1) + 0.0))
    assert bits(rewards.sum(-1)).equal(bits(plain.sum(-1)))


def bits(values: torch.Tensor) -> torch.Tensor:
    """Floats as integers, so that 0.0 differs from -0.0 and NaN equals itself."""
    return values.contiguous().view(torch.int32 if values.dtype == torch.float32 else torch.int64)


@STEADY
@given(batches(), CONFIGS, st.integers(0, 999), st.sampled_from((0.0, 0.2, 0.9)))
def test_a_rejected_token_or_dialogue_moves_no_other_token(
    batch: Batch, config: TcsrConfig, seed: int, whole: float
) -> None:
    rewards, mask, index = marked(batch)
    generator = torch.Generator().manual_seed(seed)
    kept = mask * (torch.rand(mask.shape, generator=generator) < 0.6)
    kept = kept * (torch.rand(len(mask), 1, generator=generator) >= whole)
    clean = tcsr_advantage(rewards, mask, index, config)
    edited = tcsr_advantage(rewards, kept, index, config, mask_edited=True)
    for before, after in zip(clean, edited, strict=True):
        assert bits(after[kept == 1]).equal(bits(before[kept == 1]))
        assert not after[kept == 0].any()


@STEADY
@given(batches(), CONFIGS)
def test_equals_the_twin(batch: Batch, config: TcsrConfig) -> None:
    rounded = [torch.tensor(values, dtype=torch.float32).tolist() for values in batch.rewards]
    batch = Batch(batch.uids, rounded, batch.spans, batch.tokens)
    found, _ = tcsr_advantage(*marked(batch), config)
    torch.testing.assert_close(found, on_tokens(batch, twin_advantages(batch, config)), rtol=1e-6, atol=1e-6)


@STEADY
@given(batches(), CONFIGS, st.lists(st.integers(0, 14), max_size=6))
def test_lost_members_change_no_bit_of_their_siblings(batch: Batch, config: TcsrConfig, lost: list[int]) -> None:
    """Whether they stand in the batch as rows of zeros or not at all."""
    rewards, mask, index = marked(batch)
    alive = torch.tensor([bool(values) and row not in lost for row, values in enumerate(batch.rewards)])
    with_lost = tcsr_advantage(torch.where(alive[:, None], rewards, 0.0), mask * alive[:, None], index, config)
    without = tcsr_advantage(rewards[alive], mask[alive], index[alive.numpy()], config)
    for a, b in zip(with_lost, without, strict=True):
        assert bits(a[alive]).equal(bits(b)) and not a[~alive].any()


@STEADY
@given(batches(), CONFIGS, st.integers(0, 999))
def test_other_groups_and_the_order_of_rows_change_no_bit(batch: Batch, config: TcsrConfig, seed: int) -> None:
    """verl balances a batch over its ranks and pads it (trainer/ppo/v1/trainer_base.py:1608)."""
    rewards, mask, index = marked(batch)
    clean = tcsr_advantage(rewards, mask, index, config)[0]
    order = torch.randperm(len(mask), generator=torch.Generator().manual_seed(seed))
    assert bits(tcsr_advantage(rewards[order], mask[order], index[order.numpy()], config)[0]).equal(bits(clean[order]))
    for uid in set(batch.uids):
        own = torch.from_numpy(index == uid)
        assert bits(tcsr_advantage(rewards[own], mask[own], index[own.numpy()], config)[0]).equal(bits(clean[own]))


def test_the_better_dialogue_stays_the_better_one_when_a_turn_end_is_rejected() -> None:
    """0.9 against 0.3, two turns each: +-0.71, and so for every token that is left."""
    batch = lay_out(["u", "u"], [[0.9, 0.9], [0.3, 0.3]])
    rewards, mask, index = marked(batch)
    kept = mask.clone()
    kept[0, batch.spans[0][0][1] - 1] = 0
    advantages = tcsr_advantage(rewards, kept, index, tcsr_config(None), mask_edited=True)[0]
    for row, wanted in enumerate((0.71, -0.71)):
        assert advantages[row][kept[row] == 1].tolist() == pytest.approx([wanted] * int(kept[row].sum()), abs=0.005)


def test_a_row_of_another_agent_loop_has_the_runs_of_its_mask_for_turns() -> None:
    batch = random_batch(random.Random(4))
    rewards, mask, index = batch.tensors(torch.float32, noise=True)
    ours = marked(batch)[0].float()
    mixed = torch.where(torch.arange(len(mask))[:, None] % 2 == 0, rewards, ours)
    found = tcsr_advantage(mixed, mask, index, tcsr_config(None))[0]
    assert torch.equal(found, tcsr_advantage(ours, mask, index, tcsr_config(None))[0])


def test_rejection_without_turn_spans_is_refused() -> None:
    rewards, mask, index = random_batch(random.Random(4)).tensors()
    section = {"rollout_correction": {"rollout_rs": "token_k1"}}
    with pytest.raises(ConfigError, match=r"rollout_rs takes tokens out .* set rollout_rs=null"):
        compute_tcsr_advantage(rewards, mask, index, section)
    section["rollout_correction"]["rollout_rs"] = None  # type: ignore[assignment]
    compute_tcsr_advantage(rewards, mask, index, section)


def test_a_mask_that_grew_is_an_error() -> None:
    rewards, mask, index = marked(lay_out(["u", "u"], [[0.9, 0.0], [0.3]]))
    mask[0] = 1
    with pytest.raises(ValueError, match="1 dialogues have response_mask 1 outside of the turns"):
        tcsr_advantage(rewards, mask, index, tcsr_config(None))


@pytest.mark.parametrize(
    ("rewards", "spans", "message"),
    [
        ([1.0], [], "1 turn rewards for 0 turns"),
        ([1.0, 1.0], [(0, 3), (3, 5)], "touches the one before"),
        ([1.0], [(2, 2)], "is empty"),
        ([1.0], [(4, 9)], "outside"),
    ],
)
def test_what_cannot_be_laid_out_is_an_error(rewards: list[float], spans: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lay_out_rewards(rewards, spans, 8)


def test_a_reward_that_is_no_number_stays_one() -> None:
    assert math.isnan(lay_out_rewards([math.nan], [(0, 2)], 3)[1])


@STEADY
@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5), min_size=2, max_size=6))
def test_plain_grpo_is_a_setting_of_tcsr(rewards: list[list[float]]) -> None:
    """On whole groups, verl's own GRPO of the same tensor, which sums a dialogue's rewards; preflight names it."""
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    scores, mask, index = marked(lay_out(["u"] * len(rewards), rewards))
    ours, _ = tcsr_advantage(scores, mask, index, TcsrConfig(**PLAIN_GRPO))
    theirs, _ = core_algos.compute_grpo_outcome_advantage(scores.float(), mask, index)
    if scores.sum(-1).std() > 1e-3:  # verl's float32 mean of equal scores is off by rounding, which its scale blows up
        torch.testing.assert_close(ours.float(), theirs, rtol=2e-3, atol=2e-3)
