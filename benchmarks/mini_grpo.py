"""A few real GRPO steps of the mini recipe on an untrained student: run script, preflight, verl's trainer, vLLM."""

from __future__ import annotations

import sys
from pathlib import Path

from steer_verl.demo.data import build_data
from steer_verl.mini.model import build
from steer_verl.processes.child import child_environment, run_child
from steer_verl.report.training import Step, parse_step

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "mini"
SETTINGS = "actor_rollout_ref.rollout.custom.steer"


def run(folder: Path, steps: int, *overrides: str) -> list[Step]:
    """What verl logged at each of ``steps`` steps; the run's files lie below ``folder``."""
    build_data(folder / "data", seed=0, quick=True)
    build(folder / "student")
    lines: list[str] = []
    run_child(
        [
            "bash",
            str(RECIPE / "run_grpo.sh"),
            f"mini.root={folder}",
            f"mini.student={folder}/student",
            f"{SETTINGS}.reward.preset=paper",  # an untrained student knows no format
            f"{SETTINGS}.max_answer_tokens=24",
            f"trainer.total_training_steps={steps}",
            *overrides,
        ],
        log=folder / "log.txt",
        record=folder / "running.json",
        limit=900,
        cwd=folder,
        env={**child_environment(), "PYTHON": sys.executable},
        on_line=lines.append,
        tick=lambda: None,
    )
    return [step for line in lines if (step := parse_step(line))]
