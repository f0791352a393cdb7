"""Hundreds of dialogues at once, by two of verl's workers, against the shortest time in which they could end.

Without a limit that is the critical path, the slowest dialogue's own waiting. Where the student or the tutor works on
a limited number of turns at once, it is the work divided by that number, if that is longer. Pictures have the paper's
size, 512 x 512.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import ray

from benchmarks.rollout.lab import TURNS, Lab, N
from benchmarks.rollout.pace import Pace
from benchmarks.rollout.row import Row

WORKERS = 2
"""Processes; verl's default is 8. This many cores had the machine of the committed figures."""
PROMPTS = 64
SLOTS = 64
"""Turns that a limited student or tutor works on at once, over all workers."""
CURVE = (32, 80, 160, 320, 640, 1280, 2560)
"""Dialogues."""
SIDES = {"ours": "steer_dialogue", "verl": "tool_agent"}


def run(lab: Lab, loop: str, dialogues: int, *, student_slots: int = 0, tutor_slots: int = 0) -> dict[str, float]:
    """Play so many dialogues of 8 turns and compare with the bounds."""
    slots = {"student_slots": student_slots // WORKERS, "tutor_slots": tutor_slots // WORKERS}
    crew = lab.crew(loop, [Pace(seed=number, **slots) for number in range(WORKERS)])
    ray.get([worker.play.remote(lab.rows(1)) for worker in crew])  # imports and first uses
    prompts = max(1, round(dialogues / N))
    rows = lab.rows(prompts)
    played = ray.get([worker.play.remote(rows[number::WORKERS]) for number, worker in enumerate(crew)])
    for worker in crew:
        ray.kill(worker)
    waits = [dialogue for one in played for dialogue in one.waits]
    path = max(map(sum, waits))
    students, tutors = (sum(sum(dialogue[first::2]) for dialogue in waits) for first in (0, 1))
    work = max(students / student_slots if student_slots else 0.0, tutors / tutor_slots if tutor_slots else 0.0)
    wall, turns = max(one.seconds for one in played), len(waits) * TURNS
    return {
        "dialogues": len(waits),
        "wall": wall,
        "critical_path": path,
        "work_over_capacity": work,
        "over_bound": wall / max(path, work),
        "cpu_ms_per_turn": 1e3 * sum(one.cpu for one in played) / turns,
        "loop_ms_per_turn": 1e3 * sum(one.loop_cpu for one in played) / turns,
    }


def measure(folder: Path, repeats: int = 2, curve: tuple[int, ...] = CURVE) -> dict[str, Any]:
    """Rows, and the curve of our cost per turn; without a limit ``repeats`` runs of each side, else one."""
    lab = Lab(folder, (512, 512))
    limits: dict[str, dict[str, int]] = {
        "no limit": {},
        f"tutor: {SLOTS} at once": {"tutor_slots": SLOTS},
        f"student: {SLOTS // 2} at once": {"student_slots": SLOTS // 2},
    }
    rows, runs = [], []
    with lab.running():
        for name, slots in limits.items():
            found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
            for _ in range(1 if slots else repeats):
                for side, loop in SIDES.items():
                    found[side].append(run(lab, loop, PROMPTS * N, **slots))
                    runs.append({"limit": name, "side": side, **found[side][-1]})
                    print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
            ours, other = (median(one["over_bound"] for one in found[side]) for side in SIDES)
            rows.append(Row(f"320 dialogues, {name}: wall / bound", "", ours, other, "at most 1.10", ours <= 1.10))
        points = []
        for dialogues in curve:
            points.append(run(lab, SIDES["ours"], dialogues))
            print(json.dumps(points[-1]), file=sys.stderr, flush=True)
    costs = [point["cpu_ms_per_turn"] for point in points]
    flat = costs[-1] / median(costs)
    rows.append(
        Row(
            f"CPU of a turn at {curve[-1]} dialogues against the median of {curve[0]}..{curve[-1]}",
            "",
            flat,
            None,
            "flat: at most 1.25",
            flat <= 1.25,
        )
    )
    return {"rows": [row.as_dict() for row in rows], "runs": runs, "curve": points, "notes": []}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch))))
