"""benchmarks/rollout.md and its plot, from the figures of the parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.pages import number, table, write

TITLES = {
    "pictures": "Pictures",
    "waiting": "Hundreds of dialogues at once",
    "limits": "The same where the tutor or the student is the limit",
    "order": "Nobody waits for a score",
    "estimator": "The estimator",
    "modes": "verl's asynchronous trainers",
}
INTRODUCTION = """\
Written by `STEER_CPU=1 python -m benchmarks.rollout`; no figure is written by hand. Ours is `steer_dialogue`; the \
other side, if nothing else is said, is verl 0.9.1's own `ToolAgentLoop` that calls the same tutor as a tool, on the \
same machine in the same run. Everything between the dataset row and the TransferQueue is verl's own; the student and \
the tutor only take their time."""
RUN = {
    "wall": "wall (s)",
    "critical_path": "critical path (s)",
    "work_over_capacity": "work / capacity (s)",
    "over_bound": "wall / bound",
    "cpu_ms_per_turn": "CPU a turn (ms)",
    "loop_ms_per_turn": "of the event loop's thread (ms)",
}
"""A run's figures and what the page calls them."""


@dataclass(frozen=True)
class Row:
    """``ours`` and ``other`` in ``unit``; ``demand`` is what ``ours``, or the ratio, must keep."""

    what: str
    unit: str
    ours: float
    other: float | None
    demand: str
    met: bool
    other_is: str = ""
    """Nothing: verl's ToolAgentLoop."""

    def cells(self) -> list[str]:
        """Of the page's table."""
        unit = f" {self.unit}" if self.unit else ""
        other = "" if self.other is None else number(self.other) + unit
        ratio = number(self.ours / self.other) if self.other else ""
        named = f" ({self.other_is})" if self.other_is else ""
        met = "yes" if self.met else "**no**"
        return [self.what, number(self.ours) + unit, other + named, ratio, self.demand, met]


def render(found: Mapping[str, Any], folder: Path) -> str:
    """Write ``rollout.md``, and ``rollout.png`` if dialogues were played; returns the page."""
    parts = ["# A rollout that wastes nothing: figures", INTRODUCTION]
    for part, title in TITLES.items():
        if part in found:
            rows = [Row(**row).cells() for row in found[part]["rows"]]
            parts += [f"## {title}", table(["figure", "ours", "other", "ours / other", "demand", "met"], rows)]
            parts += ["![wall time, and what a turn costs](rollout.png)"] if part == "waiting" else []
            parts += [*found[part].get("notes", []), f"<sub>{found[part]['where']}</sub>"]
    if "waiting" in found:
        waiting, limits = found["waiting"], found.get("limits", {"rows": [], "runs": []})
        parts += ["### Every run", _runs(["limit", "side"], [*waiting["runs"], *limits["runs"]])]
        parts += ["### Ours from few to many", _runs(["dialogues"], waiting["curve"])]
        plot([Row(**row) for row in (*waiting["rows"], *limits["rows"])], waiting["curve"], folder / "rollout.png")
    return write(folder / "rollout.md", *parts)


def _runs(names: list[str], runs: list[dict[str, Any]]) -> str:
    return table([*names, *RUN.values()], ([*(r[n] for n in names), *(number(r[key]) for key in RUN)] for r in runs))


def plot(rows: list[Row], curve: list[dict[str, float]], path: Path) -> None:
    """Wall time over its bound for both sides; cost of a turn from few to many dialogues."""
    from steer_verl import plots

    figure, (left, right) = plots.sheet(2, (9.6, 3.6), (5, 4), sharey=False)
    rows = [row for row in rows if row.other is not None]
    for place, row in enumerate(rows):
        sides = ((row.ours, plots.COLOURS[2], "steer_dialogue"), (row.other, plots.COLOURS[0], "verl's ToolAgentLoop"))
        for offset, (value, colour, side) in zip((-0.19, 0.19), sides, strict=True):
            left.barh(place + offset, value, height=0.34, color=colour, label=side if place == 0 else None)
            left.text(value, place + offset, f" {value:.2f}", va="center", color=plots.INK, fontsize=9)
    left.axvline(1, color=plots.INK, linewidth=1)
    left.set_yticks(range(len(rows)), [row.what.partition(", ")[2].removesuffix(": wall / bound") for row in rows])
    left.invert_yaxis()
    left.margins(x=0.14)
    left.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    left.set_xlabel("wall time over the shortest possible", color=plots.INK)
    plots.dress(left, "320 dialogues of 8 turns", "student 0.5 s, tutor 1 s a turn, log-normal")
    left.grid(visible=False)
    counts = [point["dialogues"] for point in curve]
    for key, colour, label in (
        ("cpu_ms_per_turn", plots.COLOURS[2], "worker process"),
        ("loop_ms_per_turn", plots.COLOURS[1], "event loop's thread"),
    ):
        right.plot(counts, [point[key] for point in curve], "o-", color=colour, label=label, markersize=4)
    right.set(xscale="log", ylim=(0, None))
    right.set_xticks(counts, [str(count) for count in counts], fontsize=8)
    right.minorticks_off()
    right.legend(frameon=False, fontsize=8.5)
    right.set_xlabel("dialogues at once", color=plots.INK)
    plots.dress(right, "CPU of a turn, ms", "verl's own work around the loop included")
    figure.savefig(path)
