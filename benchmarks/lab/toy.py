"""Four small worlds without a model, in which all arms of TCSR learn: ``python -m benchmarks.lab.toy [--seeds 40]``.

A linear softmax policy answers T questions of an attacked or a benign dialogue: it *tells*, *refuses* or *offers* an
alternative, and earns what the laboratory's tutor pays. What differs is how turns hang together:

    independent   they do not
    concession    once it told, the attacker's next question works better
    lever         a generous first answer earns more (1 against .9), and hands the attacker every third later turn
    risky offer   nobody tells; an offer earns more than a plain refusal, and leaks with chance ``leak``

Training seeds are one dimension of every tensor: S seeds, P prompts of K rollouts, T turns, D features. All arms of a
seed see the same dice. Adam makes their steps equally large, whatever the scale of their advantages; prefix shaping
with one advantage a dialogue is therefore the paper's arm, its sum or mean being all the same.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks.lab.window import ARMS, arm_config, outcomes
from steer_verl.config import TcsrConfig
from steer_verl.statistics.intervals import student_t
from steer_verl.tcsr import group_advantages, returns_to_go, shape_rewards

WORLDS = ("independent", "concession", "lever", "risky offer")
TELL, REFUSE, OFFER = range(3)
SAFE, OFFERED, LEAKED = outcomes()
TOLD, OVER_REFUSED, GUARDED = 0.2, 0.378, 0.9
"""A breach (1, 1, 10), a safe request refused (5, 1, 10), and the lever world's first answer without the lever."""
PROMPTS, ROLLOUTS, WORDINGS, STEPS, LR = 8, 5, 4, 60, 0.05
CHECKPOINTS = (10, 20, 40, 60)
"""Steps; the last one is the end. In the proportions of the laboratory's 4, 8, 16 and 24."""
D = 2 + 2 * WORDINGS + 2
"""Bias and wordings, for free and for sealed devices; a concession made; the first turn of the lever world."""


class Played(NamedTuple):
    """Dialogues of S seeds, each (S, P, K, T) but ``attacked`` (S, P)."""

    rewards: Tensor
    log_probs: Tensor
    broken: Tensor
    attacked: Tensor
    told: Tensor


def first_policy(world: str, seeds: int) -> Tensor:
    """Weights (S, D, 3): sealed devices mostly declined, less so under some wordings; free ones mostly told."""
    weights = torch.zeros(seeds, D, 3)
    weights[:, 0] = torch.tensor([2.0, -1.0, -1.0])
    weights[:, 1] = torch.tensor([-9.0, -0.85, 0.85] if world == "risky offer" else [-1.5, 0.0, 0.5])
    weights[:, 2 + WORDINGS : 2 + 2 * WORDINGS, TELL] = torch.tensor([0.0, 0.5, 1.0, 1.5])
    if world == "concession":
        weights[:, D - 2, TELL] = 2.5
    return weights


def play(
    weights: Tensor, world: str, turns: int, benign: float, leak: float, dice: torch.Generator, prompts: int = PROMPTS
) -> Played:
    """Play a batch of every seed."""
    shape = (len(weights), prompts, ROLLOUTS)
    attacked = torch.rand(shape[:2], generator=dice) >= benign
    sealed = attacked[..., None].expand(shape)
    conceded, lever = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    columns: list[tuple[Tensor, ...]] = []
    for turn in range(turns):
        opening = world == "lever" and turn == 0
        wording = one_hot(torch.randint(WORDINGS, shape, generator=dice), WORDINGS)
        kind = sealed[..., None].float()
        found = [1 - kind, kind, (1 - kind) * wording, kind * wording, conceded[..., None], torch.zeros_like(kind)]
        features = torch.cat(found, -1)
        if opening:
            features = one_hot(torch.full(shape, D - 1), D).float()
        logits = torch.einsum("spkd,sda->spka", features, weights)
        if opening:
            logits = logits - torch.tensor([0.0, 0.0, 99.0])  # generous or guarded
        noise = -torch.log(-torch.log(torch.rand((*shape, 3), generator=dice).clamp(1e-6, 1 - 1e-6)))
        action = (logits.detach() + noise).argmax(-1)
        chosen = logits.log_softmax(-1).gather(-1, action[..., None])[..., 0]
        luck = torch.rand(shape, generator=dice)
        tells = (action == TELL) & ~torch.tensor(opening)
        leaks = (action == OFFER) & sealed & (luck < (leak if world == "risky offer" else 0))
        forced = lever & sealed & (luck < 1 / 3) & ~torch.tensor(opening)
        broken = (tells & sealed) | leaks | forced
        earned = torch.where(action == OFFER, OFFERED, SAFE).where(~leaks, LEAKED).where(~(tells | forced), TOLD)
        earned = torch.where(sealed, earned, torch.where(tells, 1.0, OVER_REFUSED))
        if opening:
            earned, lever = torch.where(action == TELL, 1.0, GUARDED), action == TELL
        if world == "concession":
            conceded = torch.maximum(conceded, broken.float())
        columns.append((earned, chosen, broken, tells))
    rewards, log_probs, failed, told = (torch.stack(column, -1) for column in zip(*columns, strict=True))
    return Played(rewards, log_probs, failed, attacked, told)


def advantages(rewards: Tensor, config: TcsrConfig) -> Tensor:
    """Of every turn, like ``rewards`` (S, P, K, T)."""
    rewards_BN = rewards.reshape(-1, rewards.shape[-1]).double()
    count_B = torch.full((len(rewards_BN),), rewards.shape[-1])
    shaped_BN = shape_rewards(rewards_BN, count_B, config.alpha, config.shaping)
    to_go_BN = returns_to_go(shaped_BN, count_B, config.aggregation)
    if config.credit == "trajectory":
        to_go_BN = to_go_BN[:, :1]
    group_B = torch.arange(len(rewards_BN)) // ROLLOUTS
    found_BN = group_advantages(to_go_BN, group_B, count_B, config.normalize_std)
    return found_BN.expand_as(rewards_BN).reshape(rewards.shape).float()


def train(
    world: str, config: TcsrConfig, *, turns: int = 8, benign: float = 0.0, leak: float = 0.15, seeds: int = 40
) -> Tensor:
    """(4, S): unbroken dialogues in per cent, mean over checkpoints and at the end; at the end also the mean reward
    under attack, and how often steps are told to benign users, in per cent."""
    weights = first_policy(world, seeds).requires_grad_()
    optimizer, dice = torch.optim.Adam([weights], lr=LR), torch.Generator().manual_seed(1)
    held = []
    for step in range(1, STEPS + 1):
        played = play(weights, world, turns, benign, leak, dice)
        loss = -(advantages(played.rewards, config) * played.log_probs).mean((1, 2, 3)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in CHECKPOINTS:
            with torch.no_grad():
                attack = play(weights, world, turns, 0.0, leak, torch.Generator().manual_seed(2), prompts=80)
            held.append(100 * (~attack.broken.any(-1)).float().mean((1, 2)))
    with torch.no_grad():
        help_ = play(weights, world, turns, 1.0, leak, torch.Generator().manual_seed(3), prompts=20)
    told = 100 * help_.told[..., 1:].float().mean((1, 2, 3))
    return torch.stack((torch.stack(held).mean(0), held[-1], attack.rewards.mean((1, 2, 3)), told))


def with_interval(values_S: Tensor, digits: int = 1) -> str:
    """Mean and half of its 95 % interval over seeds."""
    half = float(student_t(len(values_S) - 1)) * float(values_S.std()) / len(values_S) ** 0.5
    return f"{float(values_S.mean()):.{digits}f} +- {half:.{digits}f}"


def table(world: str, *, benign: float, std: bool, seeds: int, leak: float = 0.15, turns: int = 8) -> Iterator[str]:
    """Markdown: every arm of a world, and how far it is from the plain mean, paired by seed."""
    yield f"\n## {world}, T {turns}, {benign:.0%} benign, std {'on' if std else 'off'}" + (
        f", {leak:.0%} of offers leak" if world == "risky offer" else ""
    )
    yield "\n| arm | alpha | unbroken %, checkpoints | against the plain mean | at the end | mean reward | helped % |"
    yield "|---|---|---|---|---|---|---|"
    mean = None
    for arm, alpha in itertools.product(
        [arm for arm in ARMS if arm not in ("prefix_only", "steer_no_std")], (0.3, 0.6)
    ):
        config = arm_config(arm, alpha, normalize_std=std)
        if config.shaping == "none" and alpha == 0.6:
            continue
        unbroken, last, reward, told = train(world, config, turns=turns, benign=benign, leak=leak, seeds=seeds)
        mean = unbroken if mean is None else mean
        shown = "-" if config.shaping == "none" else f"{alpha}"
        yield (
            f"| {arm} | {shown} | {with_interval(unbroken)} | {with_interval(unbroken - mean)} | "
            f"{with_interval(last)} | {with_interval(reward, 3)} | {with_interval(told) if benign else '-'} |"
        )


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--worlds", nargs="+", default=WORLDS, choices=WORLDS)
    parser.add_argument("--leak", type=float, default=0.15, help="share of risky offers that leak")
    parser.add_argument("--turns", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for world, benign, std in itertools.product(args.worlds, (0.0, 0.4), (True, False)):
        for line in table(world, benign=benign, std=std, seeds=args.seeds, leak=args.leak, turns=args.turns):
            print(line, flush=True)


if __name__ == "__main__":
    main()
