"""Passes of the image processor, bytes on their way, and stalls of the event loop.

One of verl's own workers in this process, its student behind verl's LLM client and Ray; pictures of 1024 x 768. That
tokens and tensors are the same with and without sharing is held by tests/rollout/test_images.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray

from benchmarks.rollout.page import Row
from benchmarks.rollout.simulation import SIDES, TURNS, Lab, N, Pace

QUICK = partial(Pace, student=0.05, tutor=0.1)
FIGURES = {
    "passes": ("passes of the image processor, one picture, n = 5", "", "1", 1),
    "bytes_a_turn": ("bytes of picture to the engine, a turn", "B", "a reference", 10_000),
    "bytes_a_reward": ("bytes to a reward worker, a dialogue", "B", "no call", 0),
}
"""Of a group: what it is, its unit, the demand in words, and ours at most."""


def group(lab: Lab, side: str) -> dict[str, float]:
    """One prompt's group: passes of the image processor, and bytes of a turn's and of the reward call's arguments."""
    from transformers import Qwen2VLImageProcessor

    worker, passes, plain = lab.worker(side, QUICK()), [], Qwen2VLImageProcessor.preprocess
    images = _weighed(worker.client, "generate", "image_data")
    rewards = _weighed(worker.rewarder, "remote", "data")

    def counting(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append(len(images) if isinstance(images, list) else 1)
        return plain(self, images, *args, **kwargs)

    with patch.object(Qwen2VLImageProcessor, "preprocess", counting):
        asyncio.run(worker.play(lab.rows(1)))
    lab.empty_queue()
    sent = {"bytes_a_turn": sum(images) / (N * TURNS), "bytes_a_reward": max(rewards, default=0)}
    return {"passes": sum(passes), **sent}  # ours makes no call for a reward


def longest_stall(lab: Lab, side: str, pictures: int, prompts: int = 4) -> float:
    """Milliseconds of the longest step of the event loop, once everything has been imported and used."""
    worker = lab.worker(side, QUICK())

    async def play() -> list[float]:
        await worker.play(lab.rows(1, pictures))
        with steps() as seconds:
            await worker.play(lab.rows(prompts, pictures))
        return seconds

    longest = 1e3 * max(asyncio.run(play()))
    lab.empty_queue()
    return longest


def measure(folder: Path) -> dict[str, Any]:
    """Both sides of everything."""
    lab = Lab(folder, (1024, 768))
    with lab.running():
        sent = {side: group(lab, side) for side in SIDES}
        stood = {k: {side: longest_stall(lab, side, k) for side in SIDES} for k in (1, 4)}
    rows = [
        Row(what, unit, sent["ours"][key], sent["verl"][key], demand, sent["ours"][key] <= most)
        for key, (what, unit, demand, most) in FIGURES.items()
    ]
    for k, found in stood.items():
        what = f"longest stall of the event loop, whoever caused it, {k} picture{'s' * (k > 1)} of 1024 x 768"
        rows.append(Row(what, "ms", found["ours"], found["verl"], "below verl's", found["ours"] < found["verl"]))
    return {"rows": rows}


@contextlib.contextmanager
def steps() -> Iterator[list[float]]:
    """The seconds of every step of the loops of this process."""
    seconds: list[float] = []
    plain = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.perf_counter()
        plain(handle)
        seconds.append(time.perf_counter() - began)

    with patch.object(asyncio.Handle, "_run", timed):
        yield seconds


def _weighed(owner: Any, name: str, argument: str) -> list[int]:
    """Bytes of one argument of each call of ``owner.name``, pickled as Ray does."""
    weighed: list[int] = []
    plain = getattr(owner, name)

    async def weighing(*args: Any, **kwargs: Any) -> Any:
        weighed.append(len(ray.cloudpickle.dumps(kwargs[argument] if argument in kwargs else args[0])))
        return await plain(*args, **kwargs)

    setattr(owner, name, weighing)
    return weighed
