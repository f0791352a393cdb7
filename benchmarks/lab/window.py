"""Which leak rates tell the arms of TCSR apart in the world of risky offers: ``python -m benchmarks.lab.window``.

Every steps question is answered by a plain refusal, or by an offer, which leaks with chance ``leak``. All courses of T
turns are enumerated (3^T), rewarded as the recipe does and shaped by steer_verl/tcsr.py itself; nothing is sampled. The
policy offers with chance p in every turn. Its slope is the expected policy gradient on p, without the division by a
group's spread, which no enumeration of single dialogues can have.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
import torch

from steer_verl.config import TCSR_PRESETS, RewardConfig, TcsrConfig, tcsr_config
from steer_verl.rewards import weighted_score
from steer_verl.tcsr import returns_to_go, shape_rewards
from steer_verl.types import Scores

ARMS = {
    "plain_mean": {"shaping": "none", "aggregation": "mean", "credit": "trajectory"},
    "turn_local": {"shaping": "none", "aggregation": "own", "credit": "turn"},
    "raw_to_go": {"shaping": "none", "aggregation": "mean", "credit": "turn"},
    "prefix_only": {"shaping": "prefix", "aggregation": "mean", "credit": "trajectory"},
    "steer": TCSR_PRESETS["steer"],
    "steer_no_std": {**TCSR_PRESETS["steer"], "normalize_std": False},
    "paper": TCSR_PRESETS["paper"],
    "released": TCSR_PRESETS["released"],
}


def arm_config(name: str, alpha: float = 0.3, **more: object) -> TcsrConfig:
    """The TCSR settings of an arm."""
    return tcsr_config({"normalize_std": True, **ARMS[name], "alpha": alpha, **more})


def outcomes() -> tuple[float, float, float]:
    """Rewards of a plain refusal (8, 8, 10), of an offer that holds (10, 10, 10) and of one that leaks (4, 1, 10)."""
    scores = [Scores(safety=safety, usefulness=use, faithfulness=10) for safety, use in ((8, 8), (10, 10), (4, 1))]
    safe, offer, leak = ((weighted_score(one, RewardConfig().weights) - 1) / 9 for one in scores)
    return safe, offer, leak


@lru_cache(maxsize=8)
def courses(turns: int) -> np.ndarray:
    """Every course of a dialogue, (3^T, T): 0 a plain refusal, 1 an offer that holds, 2 one that leaks."""
    return np.array(list(itertools.product(range(3), repeat=turns)))


@lru_cache(maxsize=64)
def returns(arm: str, alpha: float, turns: int) -> np.ndarray:
    """G_t of every course, (3^T, T), on the scale of a mean; one value a course where an arm has one advantage."""
    config, course_CT = arm_config(arm, alpha), courses(turns)
    rewards_CT = torch.tensor(outcomes(), dtype=torch.float64)[torch.from_numpy(course_CT)]
    count_C = torch.full((len(course_CT),), turns)
    shaped_CT = shape_rewards(rewards_CT, count_C, config.alpha, config.shaping)
    to_go_CT = returns_to_go(shaped_CT, count_C, config.aggregation).numpy()
    if config.aggregation == "sum":
        to_go_CT = to_go_CT / turns
    return np.broadcast_to(to_go_CT[:, :1], to_go_CT.shape) if config.credit == "trajectory" else to_go_CT


def slope(arm: str, alpha: float, turns: int, leak: float, offers: float) -> float:
    """Expected gradient on the chance of an offer, summed over the turns."""
    course_CT = courses(turns)
    chance_CT = np.array([1 - offers, offers * (1 - leak), offers * leak])[course_CT]
    score_CT = np.array([-1 / (1 - offers), 1 / offers, 1 / offers])[course_CT]
    return float((chance_CT.prod(1)[:, None] * returns(arm, alpha, turns) * score_CT).sum())


def worth(arm: str, alpha: float, turns: int, leak: float, offers: float) -> float:
    """Expected return of the dialogue, G_1; 0 ** 0 is 1."""
    chance_CT = np.array([1 - offers, offers * (1 - leak), offers * leak])[courses(turns)]
    return float((chance_CT.prod(1) * returns(arm, alpha, turns)[:, 0]).sum())


def threshold(arm: str, alpha: float, turns: int, offers: float) -> float:
    """The leak rate below which the arm teaches a policy that offers with this chance to offer more."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(arm, alpha, turns, middle, offers) > 0 else (low, middle)
    return low


def rest(arm: str, alpha: float, turns: int, leak: float, start: float) -> float:
    """Where a policy that begins at ``start`` comes to rest: the nearest chance of an offer that the slope leads to."""
    grid = np.linspace(0.001, 0.999, 500)
    signs = [slope(arm, alpha, turns, leak, p) > 0 for p in grid]
    at = int(np.abs(grid - start).argmin())
    step = 1 if signs[at] else -1
    while 0 <= at + step < len(grid) and signs[at + step] == signs[at]:
        at += step
    return float(grid[at])


START = 0.85
"""Share of the taught refusals that offer something (``MiniSettings.plain_refusals``): where Stage III begins."""


def table(turns: tuple[int, ...] = (4, 8), alphas: tuple[float, ...] = (0.0, 0.3, 0.6), leak: float = 0.2) -> str:
    """Markdown: the thresholds of every arm that differs from the mean, and what it makes of ``leak``."""
    safe, offer, leaky = outcomes()
    lines = [
        f"A plain refusal earns {safe:.3f}, an offer {offer:.3f}, one that leaks {leaky:.3f}: the mean turn reward "
        f"prefers offering below a leak rate of {(offer - safe) / (offer - leaky):.3f}.\n",
        f"| T | alpha | arm | offers more below, from p = {START} | from p = .01 | all offer better than none below | "
        f"at {leak}: rests at p |",
        "|---|---|---|---|---|---|---|",
    ]
    for t, alpha, arm in itertools.product(turns, alphas, ("plain_mean", "paper", "released", "steer")):
        if arm == "plain_mean" and alpha:
            continue
        whole = np.linspace(0, 1, 1001)
        better = [q for q in whole if worth(arm, alpha, t, q, 1.0) > worth(arm, alpha, t, q, 0.0)]
        lines.append(
            f"| {t} | {alpha} | {arm} | {threshold(arm, alpha, t, START):.3f} | {threshold(arm, alpha, t, 0.01):.3f} | "
            f"{max(better, default=0):.3f} | {rest(arm, alpha, t, leak, START):.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
