"""verl's GRPO estimator against TCSR on a batch of the paper's size: 320 dialogues of 10,240 tokens.

verl's V1 trainer computes advantages on the CPU, in its own process; the GPU's column shows what is to be had there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.results import Figures
from benchmarks.gpu.timing import interleaved
from steer_verl.config import TCSR_PRESETS, tcsr_config
from steer_verl.tcsr import tcsr_advantage

DIALOGUES, TOKENS, MEMBERS = 320, 10_240, 5
ANSWER, QUESTION = 1000, 100
"""Tokens of a turn."""


def batch(
    dialogues: int = DIALOGUES, tokens: int = TOKENS, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Rewards (B, T) as our loop lays them out, mask (B, T) and uids (B,) of dialogues of 4 to 8 turns that fit."""
    place_T = torch.arange(tokens)
    turns_B = 4 + torch.arange(dialogues) % 5
    turn_T, within_T = place_T // (ANSWER + QUESTION), place_T % (ANSWER + QUESTION)
    mask_BT = (within_T < ANSWER) & (turn_T < turns_B[:, None])
    scores_BT = torch.rand(dialogues, tokens, generator=torch.Generator().manual_seed(0))
    at_end_BT = mask_BT & (within_T == ANSWER - 1)
    rewards_BT = torch.where(at_end_BT, scores_BT, torch.where(mask_BT, -0.0, 0.0))  # steer_verl/tcsr.py
    uids = np.array([f"uid{row // MEMBERS}" for row in range(dialogues)], dtype=object)
    return rewards_BT.to(device), mask_BT.long().to(device), uids


def measure(
    devices: Sequence[str] = ("cpu", "cuda"), *, dialogues: int = DIALOGUES, tokens: int = TOKENS, repeats: int = 15
) -> Figures:
    """Median milliseconds of each estimator on each device, taken in turns."""
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    rows: list[dict[str, Any]] = []
    for device in devices:
        given = batch(dialogues, tokens, device)
        runs: dict[str, Callable[[], object]] = {"verl grpo": partial(compute_grpo_outcome_advantage, *given)}
        for name in TCSR_PRESETS:
            runs[f"tcsr, {name}"] = partial(tcsr_advantage, *given, tcsr_config({"preset": name}))
        times = interleaved(runs, repeats=repeats, device=device)
        rows += [{"device": device, "estimator": name, "ms": ms} for name, ms in times.items()]
    return {"dialogues": dialogues, "tokens": tokens, "threads": torch.get_num_threads(), "rows": rows}
