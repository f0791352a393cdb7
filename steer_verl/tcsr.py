"""TCSR, trajectory-consistent safety reward: turn rewards -> shaped rewards -> returns -> group advantages.

The game, per member of a group with turn rewards r_1..r_n in [0, 1] (paper, Stage III; docs/method.md has the why):

    shaped     s_t = alpha * min_{j<=t} r_j + (1 - alpha) * mean_{j<=t} r_j    (``shaping: prefix``)
               s_n for all t (``shaping: trajectory``), or r_t (``shaping: none``)
    to go      G_t = agg_{k>=t} s_k, agg one of sum, mean, last, or own: s_t; for t > n held at G_n
    advantage  A_t = (G_t - mean over the group) / (one scale for the group + eps)      (``credit: turn``)
               A_t = (G_1 - mean over the group) / (std over the group + eps)           (``credit: trajectory``)

Turn spans travel in the sign of zero. verl hands an estimator the rewards and the response mask, per token, and nothing
else; ``algorithm.rollout_correction.rollout_rs`` takes tokens out of the mask first, so that a hole in it need not be
the end of a turn. Nobody edits the rewards. There, :func:`lay_out_rewards` writes and :func:`read_turns` reads:

    the turn's last student token     its reward; a reward of 0 as -0.0
    the turn's other student tokens   -0.0
    every other token                 +0.0; at least one between two turns

-0.0 equals 0.0, and no sum or mean changes. So a rejected token or dialogue loses its own gradient and moves nobody
else's baseline, as in verl's GRPO, which sums the rewards whatever the mask says (trainer/ppo/core_algos.py:304).

Shapes: B members, T response tokens, N turns (ragged, padded to the longest), K turns of all members, G groups.
Every step is linear in tokens and has no Python loop over them. Statistics are float64 whatever the rewards' type.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steer_verl.config import TcsrConfig, section_of, tcsr_config
from steer_verl.errors import ConfigError, UnscoredError

logger = logging.getLogger(__name__)

EPSILON = 1e-6
"""Added to the scale before dividing, as in verl's GRPO (trainer/ppo/core_algos.py:268)."""

TIE = 1e-8
"""A group whose scale is below this differs by rounding alone (float32 resolves 6e-8 near 1): its advantages are 0."""


_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By the bytes of a floating type: the bits of a reward tell -0.0 from +0.0."""


@dataclass(frozen=True)
class Turns:
    """Where the K turns of a batch are, by member, then by time. Positions are in the flattened (B * T) batch."""

    member_K: Tensor
    """Row of the batch."""
    number_K: Tensor
    """0-based turn number within the member."""
    start_K: Tensor
    """First student token."""
    stop_K: Tensor
    """One past the last student token, the one that carries the turn's reward."""
    count_B: Tensor
    """Turns of each member; 0 for an invalid one."""

    @property
    def depth(self) -> int:
        """N, the turns of the longest member; at least 1."""
        return max([1, *self.count_B.tolist()])


def find_turns(mask_BT: Tensor) -> Turns:
    """The maximal runs of 1s in a mask (B, T)."""
    members, tokens = mask_BT.shape
    line = torch.zeros(members * (tokens + 1) + 1, dtype=torch.bool, device=mask_BT.device)
    line[1:].view(members, tokens + 1)[:, :tokens] = mask_BT  # a 0 around every row keeps the runs of two rows apart
    edges = (line[1:] != line[:-1]).nonzero()[:, 0]
    member_K = edges[0::2] // (tokens + 1)
    count_B = torch.bincount(member_K, minlength=members)
    number_K = torch.arange(len(member_K), device=mask_BT.device) - (count_B.cumsum(0) - count_B)[member_K]
    return Turns(member_K, number_K, edges[0::2] - member_K, edges[1::2] - member_K, count_B)


def lay_out_rewards(rewards: Sequence[float], spans: Sequence[tuple[int, int]], length: int) -> Tensor:
    """One dialogue's rewards and turn spans as verl's ``rm_scores``, (T,) float32; see the top of this file.

    Args:
        rewards: of the turns with loss, in order.
        spans: first and one past the last student token of each of these turns, counted in the response.
        length: T, the response tokens.

    Raises:
        ValueError: rewards and turns differ in number, or turns overlap, touch, are empty or reach beyond ``length``.
    """
    if len(rewards) != len(spans):
        raise ValueError(f"{len(rewards)} turn rewards for {len(spans)} turns with loss")
    values = torch.tensor(list(rewards), dtype=torch.float32)
    values = torch.where(values == 0, -0.0, values)
    laid_T = torch.zeros(length)
    before = -1
    for value, (start, stop) in zip(values, spans, strict=True):
        if not before < start < stop <= length:
            raise ValueError(
                f"the turn {start}..{stop} of {length} tokens is empty, outside, or touches the one before"
            )
        laid_T[start : stop - 1] = -0.0
        laid_T[stop - 1] = value
        before = stop
    return laid_T


def read_turns(rewards_BT: Tensor, mask_BT: Tensor, mask_edited: bool = False) -> Turns:
    """The turns of a batch, whatever was taken out of its mask.

    A row that holds a -0.0 was written by :func:`lay_out_rewards`: its turns are the runs of all that is not +0.0.
    Another row comes from another agent loop, or its turns have one token each: its turns are the runs of its mask,
    and a mask of all 0 means no turn.

    Args:
        rewards_BT: verl's ``token_level_rewards``.
        mask_BT: the response mask, perhaps with tokens taken out.
        mask_edited: tokens may have been taken out (``rollout_rs``), so that the mask tells of no turn.

    Raises:
        ConfigError: the mask was edited, and a row carries no turn spans.
        ValueError: a row carries turn spans, and its mask holds a 1 outside of them.
    """
    bits_BT = rewards_BT.view(_INTEGERS[rewards_BT.element_size()])
    marked_BT, mask_BT = bits_BT != 0, mask_BT.bool()  # +0.0 alone has no bit set
    if not (marked_BT != mask_BT).count_nonzero():  # as our own loop leaves them, and by far the quickest
        return find_turns(marked_BT)
    ours_B = (bits_BT == torch.iinfo(bits_BT.dtype).min).any(1)  # a -0.0
    stray_B = (mask_BT & ~marked_BT).any(1)
    if mask_edited and (stray_B & ~ours_B).any():
        raise ConfigError(
            "algorithm.rollout_correction.rollout_rs takes tokens out of the mask, and dialogues of this batch carry "
            "no turn spans (their agent loop is not steer_dialogue): set rollout_rs=null, or write rm_scores with "
            "steer_verl.tcsr.lay_out_rewards"
        )
    if (stray_B & ours_B).any():
        raise ValueError(
            f"{int((stray_B & ours_B).sum())} dialogues have response_mask 1 outside of the turns that their rm_scores "
            "carry: something changed one of the two (or an agent loop of your own wrote -0.0 for a reward: write 0.0)"
        )
    by_marks_B = torch.ones_like(ours_B) if mask_edited else ours_B
    return find_turns(torch.where(by_marks_B[:, None], marked_BT, mask_BT))


def turn_rewards(rewards_BT: Tensor, turns: Turns) -> Tensor:
    """The turns' rewards, (B, N) float64; 0 beyond a member's last turn."""
    rewards_BN = rewards_BT.new_zeros((len(turns.count_B), turns.depth), dtype=torch.float64)
    rewards_BN[turns.member_K, turns.number_K] = rewards_BT.reshape(-1)[turns.stop_K - 1].double()
    return rewards_BN


def hold_last(values_BN: Tensor, count_B: Tensor) -> Tensor:
    """``values_BN`` with every place beyond a member's last turn filled with its value at that turn."""
    place_N = torch.arange(values_BN.shape[1], device=values_BN.device)
    return values_BN.gather(1, torch.minimum(place_N[None], (count_B - 1).clamp(min=0)[:, None]))


def shape_rewards(rewards_BN: Tensor, count_B: Tensor, alpha: float, shaping: str = "prefix") -> Tensor:
    """Shaped rewards s_t (B, N), held at s_n beyond the last turn; in the range of the rewards and monotone in each."""
    if shaping == "none":
        return hold_last(rewards_BN, count_B)
    turns_N = torch.arange(1, rewards_BN.shape[1] + 1, device=rewards_BN.device, dtype=rewards_BN.dtype)
    minimum_BN = rewards_BN.cummin(dim=1).values
    mean_BN = rewards_BN.cumsum(dim=1) / turns_N
    shaped_BN = hold_last(alpha * minimum_BN + (1 - alpha) * mean_BN, count_B)
    return shaped_BN if shaping == "prefix" else shaped_BN[:, -1:].expand_as(shaped_BN)


def returns_to_go(shaped_BN: Tensor, count_B: Tensor, aggregation: str = "mean") -> Tensor:
    """Return-to-go G_t (B, N) over a member's own turns from t on, held at G_n beyond the last. G_1 is the return."""
    if aggregation == "own":
        return hold_last(shaped_BN, count_B)
    if aggregation == "last":
        return hold_last(shaped_BN, count_B)[:, -1:].expand_as(shaped_BN)
    place_N = torch.arange(shaped_BN.shape[1], device=shaped_BN.device)
    left_BN = count_B[:, None] - place_N  # turns left, this one included
    own_BN = shaped_BN * (left_BN > 0)
    to_go_BN = own_BN.flip(1).cumsum(1).flip(1)
    if aggregation == "mean":
        to_go_BN = to_go_BN / left_BN.clamp(min=1)
    return hold_last(to_go_BN, count_B)


def group_numbers(index: Iterable[Hashable], device: torch.device) -> Tensor:
    """Group of each member, 0..G-1 in order of appearance, from verl's uids. (B,)"""
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(uid, len(numbers)) for uid in index], dtype=torch.long, device=device)


def group_advantages(returns_BN: Tensor, group_B: Tensor, count_B: Tensor, normalize_std: bool = True) -> Tensor:
    """Returns against their group's, turn number by turn number. (B, N); N is 1 for credit per trajectory.

    Every valid member (``count_B > 0``) is in the baseline of every turn number, with its held return if its dialogue
    was shorter: were it left out, late turns would weigh less than early ones, those of a lone long dialogue nothing.
    The scale is one number a group, the root of the mean over turn numbers of the unbiased variance: what a turn weighs
    then depends on what was at stake in it, not on how few members reached it.

    Invalid members and groups with fewer than two valid members get 0, and so does a group without a difference.

    A member's advantage is the same, bit for bit, without the group's invalid members, without the batch's other
    groups, and in any order of the members.
    """
    valid_B = (count_B > 0).to(returns_BN.dtype)
    groups = int(group_B.max()) + 1 if len(group_B) else 0
    place_N = torch.arange(returns_BN.shape[1], device=returns_BN.device)
    depth_G = count_B.new_zeros(groups).scatter_reduce(0, group_B, count_B, "amax")

    def total(values_BN: Tensor) -> Tensor:
        """Sums over each group, smallest value first: the same bits whatever the order of the members."""
        sorted_BN, order_BN = values_BN.sort(dim=0)
        return values_BN.new_zeros((groups, values_BN.shape[1])).scatter_add(0, group_B[order_BN], sorted_BN)

    members_G = total(valid_B[:, None])[:, 0]
    mean_GN = total(returns_BN * valid_B[:, None]) / members_G.clamp(min=1)[:, None]
    deviation_BN = (returns_BN - mean_GN[group_B]) * valid_B[:, None]
    variance_GN = total(deviation_BN**2) / (members_G - 1).clamp(min=1)[:, None]
    reached_GN = place_N[None] < depth_G[:, None]
    summed_G = (variance_GN * reached_GN).cumsum(1)[:, -1]  # in order, so that the padding beyond changes no bit
    scale_G = (summed_G / reached_GN.sum(1).clamp(min=1)).sqrt()
    factor_G = 1 / (scale_G + EPSILON) if normalize_std else torch.ones_like(scale_G)
    factor_G = factor_G * (scale_G > TIE)  # a lone member is at its own mean, so its scale is 0
    return deviation_BN * factor_G[group_B][:, None]


def to_tokens(values: Sequence[Tensor], turns: Turns, tokens: Tensor) -> list[Tensor]:
    """Lay each turn's value, (B, N) or (B, 1), on all of its student tokens and 0 elsewhere; like ``tokens`` (B, T)."""
    bounds = torch.stack((turns.start_K, turns.stop_K), dim=1).flatten()
    lengths = torch.diff(bounds, prepend=bounds.new_zeros(1), append=bounds.new_full((1,), tokens.numel()))
    place = torch.repeat_interleave(lengths.int(), output_size=tokens.numel())  # gap, turn, gap, ..., turn, gap
    laid = []
    for values_BN in values:
        values_P = tokens.new_zeros(len(lengths))
        values_P[1::2] = values_BN.expand(-1, turns.depth)[turns.member_K, turns.number_K].to(tokens.dtype)
        laid.append(values_P.index_select(0, place).view(tokens.shape))
    return laid


def trajectory_return(rewards: Sequence[float], config: TcsrConfig) -> float:
    """One dialogue on the scale of a turn reward: the mean of its shaped rewards, whatever ``aggregation`` trains on.

    Comparable between dialogues of different length; 1 exactly when every turn earned 1.

    Args:
        rewards: of the scored turns, in order.
        config: its ``alpha`` and ``shaping`` count.

    Raises:
        UnscoredError: there is no reward to shape.
    """
    if not rewards:
        raise UnscoredError("a dialogue without a scored turn has no return; leave it out")
    rewards_BN, count_B = torch.tensor([list(rewards)], dtype=torch.float64), torch.tensor([len(rewards)])
    return float(shape_rewards(rewards_BN, count_B, config.alpha, config.shaping).mean())


@torch.no_grad()
def tcsr_advantage(
    rewards_BT: Tensor, mask_BT: Tensor, index: Iterable[Hashable], config: TcsrConfig, mask_edited: bool = False
) -> tuple[Tensor, Tensor]:
    """Advantages and returns of a batch, both (B, T), 0 off the mask, in the rewards' dtype, on their device.

    Args:
        rewards_BT: As :func:`lay_out_rewards` writes them; or, from another agent loop, a turn's reward on its last
            student token, where nothing else is read, NaN included.
        mask_BT: 1 on student tokens. One taken out loses its own advantage and changes no other.
        index: The uid of each member; members of a group need not be neighbours.
        config: Shaping, aggregation, credit, normalisation.
        mask_edited: as in :func:`read_turns`.

    Raises:
        ConfigError, ValueError: by :func:`read_turns`.
    """
    turns = read_turns(rewards_BT, mask_BT, mask_edited)
    rewards_BN = turn_rewards(rewards_BT, turns)
    finite_B = rewards_BN.isfinite().all(1)
    if not finite_B.all():
        logger.warning("%d members hold a turn reward that is no number; they count as invalid", int((~finite_B).sum()))
        rewards_BN = rewards_BN.masked_fill(~finite_B[:, None], 0.0)
    count_B = turns.count_B * finite_B
    shaped_BN = shape_rewards(rewards_BN, count_B, config.alpha, config.shaping)
    returns_BN = returns_to_go(shaped_BN, count_B, config.aggregation)
    if config.credit == "trajectory":
        returns_BN = returns_BN[:, :1]
    group_B = group_numbers(index, mask_BT.device)
    advantages_BN = group_advantages(returns_BN, group_B, count_B, config.normalize_std)
    laid = to_tokens((advantages_BN, returns_BN), turns, rewards_BT)
    if int((turns.stop_K - turns.start_K).sum()) != int(mask_BT.count_nonzero()):  # tokens were taken out of the mask
        laid = [values_BT.masked_fill_(mask_BT == 0, 0) for values_BT in laid]
    return laid[0], laid[1]


def compute_tcsr_advantage(
    token_level_rewards: Tensor, response_mask: Tensor, index: Any = None, config: Any = None, **_: Any
) -> tuple[Tensor, Tensor]:
    """verl's advantage estimator ``tcsr`` (calling convention: verl trainer/ppo/ray_trainer.py:248-279).

    Args:
        token_level_rewards: (B, T) float, verl's ``rm_scores``.
        response_mask: (B, T), 1 on student tokens, after verl's rejection sampling.
        index: numpy array of B uids.
        config: verl's ``algorithm`` section or ``None``; its key ``tcsr`` is parsed by
            :func:`steer_verl.config.tcsr_config`, and an absent one is the ``steer`` preset.

    Returns:
        ``(advantages, returns)``, both (B, T), multiplied by the mask.

    Raises:
        ConfigError: a setting of ``algorithm.tcsr`` cannot work, the KL penalty is in the reward, there are no uids, or
            ``rollout_correction.rollout_rs`` is set and a row carries no turn spans.
        ValueError: the mask holds a 1 outside of a row's turn spans.
    """
    section = config.get("tcsr") if config is not None else None
    rejecting = bool(section_of(config, "rollout_correction.rollout_rs"))
    if config is not None and config.get("use_kl_in_reward"):
        raise ConfigError(
            "algorithm.use_kl_in_reward would put a penalty into the turn rewards that tcsr reads; set it to False and "
            "actor_rollout_ref.actor.use_kl_loss to True"
        )
    if index is None:
        raise ConfigError("algorithm.adv_estimator=tcsr compares the members of a group, but the batch has no uid")
    return tcsr_advantage(token_level_rewards, response_mask, index, tcsr_config(section), mask_edited=rejecting)
