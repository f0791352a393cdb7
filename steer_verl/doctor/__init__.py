"""``steer doctor``: is all that a run needs here, in a fresh process and in a Ray worker? With a hint for what is not.

verl logs a plugin that fails to load at DEBUG, and trains without it. So nothing is taken on trust: each registration
is looked up in verl's registries and resolved to what is behind it, in a process that has done no more than
``import verl``.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from steer_verl.doctor.checks import Check

if TYPE_CHECKING:
    from rich.console import Console

PLACES = {"process": "a fresh process", "ray": "a Ray worker"}
TIMEOUT = 300.0
"""Seconds for one place; ``import verl`` alone takes 4-15 s and Ray as long to start."""


def examine(place: str, timeout: float = TIMEOUT) -> list[Check]:
    """Run every check in ``place``, a key of :data:`PLACES`; a place that cannot be examined is one failed check."""
    with tempfile.TemporaryDirectory(prefix="steer-doctor-") as folder:
        answer = Path(folder) / "checks.json"
        command = [sys.executable, "-m", "steer_verl.doctor", place, str(answer)]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return [Check(place, "fail", f"no answer within {timeout:.0f} s", "try again on a less busy machine")]
        if not answer.exists():
            last = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
            return [Check(place, "fail", last, f"see the whole error with: {shlex.join(command[:4])} /dev/stdout")]
        return [Check(**fields) for fields in json.loads(answer.read_text())]


def show(console: Console, title: str, checks: Iterable[Check]) -> None:
    """One table, and under it a line with a hint for each thing that is not as it should be."""
    from rich.markup import escape
    from rich.table import Table

    marks = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[bold red]FAIL[/]"}
    table = Table(title=f"steer doctor: {title}", title_justify="left")
    for column in ("what", "", "found"):
        table.add_column(column, overflow="fold")
    checks = list(checks)
    for check in checks:
        table.add_row(escape(check.name), marks[check.status], escape(check.found))
    console.print(table)
    for check in checks:
        if check.hint:
            console.print(f"  {marks[check.status]} {escape(check.name)}: {escape(check.hint)}", soft_wrap=True)


def run() -> int:
    """Examine each place and print what was found. Returns the exit status: 1 if anything failed, else 0."""
    from rich.console import Console

    console, failed = Console(), 0
    for place, title in PLACES.items():
        with console.status(f"examining {title}"):
            checks = examine(place)
        show(console, title, checks)
        failed += sum(check.status == "fail" for check in checks)
    console.print(f"[bold red]{failed} checks failed[/]" if failed else "[bold green]all is well[/]")
    return 1 if failed else 0
