"""Hundreds of dialogues at once, against the shortest time in which they could end.

Without a limit that is the critical path, the slowest dialogue's own waiting; two of verl's workers play. Where the
student or the tutor works on a limited number of turns at once, it is the work divided by that number; one worker, so
that the limit is not cut in two. Pictures have the paper's size, 512 x 512.

Against verl's loop our tutor's verdict is awaited, as verl's loop must; :func:`order` says what it is worth to go on
with the question as soon as it is whole.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import ray

from benchmarks.rollout.page import Row
from benchmarks.rollout.simulation import QUESTION, SIDES, TURNS, Lab, N, Pace

WORKERS = 2
"""Processes; verl's default is 8. This many cores had the machine of the committed figures."""
PROMPTS = 64
LIMITS = {"tutor: 40 at once": {"tutor_slots": 40}, "student: 20 at once": {"student_slots": 20}}
"""Turns that a limited tutor or student works on at once: 64 s of work for either."""
CURVE = (35, 320, 1280, 2560)
"""Dialogues. The queue keeps every rollout's pixels until a trainer takes them, so these pictures are of 224 x 224."""


def run(lab: Lab, side: str, dialogues: int, workers: int = WORKERS, seed: int = 0, **pace: Any) -> dict[str, Any]:
    """Play so many dialogues of 8 turns and compare with the bounds; each worker has the slots for itself."""
    crew = lab.crew(side, [Pace(seed=100 * seed + number, **pace) for number in range(workers)])
    ray.get([worker.play.remote(lab.rows(1)) for worker in crew])  # imports and first uses
    rows = lab.rows(max(1, round(dialogues / N)))
    played = ray.get([worker.play.remote(rows[number::workers]) for number, worker in enumerate(crew)])
    for worker in crew:
        ray.kill(worker)
    lab.empty_queue()
    waits = [dialogue for one in played for dialogue in one["waits"]]
    assert [len(one) for one in waits] == [2 * TURNS] * (N * len(rows)), "a lost dialogue would make the rest look fast"
    path = max(shortest(dialogue, QUESTION if pace.get("early") else 1.0) for dialogue in waits)
    slots = (pace.get("student_slots"), pace.get("tutor_slots"))
    work = max(sum(sum(d[first::2]) for d in waits) / n if n else 0.0 for first, n in enumerate(slots))
    wall, turns = max(one["seconds"] for one in played), len(waits) * TURNS
    found = {
        "dialogues": len(waits),
        "wall": wall,
        "critical_path": path,
        "work_over_capacity": work,
        "over_bound": wall / max(path, work),
        "cpu_ms_per_turn": 1e3 * sum(one["cpu"] for one in played) / turns,
        "loop_ms_per_turn": 1e3 * sum(one["loop_cpu"] for one in played) / turns,
    }
    print(side, json.dumps(pace), json.dumps(found), file=sys.stderr, flush=True)
    return found


def shortest(waits: list[float], question: float) -> float:
    """The shortest time of a dialogue: it goes on after so much of each ruling and ends with the last verdict."""
    now = end = 0.0
    for student, tutor in zip(waits[0::2], waits[1::2], strict=True):
        asked = now + student
        now, end = asked + question * tutor, max(end, asked + tutor)
    return max(now, end)


def compare(lab: Lab, limit: str, repeats: int, workers: int, **slots: int) -> tuple[Row, list[dict[str, Any]]]:
    """Both sides in turns; the row has the medians of wall time over bound."""
    runs = [
        {"limit": limit, "side": side} | run(lab, side, PROMPTS * N, workers, repeat, **slots)
        for repeat in range(repeats)
        for side in SIDES
    ]
    ours, other = (median(one["over_bound"] for one in runs if one["side"] == side) for side in SIDES)
    return Row(f"{PROMPTS * N} dialogues, {limit}: wall / bound", "", ours, other, "at most 1.10", ours <= 1.10), runs


def no_limit(folder: Path) -> dict[str, Any]:
    """Without a limit, and the curve of our cost per turn."""
    lab, small = Lab(folder, (512, 512)), Lab(folder / "small", (224, 224))
    with lab.running():
        row, runs = compare(lab, "no limit", 3, WORKERS)
        points = [run(small, "ours", dialogues) for dialogues in CURVE]
    costs = [point["cpu_ms_per_turn"] for point in points]
    flat = costs[-1] / median(costs)
    what = f"CPU of a turn at {CURVE[-1]} dialogues against the median of {CURVE[0]}..{CURVE[-1]}"
    return {"rows": [row, Row(what, "", flat, None, "flat: at most 1.25", flat <= 1.25)], "runs": runs, "curve": points}


def limits(folder: Path) -> dict[str, Any]:
    """With a tutor, and with a student, that works on so many turns at once."""
    lab = Lab(folder, (512, 512))
    with lab.running():
        found = [compare(lab, limit, 1, 1, **slots) for limit, slots in LIMITS.items()]
    return {"rows": [row for row, _ in found], "runs": [one for _, runs in found for one in runs]}


def order(folder: Path) -> dict[str, Any]:
    """The question told first beside the verdict awaited, in turns: our loop, the same student and tutor."""
    lab, rows, tutor = Lab(folder, (512, 512)), [], "tutor: 40 at once"
    free: dict[str, int] = {}
    cases = (("no limit on the tutor", free, WORKERS, 0.70), (tutor, LIMITS[tutor], 1, 1.05))
    with lab.running():
        for limit, slots, workers, most in cases:
            walls = [
                [
                    run(lab, "ours", PROMPTS * N, workers, repeat, early=early, **slots)["wall"]
                    for early in (True, False)
                ]
                for repeat in range(3)
            ]
            first, awaited = map(median, zip(*walls, strict=True))
            what, met = f"{PROMPTS * N} dialogues, {limit}: wall time", first <= most * awaited
            rows.append(Row(what, "s", first, awaited, f"ratio <= {most:g}", met, "the verdict awaited"))
    return {"rows": rows}
