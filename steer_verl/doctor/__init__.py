"""``steer doctor``: is all that a run needs here, in a fresh process and in a Ray worker? With a hint for what is not.

verl logs a plugin that fails to load at DEBUG, and trains without it. So nothing is taken on trust: each registration
is looked up in verl's registries and resolved to what is behind it, in a process that has done no more than
``import verl``.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from steer_verl.console import stdout
from steer_verl.doctor.checks import Check
from steer_verl.processes.child import StageFailed, last_words, run_child, terminable

if TYPE_CHECKING:
    from rich.console import Console

PLACES = {"process": "a fresh process", "ray": "a Ray worker"}
TIMEOUT = 300.0
"""Seconds for one place; ``import verl`` alone takes 4-15 s and Ray as long to start."""


def examine(place: str, timeout: float = TIMEOUT) -> list[Check]:
    """Run every check in ``place``, a key of :data:`PLACES`; a place that cannot be examined is one failed check."""
    with terminable(), tempfile.TemporaryDirectory(prefix="steer-doctor-") as name:
        folder, quiet = Path(name), lambda *_: None
        command = [sys.executable, "-m", "steer_verl.doctor", place]
        answer, log = folder / "checks.json", folder / "log"
        try:  # of the Ray that it starts nothing is left, in time, too late or interrupted
            run_child(
                [*command, str(answer)],
                log=log,
                record=folder / "running",
                limit=timeout,
                cwd=Path.cwd(),
                env=os.environ,
                on_line=quiet,
                tick=quiet,
            )
        except StageFailed as error:
            hint = f"see the whole error with: {shlex.join(command)} /dev/stdout"
            return [Check(place, "fail", f"{error}: {last_words(log.read_text(errors='replace'))}", hint)]
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
    console, failed = stdout(), 0
    for place, title in PLACES.items():
        with console.status(f"examining {title}"):
            checks = examine(place)
        show(console, title, checks)
        failed += sum(check.status == "fail" for check in checks)
    console.print(f"[bold red]{failed} checks failed[/]" if failed else "[bold green]all is well[/]")
    return 1 if failed else 0
