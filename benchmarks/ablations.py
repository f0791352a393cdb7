"""The method without one of its parts, over several training seeds: ``python benchmarks/ablations.py``.

::

    out/base                 one pretrained student for all seeds          out/seed-N/data, data_single_turn
    out/seed-N/sft           Stage II on dialogues, on single turns        out/seed-N/eval/<student>
    out/seed-N/full ...      Stage III: the method, and an ablation each   out/stages, out/logs

Two lanes share the stages (steer_verl/demo/lanes.py); what was interrupted goes on. A seed is finished before the next
is begun, so that whatever there is, is balanced. The figures are benchmarks/ablation_page.py's.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from steer_verl.demo.display import Display
from steer_verl.demo.lanes import share
from steer_verl.demo.runner import Stage
from steer_verl.demo.stages import DATA_CODE, LIMITS, Plan, base, data, evaluation, grpo, rows, supervised
from steer_verl.demo.timing import Typical
from steer_verl.errors import SteerError

STEPS = 12
"""Steps of GRPO for every student; the recipe's 20 have shown most of their gain by then."""

LANES = 2
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
    "no_tcsr": Student("without TCSR", "no_tcsr"),
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
    steps: int = STEPS
    static: bool = True
    """Evaluate on the seeds' own questions too."""

    def plan(self, seed: int) -> Plan:
        """One training seed's part."""
        return Plan(self.out / f"seed-{seed}", seed, self.quick, self.steps, threads=1)

    @property
    def base(self) -> Plan:
        """The student that all begin at: one model, as the paper's is."""
        return Plan(self.out / "base", 0, self.quick, threads=1)


def stages(run: Ablations) -> list[Stage]:
    """All stages in order: the base, then seed by seed; last what can be done without."""
    todo = [_within("base", stage) for stage in base(run.base)]
    todo += [stage for seed in run.seeds for stage in seed_stages(run.plan(seed))]
    if run.static:
        todo += [stage for seed in run.seeds for stage in evaluations(run.plan(seed), "static")]
    return todo


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
    code = Path(sys.modules[Plan.__module__].__file__ or "").parents[1] / "mini" / "single_turn.py"
    return Stage(
        "data_single_turn",
        "Single-turn data",
        (*argv, *(["--quick"] if plan.quick else [])),
        folder,
        folder / "rl_train.parquet",
        Typical(10),
        LIMITS["data"],
        sources=(*DATA_CODE, code),
    )


def evaluations(plan: Plan, attack: str) -> list[Stage]:
    """Every student of a seed, under one kind of attack."""
    return [_within(plan.out.name, stage) for stage in _evaluations(plan, attack)]


def _evaluations(plan: Plan, attack: str) -> list[Stage]:
    makers = {name: "pretrain" if name == "base" else name for name in STUDENTS}
    found = [
        evaluation(plan, name, attack, student=maker, title=f"{STUDENTS[name].title}, seed {plan.seed}")
        for name, maker in makers.items()
    ]
    return [replace(stage, after=("data", *stage.after)) for stage in found]  # each seed has scenes of its own


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


def work(run: Ablations) -> None:
    """Be one lane."""
    todo = stages(run)
    share(todo, run.out, Display(rows(todo)))


def lanes(run: Ablations, count: int) -> None:
    """Start the lanes and wait for them; a SIGTERM or Ctrl-C ends them.

    Raises:
        SteerError: one of them failed; the others have done what they could.
    """
    link_base(run)
    logs = run.out / "logs"
    logs.mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = []
    try:
        for number in range(count):
            with (logs / f"lane-{number}.log").open("a") as log:
                argv = [sys.executable, *sys.argv, "--lane"]
                started.append(subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, start_new_session=True))
        print(f"{count} lanes at work; tail -f {logs}/lane-*.log", flush=True)
        failed = [number for number, lane in enumerate(started) if lane.wait()]
    finally:
        for lane in started:
            lane.terminate()
        for lane in started:
            lane.wait()
    if failed:
        raise SteerError(f"a lane failed; {logs}/lane-{failed[0]}.log says why. The same command goes on.")


def finished(run: Ablations, seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds of which every student has been evaluated under attack."""
    folders = {seed: run.plan(seed).out / "eval" for seed in seeds}
    return tuple(s for s, f in folders.items() if all((f / name / "marks.jsonl").is_file() for name in STUDENTS))


def main() -> None:
    """Run what is missing, then write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=Path("out/ablations"))
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of GRPO, the same for every student")
    parser.add_argument("--lanes", type=int, default=min(LANES, os.cpu_count() or 1), help="stages at a time")
    parser.add_argument("--quick", action="store_true", help="shows that the machinery works; writes below --out only")
    parser.add_argument("--page", action="store_true", help="only write the figures of the seeds that are finished")
    parser.add_argument("--lane", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    run = Ablations(args.out.resolve(), tuple(args.seeds), args.quick, args.steps)
    if args.lane:
        return work(run)
    if not args.page:
        lanes(run, args.lanes)


if __name__ == "__main__":
    try:
        main()
    except SteerError as error:
        raise SystemExit(f"ablations: {error}") from None
