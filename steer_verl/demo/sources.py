"""Which of our files a stage's result depends on: whole packages, less the rooms that cannot change it.

A file too many repeats a stage that need not be; a file too few leaves a stale result. So what is left out has a name
here, what is new counts, and tests/test_demo_sources.py sees to it that nothing is left out which a stage imports.
"""

from __future__ import annotations

from pathlib import Path

CODE = Path(__file__).resolve().parents[2]
"""The clone: packages and recipes lie side by side."""

READ = {".py", ".yaml", ".md", ".jinja", ".txt"}
"""Suffixes of files that can change a result."""

_TALK = ("cli", "demo", "doctor", "plots.py", "preflight", "report")
"""Commands hand their arguments on, as the demo does; the others check before and show afterwards."""

_MEASURING = ("eval", "mini/student.py", "processes", "statistics")
_JUDGE = "mini/judge.py"
"""Of evaluations, and GRPO's held-out judge: its scores are in the transcripts."""

_TRAINER = ("cpu", "frozen_vision.py", "names.py", "plugin.py", "verl_fixes.py")
"""What any trainer of verl loads."""

_LEARNING = ("alarms.py", "dashboard.py", "metrics.py", "rewards.py", "tcsr.py", "transcripts.py")
"""Of GRPO alone."""


def data_code() -> tuple[Path, ...]:
    """Of the data and of the untrained student."""
    apart = [name for name in _TRAINER if name != "names.py"]
    writer = [CODE / "steer_verl" / "demo" / name for name in ("__init__.py", "data.py")]
    return (*_package("steer_verl", *_TALK, *_MEASURING, *_LEARNING, *apart, _JUDGE), *writer)


def supervised_code() -> tuple[Path, ...]:
    """Of verl's SFT trainer: what it learns from is in files."""
    root = CODE / "steer_verl"
    return tuple(path for path in _package("steer_verl") if path.relative_to(root).parts[0] in _TRAINER)


def grpo_code() -> tuple[Path, ...]:
    """Which dialogues are played, what they earn and what is learnt from them."""
    return (*_package("rollout"), *_package("reward_fns"), *_package("steer_verl", *_TALK, *_MEASURING))


def eval_code() -> tuple[Path, ...]:
    """Of an evaluation; who trained the student is in the key of the stage before."""
    apart = [name for name in (*_TRAINER, *_LEARNING) if name not in ("cpu", "names.py")]
    return _package("steer_verl", *_TALK, *apart)


def _package(name: str, *but: str) -> tuple[Path, ...]:
    """The files of a package that can change a result, but for those named, folders or files."""
    left_out = [CODE / name / part for part in but]
    found = (path for path in (CODE / name).rglob("*") if path.suffix in READ)
    return tuple(sorted(path for path in found if not any(path.is_relative_to(part) for part in left_out)))
