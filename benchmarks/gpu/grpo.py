"""Real GRPO steps of recipes/qwen2_5_vl_3b on one card: verl, FSDP2, vLLM colocated, the embedded tutor.

verl's own entry point runs in a child process with a time limit; its console lines are the measurement. What differs
from the recipe is grpo.yaml, a list of overrides; why it fits into 80 GB is in README.md.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean

import yaml

from benchmarks.gpu.page import VERLS, Figures
from steer_verl.data.rows.parquet import write_parquet
from steer_verl.demo.stage import override
from steer_verl.mini.dialogues import scenes_and_kinds, seed
from steer_verl.mini.world import Split
from steer_verl.processes.child import StageFailed, run_child
from steer_verl.processes.leftovers import clear_earlier
from steer_verl.report.training import parse_step

HERE = Path(__file__).parent
CODE = HERE.parents[1]
RECIPE = CODE / "recipes" / "qwen2_5_vl_3b"
TURNS = 8
PADDED = "without_flash_attn"
SIDE = 512
"""Pixels: 18 x 18 image tokens, for the processor rounds to multiples of 28."""

ENVIRONMENT = {
    "VERL_USE_EXTERNAL_MODULES": "steer_verl.plugin",  # no entry point where the project is only on PYTHONPATH
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # it would be compiled at the first token
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # it counts the page cache, in which 7.5 GB of weights lie
    "PYTHONUNBUFFERED": "1",
}
"""verl forwards none of these; its local Ray cluster inherits them from the process that starts it, workers too."""


class Card:
    """The whole card as NVML sees it, all processes together; looked at while the steps run.

    Where NVML is missing or refuses, nothing is seen: a training does not end for its instruments.
    """

    def __init__(self) -> None:
        self.seen = list[tuple[float, float]]()
        try:
            import pynvml

            pynvml.nvmlInit()
            self.nvml, self.card = pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
        except Exception as error:
            print(f"benchmarks.gpu: the card is not looked at: {error}", flush=True)
            self.nvml = None

    def look(self) -> None:
        """Note what share of the last moment a kernel ran (0..1), and the memory in use (GiB)."""
        if self.nvml is None:
            return
        with suppress(self.nvml.NVMLError):
            busy = self.nvml.nvmlDeviceGetUtilizationRates(self.card).gpu / 100
            self.seen.append((busy, self.nvml.nvmlDeviceGetMemoryInfo(self.card).used / 2**30))

    def take(self) -> dict[str, float]:
        """Means and peak since the last time; nothing when nobody looked."""
        seen, self.seen = self.seen, []
        return {"card/busy": fmean(b for b, _ in seen), "card/memory_gb": max(m for _, m in seen)} if seen else {}


def build_rows(folder: Path, rows: int) -> Path:
    """Write so many dialogues to ``folder/train.parquet``, their pictures beside it; returns the parquet's path.

    The laboratory's scenes are 84 pixels wide and are enlarged: the vision tower's work depends on the size alone.
    """
    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    rng, seeds = random.Random(0), []
    for number, (kind, scene) in enumerate(scenes_and_kinds(rows, Split.TRAIN, rng)):
        path = (pictures / f"{number:04d}.png").resolve()
        scene.draw().resize((SIDE, SIDE)).save(path)
        seeds.append(seed(f"gpu-{number:04d}", kind, scene, str(path), rng, turns=TURNS))
    write_parquet(seeds, folder / "train.parquet")
    return folder / "train.parquet"


def overrides(mode: str, *, flash_attn: bool, **given: object) -> list[str]:
    """The Hydra overrides of a training on the recipe, by the name of its part (page.MODES).

    ``given`` fills them in: ``student``, ``rows``, ``run`` (its folder), ``steps`` and ``prompts``.
    """
    changes: dict[str, list[str]] = yaml.safe_load((HERE / "grpo.yaml").read_text())
    weights = mode.removesuffix(VERLS)
    chosen = ["common", weights, *(["verls_loop"] if mode != weights else []), *([] if flash_attn else [PADDED])]
    return [fill(line, {**given, "here": HERE}) for name in chosen for line in changes[name]]


def fill(line: str, given: Mapping[str, object]) -> str:
    """``line`` with what stands in braces filled in, a path in quotes; other braces are Hydra's."""
    filled = re.sub(r"\{(\w+)\}", lambda found: str(given[found[1]]), line)
    key, _, value = filled.partition("=")
    return override(key, value) if any(isinstance(given[n], Path) for n in re.findall(r"\{(\w+)\}", line)) else filled


def environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The child's environment: ours on PYTHONPATH before the user's, the plugin named, nothing of the CPU runtime."""
    paths = [str(CODE), *filter(None, [base.get("PYTHONPATH")])]
    kept = {name: value for name, value in base.items() if name != "STEER_CPU"}
    return {**kept, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}


def measure(run: Path, changes: Sequence[str], limit: float, keep: Callable[[Figures], None]) -> Figures:
    """Train with these overrides, ``limit`` seconds at most; ``keep`` gets the figures before the first step and after
    each, for a run that is cut.

    The folder ``run`` is emptied first, or its cache would answer for the student. A run that ends badly is told by
    ``ended`` and its log, not raised: its steps are good.
    """
    card = Card()
    figures: Figures = {"overrides": list(changes), "steps": [], "ended": "was cut"}
    record, log = run.with_suffix(".running.json"), run.with_suffix(".log")
    clear_earlier(record)
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    log.unlink(missing_ok=True)
    keep(figures)

    def hear(line: str) -> None:
        if step := parse_step(line):
            figures["steps"].append({**step, **card.take()})
            keep(figures)

    recipe = ("--config-path", str(RECIPE), "--config-name", "grpo", override("hydra.run.dir", run / "hydra"))
    try:
        run_child(
            [sys.executable, "-m", "verl.trainer.main_ppo", *recipe, *changes],
            log=log,
            record=record,
            limit=limit,
            cwd=run,
            env=environment(),
            on_line=hear,
            tick=card.look,
        )
        figures["ended"] = "as planned"
    except StageFailed as error:
        figures["ended"] = f"{error}; see {log.name}"
    keep(figures)
    return figures
