"""The result page and its plot, from the JSON files of a run alone: no figure is written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.results import Figures
from benchmarks.gpu.steps import OTHER, PHASES, counted, phases, summary

MODES = {"lora": "LoRA, rank 64", "full": "full fine-tuning"}
PLOT = "gpu.png"


def write(found: Mapping[str, Figures], folder: Path) -> Path:
    """Write ``gpu.md`` and, when there are steps, ``gpu.png`` to ``folder``; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(_seconds(found).values()):
        plot(_seconds(found), folder / PLOT)
    page = folder / "gpu.md"
    page.write_text(render(found))
    return page


def render(found: Mapping[str, Figures]) -> str:
    """The whole page, of the parts that were measured."""
    writers = {"processor": _processor, "estimator": _estimator}
    parts = ["# On a GPU: figures", "Written by `python -m benchmarks.gpu`; no figure is written by hand."]
    if trainings := {mode: found[mode]["figures"] for mode in MODES if mode in found}:
        parts += ["## GRPO steps, Qwen2.5-VL-3B of random weights", *_trainings(trainings)]
    for part, writer in writers.items():
        if part in found:
            parts += writer(found[part]["figures"])
    return "\n\n".join([*parts, "## Where", _where(found)]) + "\n"


def plot(seconds: Mapping[str, Mapping[str, float]], path: Path) -> Path:
    """Bars of the mean step, one a training, stacked by phase."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from steer_verl import plots

    figure = Figure(figsize=(7.2, 1.6 + 0.7 * len(seconds)), dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = dict(zip((*PHASES, OTHER), (*plots.COLOURS[1:], plots.INK, "#4fa3a5", plots.COLOURS[0]), strict=False))
    for row, phase in enumerate(seconds.values()):
        left = 0.0
        for name, width in phase.items():
            axes.barh(row, width, left=left, color=colours[name], height=0.55, label=name if row == 0 else None)
            left += width
        axes.text(left, row, f"  {left:.1f} s", va="center", color=plots.INK, fontsize=9.5)
    axes.set_yticks(range(len(seconds)), [MODES[mode] for mode in seconds])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("seconds of a step", color=plots.INK)
    plots.dress(axes, "Where a GRPO step's time goes", "one card, 8 turns, embedded tutor; first step left out")
    axes.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=len(colours), frameon=False, fontsize=8.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _seconds(found: Mapping[str, Figures]) -> dict[str, dict[str, float]]:
    by_mode = {mode: phases(counted(found[mode]["figures"]["steps"])) for mode in MODES if mode in found}
    return {mode: phase for mode, phase in by_mode.items() if phase}


def _trainings(trainings: Mapping[str, Figures]) -> list[str]:
    steps = {mode: counted(figures["steps"]) for mode, figures in trainings.items()}
    summaries = {mode: summary(found) for mode, found in steps.items()}
    seconds = {mode: phases(found) for mode, found in steps.items()}
    rows = [
        [f"{name} (s)", *_cells(seconds, name)] for name in (*PHASES, OTHER) if any(name in s for s in seconds.values())
    ]
    titles = list(dict.fromkeys(title for found in summaries.values() for title in found))
    rows = [["steps counted", *(str(len(found)) for found in steps.values())], *rows]
    rows += [[title, *_cells(summaries, title)] for title in titles]
    text = [_table(["", *(MODES[mode] for mode in trainings)], rows)]
    if any(seconds.values()):
        text.append(f"![step time by phase]({PLOT})")
    text += [f"{MODES[m]} ended early: {f['ended']}." for m, f in trainings.items() if f["ended"] != "as planned"]
    attention = {_attention(figures["overrides"]) for figures in trainings.values()}
    return [
        *text,
        f"Means over the steps after the first; memory is the peak. Attention: {'; '.join(sorted(attention))}.",
    ]


def _attention(overrides: Sequence[str]) -> str:
    padded = any(line.endswith("attn_implementation=sdpa") for line in overrides)
    return "sdpa, padded, log-probs in chunks (no flash-attn here)" if padded else "flash-attn, packed"


def _processor(figures: Figures) -> list[str]:
    ways = list(figures["rows"][0]["group_ms"])
    header = ["picture", "device", "image tokens", "pixel_values (MB)", "one pass (ms)"]
    header += [f"{way}, n = {figures['rollouts']} (ms)" for way in ways]
    rows = [
        [row["size"], row["device"], str(row["tokens"]), f"{row['bytes'] / 1e6:.1f}", f"{row['one_ms']:.1f}"]
        + [f"{row['group_ms'][way]:.1f}" for way in ways]
        for row in figures["rows"]
    ]
    return ["## Image processor, Qwen2.5-VL's own pixel limits", _table(header, rows)]


def _estimator(figures: Figures) -> list[str]:
    rows: list[dict[str, Any]] = figures["rows"]
    times = {(row["estimator"], row["device"]): row["ms"] for row in rows}
    devices, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("device", "estimator"))
    base = names[0]
    header = ["estimator", *(text for device in devices for text in (f"{device} (ms)", f"of {base}"))]
    table = [
        [name]
        + [
            text
            for device in devices
            for text in (f"{times[name, device]:.1f}", f"{times[name, device] / times[base, device]:.2f}")
        ]
        for name in names
    ]
    title = f"## Advantage estimator, {figures['dialogues']} x {figures['tokens']} tokens"
    return [title, _table(header, table), f"Median, taken in turns; {figures['threads']} threads on the CPU."]


def _where(found: Mapping[str, Figures]) -> str:
    places: dict[str, list[str]] = {}
    for part, result in found.items():
        places.setdefault("; ".join(result["machine"].values()), []).append(part)
    return "\n".join(f"- {', '.join(parts)}: {place}" for place, parts in places.items())


def _cells(columns: Mapping[str, Mapping[str, float]], name: str) -> list[str]:
    return [_number(column.get(name)) for column in columns.values()]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])
