"""``steer tutor check``: the probes of every server, and what is printed and written about them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column

from steer_verl.cli.tutor_reports import grid
from steer_verl.config import STEER_KEY, TutorConfig
from steer_verl.tutor.probe_material import draw_images
from steer_verl.tutor.probes import Finding, probe
from steer_verl.tutor.targets import targets

WORKS = {True: "[green]yes[/green]", False: "[red]no[/red]", None: "?"}


async def probe_servers(config: TutorConfig, trials: int, images: bool, console: Console) -> list[Finding]:
    """The findings on every server of ``config``; ``console`` shows how far it is, ``images=False`` sends no images."""
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory() as folder, console.status("") as status:
        drawn = draw_images(Path(folder))
        for target in targets(config):
            status.update(f"probing {target.where}")
            if target.local:
                note = "verl's own reward model exists only while a training runs; the training checks it"
                findings.append(Finding(target.where, "reach", None, note))
                continue
            async for finding in probe(target if images else target.blind(), trials, drawn):
                findings.append(finding)
                status.update(f"probing {target.where}: {finding.probe} done")
    return findings


def suggestions(findings: Sequence[Finding]) -> list[str]:
    """Settings as Hydra overrides; ``++`` sets a key whether or not a yaml holds it.

    What lies within a list cannot be overridden: it is a comment for the yaml. Mirrors have no settings of their own.
    """
    settings = {
        f"{finding.where}.{name}": str(value).lower() if isinstance(value, bool) else value
        for finding in findings
        if ".mirrors[" not in finding.where
        for name, value in finding.suggest.items()
    }
    return [
        f"# in the yaml: {key}: {value}" if "[" in key else f"++{STEER_KEY}.{key}={value}"
        for key, value in settings.items()
    ]


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """Print the table, the suggested settings, and what would spoil a run with how to fix it."""
    names = ("server", "probe", "works", "latency", "cached tokens", "valid")
    table = grid(*(Column(name, overflow="fold") for name in names), Column("note", overflow="fold", ratio=1))
    before = ""
    for finding in findings:
        table.add_row(
            finding.where if finding.where != before else "",
            finding.probe,
            WORKS[finding.works],
            "" if finding.seconds is None else f"{finding.seconds:.2f} s",
            "" if finding.cached is None else "{} of {}".format(*finding.cached),
            "" if finding.valid is None else "{}/{}".format(*finding.valid),
            escape(finding.note),
        )
        before = finding.where
    console.print(table)
    if lines := suggestions(findings):
        console.print("\nSuggested settings:", style="bold")
        console.print(*(f"  {line}" for line in lines), sep="\n", markup=False, highlight=False, soft_wrap=True)
    for finding in findings:
        if finding.hint:
            console.print(finding.hint, style="bold red", markup=False, highlight=False, soft_wrap=True)


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The same as plain JSON values."""
    return {
        "usable": not any(finding.hint for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "suggestions": suggestions(findings),
    }
