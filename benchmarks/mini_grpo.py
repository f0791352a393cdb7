"""A few real GRPO steps of the mini recipe on an untrained student: run script, preflight, verl's trainer, vLLM."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from steer_verl.demo.data import build_data
from steer_verl.mini.model import build
from steer_verl.processes.child import StageFailed, child_environment, run_child
from steer_verl.processes.leftovers import Claim, processes
from steer_verl.report.training import Step, parse_step

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "mini"
SETTINGS = "actor_rollout_ref.rollout.custom.steer"
RECORD = "running.json"


def prepare(folder: Path, family: str = "qwen2_5_vl") -> None:
    """Make data and student below ``folder``, unless they are there."""
    if not (folder / "student").exists():
        build_data(folder / "data", seed=0, quick=True)
        build(folder / "student", family=family)


def run(
    folder: Path,
    steps: int,
    *overrides: str,
    family: str = "qwen2_5_vl",
    kill: Callable[[], bool] = lambda: False,
) -> list[Step]:
    """What verl logged at each of ``steps`` steps.

    Args:
        folder: where data, student and the run's files lie; its ``log.txt`` has all that was printed.
        steps: how many in all.
        overrides: the recipe's.
        family: of the student.
        kill: once it is true, everything of the run is ended by SIGKILL; what was logged so far is returned.

    Raises:
        StageFailed: it ended badly by itself.
    """
    prepare(folder, family)
    lines: list[str] = []
    killed: list[int] = []

    def tick() -> None:
        if not killed and kill():
            killed.extend(processes(Claim.model_validate_json((folder / RECORD).read_text())))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    try:
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
            record=folder / RECORD,
            limit=1200,
            cwd=folder,
            env={**child_environment(), "PYTHON": sys.executable},
            on_line=lines.append,
            tick=tick,
        )
    except StageFailed:
        if not killed:
            raise
    return [step for line in lines if (step := parse_step(line))]
