"""The demo from start to end: run what is not done, then write the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steer_verl.demo.display import Display
from steer_verl.demo.report import write_report
from steer_verl.demo.runner import run
from steer_verl.demo.stages import Plan, rows, stages


def run_demo(out: Path, *, seed: int = 0, quick: bool = False) -> dict[str, Any]:
    """Run what is not done, then write and print the report; returns it.

    Raises:
        SteerError: a stage failed, the recipes are missing, or another demo runs in ``out``.
    """
    plan = Plan(out, seed, quick)
    todo = stages(plan)
    run(todo, out, Display(rows(todo)))
    return write_report(plan, todo)
