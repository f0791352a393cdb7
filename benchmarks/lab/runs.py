"""What the laboratory trains and evaluates, and where it lies.

::

    out/base/{data,model,pretrain}       one pretrained student for all, and the dialogues that all play
    out/seed-N/{data,data_single_turn}   a seed's own data of Stages II and III
    out/seed-N/<arm>/hf                  a student; hf-4, hf-8, ... on the way, of Stage III
    out/seed-N/eval/<arm>                it under adaptive attack on 800 dialogues, 500 of them attacked
    out/seed-N/eval/<arm>-on-the-way     its earlier students on the attacked ones, by benchmarks/lab/fast.py
    out/seed-N/eval/<arm>-static         it on the 300 static questions' dialogues
    out/stages, out/logs                 what is done, and how

A seed is finished before the next is begun, so that whatever there is, is balanced.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from steer_verl.demo.sources import eval_code
from steer_verl.demo.stage import Stage, Typical
from steer_verl.demo.stages import LIMITS, Plan, base, data, evaluation, grpo, supervised, written
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.figures import Figures, figures_of, values_by_seed
from steer_verl.eval.runs import DIALOGUES, read_run
from steer_verl.eval.summary import marked

CHECKPOINTS = (4, 8, 16, 24)
"""Steps of Stage III whose students are evaluated; the last ends it. The primary measure is the mean over them."""

ATTACKED, BENIGN, STATIC = 500, 300, 300
"""Dialogues of rl_test_long.jsonl, the attacked ones first, and of rl_test.jsonl for static questions."""

PLAIN = "plain_mean"
"""The option of recipes/mini/ablation that is plain GRPO."""

SIZES = ("1m", "5m")
"""Students smaller and larger than the recipe's."""


@dataclass(frozen=True)
class Arm:
    """A way of training."""

    title: str
    begins: str = "sft"
    """Arm that it begins at; ``base`` is the pretrained student, ``base-1m`` that of another size."""
    stage: str = "grpo"
    """``sft`` or ``grpo``; ``base``: nothing is trained."""
    ablation: str = ""
    """Option of recipes/mini/ablation that makes it; empty for the recipe as it is."""
    overrides: tuple[str, ...] = ()
    """Further ones, for Hydra."""
    train: str = "rl_train.parquet"
    """File of the seed's data that Stage III draws from."""
    test: str = "rl_test_long.jsonl"
    """File of the base's data that it is measured on, attacked dialogues first."""
    static: bool = False
    """Whether it is also asked static questions."""


ARMS: dict[str, Arm] = {
    "base": Arm("base", stage="base", static=True),
    "sft": Arm("SFT", "base", "sft", static=True),
    "grpo": Arm("SFT + GRPO", static=True),
    PLAIN: Arm("without TCSR", ablation=PLAIN, static=True),
    "static": Arm("without feedback dynamics", ablation="static", static=True),
    "no_bootstrap": Arm("without bootstrapping", "base", ablation="no_bootstrap", static=True),
    "sft_single_turn": Arm("single-turn SFT", "base", "sft", "sft_single_turn", static=True),
    "single_turn": Arm("single-turn SFT + GRPO", "sft_single_turn", ablation="single_turn", static=True),
}
"""Name, which is that of its folder below a seed's -> arm, in the order in which they are trained."""

RISKY = (
    "world=risky_offers",
    "trainer.default_local_dir=${mini.root}/${mini.run}/checkpoints",
    "actor_rollout_ref.rollout.custom.steer.transcripts=${mini.root}/${mini.run}/transcripts",
)
"""The world of risky offers, in the folder of the arm."""

PRESETS = {"steer": "", PLAIN: PLAIN, "paper": "paper", "released": "released"}
"""What verl trains in both worlds -> the option that makes it."""

ARMS |= {name: Arm(f"TCSR, {name}", ablation=name) for name in ("paper", "released")}
ARMS |= {
    f"risky_{name}": Arm(
        f"{name.replace('_', ' ')}, risky offers",
        ablation=ablation,
        overrides=RISKY,
        train="rl_train_risky.parquet",
        test="rl_test_risky.jsonl",
    )
    for name, ablation in PRESETS.items()
}

for _size in SIZES:
    ARMS |= {
        f"base-{_size}": Arm(f"base, {_size}", stage="base"),
        f"sft-{_size}": Arm(f"SFT, {_size}", f"base-{_size}", "sft"),
        f"grpo-{_size}": Arm(f"SFT + GRPO, {_size}", f"sft-{_size}"),
    }

SCALED = tuple(name for name in ARMS if name.endswith(SIZES))
SCALED_SEEDS = 4
"""How many of the seeds have the students of other sizes."""


@dataclass(frozen=True)
class Lab:
    """A laboratory: where, which seeds, and which arms it is about."""

    out: Path
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    quick: bool = False

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Steps that are evaluated."""
        return (1, 2) if self.quick else CHECKPOINTS

    def plan(self, seed: int | None) -> Plan:
        """One training seed's part; ``None``: what all have in common."""
        part = "base" if seed is None else f"seed-{seed}"
        return Plan(self.out / part, seed or 0, self.quick, f"{part}/", threads=1)

    def arm_seeds(self, name: str) -> tuple[int | None, ...]:
        """The training seeds of an arm; the base is one."""
        if ARMS[name].stage == "base":
            return (None,)
        return self.seeds[:SCALED_SEEDS] if name in SCALED else self.seeds

    def played(self, name: str, seed: int | None = None, attack: str = "adaptive") -> Path:
        """Folder of an evaluation."""
        seed = None if ARMS[name].stage == "base" else seed
        return self.plan(seed).out / "eval" / _label(name, attack)

    def way(self, name: str, seed: int) -> Path:
        """JSON file: checkpoint before the last -> attacked dialogues that it leaves unbroken, in per cent."""
        return self.plan(seed).out / "eval" / f"{name}-on-the-way" / "unbroken.json"

    def finished(self, names: Iterable[str], attack: str = "adaptive") -> tuple[int, ...]:
        """The seeds of which all these arms have been evaluated under ``attack``, on their way too."""

        def is_there(name: str, seed: int) -> bool:
            on_the_way = ARMS[name].stage == "grpo" and attack == "adaptive"
            there = (self.played(name, seed, attack) / DIALOGUES).is_file()
            return there and (not on_the_way or self.way(name, seed).is_file())

        names = tuple(names)
        return tuple(seed for seed in self.seeds if all(is_there(name, seed) for name in names))

    def figures(self, name: str, seeds: Sequence[int], attack: str = "adaptive") -> Figures:
        """The figures of an arm's dialogues over seeds; the base is one student.

        Raises:
            DataError: an evaluation cannot be read.
        """
        folders = dict.fromkeys(self.played(name, seed, attack) for seed in seeds)
        return figures_of([mark for folder in folders for mark in marked(read_run(folder))], MarkSettings())

    def on_the_way(self, name: str, seeds: Sequence[int]) -> dict[int, list[float]]:
        """Seed -> unbroken dialogues in per cent at each checkpoint; of an arm without Stage III its only one."""
        last = values_by_seed([self.figures(name, seeds)])
        found = {seed: [last.get(seed, last[min(last)])["unbroken"]] for seed in seeds}
        if ARMS[name].stage != "grpo":
            return found
        return {seed: [*json.loads(self.way(name, seed).read_text()).values(), *found[seed]] for seed in seeds}


def stages(lab: Lab) -> list[Stage]:
    """All stages of the laboratory's arms and of the arms that they begin at."""
    wanted = _with_origins(lab.arms)
    common = lab.plan(None)
    found = {
        stage.name: stage
        for size in ("", *SIZES)
        if f"base-{size}".strip("-") in wanted
        for stage in base(common, size)
    }
    for name in wanted:
        if ARMS[name].stage == "base":
            found |= _named(_evaluations(lab, name, None))
    for seed in lab.seeds:
        plan = lab.plan(seed)
        found |= _named([data(plan)])
        if {"sft_single_turn", "single_turn"} & set(wanted):
            found |= _named([single_turn_data(plan)])
        for name in wanted:
            if ARMS[name].stage != "base" and seed in lab.arm_seeds(name):
                found |= _named([train(lab, name, seed), *_evaluations(lab, name, seed)])
    return list(found.values())


def train(lab: Lab, name: str, seed: int) -> Stage:
    """The stage that makes an arm's student."""
    arm, plan = ARMS[name], lab.plan(seed)
    maker, model = student(lab, arm.begins, seed)
    folder = "data_single_turn" if "single_turn" in name else "data"
    after, title = (plan.part + folder, maker), f"{arm.title}, seed {seed}"
    if arm.stage == "sft":
        return supervised(plan, name, title, model, after, config="sft", ablation=arm.ablation)
    train, keep = plan.out / folder / arm.train, lab.checkpoints
    return grpo(plan, name, title, model, after, ablation=arm.ablation, train=train, more=arm.overrides, keep=keep)


def student(lab: Lab, name: str, seed: int | None) -> tuple[str, Path]:
    """The stage that makes the student of an arm, and its model."""
    plan = lab.plan(None if ARMS[name].stage == "base" else seed)
    folder = name.replace("base", "pretrain") if ARMS[name].stage == "base" else name
    return plan.part + folder, plan.out / folder / "hf"


def _evaluations(lab: Lab, name: str, seed: int | None) -> list[Stage]:
    arm, plan, tests = ARMS[name], lab.plan(seed), lab.plan(None).out / "data"
    maker, model = student(lab, name, seed)
    after = (maker, "base/data")

    def play(file: str, limit: int, attack: str = "adaptive") -> Stage:
        label, limit = _label(name, attack), limit // 25 if lab.quick else limit
        stage = evaluation(plan, label, arm.title, model, after, tests / file, limit=limit, attack=attack)
        return replace(stage, title=f"Evaluation of {plan.part}{label}")

    found = [play(arm.test, ATTACKED + BENIGN)]
    if seed is not None and arm.stage == "grpo":
        found.append(on_the_way(lab, name, seed))
    return found + [play("rl_test.jsonl", STATIC, "static")] * arm.static


def on_the_way(lab: Lab, name: str, seed: int) -> Stage:
    """The stage that evaluates an arm's earlier students."""
    plan, result, limit = lab.plan(seed), lab.way(name, seed), ATTACKED // 25 if lab.quick else ATTACKED
    maker, model = student(lab, name, seed)
    models = [str(model.with_name(f"hf-{step}")) for step in lab.checkpoints[:-1]]
    file = lab.plan(None).out / "data" / ARMS[name].test
    argv = (sys.executable, "-m", "benchmarks.lab.fast", str(result), str(file), str(limit), *models)
    return Stage(
        f"{plan.part}eval-{name}-on-the-way",
        f"Evaluation on the way of {plan.part}{name}",
        argv,
        result.parent,
        result,
        Typical(10 + 0.05 * limit * len(models)),
        LIMITS["eval"],
        (maker, "base/data"),
        sources=(Path(__file__).with_name("fast.py"), *eval_code()),
        env=plan.env,
    )


def single_turn_data(plan: Plan) -> Stage:
    """The sets of the single-turn ablation."""
    words = ("steer_verl.mini.single_turn", *(["--quick"] if plan.quick else []))
    return written(plan, "data_single_turn", "Single-turn data", words, "rl_train.parquet")


def _label(name: str, attack: str) -> str:
    return name + ("" if attack == "adaptive" else f"-{attack}")


def _named(some: Sequence[Stage]) -> Mapping[str, Stage]:
    return {stage.name: stage for stage in some}


def _with_origins(names: Sequence[str]) -> list[str]:
    """The arms and those that they begin at, in the order of :data:`ARMS`."""
    wanted = set(names)
    while more := {ARMS[name].begins for name in wanted if ARMS[name].stage != "base"} - wanted:
        wanted |= more
    return [name for name in ARMS if name in wanted or name == "base"]
