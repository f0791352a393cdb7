"""TCSR beside verl's GRPO estimator on the paper's batch, on the CPU: there verl's V1 trainer computes advantages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.gpu import micro
from benchmarks.rollout.page import Row

DEMAND = 2.0
"""Times verl's time, at most."""


def measure(_: Path) -> dict[str, Any]:
    """The row, and every preset's time."""
    return shown(micro.estimator(("cpu",)))


def shown(found: dict[str, Any]) -> dict[str, Any]:
    """The slowest of our presets counts."""
    times = {one["estimator"]: one["ms"] for one in found["rows"]}
    other, ours = times["verl grpo"], max(ms for name, ms in times.items() if name != "verl grpo")
    what, met = f"advantages of {found['dialogues']} x {found['tokens']} tokens", ours <= DEMAND * other
    told = ", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items())
    row = Row(what, "ms", ours, other, f"ratio <= {DEMAND:g}", met, "verl's GRPO estimator")
    return {"rows": [row], "notes": [f"{found['threads']} threads: {told}"]}
