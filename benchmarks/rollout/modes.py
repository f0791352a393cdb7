"""verl's asynchronous trainers with our loop: a few real steps of the mini recipe in each, and what verl's tags say.

A dialogue is tagged with the first and the last version of the weights that it met: its *span* is their number, its
*staleness* how many updates lie between it and the update that learns from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import mini_grpo
from benchmarks.rollout.page import Row
from steer_verl.report.training import Step

STEPS = 4
RUNS = {
    "colocate_async": ("mode=colocate_async",),
    "separate_async": ("mode=separate_async",),
    "separate_async, hybrid engine": ("mode=separate_async", "actor_rollout_ref.hybrid_engine=true"),
}


def row(name: str, steps: list[Step]) -> Row:
    """Most versions in a dialogue, met when every step was made and no dialogue of step k met more than the k versions
    that there were, or was learnt from more than k - 1 updates late."""
    tags = ("trajectory_spans", "trajectory_staleness")
    spans, stale = ([step[f"training/off_policy/{tag}/max"] for step in steps] for tag in tags)
    held = [step["step"] for step in steps] == list(range(1, STEPS + 1)) and all(
        1 <= span <= k and 0 <= late < k for k, (span, late) in enumerate(zip(spans, stale, strict=True), 1)
    )
    demand = f"{STEPS} steps; at most k in step k; staleness below k ({', '.join(f'{late:.0f}' for late in stale)})"
    return Row(f"{name}: most versions of the weights in a dialogue", "", max(spans), None, demand, held)


def measure(folder: Path) -> dict[str, Any]:
    """Every mode, one after the other, at a rate of learning that makes old weights differ from new ones."""
    changes = ("trainer.save_freq=-1", "actor_rollout_ref.actor.optim.lr=1e-3")
    logged = {
        name: mini_grpo.run(folder / str(number), STEPS, *mode, *changes)
        for number, (name, mode) in enumerate(RUNS.items())
    }
    return {"rows": [row(name, steps) for name, steps in logged.items()]}
