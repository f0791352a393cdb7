"""What the choices in TCSR do, without a model: ``python benchmarks/tcsr.py`` prints the tables of docs/method.md.

Dialogues come from a toy student with one chance of a good answer per turn, so that the exact score function of every
answer is known and the policy gradient of each credit scheme can be taken apart turn by turn. Seconds to run; seeded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from steer_verl.config import TCSR_PRESETS, TcsrConfig, tcsr_config
from steer_verl.tcsr import group_advantages, returns_to_go, shape_rewards

MEMBERS, GROUPS = 5, 4000
SCHEMES = {
    "paper": TCSR_PRESETS["paper"],
    "released": TCSR_PRESETS["released"],
    "prefix, mean, trajectory": {**TCSR_PRESETS["steer"], "credit": "trajectory"},
    "prefix, sum, turn": {**TCSR_PRESETS["steer"], "aggregation": "sum"},
    "steer": TCSR_PRESETS["steer"],
}


def advantages(rewards_BN: Tensor, count_B: Tensor, config: TcsrConfig) -> tuple[Tensor, Tensor]:
    """Returns and advantages (B, N) of consecutive groups of MEMBERS."""
    to_go = returns_to_go(shape_rewards(rewards_BN, count_B, config.alpha, config.shaping), count_B, config.aggregation)
    to_go = to_go[:, :1] if config.credit == "trajectory" else to_go
    group = torch.arange(len(count_B)) // MEMBERS
    found = group_advantages(to_go, group, count_B, config.normalize_std)
    return to_go[:, 0], found.expand(-1, rewards_BN.shape[1])


def play(turns: int, good: float, spill: float) -> tuple[Tensor, Tensor]:
    """Rewards and score functions (B, N); after a first bad answer the chance is ``spill`` less."""
    shape = (MEMBERS * GROUPS, turns)
    rewards, scores = torch.empty(shape, dtype=torch.float64), torch.empty(shape, dtype=torch.float64)
    failed = torch.zeros(shape[0], dtype=torch.bool)
    for t in range(turns):
        chance = good - spill * failed.double()
        is_good = torch.rand(shape[0]) < chance
        rewards[:, t] = torch.where(is_good, 0.95, 0.25) + 0.1 * (torch.rand(shape[0]) - 0.5)
        scores[:, t] = is_good.double() - chance
        failed |= ~is_good
    return rewards, scores


def one_failure() -> None:
    """Return of a 4-turn dialogue, perfect but for one turn of reward 0, as a share of the perfect return."""
    print("\n## One failed turn of four: return as a share of a perfect dialogue's\n")
    print("| preset | turn 1 | 2 | 3 | 4 |\n|---|---|---|---|---|")
    for name in TCSR_PRESETS:
        config = tcsr_config({"preset": name})
        rewards = torch.cat([1 - torch.eye(4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)])
        returns = advantages(rewards, torch.full((5,), 4), config)[0]
        print(f"| {name} |", " | ".join(f"{share:.2f}" for share in returns[:4] / returns[4]), "|")


def length() -> None:
    """Rewards independent of length: what does length alone earn?"""
    print("\n## Length alone: uniform rewards, independent of the number of turns\n")
    print("| preset | return at 2 turns | 5 | 10 | std advantage of turn 1 at 2 turns | 5 | 10 |")
    print("|---|---|---|---|---|---|---|")
    for name in TCSR_PRESETS:
        config = tcsr_config({"preset": name, "normalize_std": True})
        rewards = torch.rand(MEMBERS * GROUPS, 10, dtype=torch.float64)
        count = torch.randint(2, 11, (len(rewards),))
        returns, found = advantages(rewards, count, config)
        figures = [float(returns[count == n].mean()) for n in (2, 5, 10)]
        figures += [float(found[count == n, 0].mean()) for n in (2, 5, 10)]
        print(f"| {name} |", " | ".join(f"{figure:+.2f}" for figure in figures), "|")


def signal() -> None:
    """Signal to noise of one group's gradient: mean over standard deviation, for each turn and in all."""
    for good, spill in ((0.6, 0.0), (0.9, 0.0), (0.9, 0.3)):
        print(f"\n## Signal to noise of one group's gradient, 6 turns, {good} good, {spill} less after a failure\n")
        print("| scheme | turn 1 | 2 | 3 | 4 | 5 | 6 | all |\n|---|---|---|---|---|---|---|---|")
        torch.manual_seed(0)
        rewards, scores = play(6, good, spill)
        for name, values in SCHEMES.items():
            found = advantages(rewards, torch.full((len(rewards),), 6), tcsr_config(values))[1]
            gradient = (found * scores).view(GROUPS, MEMBERS, 6).mean(1)
            mean, std = gradient.mean(0), gradient.std(0)
            whole = mean.norm() / std.norm()
            print(f"| {name} |", " | ".join(f"{ratio:.2f}" for ratio in [*(mean / std), whole]), "|")


if __name__ == "__main__":
    torch.manual_seed(0)
    one_failure()
    length()
    signal()
