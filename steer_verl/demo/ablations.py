"""The stages of the ablations: the method, and the method without one of its parts, over several training seeds.

::

    out/base                     one pretrained student for all seeds
    out/seed-N/data              dialogues, held-out seeds        out/seed-N/data_single_turn   questions by themselves
    out/seed-N/sft               Stage II                         out/seed-N/sft_single_turn    Stage II on the latter
    out/seed-N/full              Stage III, as the recipe is      out/seed-N/plain_mean ...  an ablation of it each
    out/seed-N/eval/<student>    as in the demo                   out/stages, out/logs          what is done, and how

A seed is finished before the next is begun, so that whatever there is, is balanced.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from steer_verl.demo.runner import Stage
from steer_verl.demo.sources import data_code
from steer_verl.demo.stages import LIMITS, Plan, base, data, evaluation, grpo, supervised
from steer_verl.demo.timing import Typical
from steer_verl.eval.runs import DIALOGUES

FULL = "full"


@dataclass(frozen=True)
class Student:
    """Somebody to be evaluated."""

    title: str
    ablation: str = ""
    """Option of recipes/mini/ablation that makes it; empty for the recipe as it is."""
    after: str = "sft"
    """Stage whose student it begins at."""


STUDENTS: dict[str, Student] = {
    "sft": Student("SFT", after="pretrain"),
    FULL: Student("full"),
    "plain_mean": Student("without TCSR", "plain_mean"),
    "static": Student("without feedback dynamics", "static"),
    "no_bootstrap": Student("without bootstrapping", "no_bootstrap", "pretrain"),
    "sft_single_turn": Student("single-turn SFT", "sft_single_turn", "pretrain"),
    "single_turn": Student("single-turn SFT + GRPO", "single_turn", "sft_single_turn"),
    "base": Student("base"),
}
"""Stage -> what is shown of its student, in the order in which they are trained."""


@dataclass(frozen=True)
class Ablations:
    """A run of all of them."""

    out: Path
    seeds: tuple[int, ...]
    quick: bool = False
    steps: int | None = None
    """Of GRPO, for every student; the recipe's unless given."""

    def plan(self, seed: int) -> Plan:
        """One training seed's part."""
        return Plan(self.out / f"seed-{seed}", seed, self.quick, self.steps, threads=1)

    def played(self, seed: int, student: str, attack: str = "adaptive") -> Path:
        """Folder of an evaluation."""
        return self.plan(seed).out / "eval" / (student if attack == "adaptive" else f"{student}-{attack}")

    @property
    def base(self) -> Plan:
        """The student that all begin at: one model, as the paper's is."""
        return Plan(self.out / "base", 0, self.quick, threads=1)


def stages(run: Ablations) -> list[Stage]:
    """All stages in order: the base, then seed by seed; last what can be done without."""
    todo = [_within("base", stage) for stage in base(run.base)]
    todo += [stage for seed in run.seeds for stage in seed_stages(run.plan(seed))]
    return todo + [stage for seed in run.seeds for stage in evaluations(run.plan(seed), "static")]


def evaluations_alone(run: Ablations) -> list[Stage]:
    """The evaluations of the students that are there, whoever trained them, at whatever commit."""
    found = [stage for a in ("adaptive", "static") for seed in run.seeds for stage in evaluations(run.plan(seed), a)]
    maker = {stage.name: run.out / stage.after[-1] / "hf" / "model.safetensors" for stage in found}
    return [replace(stage, after=()) for stage in found if maker[stage.name].is_file()]


def seed_stages(plan: Plan) -> list[Stage]:
    """One seed's stages, every student evaluated as soon as it is there."""
    found = [data(plan), single_turn_data(plan)]
    played = {stage.after[-1]: stage for stage in _evaluations(plan, "adaptive")}
    for name in STUDENTS:
        if name != "base":
            found.append(train(plan, name))
        found.append(played["pretrain" if name == "base" else name])
    return [_within(plan.out.name, stage) for stage in found]


def train(plan: Plan, name: str) -> Stage:
    """The stage that makes a student."""
    student = STUDENTS[name]
    title = f"{student.title}, seed {plan.seed}"
    if not name.startswith("sft"):
        needs = ("data_single_turn" if name == "single_turn" else "data", student.after)
        more = () if name == student.ablation else (f"mini.run={name}",)
        saving = (f"trainer.save_freq={plan.steps('grpo')}",)  # a run is too short to be worth saving half-way
        return grpo(plan, name, title, after=needs, ablation=student.ablation, more=(*more, *saving))
    needs = ("data_single_turn" if student.ablation else "data", student.after)
    return supervised(
        plan, name, title, after=needs, student=f"{student.after}/hf", config="sft", ablation=student.ablation
    )


def single_turn_data(plan: Plan) -> Stage:
    """The sets of the single-turn ablation."""
    folder = plan.out / "data_single_turn"
    argv = (sys.executable, "-m", "steer_verl.mini.single_turn", "--out", str(folder), "--seed", str(plan.seed))
    return Stage(
        "data_single_turn",
        "Single-turn data",
        (*argv, *(["--quick"] if plan.quick else [])),
        folder,
        folder / "rl_train.parquet",
        Typical(10),
        LIMITS["data"],
        sources=data_code(),
    )


def evaluations(plan: Plan, attack: str) -> list[Stage]:
    """Every student of a seed, under one kind of attack."""
    return [_within(plan.out.name, stage) for stage in _evaluations(plan, attack)]


def _evaluations(plan: Plan, attack: str) -> list[Stage]:
    makers = {name: "pretrain" if name == "base" else name for name in STUDENTS}
    found = [
        evaluation(plan, name, attack, student=maker, title=STUDENTS[name].title)  # one name: seeds can be pooled
        for name, maker in makers.items()
    ]
    return [
        replace(stage, title=f"{stage.title}, seed {plan.seed}", after=("data", *stage.after))  # seeds have own scenes
        for stage in found
    ]


def _within(part: str, stage: Stage) -> Stage:
    """The stage as one of many folders': its name tells which, and the pretrained student is everybody's."""

    def place(name: str) -> str:
        return f"base/{name}" if name == "pretrain" else f"{part}/{name}"

    return replace(stage, name=f"{part}/{stage.name}", after=tuple(map(place, stage.after)))


def link_base(run: Ablations) -> None:
    """Let every seed find the base where its recipe looks for it."""
    for seed in run.seeds:
        link = run.plan(seed).out / "pretrain"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(Path("..") / "base" / "pretrain")


def finished(run: Ablations, attack: str = "adaptive") -> tuple[int, ...]:
    """The seeds of which every student has been evaluated under ``attack``."""
    return tuple(
        seed for seed in run.seeds if all((run.played(seed, name, attack) / DIALOGUES).is_file() for name in STUDENTS)
    )
