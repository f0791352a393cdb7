"""The two parts that need no training: the image processor's passes, and the advantage estimator.

verl 0.9.1 encodes a picture three times in each rollout: for the prompt, the reward's positions and the final tensors
(experimental/agent_loop/agent_loop.py:335, :981; trainer/ppo/v1/agent_loop_tq.py:188). One pass would do for a prompt.
Its V1 trainer computes advantages on the CPU, in its own process; the GPU's column shows what is to be had there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.student import make_image_processor
from steer_verl.config import TCSR_PRESETS, tcsr_config
from steer_verl.tcsr import tcsr_advantage

DEVICES = ("cpu", "cuda")
SIZES = ((512, 512), (1024, 768))
"""Width and height of a picture."""
ROLLOUTS = 5
DIALOGUES, TOKENS = 320, 10_240
"""The paper's batch."""
ANSWER, QUESTION = 1000, 100
"""Tokens of a turn."""


def interleaved(
    runs: Mapping[str, Callable[[], object]], *, repeats: int = 15, warm_up: int = 3, device: str = "cpu"
) -> dict[str, float]:
    """Median milliseconds of each of ``runs``.

    They take turns (A B C A B C ...), so that a machine that slows down slows all of them. On ``cuda`` the clock is
    read with the device idle: launching a kernel is not running it.
    """
    idle = torch.cuda.synchronize if device == "cuda" else lambda: None
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(warm_up + repeats):
        for name, run in runs.items():
            idle()
            started = time.perf_counter()
            run()
            idle()
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: median(found[warm_up:]) for name, found in times.items()}


def passes(processor: Any, picture: Any, *, shared: bool, **options: Any) -> None:
    """A group's calls, three a rollout; ``shared``: one pass, for the picture is known to be the group's."""
    from rollout.processors import EncodeOnce, Shared

    encoder, known = EncodeOnce(processor), Shared(picture)
    if shared:
        encoder.keep(known)
    for _ in range(3 * ROLLOUTS):
        encoder([picture], **options)


def processor(devices: Sequence[str] = DEVICES, *, sizes: Any = SIZES, repeats: int = 9) -> dict[str, Any]:
    """The page's rows: median milliseconds of one pass and of a group by each way, by size and device."""
    from PIL import Image

    plain, rows = make_image_processor(), []
    for width, height in sizes:
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture = Image.fromarray(noise)  # decoded already: what is timed is the processor
        for device in devices:
            options = {"return_tensors": "pt", "device": device}
            runs = {
                "one pass (ms)": partial(plain, picture, **options),
                "3n passes, verl's, n = 5 (ms)": partial(passes, plain, picture, shared=False, **options),
                "1 pass, ours, n = 5 (ms)": partial(passes, plain, picture, shared=True, **options),
            }
            times, found = interleaved(runs, repeats=repeats, warm_up=1, device=device), plain(picture, **options)
            tokens, size = int(found["image_grid_thw"].prod()) // 4, found["pixel_values"].nbytes / 1e6
            about = {"picture": f"{width}x{height}", "device": device, "image tokens": tokens}
            rows.append({**about, "pixel_values (MB)": size, **times})
    return {"rows": rows}


def batch(
    dialogues: int = DIALOGUES, tokens: int = TOKENS, device: str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Rewards (B, T) as our loop lays them out, mask (B, T) and uids (B,) of dialogues of 4 to 8 turns that fit."""
    turns_B, place_T = 4 + torch.arange(dialogues) % 5, torch.arange(tokens)
    turn_T, within_T = place_T // (ANSWER + QUESTION), place_T % (ANSWER + QUESTION)
    mask_BT = (within_T < ANSWER) & (turn_T < turns_B[:, None])
    scores_BT = torch.rand(dialogues, tokens, generator=torch.Generator().manual_seed(0))
    at_end_BT = mask_BT & (within_T == ANSWER - 1)
    rewards_BT = torch.where(at_end_BT, scores_BT, torch.where(mask_BT, -0.0, 0.0))  # steer_verl/tcsr.py
    uids = np.array([f"uid{row // ROLLOUTS}" for row in range(dialogues)], dtype=object)
    return rewards_BT.to(device), mask_BT.long().to(device), uids


def estimator(
    devices: Sequence[str] = DEVICES, *, dialogues: int = DIALOGUES, tokens: int = TOKENS, repeats: int = 15
) -> dict[str, Any]:
    """The page's rows: median milliseconds of verl's GRPO estimator and of each of our presets on each device."""
    try:
        from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage
    except ImportError as error:
        print(f"benchmarks.gpu: without verl's own estimator: {error}", flush=True)
        compute_grpo_outcome_advantage = None
    rows = []
    for device in devices:
        given = batch(dialogues, tokens, device)
        runs: dict[str, Callable[[], object]] = {}
        if compute_grpo_outcome_advantage is not None:
            runs["verl grpo"] = partial(compute_grpo_outcome_advantage, *given)
        for name in TCSR_PRESETS:
            runs[f"tcsr, {name}"] = partial(tcsr_advantage, *given, tcsr_config({"preset": name}))
        times = interleaved(runs, repeats=repeats, device=device)
        verls = times.get("verl grpo")
        for name, ms in times.items():
            share = {} if verls is None else {"of verl's": ms / verls}
            rows.append({"estimator": name, "device": device, "ms": ms, **share})
    return {"dialogues": dialogues, "tokens": tokens, "threads": torch.get_num_threads(), "rows": rows}
