"""benchmarks/rollout.md and its plot, from the figures of the parts; no figure is written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.rollout.row import Row

TITLES = {
    "pictures": "Pictures",
    "waiting": "Hundreds of dialogues at once",
    "limits": "The same where the tutor or the student is the limit",
    "order": "Nobody waits for a score",
    "prefill": "The tutor's prompt",
    "estimator": "The estimator",
    "imports": "The import",
    "modes": "verl's asynchronous trainers",
}


def write(found: Mapping[str, Any], folder: Path) -> Path:
    """Write ``rollout.md``, and ``rollout.png`` if dialogues were played; returns the page."""
    if "waiting" in found:
        plot(found["waiting"], found.get("limits", {"rows": []}), folder / "rollout.png")
    path = folder / "rollout.md"
    path.write_text(render(found))
    return path


def render(found: Mapping[str, Any]) -> str:
    """The page."""
    parts = [
        "# A rollout that wastes nothing: figures",
        "Written by `STEER_CPU=1 python -m benchmarks.rollout`; no figure is written by hand. Ours is "
        "`steer_dialogue`; the other side, if nothing else is said, is verl 0.9.1's own `ToolAgentLoop` that calls the "
        "same tutor as a tool, on the same machine in the same run. Everything between the dataset row and the "
        "TransferQueue is verl's own; the student and the tutor only take their time.",
    ]
    for part, title in TITLES.items():
        if part in found:
            parts += [f"## {title}", table([Row(**row) for row in found[part]["rows"]])]
            parts += ["![wall time, and what a turn costs](rollout.png)"] if part == "waiting" else []
            parts += [*found[part]["notes"], f"<sub>{found[part]['where']}</sub>"]
    if "waiting" in found:
        played = [*found["waiting"]["runs"], *found.get("limits", {"runs": []})["runs"]]
        parts += ["### Every run", runs(played), "### Ours from few to many", curve(found["waiting"]["curve"])]
    if "costs" in found:
        parts += costs(found["costs"])
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Row]) -> str:
    """One line a figure."""
    lines = ["| figure | ours | other | ours / other | demand | met |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        unit = f" {row.unit}" if row.unit else ""
        other = "" if row.other is None else f"{number(row.other)}{unit}"
        other += f" ({row.other_is})" if other and not row.other_is.startswith("verl's Tool") else ""
        ratio = "" if row.ratio is None else number(row.ratio)
        met = "yes" if row.met else "**no**"
        lines.append(f"| {row.what} | {number(row.ours)}{unit} | {other} | {ratio} | {row.demand} | {met} |")
    return "\n".join(lines)


def runs(found: Sequence[Mapping[str, Any]]) -> str:
    """All runs of the comparison, not only their medians."""
    lines = [
        "| limit | side | wall (s) | critical path (s) | work / capacity (s) | wall / bound | CPU a turn (ms) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in found:
        cells = [
            run["wall"],
            run["critical_path"],
            run["work_over_capacity"],
            run["over_bound"],
            run["cpu_ms_per_turn"],
        ]
        lines.append(f"| {run['limit']} | {run['side']} | " + " | ".join(number(cell) for cell in cells) + " |")
    return "\n".join(lines)


def curve(points: Sequence[Mapping[str, float]]) -> str:
    """Cost of a turn by the number of dialogues."""
    lines = [
        "| dialogues | wall (s) | critical path (s) | CPU a turn (ms) | of the event loop's thread (ms) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for point in points:
        cells = [point["wall"], point["critical_path"], point["cpu_ms_per_turn"], point["loop_ms_per_turn"]]
        lines.append(f"| {point['dialogues']} | " + " | ".join(number(cell) for cell in cells) + " |")
    return "\n".join(lines)


def costs(found: Mapping[str, Any]) -> list[str]:
    """The largest costs with their owners."""
    titles = {
        "simulated": "Thread of the event loop in a simulated step of 320 dialogues, share of its work, by source file",
        "real": "A step of the mini recipe's GRPO, share of its time",
    }
    parts = ["## The largest costs, and whose they are"]
    for name, title in titles.items():
        lines = [f"| {title} | owner | share |", "| --- | --- | --- |"]
        lines += [f"| `{cost['what']}` | {cost['owner']} | {100 * cost['share']:.1f} % |" for cost in found[name]]
        parts.append("\n".join(lines))
    return [*parts, f"<sub>{found['where']}</sub>"]


def number(value: float) -> str:
    """Three figures that count."""
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def plot(found: Mapping[str, Any], limits: Mapping[str, Any], path: Path) -> Path:
    """Wall time over its bound for both sides; cost of a turn from few to many dialogues."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from steer_verl import plots

    figure = Figure(figsize=(9.6, 3.6), dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(5, 4))
    rows = [Row(**row) for row in (*found["rows"], *limits["rows"]) if row["other"] is not None]
    for place, row in enumerate(rows):
        sides = ((row.ours, plots.COLOURS[2], "steer_dialogue"), (row.other, plots.COLOURS[0], "verl's ToolAgentLoop"))
        for offset, (value, colour, side) in zip((-0.19, 0.19), sides, strict=True):
            left.barh(place + offset, value, height=0.34, color=colour, label=side if place == 0 else None)
            left.text(value, place + offset, f" {value:.2f}", va="center", color=plots.INK, fontsize=9)
    left.axvline(1, color=plots.INK, linewidth=1)
    left.set_yticks(
        range(len(rows)),
        [row.what.partition(", ")[2].partition(":  wall")[0].removesuffix(": wall / bound") for row in rows],
    )
    left.invert_yaxis()
    left.margins(x=0.14)
    left.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    left.set_xlabel("wall time over the shortest possible", color=plots.INK)
    plots.dress(left, "320 dialogues of 8 turns", "student 0.5 s, tutor 1 s a turn, log-normal")
    left.grid(visible=False)
    counts = [point["dialogues"] for point in found["curve"]]
    for key, colour, label in (
        ("cpu_ms_per_turn", plots.COLOURS[2], "worker process"),
        ("loop_ms_per_turn", plots.COLOURS[1], "event loop's thread"),
    ):
        right.plot(counts, [point[key] for point in found["curve"]], "o-", color=colour, label=label, markersize=4)
    right.set(xscale="log", ylim=(0, None), xticks=counts)
    right.set_xticks(counts, [str(count) for count in counts], fontsize=8)
    right.minorticks_off()
    right.legend(frameon=False, fontsize=8.5)
    right.set_xlabel("dialogues at once", color=plots.INK)
    plots.dress(right, "CPU of a turn, ms", "verl's own work around the loop included")
    figure.savefig(path)
    return path
