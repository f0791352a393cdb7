"""Real GRPO steps of recipes/qwen2_5_vl_3b on one card: verl, FSDP2, vLLM colocated, the embedded tutor.

verl's own entry point runs in a child process with a time limit; its console lines are the measurement. What differs
from the recipe is grpo.yaml, a list of overrides.

Memory of full fine-tuning, 3.75 B parameters, on a card of 80 GB (79 GiB to the driver) and 128 GiB of host memory;
reckoned, not measured:

====================  ========  ======================================================================
fp32 master weights   14.0 GiB  on the card in log-probs and update, else on the host (param_offload)
fp32 gradients        14.0 GiB  in the update
Adam, two moments     28.0 GiB  on the card in the update, else on the host (optimizer_offload)
activations and head  ~6 GiB    9216 tokens a micro-batch, layers checkpointed
vLLM asleep           ~3 GiB    context and graphs; weights and cache are given back (sleep level 2)
**the update**        ~65 GiB
vLLM awake            32 GiB    0.4 of the card: 7 GiB of weights, the rest mostly cache
====================  ========  ======================================================================

Without the offloads generation would hold 42 GiB of the trainer's beside vLLM's 32, contexts not counted: too close.
bf16 weights would need no offload at all, but an update of 1e-5 vanishes in their rounding: another training. The
host holds those 42 GiB and 7 GiB of the reference, up to twice that, because pinned memory comes in powers of two.
LoRA (rank 64, 120 M parameters) needs no offload: 14 GiB of base, 2 GiB of adapters with gradients and Adam.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu.page import Figures
from steer_verl.data.rows.parquet import write_parquet
from steer_verl.mini.dialogues import scenes_and_kinds, seed
from steer_verl.mini.world import Split
from steer_verl.report.training import parse_step

HERE = Path(__file__).parent
CODE = HERE.parents[1]
RECIPE = CODE / "recipes" / "qwen2_5_vl_3b"
TURNS = 8
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


@dataclass(frozen=True)
class Plan:
    """One training that is to be timed."""

    mode: str
    """``lora`` or ``full``."""
    student: Path
    rows: Path
    run: Path
    """Folder of the run; emptied first, or its cache would answer for the student."""
    steps: int = 3
    prompts: int = 16
    limit: float = 480.0
    """Seconds after which it is ended; the steps that were done count."""


@dataclass
class Card:
    """The whole card as NVML sees it, all processes together; looked at while the steps run."""

    busy: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._nvml, self._card = pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)

    def look(self) -> None:
        """Note what share of the last moment a kernel ran (0..1), and the memory in use (GiB)."""
        self.busy.append(self._nvml.nvmlDeviceGetUtilizationRates(self._card).gpu / 100)
        self.used.append(self._nvml.nvmlDeviceGetMemoryInfo(self._card).used / 2**30)

    def take(self) -> dict[str, float]:
        """Means and peak since the last time; nothing when nobody looked."""
        busy, used = self.busy, self.used
        self.busy, self.used = [], []
        return {"card/busy": sum(busy) / len(busy), "card/memory_gb": max(used)} if busy else {}


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


def overrides(plan: Plan, *, flash_attn: bool | None = None) -> list[str]:
    """The Hydra overrides of ``plan`` on the recipe; ``flash_attn`` is looked up unless it is given."""
    import yaml

    changes: dict[str, list[str]] = yaml.safe_load((HERE / "grpo.yaml").read_text())
    has_flash_attn = find_spec("flash_attn") is not None if flash_attn is None else flash_attn
    chosen = ["common", plan.mode, *([] if has_flash_attn else ["without_flash_attn"])]
    given = {name: getattr(plan, name) for name in ("student", "rows", "run", "prompts", "steps")}
    lines = [line for name in chosen for line in changes[name]]
    for name, value in given.items():
        lines = [line.replace(f"{{{name}}}", str(value)) for line in lines]
    return lines


def environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The child's environment: ours on PYTHONPATH before the user's, the plugin named, nothing of the CPU runtime."""
    paths = [str(CODE), *filter(None, [base.get("PYTHONPATH")])]
    kept = {name: value for name, value in base.items() if name != "STEER_CPU"}
    return {**kept, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}


def measure(plan: Plan, keep: Callable[[Figures], None]) -> Figures:
    """Train ``plan.steps`` steps; ``keep`` gets the figures before the first and after each, for a run that is cut.

    A run that ends badly is told by ``ended`` and its log, not raised: its steps are good.
    """
    from steer_verl.processes.child import StageFailed, run_child
    from steer_verl.processes.leftovers import clear_earlier

    card = Card() if find_spec("pynvml") else None
    changes = overrides(plan)
    figures: Figures = {"mode": plan.mode, "overrides": changes, "steps": [], "ended": "was cut"}
    record, log = plan.run.with_suffix(".running.json"), plan.run.with_suffix(".log")
    clear_earlier(record)
    shutil.rmtree(plan.run, ignore_errors=True)
    plan.run.mkdir(parents=True)
    log.unlink(missing_ok=True)
    keep(figures)

    def hear(line: str) -> None:
        step = parse_step(line)
        if step is not None:
            figures["steps"].append({**step, **(card.take() if card else {})})
            keep(figures)

    argv = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-path", str(RECIPE), "--config-name", "grpo"]
    try:
        run_child(
            [*argv, f"hydra.run.dir={plan.run}/hydra", *changes],
            log=log,
            record=record,
            limit=plan.limit,
            cwd=plan.run,
            env=environment(),
            on_line=hear,
            tick=card.look if card else lambda: None,
        )
        figures["ended"] = "as planned"
    except StageFailed as error:
        figures["ended"] = f"{error}; see {log.name}"
    keep(figures)
    return figures
