"""TCSR beside verl's GRPO estimator on the paper's batch, on the CPU: there verl's V1 trainer computes advantages."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.rollout.page import Row
from steer_verl.config import TCSR_PRESETS, tcsr_config
from steer_verl.tcsr import tcsr_advantage

DIALOGUES, TOKENS, ROLLOUTS = 320, 10_240, 5
"""The paper's batch."""
ANSWER, QUESTION = 1000, 100
"""Tokens of a turn."""
DEMAND = 2.0
"""Times verl's time, at most."""


def measure(_: Path, *, dialogues: int = DIALOGUES, tokens: int = TOKENS, repeats: int = 15) -> dict[str, Any]:
    """The row, in which the slowest of our presets counts, and every preset's time."""
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    given = batch(dialogues, tokens)
    runs: dict[str, Callable[[], object]] = {"verl grpo": partial(compute_grpo_outcome_advantage, *given)}
    for name in TCSR_PRESETS:
        runs[f"tcsr, {name}"] = partial(tcsr_advantage, *given, tcsr_config({"preset": name}))
    return shown(interleaved(runs, repeats=repeats), f"advantages of {dialogues} x {tokens} tokens")


def shown(times: Mapping[str, float], what: str) -> dict[str, Any]:
    """Row and note of the milliseconds of each way."""
    other, ours = times["verl grpo"], max(ms for name, ms in times.items() if name != "verl grpo")
    told = ", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items())
    row = Row(what, "ms", ours, other, f"ratio <= {DEMAND:g}", ours <= DEMAND * other, "verl's GRPO estimator")
    return {"rows": [row], "notes": [f"{torch.get_num_threads()} threads: {told}"]}


def interleaved(runs: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: int = 3) -> dict[str, float]:
    """Median milliseconds of each of ``runs``. They take turns (A B C A B C ...), so that a machine that slows down
    slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(warm_up + repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: median(found[warm_up:]) for name, found in times.items()}


def batch(dialogues: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Rewards (B, T) as our loop lays them out, mask (B, T) and uids (B,) of dialogues of 4 to 8 turns that fit."""
    turns_B, place_T = 4 + torch.arange(dialogues) % 5, torch.arange(tokens)
    turn_T, within_T = place_T // (ANSWER + QUESTION), place_T % (ANSWER + QUESTION)
    mask_BT = (within_T < ANSWER) & (turn_T < turns_B[:, None])
    scores_BT = torch.rand(dialogues, tokens, generator=torch.Generator().manual_seed(0))
    at_end_BT = mask_BT & (within_T == ANSWER - 1)
    rewards_BT = torch.where(at_end_BT, scores_BT, torch.where(mask_BT, -0.0, 0.0))  # steer_verl/tcsr.py
    uids = np.array([f"uid{row // ROLLOUTS}" for row in range(dialogues)], dtype=object)
    return rewards_BT, mask_BT.long(), uids
