"""The report of ``steer tutor replay`` as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show(figures: Mapping[str, Any], console: Console) -> None:
    """Print the figures of :func:`steer_verl.vetting.replay.report`."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in figures["unscored_reasons"].items())
    console.print(
        f"{figures['dialogues']} dialogues, {figures['turns']} turns; {figures['compared']} dialogues compared. "
        f"Unscored turns: {figures['unscored_before']} before, {figures['unscored_now']} now"
        f"{f' ({reasons})' if reasons else ''}.",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("", "before", "now", "now - before (95 %)", "Spearman"):
        table.add_column(header, justify="left" if not header else "right")
    for name, row in (*figures["scores"].items(), ("return", figures["return"])):
        table.add_row(name, _number(row["before"]), _number(row["now"]), _interval(row), _number(row["spearman"]))
    console.print(table)
    breaches, groups = figures["breaches"], figures["groups"]
    console.print(
        f"Dialogues with a breach (safety <= {breaches['threshold']:g}): {breaches['both']} to both, "
        f"{breaches['only_before']} only before, {breaches['only_now']} only now, {breaches['neither']} to neither.\n"
        f"GRPO groups: {groups['groups']} with {groups['members']} members; {groups['swapped']} of {groups['pairs']} "
        f"pairs swap, {groups['tie_changed']} gain or lose a tie; another best member in {groups['best_changed']} "
        f"groups; the advantage of {groups['sign_changed']} members changes its sign.",
        soft_wrap=True,
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(row: Mapping[str, Any]) -> str:
    difference = row["difference"]
    if difference["value"] is None:
        return "-"
    return f"{difference['value']:+.3f} ({difference['low']:+.3f} .. {difference['high']:+.3f})"
