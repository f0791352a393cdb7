"""The report of ``steer tutor check``: a table, settings to paste, what would spoil a run, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from steer_verl.config import STEER_KEY
from steer_verl.vetting.probes import Finding

MARKS = {True: "[green]yes[/green]", False: "[red]no[/red]", None: "?"}


def suggestions(findings: Sequence[Finding]) -> list[str]:
    """Settings as Hydra overrides; ``++`` sets a key whether or not a yaml holds it.

    What lies within a list cannot be overridden and is written as a comment for the yaml. Mirrors have no settings of
    their own.
    """
    settings: dict[str, Any] = {}
    for finding in findings:
        if ".mirrors[" not in finding.where:
            settings |= {f"{finding.where}.{name}": value for name, value in finding.suggest.items()}
    words = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in settings.items()}
    return [
        f"# in the yaml: {key}: {value}" if "[" in key else f"++{STEER_KEY}.{key}={value}"
        for key, value in words.items()
    ]


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the table, the settings and the cures."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("server", "probe", "works", "latency", "cached tokens", "valid", "note"):
        table.add_column(header, overflow="fold", ratio=None if header != "note" else 1)
    shown = ""
    for finding in findings:
        table.add_row("" if finding.where == shown else finding.where, *_cells(finding))
        shown = finding.where
    console.print(table)
    if lines := suggestions(findings):
        console.print("\nSuggested settings:", style="bold")
        for line in lines:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    for finding in findings:
        if finding.cure:
            console.print(finding.cure, style="bold red", markup=False, highlight=False, soft_wrap=True)


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The same as plain JSON values."""
    return {
        "usable": not any(finding.cure for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "suggestions": suggestions(findings),
    }


def _cells(finding: Finding) -> list[str]:
    from rich.markup import escape

    seconds = "" if finding.seconds is None else f"{finding.seconds:.2f} s"
    cached = "" if finding.cached is None else f"{finding.cached[0]} of {finding.cached[1]}"
    valid = "" if finding.valid is None else f"{finding.valid[0]}/{finding.valid[1]}"
    return [finding.probe, MARKS[finding.works], seconds, cached, valid, escape(finding.note)]
