"""The verdict awaited, beside the question told first: our loop with the same student and tutor; part ``order``.

The question is whole after :data:`~benchmarks.rollout.pace.QUESTION` of a ruling. Without a limit the wall time falls
to what the questions take; where the tutor works on a limited number of turns at once, its work is the same.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import ray

from benchmarks.rollout.lab import Lab, N
from benchmarks.rollout.pace import QUESTION, Pace
from benchmarks.rollout.row import Row
from benchmarks.rollout.waiting import PROMPTS, WORKERS

CASES = {
    "no limit on the tutor": ({}, WORKERS, 0.70),
    "tutor: 40 at once": ({"tutor_slots": 40}, 1, 1.05),
}
"""Slots, workers (a limit is not cut in two), and the greatest ratio of wall times."""
REPEATS = 3


def run(lab: Lab, early: bool, workers: int, seed: int, **slots: int) -> dict[str, float]:
    """Play 320 dialogues of 8 turns; seconds."""
    paces = [Pace(seed=100 * seed + number, early=early, **slots) for number in range(workers)]
    crew = lab.crew("steer_dialogue", paces)
    ray.get([worker.play.remote(lab.rows(1)) for worker in crew])  # imports and first uses
    rows = lab.rows(PROMPTS)
    played = ray.get([worker.play.remote(rows[number::workers]) for number, worker in enumerate(crew)])
    for worker in crew:
        ray.kill(worker)
    lab.empty_queue()
    waits = [dialogue for one in played for dialogue in one.waits]
    path = max(shortest(dialogue, QUESTION if early else 1.0) for dialogue in waits)
    return {
        "dialogues": len(waits),
        "wall": max(one.seconds for one in played),
        "critical_path": path,
        "cpu_ms_per_turn": 1e3 * sum(one.cpu for one in played) / sum(len(dialogue) / 2 for dialogue in waits),
    }


def shortest(waits: list[float], question: float) -> float:
    """The shortest time of a dialogue: it goes on after so much of each ruling and ends with the last verdict."""
    now = end = 0.0
    for student, tutor in zip(waits[0::2], waits[1::2], strict=True):
        asked = now + student
        now, end = asked + question * tutor, max(end, asked + tutor)
    return max(now, end)


def measure(folder: Path) -> dict[str, Any]:
    """Both orders in turns, with the same times to take."""
    lab, rows, runs = Lab(folder, (512, 512)), [], []
    with lab.running():
        for limit, (slots, workers, most) in CASES.items():
            found: dict[bool, list[float]] = {False: [], True: []}
            for repeat in range(REPEATS):
                for early in (False, True):
                    played = run(lab, early, workers, repeat, **slots)
                    found[early].append(played["wall"])
                    runs.append({"limit": limit, "order": "question first" if early else "verdict awaited", **played})
                    print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
            ours, other = median(found[True]), median(found[False])
            rows.append(
                Row(
                    f"{PROMPTS * N} dialogues, {limit}: wall time",
                    "s",
                    ours,
                    other,
                    f"ratio <= {most:g}",
                    ours / other <= most,
                    "the verdict awaited",
                )
            )
    return {"rows": [row.as_dict() for row in rows], "runs": runs, "notes": []}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch))))
