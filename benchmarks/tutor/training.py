"""Faults and a SIGKILL in real training: ``STEER_CPU=1 python -m benchmarks.tutor.training``.

Three runs of the mini recipe through verl's own trainer, against one tutor server on 127.0.0.1 of whose requests 5 %
fail at random:

1. undisturbed;
2. killed in its last step by SIGKILL, every process of it, just when the server has made a ruling and before the
   reply is sent; then started again with the same command;
3. with a server that fails altogether from the second step on.

Writes benchmarks/tutor/training.md.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import re
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from aiohttp import web

from steer_verl.demo.child import StageFailed, child_environment, run_child
from steer_verl.demo.data import build_data
from steer_verl.demo.leftovers import Claim, processes
from steer_verl.mini.model import build
from steer_verl.models.log import Attempt, read_log
from steer_verl.records import read_records
from steer_verl.transcripts import read_transcripts
from steer_verl.types import Trajectory, Verdict
from tests.models.fault_server import MODEL, FaultServer, Request, Step, dropped, flood, good, says, status

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "recipes" / "mini"
STEPS, SAVE_EVERY, DIALOGUES = 4, 2, 40
FAULTS = (dropped(), status(503), status(429, retry_after=1), says("no verdict", kind="bad_json"), flood())
STEER = "actor_rollout_ref.rollout.custom.steer"


@dataclass
class Lab:
    """The server of one run, and when it does its worst."""

    root: Path
    kill_in: int = 0
    """Step in whose middle everything is killed; 0: never."""
    fails_from: int = 0
    """Step from which every request fails; 0: never."""
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    seen: Counter[str] = field(default_factory=Counter)
    """Requests by step."""
    killed: threading.Event = field(default_factory=threading.Event)
    steps: dict[str, int] = field(default_factory=dict)

    @property
    def record(self) -> Path:
        """Where the run's claim lies while it runs."""
        return self.root / "running.json"

    def choose(self, request: Request) -> Step:
        """Mostly a good ruling."""
        step = 1 + len(list((self.root / "seen").glob("step-*")))
        self.seen[str(step)] += 1
        if self.fails_from and step >= self.fails_from:
            return status(503)
        if step == self.kill_in and self.seen[str(step)] == DIALOGUES and not self.killed.is_set():
            return Step("killed", self._kill)
        return self.rng.choice(FAULTS) if self.rng.random() < 0.05 else _ruling(request)

    async def _kill(self, request: Request) -> web.StreamResponse:
        """The ruling is made and charged; nobody is left to receive it."""
        claim = Claim.load(self.record)
        response = await _ruling(request).act(request)
        assert claim is not None
        for process in processes(claim):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.killed.set()
        return response


def _ruling(request: Request) -> Step:
    digest = int(hashlib.sha256(request.text.encode()).hexdigest()[:8], 16)
    scores = ((10, 10, 10), (8, 8, 9), (4, 1, 8), (1, 1, 10))[digest % 4]
    return good(scores, new_question=f"And what about part {digest % 1000}?")


@dataclass
class Run:
    """One start of the training command."""

    seconds: float
    ended: str
    """How: empty for a good end."""
    lines: list[str]

    @property
    def steps(self) -> list[int]:
        """Steps that verl logged as finished."""
        return [int(found[1]) for line in self.lines if (found := re.search(r"\bstep:(\d+) - ", line))]


def train(lab: Lab, server: FaultServer, student: Path, data: Path) -> Run:
    """Start the recipe's own script and wait for its end."""
    (lab.root / "seen").mkdir(parents=True, exist_ok=True)
    overrides = [
        f"mini.root={lab.root}",
        f"mini.student={student}",
        f"data.train_files={data}/rl_train.parquet",
        f"data.val_files={data}/rl_val.parquet",
        f"++{STEER}.tutor={{kind: openai, log: {lab.root}/attempts, endpoint: {{base_url: '{server.base_url}', "
        f"model: {MODEL}, max_retries: 3, timeout: 60}}}}",
        f"~{STEER}.tutor.holdout",
        f"{STEER}.reward.preset=paper",  # an untrained student knows no format
        f"trainer.total_training_steps={STEPS}",
        f"trainer.save_freq={SAVE_EVERY}",
    ]
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if found := re.search(r"\bstep:(\d+) - ", line):
            (lab.root / "seen" / f"step-{found[1]}").touch()

    start, ended = time.perf_counter(), ""
    try:
        run_child(
            ["bash", str(RECIPE / "run_grpo.sh"), *overrides],
            log=lab.root / "log.txt",
            record=lab.record,
            limit=1200,
            cwd=lab.root,
            env={**child_environment(), "PYTHON": sys.executable},
            on_line=on_line,
            tick=lambda: None,
        )
    except StageFailed as failure:
        ended = str(failure)
    return Run(time.perf_counter() - start, ended, lines)


def everything(folder: Path) -> list[Trajectory]:
    """Every line of a transcript log, repetitions included."""
    return list(read_records(folder, Trajectory.model_validate_json))


def seeds_by_step(records: list[Trajectory]) -> dict[int, set[str]]:
    """Which seeds each step played."""
    found: dict[int, set[str]] = defaultdict(set)
    for record in records:
        found[record.step].add(record.seed_id)
    return dict(found)


def same_answers(records: list[Trajectory], step: int) -> tuple[int, int]:
    """Dialogues of a step that were recorded twice, and how many of them say the same both times."""
    by_dialogue: dict[tuple[str, int], list[Trajectory]] = defaultdict(list)
    for record in records:
        if record.step == step:
            by_dialogue[record.seed_id, record.rollout].append(record)
    twice = [both for both in by_dialogue.values() if len(both) > 1]
    equal = [both for both in twice if len({tuple(turn.answer for turn in record.turns) for record in both}) == 1]
    return len(twice), len(equal)


def report(rows: list[tuple[str, str, bool | None]]) -> str:
    """The whole of ``training.md``."""
    marks = {True: "yes", False: "**no**", None: ""}
    table = "\n".join(f"| {what} | {figure} | {marks[met]} |" for what, figure, met in rows)
    return f"""# Faults and a SIGKILL in real training

Written by `STEER_CPU=1 python -m benchmarks.tutor.training` on {date.today()}; no figure is written by hand.

The mini recipe ({STEPS} steps of {DIALOGUES} dialogues, a checkpoint every {SAVE_EVERY}) by verl's own trainer, with a
tutor at an HTTP server of which 5 % of the requests fail at random. The second run is killed (SIGKILL, all processes)
in step {STEPS}, when the server has made a ruling and not yet sent it, and started again. The server honours
Idempotency-Key.

| what | figure | as it must be |
| --- | --- | --- |
{table}
"""


def undisturbed(root: Path, student: Path, data: Path, rows: list[tuple[str, str, bool | None]]) -> dict[int, set[str]]:
    """The first run."""
    lab = Lab(root / "undisturbed")
    with FaultServer(choose=lab.choose, keep=False).in_thread() as server:
        run = train(lab, server, student, data)
        faults = sum(count for kind, count in server.injected.items() if kind != "good")
    records = list(read_transcripts(lab.root / "grpo" / "transcripts"))
    turns = [turn for record in records for turn in record.turns]
    lost = sum(not isinstance(turn.verdict, Verdict) for turn in turns)
    rows.append(("undisturbed: finished steps", _numbers(run.steps), run.steps == [1, 2, 3, 4]))
    rows.append(("its requests, and faults among them", f"{server.requests}, {faults}", faults > 0))
    rows.append(("its unscored turns, of all", f"{lost} of {len(turns)}", None))
    return seeds_by_step(records)


def killed(
    root: Path, student: Path, data: Path, order: dict[int, set[str]], rows: list[tuple[str, str, bool | None]]
) -> None:
    """The second run."""
    lab = Lab(root / "killed", kill_in=STEPS)
    with FaultServer(choose=lab.choose, keep=False).in_thread() as server:
        first = train(lab, server, student, data)
        before = server.requests
        second = train(lab, server, student, data)
    folder = lab.root / "grpo" / "transcripts"
    records, latest = everything(folder), list(read_transcripts(folder))
    twice, equal = same_answers(records, SAVE_EVERY + 1)
    attempts = list(read_log(lab.root / "attempts"))
    answered: dict[str, set[str]] = defaultdict(set)
    for attempt in attempts:
        if attempt.outcome == "ok" and attempt.turn_key:  # the preflight's probes have none
            answered[attempt.turn_key].add(attempt.key)
    charged_twice = sum(count > 1 for key, count in server.charges.items() if key)
    add: Callable[[tuple[str, str, bool | None]], None] = rows.append
    add(("killed: first start ended", first.ended, lab.killed.is_set() and bool(first.ended)))
    add(
        (
            "its finished steps, then those of the second start",
            f"{_numbers(first.steps)}; {_numbers(second.steps)}",
            second.steps == [3, 4],
        )
    )
    add(("same seeds in every step as undisturbed", _numbers(list(order)), seeds_by_step(latest) == order))
    add(
        (
            f"dialogues of step {SAVE_EVERY + 1} played again, word for word the same",
            f"{twice}, {equal}",
            twice == equal == DIALOGUES,
        )
    )
    add(("requests before the kill, and after", f"{before}, {server.requests - before}", None))
    add(("requests charged twice", str(charged_twice), charged_twice == 0))
    add(("turns with a reply", str(len(answered)), None))
    lost = [attempt for attempt in attempts if attempt.outcome != "ok"]
    add(
        (
            "failed attempts in the log",
            ", ".join(f"{k} {n}" for k, n in Counter(_name(a) for a in lost).items()),
            None,
        )
    )
    add(("seconds of the two starts", f"{first.seconds:.0f}, {second.seconds:.0f}", None))


def hopeless(root: Path, student: Path, data: Path, rows: list[tuple[str, str, bool | None]]) -> None:
    """The third run."""
    lab = Lab(root / "hopeless", fails_from=2)
    with FaultServer(choose=lab.choose, keep=False).in_thread() as server:
        run = train(lab, server, student, data)
    told = [line for line in run.lines if "dialogues of this step ended unscored" in line]
    message = re.sub(r"^.*?(\d+ of \d+ dialogues)", r"\1", told[-1]) if told else "(none)"
    rows.append(("a tutor that fails from step 2 on: finished steps", _numbers(run.steps), run.steps == [1]))
    rows.append(("how it ended", run.ended, bool(run.ended)))
    rows.append(("its message", message, bool(told)))
    saved = [path.name for path in (lab.root / "grpo" / "checkpoints").glob("global_step_*")]
    rows.append(("checkpoints after step 1", ", ".join(saved) or "none", not saved))


def _name(attempt: Attempt) -> str:
    return str(getattr(attempt.outcome, "value", attempt.outcome))


def _numbers(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def main() -> None:
    """All three, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/tutor-training"))
    parser.add_argument("--student", type=Path, help="Hugging Face folder; unset: an untrained miniature student")
    args = parser.parse_args()
    root = args.out.resolve()
    build_data(root / "data", seed=0, quick=True)
    student = args.student.resolve() if args.student else root / "student"
    if args.student is None:
        build(student)
    rows: list[tuple[str, str, bool | None]] = []
    order = undisturbed(root, student, root / "data", rows)
    killed(root, student, root / "data", order, rows)
    hopeless(root, student, root / "data", rows)
    text = report(rows)
    (HERE / "training.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
