"""Passes of the image processor, stalls of the event loop, bytes on their way, memory, and tensors.

One of verl's own workers in this process, its student behind verl's LLM client and Ray; pictures of 1024 x 768.
"""

from __future__ import annotations

import asyncio
import gc
import json
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.rollout.lab import TURNS, Lab, N
from benchmarks.rollout.pace import Pace
from benchmarks.rollout.row import Row
from benchmarks.rollout.stalls import watched

SIDES = {"ours": "steer_dialogue", "verl": "tool_agent"}
STALL = 0.020
"""Seconds that our code may hold the loop at most."""
QUICK = {"student": 0.05, "tutor": 0.1}


def passes_and_bytes(lab: Lab, side: str) -> dict[str, float]:
    """One prompt's group: passes of the image processor, and bytes of a turn's and of the reward call's arguments."""
    worker = lab.worker(SIDES[side], Pace(**QUICK))
    worker.client.weigh = True
    counted, undo = _count_passes()
    rewards = _weigh_rewards(worker)
    try:
        asyncio.run(worker.play(lab.rows(1)))
    finally:
        undo()
    return {
        "passes": counted[0],
        "bytes_a_turn": worker.client.sent_images / (N * TURNS),
        "bytes_a_reward": max(rewards, default=0),  # ours makes no such call
    }


def stalls(lab: Lab, side: str, prompts: int, pictures: int) -> dict[str, Any]:
    """Longest step of the event loop, and longest stay in our code, once everything has been imported and used."""
    worker = lab.worker(SIDES[side], Pace(**QUICK))

    async def play() -> None:
        await worker.play(lab.rows(1, pictures))
        with watched() as found:
            await worker.play(lab.rows(prompts, pictures))
        result.append(found)

    result: list[Any] = []
    asyncio.run(play())
    lab.empty_queue()
    found = result[0]
    return {
        "longest_ms": 1e3 * found.longest(),
        "ours_ms": 1e3 * found.longest_of_ours(),
        "ours_cpu_ms": 1e3 * found.most_work_of_ours(),
        "entered_ours": found.entered,
        "over_20_ms": sum(whole > STALL for whole, _, _ in found.steps),
    }


def memory(lab: Lab, rounds: int, prompts: int) -> dict[str, Any]:
    """Pictures and features that a worker holds after each of several rounds of groups, and while one is played."""
    from rollout import images
    from rollout.processors import Shared

    worker = lab.worker(SIDES["ours"], Pace(**QUICK))
    during, after = [], []

    async def play() -> None:
        for _ in range(rounds):
            task = asyncio.ensure_future(worker.play(lab.rows(prompts)))
            while not task.done():
                during.append(len(images._GROUPS))
                await asyncio.sleep(0.05)
            await task
            del task
            await asyncio.sleep(0)
            after.append((len(images._GROUPS), sum(isinstance(thing, Shared) for thing in gc.get_objects())))

    asyncio.run(play())
    return {"most_groups": max(during), "groups_after": after[-1][0], "pictures_after": max(held for _, held in after)}


def same_tensors(lab: Lab) -> bool:
    """Whether what reaches the queue is the same, bit for bit, with and without sharing."""
    found = []
    for share in (True, False):
        worker = lab.worker(SIDES["ours"], Pace(**QUICK), share_images=share)
        kept = _keep_fields(worker)
        rows = lab.rows(2, 2)
        asyncio.run(worker.play(rows))
        order = {row["uid"]: number for number, row in enumerate(rows)}
        found.append({(order[uid], session): fields for (uid, session), fields in kept.items()})
    return _equal(*found)


def measure(folder: Path) -> dict[str, Any]:
    """Rows and raw figures."""
    lab = Lab(folder, (1024, 768))
    with lab.running():
        sent = {side: _told(passes_and_bytes(lab, side)) for side in SIDES}
        stood = {(side, k): _told(stalls(lab, side, 4, k)) for k in (1, 4) for side in SIDES}
        held = _told(memory(lab, rounds=6, prompts=8))
        same = same_tensors(lab)
    rows = [*sent_rows(sent["ours"], sent["verl"]), *stall_rows(stood), *held_rows(held, same)]
    return {
        "rows": [row.as_dict() for row in rows],
        "sent": sent,
        "stalls": {f"{side} {k}": v for (side, k), v in stood.items()},
        "memory": held,
        "notes": [],
    }


def sent_rows(ours: dict[str, float], verl: dict[str, float]) -> list[Row]:
    """Passes and bytes."""
    passes, turn, reward = "passes", "bytes_a_turn", "bytes_a_reward"
    name = "passes of the image processor, one picture, n = 5"
    engine, worker = "bytes of picture to the engine, a turn", "bytes to a reward worker, a dialogue"
    return [
        Row(name, "", ours[passes], verl[passes], "1", ours[passes] == 1),
        Row(engine, "B", ours[turn], verl[turn], "a reference", ours[turn] < 10_000),
        Row(worker, "B", ours[reward], verl[reward], "no call", ours[reward] == 0),
    ]


def stall_rows(stood: dict[tuple[str, int], dict[str, Any]]) -> list[Row]:
    """The loop's longest step, and the longest stay in our code within one."""
    rows = []
    for k in (1, 4):
        mine, theirs = stood["ours", k], stood["verl", k]
        pictures = f"{k} picture{'s' if k > 1 else ''} of 1024 x 768"
        longest, own = mine["longest_ms"], mine["ours_ms"]
        whole = f"longest stall of the event loop, whoever caused it, {pictures}"
        rows.append(Row(whole, "ms", longest, theirs["longest_ms"], "below verl's", longest < theirs["longest_ms"]))
        part = f"longest stay of the event loop in our code, {pictures}"
        held = own < 1e3 * STALL and mine["entered_ours"] > 0
        rows.append(Row(part, "ms", own, None, "under 20 ms", held))
    return rows


def held_rows(held: dict[str, Any], same: bool) -> list[Row]:
    """What is left of a group, and whether sharing shows."""
    bounded = held["groups_after"] == held["pictures_after"] == 0 and held["most_groups"] <= 8
    after = "groups whose pictures a worker holds, after 6 rounds of 8 prompts"
    demand = f"0; {held['most_groups']} at most while 8 were played"
    equal = "tokens and tensors with sharing equal those without, bit for bit"
    return [Row(after, "", held["groups_after"], None, demand, bounded), Row(equal, "", float(same), None, "1", same)]


def _told(figures: dict[str, Any]) -> dict[str, Any]:
    print(json.dumps(figures), file=sys.stderr, flush=True)
    return figures


def _count_passes() -> tuple[list[int], Callable[[], None]]:
    """How many pictures the Hugging Face image processor has worked on."""
    from transformers import Qwen2VLImageProcessor

    counted, plain = [0], Qwen2VLImageProcessor.preprocess

    def counting(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        counted[0] += len(images) if isinstance(images, list) else 1
        return plain(self, images, *args, **kwargs)

    Qwen2VLImageProcessor.preprocess = counting

    def undo() -> None:
        Qwen2VLImageProcessor.preprocess = plain

    return counted, undo


def _weigh_rewards(worker: Any) -> list[int]:
    """Bytes of each reward call's argument, pickled."""
    weighed: list[int] = []
    handle = worker.verl.reward_loop_worker_handles[0]

    class Weighing:
        class compute_score:
            @staticmethod
            async def remote(data: Any) -> Any:
                weighed.append(len(pickle.dumps(data)))
                return await handle.compute_score.remote(data)

    worker.verl.reward_loop_worker_handles = [Weighing]
    return weighed


def _keep_fields(worker: Any) -> dict[tuple[str, int], Any]:
    """What verl's worker puts into the queue for each rollout."""
    from verl.trainer.ppo.v1 import agent_loop_tq

    kept: dict[tuple[str, int], Any] = {}
    plain = agent_loop_tq.list_of_dict_to_tensordict

    def keeping(fields: list[dict[str, Any]]) -> Any:
        for field in fields:
            kept[field["uid"], field["session_id"]] = {
                name: field[name]
                for name in (
                    "prompts",
                    "responses",
                    "response_mask",
                    "rollout_log_probs",
                    "rm_scores",
                    "input_ids",
                    "position_ids",
                    "multi_modal_inputs",
                )
            }
        return plain(fields)

    agent_loop_tq.list_of_dict_to_tensordict = keeping
    return kept


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal(left[name], right[name]) for name in left)
    return left.dtype == right.dtype and torch.equal(left, right)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch))))
