"""The stages of the demo: what each runs, what it depends on, and how long it usually takes.

::

    out/data            pictures, SFT sets, seeds          out/eval/{base,sft,grpo}   dialogues, their marks, summary
    out/model           the student, untrained             out/report.html            the page
    out/pretrain/hf     base: sees, speaks, complies       out/report.md .json        the table
    out/sft/hf          Stage II                           out/survival.png           the plot
    out/grpo/hf         Stage III                          out/logs, out/stages       whole outputs, and what is done

Other programs of many runs (benchmarks/lab) make theirs of the same parts. Each maker of a stage takes

- ``plan``: where it runs, with which seed;
- ``name``: of the stage and of its folder; ``title``: for the display;
- ``student``: folder of the model that it begins at; ``after``: stages that it needs;
- ``ablation``: an option of the recipe's group of that name.
"""

from __future__ import annotations

import glob
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from steer_verl.demo.sources import data_code, eval_code, grpo_code, supervised_code
from steer_verl.demo.stage import Stage, Typical, override
from steer_verl.recipes import root

RECIPE = root() / "mini"
EVALUATION = root() / "eval" / "mini.yaml"

STUDENTS = {"base": ("pretrain", "base"), "sft": ("sft", "SFT"), "grpo": ("grpo", "SFT + GRPO")}
"""Name of an evaluation -> the stage whose student it takes, and what it is called."""

TITLES = {name: title for name, (_, title) in STUDENTS.items()}
DIALOGUES = 200
"""Held-out dialogues that each student plays."""

SAVE_EVERY = 40
"""Supervised steps between two checkpoints: what an interruption can cost, about half a minute."""

LIMITS = {"data": 300.0, "model": 180.0, "pretrain": 1200.0, "sft": 1200.0, "grpo": 3600.0, "eval": 900.0}
"""Seconds after which a stage is taken to hang, several times what it takes: a vLLM without its weights hangs."""

TYPICAL = {
    "data": Typical(40),
    "model": Typical(9),
    "pretrain": Typical(start=20, step=0.8),
    "sft": Typical(start=20, step=0.9),
    "grpo": Typical(start=75, step=6.6),
    "eval": Typical(start=6, step=0.1),
}
"""Seconds on two cores, a step of an evaluation being a dialogue; benchmarks/mini.md has what a whole run took."""


@dataclass(frozen=True)
class Plan:
    """What differs between a real demo and a quick one, or between runs of a benchmark."""

    out: Path
    seed: int = 0
    quick: bool = False
    part: str = ""
    """Begins the names of the stages, where several plans are run together: ``seed-3/``."""

    def steps(self, config: str) -> int:
        """Training steps of a stage: those of its recipe, or two."""
        import yaml

        recipe = yaml.safe_load((RECIPE / f"{config}.yaml").read_text())
        return 2 if self.quick else int(recipe["trainer"]["total_training_steps"])


def stages(plan: Plan) -> list[Stage]:
    """All stages in order."""
    out, tests, limit = plan.out, plan.out / "data" / "rl_test.jsonl", 12 if plan.quick else DIALOGUES
    return [
        *base(plan),
        supervised(plan, "sft", "Stage II: SFT", out / "pretrain" / "hf", ("pretrain",)),
        grpo(plan, "grpo", "Stage III: GRPO with the tutor", out / "sft" / "hf", ("sft",)),
        *(
            evaluation(plan, name, title, out / maker / "hf", (maker,), tests, limit=limit)
            for name, (maker, title) in STUDENTS.items()
        ),
    ]


def base(plan: Plan, size: str = "") -> list[Stage]:
    """The data, and the student before Stage II: it sees, speaks and complies. ``size`` is its size, if another."""
    of = f"-{size}" if size else ""
    words = ("steer_verl.cli", "mini", "model", *(["--size", size] if size else []))
    after, model = (f"{plan.part}data", f"{plan.part}model{of}"), plan.out / f"model{of}"
    return [
        data(plan),
        written(plan, f"model{of}", "Untrained student", words, "model.safetensors", "model"),
        supervised(plan, f"pretrain{of}", "Learning to see and speak", model, after, config="pretrain"),
    ]


def data(plan: Plan) -> Stage:
    """All data of the laboratory."""
    words = ("steer_verl.cli", "mini", "data", *(["--quick"] if plan.quick else []))
    return written(plan, "data", "Mini data", words, "rl_train.parquet")


def written(plan: Plan, name: str, title: str, words: Sequence[str], result: str, kind: str = "data") -> Stage:
    """A stage of a module's command, ``words``, that writes a folder."""
    argv = ("-m", *words, "--out", str(plan.out / name), "--seed", str(plan.seed))
    stage = _stage(plan, name, title, kind, argv, plan.out / name / result, ())
    return replace(stage, sources=data_code(), names_paths=kind == "data")


def supervised(
    plan: Plan, name: str, title: str, student: Path, after: tuple[str, ...], *, config: str = "", ablation: str = ""
) -> Stage:
    """A stage of verl's SFT trainer under torchrun; ``config`` is the recipe's yaml, ``name`` unless given."""
    config, folder = config or name, plan.out / name
    steps, torchrun = plan.steps(config), ("torch.distributed.run", "--standalone", "--nnodes=1", "--nproc_per_node=1")
    argv = (
        *("-m", *torchrun, "-m", "verl.trainer.sft_trainer", *_settings(plan, config, ablation)),
        override("model.path", student),
        f"trainer.seed={plan.seed}",
        override("trainer.default_local_dir", folder / "checkpoints"),
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={SAVE_EVERY}",
        "trainer.max_ckpt_to_keep=1",
        "trainer.resume_mode=auto",
    )
    return replace(
        _stage(plan, name, title, config, argv, folder / "hf" / "model.safetensors", after),
        sources=(*_recipes("supervised", config, ablation=ablation), *supervised_code()),
        steps=steps,
        checkpoint="checkpoints/global_step_{step}/huggingface",
        watch=("train/loss", "loss"),
    )


def grpo(
    plan: Plan,
    name: str,
    title: str,
    student: Path,
    after: tuple[str, ...],
    *,
    ablation: str = "",
    train: Path | None = None,
    more: Sequence[str] = (),
    keep: Sequence[int] = (),
) -> Stage:
    """Stage III by verl's own GRPO trainer, vLLM rollout and the embedded tutor.

    ``train`` is the file of the dialogues' seeds, the plan's own unless given; ``more`` are further overrides; the
    models of the steps in ``keep`` are kept (``hf-<step>``), and the last of them ends the run.
    """
    steps = keep[-1] if keep else plan.steps("grpo")
    argv = (
        *("-m", "verl.trainer.main_ppo", *_settings(plan, "grpo", ablation)),
        override("mini.run", name),
        # vLLM and Hugging Face's datasets take paths for patterns: one is told from where the stage runs, one escaped
        override("mini.student", os.path.relpath(student, plan.out.parent if plan.part else plan.out)),
        override("data.train_files", glob.escape(str(train or plan.out / "data" / "rl_train.parquet"))),
        override("data.val_files", glob.escape(str(plan.out / "data" / "rl_val.parquet"))),
        f"data.seed={plan.seed}",
        f"actor_rollout_ref.rollout.seed={plan.seed}",
        f"trainer.total_training_steps={steps}",
        "trainer.resume_mode=auto",
        *((f"trainer.save_freq={keep[0]}", f"trainer.max_actor_ckpt_to_keep={steps}") if keep else ()),
        *more,
    )
    return replace(
        _stage(plan, name, title, "grpo", argv, plan.out / name / "hf" / "model.safetensors", after),
        sources=(*_recipes("grpo", "cpu", ablation=ablation), *grpo_code()),
        steps=steps,
        checkpoint="checkpoints/global_step_{step}/actor/huggingface",
        keep=tuple(keep[:-1]),
        watch=("steer/safety/attacked", "safety under attack"),
    )


def evaluation(
    plan: Plan,
    name: str,
    title: str,
    student: Path,
    after: tuple[str, ...],
    seeds: Path,
    *,
    limit: int,
    attack: str = "adaptive",
) -> Stage:
    """One student on the first ``limit`` held-out dialogues of the JSONL file ``seeds``; written to ``eval/<name>``.

    Decoding is greedy: what the student does, without dice, so that GRPO earns nothing by being merely surer of itself.
    ``title`` names the student, whose training seeds can be pooled; ``attack`` is ``adaptive`` or ``static``.
    """
    folder = plan.out / "eval" / name
    settings = {"out": folder, "student.path": student, "student.name": title, "benchmarks.mini.file": seeds}
    words = [f"{key}={json.dumps(str(value))}" for key, value in settings.items()]  # JSON strings are YAML's
    words += [f"student.run={plan.seed}", f"benchmarks.mini.limit={limit}"]
    words += [] if attack == "adaptive" else ["attack=static", "tutor=null"]
    argv = ("-m", "steer_verl.cli", "eval", "run", str(EVALUATION), *words)
    stage = _stage(plan, f"eval-{name}", f"Evaluation of {title}", "eval", argv, folder / "summary.json", after)
    return replace(
        stage, folder=folder, typical=Typical(stage.typical.total(limit)), sources=(EVALUATION, *eval_code())
    )


def _stage(
    plan: Plan, name: str, title: str, kind: str, argv: tuple[str, ...], result: Path, after: tuple[str, ...]
) -> Stage:
    """What all stages have in common; ``argv`` is what Python is given."""
    place, whole = plan.out / name, (sys.executable, *argv)
    return Stage(plan.part + name, title, whole, place, result, TYPICAL[kind], LIMITS[kind], after)


def _settings(plan: Plan, config: str, ablation: str) -> tuple[str, ...]:
    """The recipe's yaml, and where the run's files lie."""
    logs = override("hydra.run.dir", plan.out / "logs" / "hydra")
    option = [f"ablation={ablation}"] if ablation else []
    return ("--config-path", str(RECIPE), "--config-name", config, logs, *option, override("mini.root", plan.out))


def _recipes(*names: str, ablation: str) -> list[Path]:
    """The yaml files that a training reads."""
    return [RECIPE / f"{name}.yaml" for name in (*names, *([f"ablation/{ablation}"] if ablation else []))]
