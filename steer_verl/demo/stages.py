"""The stages of the demo: what each runs, what it depends on, and how long it usually takes.

::

    out/data            pictures, SFT sets, seeds          out/eval/{base,sft,grpo}   transcripts, marks, summary
    out/model           the student, untrained             out/report.md .json        the table
    out/pretrain/hf     base: sees, speaks, complies       out/survival.png           the plot
    out/sft/hf          Stage II                           out/logs                   every stage's whole output
    out/grpo/hf         Stage III                          out/stages                 what is done
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steer_verl.demo.display import Row
from steer_verl.demo.runner import Stage
from steer_verl.demo.timing import Typical
from steer_verl.errors import SteerError

CODE = Path(__file__).resolve().parents[2]
"""The clone: packages and recipes lie side by side."""

RECIPE = CODE / "recipes" / "mini"
STUDENTS = {"base": "pretrain", "sft": "sft", "grpo": "grpo"}
"""Name of an evaluation -> the stage whose student it takes."""

TITLES = {"base": "base", "sft": "SFT", "grpo": "SFT + GRPO"}
DIALOGUES = 200
"""Held-out dialogues that each student plays."""

SAVE_EVERY = 40
"""Supervised steps between two checkpoints: what an interruption can cost, about half a minute."""

LIMITS = {"data": 300.0, "model": 180.0, "pretrain": 1200.0, "sft": 1200.0, "grpo": 1800.0, "eval": 600.0}
"""Seconds after which a stage is taken to hang, several times what it takes: a vLLM without its weights hangs."""


@dataclass(frozen=True)
class Plan:
    """What differs between a real demo and a quick one."""

    out: Path
    seed: int = 0
    quick: bool = False

    def steps(self, config: str) -> int:
        """Training steps of a stage: those of its recipe, or two."""
        if self.quick:
            return 2
        import yaml

        steps = yaml.safe_load((RECIPE / f"{config}.yaml").read_text())["trainer"]["total_training_steps"]
        return int(steps)

    @property
    def dialogues(self) -> int:
        """Dialogues of each evaluation."""
        return 12 if self.quick else DIALOGUES


def stages(plan: Plan) -> list[Stage]:
    """All stages in order.

    Raises:
        SteerError: the recipes are not there: the package was installed without the clone.
    """
    if not (RECIPE / "grpo.yaml").is_file():
        raise SteerError(f"{RECIPE}: no mini recipe; run the demo from a clone of the repository")
    return [
        _data(plan),
        _model(plan),
        _supervised(plan, "pretrain", "Learning to see and speak", ("data", "model"), plan.out / "model"),
        _supervised(plan, "sft", "Stage II: SFT", ("pretrain",), plan.out / "pretrain" / "hf"),
        _grpo(plan),
        *(evaluation(plan, name) for name in STUDENTS),
    ]


def _steer(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "steer_verl.cli", "mini", *words)


def _data(plan: Plan) -> Stage:
    folder = plan.out / "data"
    argv = _steer("data", "--out", str(folder), "--seed", str(plan.seed), *(["--quick"] if plan.quick else []))
    sources = tuple(CODE / "steer_verl" / name for name in ("mini", "data", "demo/data.py", "types.py"))
    result = folder / "rl_train.parquet"
    return Stage("data", "Mini data", argv, folder, result, Typical(45), LIMITS["data"], sources=sources)


def _model(plan: Plan) -> Stage:
    folder = plan.out / "model"
    argv = _steer("model", "--out", str(folder), "--seed", str(plan.seed))
    sources = tuple(CODE / "steer_verl" / "mini" / f"{name}.py" for name in ("model", "answers", "phrases", "world"))
    result = folder / "model.safetensors"
    return Stage("model", "Untrained student", argv, folder, result, Typical(15), LIMITS["model"], sources=sources)


def _supervised(plan: Plan, name: str, title: str, after: tuple[str, ...], student: Path) -> Stage:
    """A stage of verl's SFT trainer under torchrun; it resumes from its own last checkpoint."""
    folder, steps = plan.out / name, plan.steps(name)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nnodes=1", "--nproc_per_node=1")
    overrides = (
        f"mini.root={plan.out}",
        f"model.path={student}",
        f"data.train_files={plan.out}/data/{name}.parquet",
        f"trainer.seed={plan.seed}",
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={SAVE_EVERY}",
        "trainer.max_ckpt_to_keep=1",
        f"trainer.default_local_dir={folder}/checkpoints",
        "trainer.resume_mode=auto",
    )
    argv = (sys.executable, *torchrun, "-m", "verl.trainer.sft_trainer", *_config(plan, name), *overrides)
    return Stage(
        name,
        title,
        argv,
        folder,
        folder / "hf" / "model.safetensors",
        TYPICAL[name],
        LIMITS[name],
        after,
        sources=(RECIPE / "supervised.yaml", RECIPE / f"{name}.yaml"),
        steps=steps,
        checkpoint=f"checkpoints/global_step_{steps}/huggingface",
        watch=("train/loss", "loss"),
        env=_threads(),
    )


def _grpo(plan: Plan) -> Stage:
    """Stage III by verl's own GRPO trainer, vLLM rollout and the embedded tutor; it resumes like any run of verl."""
    folder, steps = plan.out / "grpo", plan.steps("grpo")
    overrides = (
        f"mini.root={plan.out}",
        f"data.seed={plan.seed}",
        f"actor_rollout_ref.rollout.seed={plan.seed}",
        f"trainer.total_training_steps={steps}",
        "trainer.resume_mode=auto",
    )
    packages = ("rollout", "reward_fns", "steer_verl/mini", "steer_verl/tcsr.py", "steer_verl/rewards.py")
    return Stage(
        "grpo",
        "Stage III: GRPO with the tutor",
        (sys.executable, "-m", "verl.trainer.main_ppo", *_config(plan, "grpo"), *overrides),
        folder,
        folder / "hf" / "model.safetensors",
        TYPICAL["grpo"],
        LIMITS["grpo"],
        ("sft",),
        sources=(RECIPE / "grpo.yaml", RECIPE / "cpu.yaml", *(CODE / name for name in packages)),
        steps=steps,
        checkpoint=f"checkpoints/global_step_{steps}/actor/huggingface",
        watch=("steer/safety/attacked", "safety under attack"),
        env=_threads(),
    )


def evaluation(plan: Plan, name: str, attack: str = "adaptive") -> Stage:
    """One student on the held-out scenes; the adaptive attack is the demo's, the static one the benchmark's extra.

    Decoding is greedy: what the student does, without dice, so that GRPO earns nothing by being merely surer of itself.
    """
    label = name if attack == "adaptive" else f"{name}-{attack}"
    folder = plan.out / "eval" / label
    argv = _steer(
        "eval",
        *("--model", str(plan.out / STUDENTS[name] / "hf"), "--data", str(plan.out / "data" / "rl_test.jsonl")),
        *("--out", str(folder), "--seeds", str(plan.dialogues), "--attack", attack, "--seed", str(plan.seed)),
        "--greedy",
    )
    code = ("steer_verl/mini", "steer_verl/eval", "rollout/environment.py", "steer_verl/answer.py")
    return Stage(
        f"eval-{label}",
        f"Evaluation of {TITLES[name]}" + (f", {attack}" if attack != "adaptive" else ""),
        argv,
        folder,
        folder / "summary.json",
        TYPICAL["eval"],
        LIMITS["eval"],
        (STUDENTS[name],),
        sources=tuple(CODE / part for part in code),
        env=_threads(),
    )


def rows(todo: Sequence[Stage]) -> list[Row]:
    """What the display needs to know of the stages."""
    return [(stage.title, stage.typical, stage.steps) for stage in todo]


def _config(plan: Plan, name: str) -> tuple[str, ...]:
    return ("--config-path", str(RECIPE), "--config-name", name, f"hydra.run.dir={plan.out}/logs/hydra")


def _threads() -> dict[str, str]:
    """Every core for whoever computes: the processes of a Ray run take turns, and one that waits sleeps."""
    return {"OMP_NUM_THREADS": str(min(os.cpu_count() or 1, 8))}


TYPICAL = {
    "pretrain": Typical(start=30, step=1.1, close=3),
    "sft": Typical(start=30, step=1.3, close=3),
    "grpo": Typical(start=110, step=13.0, close=15),
    "eval": Typical(24),
}
"""Seconds on two cores; benchmarks/mini.md has what a whole run took."""
