"""What verl logged of a training: its console's lines, or the lines of its file logger, as numbers by step."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from steer_verl.errors import DataError

STEP = re.compile(r"\bstep:\d+ - .*")
"""How verl's console logger writes a step (utils/logger/aggregate_logger.py:27), whatever Ray puts before it."""

LOG = Path("logs", "grpo.log")
"""Where ``steer demo`` keeps the console of its training, below its own folder."""

VALIDATION = "val"
"""Begins every name of a validation's figures (trainer/ppo/v1/trainer_base.py:1369)."""

OF_LOST = {"critic/score/mean": 0.0, "response_length/mean": 1.0}
"""Means of verl's that count lost dialogues too -> what each counts as there: no reward, and one end token."""

MOST = 1e100
"""A figure beyond it is an overflow like infinity, and is not drawn."""

Step = dict[str, float]


@dataclass(frozen=True)
class Training:
    """The figures of one training."""

    name: str
    """What curves call it."""
    steps: tuple[Step, ...]
    """Figures by verl's own names, in the order of ``step``, which each has."""

    def curve(self, name: str) -> list[tuple[float, float]]:
        """``(step, value)`` wherever a number was logged that can be drawn; lost dialogues are taken out of means."""
        found = ((step["step"], _without_lost(step, name)) for step in self.steps)
        return [(step, value) for step, value in found if abs(value) < MOST]


def read_training(path: Path) -> Training:
    """Read a log of verl's console, of its file logger (tracking.py, ``FileLogger``), or of a folder of ``steer demo``.

    A killed training goes on from a checkpoint. What it had logged of later steps is then dropped, for those weights
    are no more; a step that is logged again counts as it was logged last. The validation with which verl begins is
    logged as of the checkpoint's step, and leaves that step's other figures as they were.

    Raises:
        DataError: the file is not there, or tells of no step.
    """
    file = path / LOG if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{file}: no such file; give verl's console log, its file logger's .jsonl, or a demo's folder")
    steps: list[Step] = []
    for step in _steps(file):
        same: Step = {}
        while steps and steps[-1]["step"] >= step["step"]:
            same = steps.pop()
        only_validates = all(name.startswith(VALIDATION) for name in step.keys() - {"step"})
        steps.append({**same, **step} if only_validates and same.get("step") == step["step"] else step)
    if not steps:
        raise DataError(f"{file}: no line tells of a step; keep 'console' or 'file' in trainer.logger and log again")
    return Training(path.resolve().name if path.is_dir() else path.stem, tuple(steps))


def _without_lost(step: Step, name: str) -> float:
    """The figure of the dialogues that are not lost; not a number where there is none."""
    value, lost = step.get(name, math.nan), step.get("steer/lost_share", 0.0)
    if name not in OF_LOST or not lost:
        return value
    return (value - lost * OF_LOST[name]) / (1 - lost) if lost < 1 else math.nan


def parse_step(line: str) -> Step | None:
    """``step:1 - name:value - ...`` as numbers, or ``None`` when the line is none. What is no number is left out."""
    found = STEP.search(line)
    if found is None:
        return None
    plain = re.sub(r"\x1b\[[\d;]*m", "", found[0])
    plain = re.sub(r"np\.\w+\(([^()]*)\)", r"\1", plain)
    step = {}
    for part in plain.split(" - "):
        name, _, text = part.strip().rpartition(":")
        try:
            step[name] = float(text)
        except ValueError:
            continue
    return step


def parse_record(line: str) -> Step | None:
    """``{"step": 1, "data": {name: value}}`` as numbers, or ``None`` when the line is none."""
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
        figures = {name: float(value) for name, value in record["data"].items() if isinstance(value, int | float)}
        return {**figures, "step": float(record["step"])}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):  # deep nesting is the last
        return None


def _steps(file: Path) -> Iterator[Step]:
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if (step := parse_record(line) or parse_step(line)) and abs(step["step"]) < MOST:
                yield step
