"""What a run found, one JSON file a part, and the page and plot that are made of those files alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import pages
from steer_verl.errors import DataError
from steer_verl.records import write_whole
from steer_verl.report.training import Step

VERLS = "-verl"
"""Ends the name of a training that verl's own agent loop plays (verls_loop.py)."""
MODES = {
    "lora": "LoRA, rank 64",
    "lora-verl": "LoRA, verl's ToolAgentLoop",
    "full": "full fine-tuning",
    "full-verl": "full, verl's ToolAgentLoop",
}
PARTS = ("processor", "estimator", *MODES)
"""Every part, in the order in which a whole run takes them: the cheap ones first."""
PACKAGES = ("torch", "transformers", "vllm", "verl", "ray", "flash-attn")
PLOT = "gpu.png"
PHASES = ("gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights")
"""The parts of a step that verl times (trainer/ppo/v1/trainer_base.py:562-612, trainer_sync.py:36)."""
OTHER = "other"
MEASURES: dict[str, tuple[str, Callable[[Sequence[float]], float]]] = {
    "step (s)": ("timing_s/step", fmean),
    "tokens a step": ("perf/total_num_tokens", fmean),
    "tokens/s, whole step": ("perf/throughput", fmean),
    "MFU of the update": ("perf/mfu/actor", fmean),
    "student engine idle, share of the step": ("steer/engine_idle_share", fmean),
    "card busy with a kernel, share of the step": ("card/busy", fmean),
    "tokens an answer": ("steer/answer_tokens", fmean),
    "rollout and actor, correlation of probabilities": ("training/rollout_actor_probs_pearson_corr", fmean),
    "actor, allocated (GiB)": ("actor/perf/max_memory_allocated_gb", max),
    "actor, reserved (GiB)": ("actor/perf/max_memory_reserved_gb", max),
    "card, all processes (GiB)": ("card/memory_gb", max),
    "host (GiB)": ("actor/perf/cpu_memory_used_gb", max),
    "student's own tokens/s while generating": ("own", fmean),
}
"""Title -> what was logged, and what is shown of the steps after the first, which compiles and warms up."""

Figures = dict[str, Any]


def machine() -> str:
    """Where and with what this was measured. Opens the device: call it in a process that may hold a little memory."""
    import torch

    card = torch.cuda.get_device_properties(0)
    device = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    return f"{device}; {date.today()}; {pages.machine(*PACKAGES)}"


def save(out: Path, part: str, where: str, figures: Figures) -> None:
    """Write ``<out>/<part>.json``, atomically."""
    write_whole(out / f"{part}.json", json.dumps({"machine": where, "figures": figures}, indent=1))


def load(out: Path) -> dict[str, Figures]:
    """Part -> ``{"machine": ..., "figures": ...}`` of every part that was measured.

    Raises:
        DataError: nothing was measured.
    """
    found = {part: json.loads(path.read_text()) for part in PARTS if (path := out / f"{part}.json").exists()}
    if not found:
        raise DataError(f"{out}: no result of any part; run `python -m benchmarks.gpu --out {out}` on a GPU first")
    return found


def phases(steps: Sequence[Step]) -> dict[str, float]:
    """Mean seconds of each phase of ``steps``, and of what lies between them (``other``)."""
    means = {name: fmean(seen) for name in PHASES if (seen := _known(steps, f"timing_s/{name}"))}
    if whole := _known(steps, "timing_s/step"):
        means[OTHER] = max(fmean(whole) - sum(means.values()), 0.0)
    return means


def measures(steps: Sequence[Step]) -> dict[str, float]:
    """The figures of the page by title; one that verl did not log is absent."""
    names = ("steer/total_turns", "steer/answer_tokens", "timing_s/gen")
    told = [[step.get(name, math.nan) for name in names] for step in steps]
    steps = [{**step, "own": turns * tokens / gen} for step, (turns, tokens, gen) in zip(steps, told, strict=True)]
    return {title: how(seen) for title, (name, how) in MEASURES.items() if (seen := _known(steps, name))}


def write(found: Mapping[str, Figures], folder: Path) -> str:
    """Write ``gpu.md`` and, when there are steps, ``gpu.png`` to ``folder``; returns the page."""
    parts = ["# On a GPU: figures", "Written by `python -m benchmarks.gpu`; no figure is written by hand."]
    figures = {part: result["figures"] for part, result in found.items()}
    if trainings := {mode: figures[mode] for mode in MODES if mode in figures}:
        parts += ["## GRPO steps, Qwen2.5-VL-3B of random weights", *_trainings(trainings, folder / PLOT)]
    if "processor" in figures:
        parts += ["## Image processor, Qwen2.5-VL's own pixel limits", _table(figures["processor"])]
    if times := figures.get("estimator"):
        parts += [f"## Advantage estimator, {times['dialogues']} x {times['tokens']} tokens", _table(times)]
        parts += [f"Median, taken in turns; {times['threads']} threads on the CPU."]
    where = "\n".join(f"- {part}: {result['machine']}" for part, result in found.items())
    return pages.write(folder / "gpu.md", *parts, "## Where", where)


def plot(seconds: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Bars of the mean step, one a training, stacked by phase."""
    from steer_verl import plots

    figure, (axes,) = plots.sheet(1, (7.2, 1.6 + 0.7 * len(seconds)))
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


def _trainings(trainings: Mapping[str, Figures], picture: Path) -> list[str]:
    steps = {mode: [step for step in figures["steps"] if step["step"] > 1] for mode, figures in trainings.items()}
    seconds = {mode: phases(found) for mode, found in steps.items()}
    columns = [
        {"steps counted": len(found), **{f"{k} (s)": v for k, v in seconds[mode].items()}, **measures(found)}
        for mode, found in steps.items()
    ]
    titles = dict.fromkeys(title for column in columns for title in column)
    rows = [[t, *(pages.number(column[t]) if t in column else "-" for column in columns)] for t in titles]
    text = [pages.table(["", *(MODES[mode] for mode in trainings)], rows)]
    if seen := {mode: phase for mode, phase in seconds.items() if phase}:
        plot(seen, picture)
        text.append(f"![step time by phase]({PLOT})")
    text += [f"{MODES[m]} ended early: {f['ended']}." for m, f in trainings.items() if f["ended"] != "as planned"]
    padded = any(line.endswith("attn_implementation=sdpa") for f in trainings.values() for line in f["overrides"])
    attention = "sdpa, padded, log-probs in chunks (no flash-attn here)" if padded else "flash-attn, packed"
    return [*text, f"Means over the steps after the first; memory is the peak. Attention: {attention}."]


def _table(figures: Figures) -> str:
    rows = ([cell if isinstance(cell, str) else pages.number(cell) for cell in row.values()] for row in figures["rows"])
    return pages.table(list(figures["rows"][0]), rows)


def _known(steps: Sequence[Step], name: str) -> list[float]:
    return [step[name] for step in steps if math.isfinite(step.get(name, math.nan))]
