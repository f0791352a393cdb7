"""Hundreds of dialogues at once, against the shortest time in which they could end; part ``waiting`` and ``limits``.

Without a limit (``waiting``: two of verl's workers) that is the critical path, the slowest dialogue's own waiting.
Where the student or the tutor works on a limited number of turns at once (``limits``: one worker, so that the limit is
not cut in two), it is the work divided by that number. Pictures have the paper's size, 512 x 512.
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
LIMITS = {"tutor: 40 at once": {"tutor_slots": 40}, "student: 20 at once": {"student_slots": 20}}
"""Turns that a limited student or tutor works on at once: 64 s of work for either."""
CURVE = (35, 320, 1280, 2560)
"""Dialogues. The queue keeps every rollout's pixels until a trainer takes them, so these pictures are of 224 x 224."""
SIDES = {"ours": "steer_dialogue", "verl": "tool_agent"}


def run(
    lab: Lab, loop: str, dialogues: int, workers: int = WORKERS, *, student_slots: int = 0, tutor_slots: int = 0
) -> dict[str, float]:
    """Play so many dialogues of 8 turns and compare with the bounds; each worker has the slots for itself."""
    slots = {"student_slots": student_slots, "tutor_slots": tutor_slots}
    crew = lab.crew(loop, [Pace(seed=number, **slots) for number in range(workers)])
    ray.get([worker.play.remote(lab.rows(1)) for worker in crew])  # imports and first uses
    prompts = max(1, round(dialogues / N))
    rows = lab.rows(prompts)
    played = ray.get([worker.play.remote(rows[number::workers]) for number, worker in enumerate(crew)])
    for worker in crew:
        ray.kill(worker)
    lab.empty_queue()
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


def compare(lab: Lab, limit: str, repeats: int, workers: int, **slots: int) -> tuple[Row, list[dict[str, Any]]]:
    """Both sides in turns; the row has the medians of wall time over bound."""
    runs: list[dict[str, Any]] = []
    for _ in range(repeats):
        for side, loop in SIDES.items():
            runs.append({"limit": limit, "side": side, **run(lab, loop, PROMPTS * N, workers, **slots)})
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    ours, other = (median(one["over_bound"] for one in runs if one["side"] == side) for side in SIDES)
    return Row(f"320 dialogues, {limit}: wall / bound", "", ours, other, "at most 1.10", ours <= 1.10), runs


def measure(folder: Path) -> dict[str, Any]:
    """Without a limit, and the curve of our cost per turn."""
    lab = Lab(folder, (512, 512))
    with lab.running():
        row, runs = compare(lab, "no limit", 3, WORKERS)
        points, small = [], Lab(folder / "small", (224, 224))
        for dialogues in CURVE:
            points.append(run(small, SIDES["ours"], dialogues))
            print(json.dumps(points[-1]), file=sys.stderr, flush=True)
    costs = [point["cpu_ms_per_turn"] for point in points]
    flat = costs[-1] / median(costs)
    what = f"CPU of a turn at {CURVE[-1]} dialogues against the median of {CURVE[0]}..{CURVE[-1]}"
    rows = [row, Row(what, "", flat, None, "flat: at most 1.25", flat <= 1.25)]
    return {"rows": [row.as_dict() for row in rows], "runs": runs, "curve": points, "notes": []}


def measure_limits(folder: Path) -> dict[str, Any]:
    """With a tutor, and with a student, that works on so many turns at once."""
    lab = Lab(folder, (512, 512))
    with lab.running():
        found = [compare(lab, limit, 1, 1, **slots) for limit, slots in LIMITS.items()]
    runs = [one for _, some in found for one in some]
    return {"rows": [row.as_dict() for row, _ in found], "runs": runs, "notes": []}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        part = measure_limits if "limits" in sys.argv[1:] else measure
        print(json.dumps(part(Path(scratch))))
