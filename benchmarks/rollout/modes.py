"""verl's asynchronous trainers with our loop: a few real steps of the mini recipe in each, and what verl's tags say.

A dialogue is tagged with the first and the last version of the weights that it met: its *span* is their number, its
*staleness* how many updates lie between it and the update that learns from it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import mini_grpo
from benchmarks.gpu.steps import Step
from benchmarks.rollout.row import Row

STEPS = 4
RUNS = {
    "colocate_async": ("mode=colocate_async",),
    "separate_async": ("mode=separate_async",),
    "separate_async, hybrid engine": ("mode=separate_async", "actor_rollout_ref.hybrid_engine=true"),
}
LARGEST = {"colocate_async": 2, "separate_async": 3, "separate_async, hybrid engine": 3}
"""Versions that a dialogue can meet at most: one update falls into it, or those of the warm-up's batches."""


def play(folder: Path, overrides: tuple[str, ...]) -> list[Step]:
    """What verl logged at each step, at a rate of learning that makes old weights differ from new ones."""
    return mini_grpo.run(folder, STEPS, *overrides, "trainer.save_freq=-1", "actor_rollout_ref.actor.optim.lr=1e-3")


def row(name: str, steps: list[Step]) -> Row:
    """The largest span over all steps, met when every step was made and every tag is one that can be."""
    spans = [step["training/off_policy/trajectory_spans/max"] for step in steps]
    least = [step["training/off_policy/trajectory_spans/min"] for step in steps]
    stale = [step["training/off_policy/trajectory_staleness/max"] for step in steps]
    numbered = [int(step["step"]) for step in steps] == list(range(1, STEPS + 1))
    held = numbered and min(least) >= 1 and min(stale) >= 0 and max(spans) <= LARGEST[name]
    demand = f"{STEPS} steps; 1 to {LARGEST[name]} versions; staleness 0 and more (at most {max(stale):.0f} seen)"
    return Row(f"{name}: most versions of the weights in a dialogue", "", max(spans), None, demand, held)


def measure(folder: Path) -> dict[str, Any]:
    """Every mode, one after the other."""
    rows, runs = [], {}
    for name, overrides in RUNS.items():
        steps = play(folder / name.replace(", ", "_").replace(" ", "_"), overrides)
        keep = ("training/off_policy/", "training/rollout_actor_probs", "timing_s/step", "step")
        runs[name] = [{key: value for key, value in step.items() if key.startswith(keep)} for step in steps]
        rows.append(row(name, steps).as_dict())
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return {"rows": rows, "runs": runs, "notes": []}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch))))
