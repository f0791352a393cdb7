"""TCSR beside verl's GRPO estimator on the paper's batch, on the CPU: there verl's V1 trainer computes advantages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.gpu import micro
from benchmarks.rollout.page import Row

DEMAND = 2.0
"""Times verl's time, at most."""


def row(times: dict[str, float], dialogues: int, tokens: int) -> Row:
    """The slowest of our presets (estimator -> milliseconds) counts."""
    other = times["verl grpo"]
    ours = max(ms for name, ms in times.items() if name != "verl grpo")
    what, met = f"advantages of {dialogues} x {tokens} tokens", ours <= DEMAND * other
    return Row(what, "ms", ours, other, f"ratio <= {DEMAND:g}", met, "verl's GRPO estimator")


def measure(_: Path) -> dict[str, Any]:
    """The row, and every preset's time."""
    found = micro.estimator(("cpu",))
    times = {one["estimator"]: one["ms"] for one in found["rows"]}
    told = ", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items())
    rows = [row(times, found["dialogues"], found["tokens"]).as_dict()]
    return {"rows": rows, "notes": [f"{found['threads']} threads: {told}"]}
