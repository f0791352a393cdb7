"""The stages of the demo: what each runs, what it depends on, and how long it usually takes.

::

    out/data            pictures, SFT sets, seeds          out/eval/{base,sft,grpo}   dialogues, their marks, summary
    out/model           the student, untrained             out/report.html            the page
    out/pretrain/hf     base: sees, speaks, complies       out/report.md .json        the table
    out/sft/hf          Stage II                           out/survival.png           the plot
    out/grpo/hf         Stage III                          out/logs, out/stages       whole outputs, and what is done
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steer_verl.demo.display import Row
from steer_verl.demo.runner import Stage
from steer_verl.demo.sources import CODE, data_code, eval_code, grpo_code, supervised_code
from steer_verl.demo.timing import Typical
from steer_verl.errors import SteerError

RECIPE = CODE / "recipes" / "mini"
EVALUATION = CODE / "recipes" / "eval" / "mini.yaml"
STUDENTS = {"base": "pretrain", "sft": "sft", "grpo": "grpo"}
"""Name of an evaluation -> the stage whose student it takes."""

TITLES = {"base": "base", "sft": "SFT", "grpo": "SFT + GRPO"}
DIALOGUES = 200
"""Held-out dialogues that each student plays."""

SAVE_EVERY = 40
"""Supervised steps between two checkpoints: what an interruption can cost, about half a minute."""

LIMITS = {"data": 300.0, "model": 180.0, "pretrain": 1200.0, "sft": 1200.0, "grpo": 3600.0, "eval": 600.0}
"""Seconds after which a stage is taken to hang, several times what it takes: a vLLM without its weights hangs."""


@dataclass(frozen=True)
class Plan:
    """What differs between a real demo and a quick one, or between runs of a benchmark."""

    out: Path
    seed: int = 0
    quick: bool = False
    grpo_steps: int | None = None
    """Steps of GRPO instead of the recipe's."""
    threads: int | None = None
    """Threads of each stage; every core unless given, for the processes of a Ray run take turns and wait asleep."""

    def steps(self, config: str) -> int:
        """Training steps of a stage: those of its recipe, or two."""
        if self.quick:
            return 2
        if config == "grpo" and self.grpo_steps:
            return self.grpo_steps
        import yaml

        steps = yaml.safe_load((RECIPE / f"{config}.yaml").read_text())["trainer"]["total_training_steps"]
        return int(steps)

    @property
    def dialogues(self) -> int:
        """Dialogues of each evaluation."""
        return 12 if self.quick else DIALOGUES

    @property
    def env(self) -> dict[str, str]:
        """What a stage that computes is told of threads."""
        return {"OMP_NUM_THREADS": str(self.threads or min(os.cpu_count() or 1, 8))}


def stages(plan: Plan) -> list[Stage]:
    """All stages in order.

    Raises:
        SteerError: the recipes are not there: the package was installed without the clone.
    """
    if not (RECIPE / "grpo.yaml").is_file():
        raise SteerError(f"{RECIPE}: no mini recipe; run the demo from a clone of the repository")
    return [
        *base(plan),
        supervised(plan, "sft", "Stage II: SFT", after=("pretrain",), student="pretrain/hf"),
        grpo(plan, "grpo", "Stage III: GRPO with the tutor", after=("sft",)),
        *(evaluation(plan, name) for name in STUDENTS),
    ]


def base(plan: Plan) -> list[Stage]:
    """The data, and the student before Stage II: it sees, speaks and complies."""
    title = "Learning to see and speak"
    return [
        data(plan),
        _model(plan),
        supervised(plan, "pretrain", title, after=("data", "model"), student="model"),
    ]


def _steer(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "steer_verl.cli", "mini", *words)


def data(plan: Plan) -> Stage:
    """All data of the laboratory."""
    folder = plan.out / "data"
    argv = _steer("data", "--out", str(folder), "--seed", str(plan.seed), *(["--quick"] if plan.quick else []))
    result = folder / "rl_train.parquet"
    return Stage("data", "Mini data", argv, folder, result, Typical(45), LIMITS["data"], sources=data_code())


def _model(plan: Plan) -> Stage:
    folder = plan.out / "model"
    argv = _steer("model", "--out", str(folder), "--seed", str(plan.seed))
    result = folder / "model.safetensors"
    return Stage("model", "Untrained student", argv, folder, result, Typical(15), LIMITS["model"], sources=data_code())


def supervised(
    plan: Plan, name: str, title: str, *, after: tuple[str, ...], student: str, config: str = "", ablation: str = ""
) -> Stage:
    """A stage of verl's SFT trainer under torchrun; it resumes from its own last checkpoint.

    Args:
        plan: where, with which seed.
        name: of the stage, and of its folder.
        title: for the display.
        after: stages that it needs.
        student: folder below the plan's that it begins at.
        config: the recipe's yaml; ``name`` unless given.
        ablation: an option of the recipe's group of that name.
    """
    config = config or name
    folder, steps = plan.out / name, plan.steps(config)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nnodes=1", "--nproc_per_node=1")
    overrides = (
        *_ablation(ablation),
        f"mini.root={plan.out}",
        f"model.path={plan.out / student}",
        f"trainer.seed={plan.seed}",
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={SAVE_EVERY}",
        "trainer.max_ckpt_to_keep=1",
        "trainer.resume_mode=auto",
    )
    return Stage(
        name,
        title,
        (sys.executable, *torchrun, "-m", "verl.trainer.sft_trainer", *_config(plan, config), *overrides),
        folder,
        folder / "hf" / "model.safetensors",
        TYPICAL[config],
        LIMITS[config],
        after,
        sources=(RECIPE / "supervised.yaml", RECIPE / f"{config}.yaml", *_option(ablation), *supervised_code()),
        steps=steps,
        checkpoint=f"checkpoints/global_step_{steps}/huggingface",
        watch=("train/loss", "loss"),
        env=plan.env,
    )


def grpo(
    plan: Plan, name: str, title: str, *, after: tuple[str, ...], ablation: str = "", more: Sequence[str] = ()
) -> Stage:
    """Stage III by verl's own GRPO trainer, vLLM rollout and the embedded tutor; it resumes like any run of verl.

    Args:
        plan: where, with which seed.
        name: of the stage, and of the folder that the recipe gives it (``mini.run``).
        title: for the display.
        after: stages that it needs.
        ablation: an option of the recipe's group of that name.
        more: further overrides.
    """
    folder, steps = plan.out / name, plan.steps("grpo")
    overrides = (
        *_ablation(ablation),
        f"mini.root={plan.out}",
        f"data.seed={plan.seed}",
        f"actor_rollout_ref.rollout.seed={plan.seed}",
        f"trainer.total_training_steps={steps}",
        "trainer.resume_mode=auto",
        *more,
    )
    return Stage(
        name,
        title,
        (sys.executable, "-m", "verl.trainer.main_ppo", *_config(plan, "grpo"), *overrides),
        folder,
        folder / "hf" / "model.safetensors",
        TYPICAL["grpo"],
        LIMITS["grpo"],
        after,
        sources=(RECIPE / "grpo.yaml", RECIPE / "cpu.yaml", *_option(ablation), *grpo_code()),
        steps=steps,
        checkpoint=f"checkpoints/global_step_{steps}/actor/huggingface",
        watch=("steer/safety/attacked", "safety under attack"),
        env=plan.env,
    )


def evaluation(plan: Plan, name: str, attack: str = "adaptive", *, student: str = "", title: str = "") -> Stage:
    """One student on the held-out scenes; the adaptive attack is the demo's, the static one the benchmark's extra.

    Decoding is greedy: what the student does, without dice, so that GRPO earns nothing by being merely surer of itself.

    Args:
        plan: where, with which seed.
        name: of the evaluation.
        attack: ``adaptive`` or ``static``.
        student: the stage whose student it is; :data:`STUDENTS` has those of the demo.
        title: for the display; :data:`TITLES` has those of the demo.
    """
    student, title = student or STUDENTS[name], title or TITLES[name]
    label = name if attack == "adaptive" else f"{name}-{attack}"
    called = title if attack == "adaptive" else f"{title}, {attack}"
    folder = plan.out / "eval" / label
    settings = (
        f"out={folder}",
        f"student.path={plan.out / student / 'hf'}",
        f"student.name={json.dumps(called)}",
        f"student.run={plan.seed}",
        f"benchmarks.mini.file={plan.out / 'data' / 'rl_test.jsonl'}",
        f"benchmarks.mini.limit={plan.dialogues}",
        *(() if attack == "adaptive" else ("attack=static", "tutor=null")),
    )
    return Stage(
        f"eval-{label}",
        f"Evaluation of {called}",
        (sys.executable, "-m", "steer_verl.cli", "eval", "run", str(EVALUATION), *settings),
        folder,
        folder / "summary.json",
        TYPICAL["eval"],
        LIMITS["eval"],
        (student,),
        sources=(EVALUATION, *eval_code()),
        env=plan.env,
    )


def rows(todo: Sequence[Stage]) -> list[Row]:
    """What the display needs to know of the stages."""
    return [(stage.title, stage.typical, stage.steps) for stage in todo]


def _config(plan: Plan, name: str) -> tuple[str, ...]:
    return ("--config-path", str(RECIPE), "--config-name", name, f"hydra.run.dir={plan.out}/logs/hydra")


def _ablation(name: str) -> tuple[str, ...]:
    return (f"ablation={name}",) if name else ()


def _option(name: str) -> tuple[Path, ...]:
    return (RECIPE / "ablation" / f"{name}.yaml",) if name else ()


TYPICAL = {
    "pretrain": Typical(start=30, step=1.1, close=3),
    "sft": Typical(start=30, step=1.3, close=3),
    "grpo": Typical(start=110, step=13.0, close=15),
    "eval": Typical(24),
}
"""Seconds on two cores; benchmarks/mini.md has what a whole run took."""
