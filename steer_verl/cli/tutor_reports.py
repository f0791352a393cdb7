"""What ``steer tutor`` calibrate, replay and log print and write."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from steer_verl.errors import install_command
from steer_verl.eval.estimate import ranged
from steer_verl.models.log import Summary
from steer_verl.records import write_whole
from steer_verl.tutor.calibrate import FIGURES, Calibration

logger = logging.getLogger(__name__)


def grid(*columns: Column, show_header: bool = True) -> Table:
    """A plain table."""
    return Table(*columns, box=None, pad_edge=False, header_style="bold", show_header=show_header)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain JSON values; the folder is made when it is missing."""
    write_whole(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def write_calibration(calibration: Calibration, folder: Path) -> list[Path]:
    """Write calibration.json, calibration.md and, where matplotlib is installed, reliability.png; what was written."""
    stored, page, plot = (folder / name for name in ("calibration.json", "calibration.md", "reliability.png"))
    write_json(stored, calibration.as_dict())
    text, human_N, tutor_N = calibration_page(calibration), calibration.human_N, calibration.tutor_N
    title = f"Tutor and people: {len(tutor_N)} answers of {calibration.data.name}"
    subtitle = f"{calibration.identity.tutor[:60]}, {calibration.date}"
    written = [stored, page]
    try:
        from steer_verl.plots import reliability_plot

        reliability_plot(human_N, tutor_N, plot, title, subtitle, calibration.threshold)
        text += f"\n![human and tutor scores]({plot.name})\n"
        written.append(plot)
    except ImportError:  # the figures are worth having without the plot
        plot.unlink(missing_ok=True)
        logger.warning("no %s: matplotlib is not installed: %s", plot.name, install_command("plots"))
    write_whole(page, text)
    return written


def calibration_page(calibration: Calibration) -> str:
    """A calibration in Markdown."""
    identity, known, scale = calibration.identity, calibration.known, calibration.data.scale.value
    figures = [(FIGURES[name], f"{interval:.3f}") for name, interval in calibration.figures.items()]
    levels = [(f"{r['human']:g}", str(r["n"]), f"{r['mean']:.2f}", f"{r['sd']:.2f}") for r in calibration.levels()]
    return f"""# Calibration of {identity.tutor}

{calibration.date}; {calibration.data.name} (human scale: {scale}, {len(calibration.data.raters)} human scores each); \
identity {identity.key}, prompt {identity.prompt}.
{len(calibration.tutor_N)} answers scored, {_counted("unscored", calibration.unscored)}; unscored ones enter no \
figure. A breach is safety <= {calibration.threshold:g}.

{_markdown(figures, "figure", "value (95 % interval)")}

Breaches: {known.caught} caught, {known.missed} missed. Safe answers: {known.cleared} cleared, {known.blamed} called \
breaches. `corrected_pass_rate` of `steer_verl.statistics.agreement` corrects pass rates by these counts.

{_markdown(levels, "human level", "answers", "tutor's mean", "spread (sd)")}
"""


def print_replay(figures: Mapping[str, Any], console: Console) -> None:
    """Print the figures of :func:`steer_verl.tutor.replay.report`."""
    console.print(
        f"{figures['dialogues']} dialogues, {figures['turns']} turns; {figures['compared']} dialogues compared. "
        f"Unscored turns: {figures['unscored_before']} before, {_counted('now', figures['unscored_reasons'])}.",
        soft_wrap=True,
    )
    names = ("before", "now", "now - before (95 %)", "Spearman")
    table = grid(Column(), *(Column(name, justify="right") for name in names))
    for name, row in (*figures["scores"].items(), ("return", figures["return"])):
        before, now, rank = ("-" if row[k] is None else f"{row[k]:.3f}" for k in ("before", "now", "spearman"))
        table.add_row(name, before, now, ranged(**row["difference"], decimals=3, signed=True), rank)
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


def print_log(summary: Summary, console: Console) -> None:
    """Print what a log of attempts holds."""
    usage = summary.usage
    table = grid(Column(), Column(), show_header=False)
    for name, value in {
        "turns": summary.turns,
        "requests": summary.requests,
        "attempts": f"{usage.requests}: {_listed(summary.outcomes)}",
        "turned away": f"{usage.rejected} by an open breaker",
        "servers": _listed(summary.servers),
        "parameters left out": _listed(summary.left_out),
        "prompt tokens": f"{usage.prompt_tokens}, of which cached {usage.cached_tokens}",
        "completion tokens": usage.completion_tokens,
        "seconds in attempts": f"{summary.seconds:.1f}",
        "cost": f"{usage.cost:.4f}" if usage.cost else "no prices set",
    }.items():
        table.add_row(name, str(value))
    console.print(table, markup=False)


def _counted(what: str, counts: Mapping[str, int]) -> str:
    """``3 unscored (2 timeout, 1 bad_json)``"""
    reasons = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    return f"{sum(counts.values())} {what}{f' ({reasons})' if reasons else ''}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _markdown(rows: Sequence[Sequence[str]], *headers: str) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headers, ["---"] * len(headers), *rows))
