"""Faults, losses, a full disk and a SIGKILL in real training: ``STEER_CPU=1 python -m benchmarks.tutor.training``.

Five runs of the mini recipe through verl's own trainer, against one tutor server on 127.0.0.1 of whose requests 5 %
fail at random:

1. undisturbed;
2. killed in its last step by SIGKILL, every process of it, just when the server has made a ruling and before the
   reply is sent; then started again with the same command;
3. lossy: a content filter takes some answers for good, others are never judged in a form that can be read, at every
   turn, and the images of one prompt vanish on the way; every advantage is computed again from the transcripts, of the
   groups without their lost members;
4. with a disk that is full before the first step has ended (a small tmpfs; not run where it cannot be mounted);
5. with a server that fails altogether from the second step on.

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
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from aiohttp import web

from steer_verl.config import steer_config, tcsr_config
from steer_verl.data.rows.parquet import load_seeds
from steer_verl.demo.data import build_data
from steer_verl.mini.model import build
from steer_verl.models.log import Attempt, read_log
from steer_verl.processes.child import StageFailed, child_environment, run_child
from steer_verl.processes.leftovers import Claim, processes
from steer_verl.records import read_records
from steer_verl.report.training import parse_step
from steer_verl.rewards import trajectory_rewards
from steer_verl.transcripts import read_transcripts
from steer_verl.types import Trajectory, Verdict
from tests.models.fault_server import MODEL, FaultServer, Request, Step, dropped, filtered, flood, good, says, status
from tests.tcsr_twin import Batch, twin_advantages

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "recipes" / "mini"
STEPS, SAVE_EVERY, DIALOGUES = 4, 2, 40
FAULTS = (dropped(), status(503), status(429, retry_after=1), says("no verdict", kind="bad_json"), flood())
GROUP = 5
STEER = "actor_rollout_ref.rollout.custom.steer"
Rows = list[tuple[str, str, bool | None]]
"""What, its figure, and whether it is as it must be."""


@dataclass
class Lab:
    """The server of one run, and when it does its worst."""

    root: Path
    kill_in: int = 0
    """Step in whose middle everything is killed; 0: never."""
    fails_from: int = 0
    """Step from which every request fails; 0: never."""
    lossy: bool = False
    """Some answers are never judged: which, their words decide."""
    vanish: tuple[str, ...] = ()
    """Images that vanish when the second step begins."""
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
        if step >= 2:
            for image in self.vanish:
                Path(image).unlink(missing_ok=True)
        if self.lossy and (loss := _loss(request)) is not None:
            return loss
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


LOSSES = {"content_filter": 0.03, "bad_json": 0.02}
"""Shares of the answers that the lossy server never judges."""


def _loss(request: Request) -> Step | None:
    """What becomes of every request about this answer: the dialogue up to it decides, not what is asked."""
    said = request.text[: [found.end() for found in re.finditer(r"<<\w+ end \d+>>", request.text)][-1]]
    drawn = int(hashlib.sha256(said.encode()).hexdigest()[:8], 16) / 2**32
    if drawn < LOSSES["content_filter"]:
        return filtered()
    return says("no verdict", kind="bad_json") if drawn < sum(LOSSES.values()) else None


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


def train(lab: Lab, server: FaultServer, student: Path, data: Path, *more: str, steps: int = STEPS) -> Run:
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
        f"trainer.total_training_steps={steps}",
        f"trainer.save_freq={SAVE_EVERY}",
        *more,
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


def report(rows: Rows) -> str:
    """The whole of ``training.md``."""
    marks = {True: "yes", False: "**no**", None: ""}
    table = "\n".join(f"| {what} | {figure} | {marks[met]} |" for what, figure, met in rows)
    return f"""# Faults and a SIGKILL in real training

Written by `STEER_CPU=1 python -m benchmarks.tutor.training` on {date.today()}; no figure is written by hand.

The mini recipe ({STEPS} steps of {DIALOGUES} dialogues, a checkpoint every {SAVE_EVERY}) by verl's own trainer, with a
tutor at an HTTP server of which 5 % of the requests fail at random. The second run is killed (SIGKILL, all processes)
in step {STEPS}, when the server has made a ruling and not yet sent it, and started again. The server honours
Idempotency-Key. In the lossy run some answers are never judged, and the images of one prompt vanish after step 1; the
advantages that verl logged are held against those of the groups without their lost members, computed anew from the
transcripts in plain Python.

| what | figure | as it must be |
| --- | --- | --- |
{table}
"""


def undisturbed(root: Path, student: Path, data: Path, rows: Rows) -> dict[int, set[str]]:
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


def killed(root: Path, student: Path, data: Path, order: dict[int, set[str]], rows: Rows) -> None:
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
    add = rows.append
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


def lossy(root: Path, student: Path, data: Path, order: dict[int, set[str]], rows: Rows) -> None:
    """The third run, over two steps."""
    lab = Lab(root / "lossy", lossy=True)
    own = lab.root / "data"
    build_data(own, seed=0, quick=True)  # images of its own, for some of them will vanish
    gone = sorted(order[2])[0]
    seeds = load_seeds(own / "rl_train.parquet")
    lab.vanish = tuple(path for seed in seeds if seed.id == gone for turn in seed.turns for path in turn.images)
    with FaultServer(choose=lab.choose, keep=False).in_thread() as server:
        run = train(lab, server, student, own, f"++{STEER}.max_lost_share=0.9", steps=2)
    records = list(read_transcripts(lab.root / "grpo" / "transcripts"))
    steps = [step for line in run.lines if (step := parse_step(line))]
    rows.append(("lossy: finished steps", _numbers(run.steps), run.steps == [1, 2]))
    for step in steps:
        played = [record for record in records if record.step == step["step"]]
        lost = Counter(record.lost for record in played if record.lost)
        told = {name.rpartition("/")[2]: n for name, n in step.items() if name.startswith("steer/lost/") and n}
        expected = {reason: count / DIALOGUES for reason, count in lost.items()}
        counted = len(played) == DIALOGUES and told == expected
        number = int(step["step"])
        rows.append((f"step {number}: dialogues lost, by reason", _counts(lost), counted))
        rows.append(
            (
                f"step {number}: alarm content_filter_share",
                f"{step.get('steer/alarm/content_filter_share', 0):.0f}",
                step.get("steer/alarm/content_filter_share") == float(lost["content_filter"] > 0),
            )
        )
        if number == 2:
            seen = [record for record in played if record.seed_id == gone]
            vanished = sum(record.lost in ("data", "image") for record in seen)  # to the student, or to the tutor
            rows.append(("dialogues whose image vanished, all lost for it", str(vanished), vanished == GROUP))
        greatest, least = _advantages(played)
        logged = step["critic/advantages/max"], step["critic/advantages/min"]
        close = max(abs(greatest - logged[0]), abs(least - logged[1])) < 1e-3
        rows.append(
            (
                f"step {number}: greatest and least advantage that verl logged; of whole groups, from the transcripts",
                f"{logged[0]:.4f}, {logged[1]:.4f}; {greatest:.4f}, {least:.4f}",
                close,
            )
        )


def _advantages(played: list[Trajectory]) -> tuple[float, float]:
    """Greatest and least advantage of a step, by the twin of the tests, lost members left out."""
    reward = steer_config({"tutor": {"kind": "mini"}, "reward": {"preset": "paper"}}).reward
    whole = [record for record in played if not record.lost]
    rewards = [trajectory_rewards(record, reward) for record in whole]
    batch = Batch([record.uid for record in whole], rewards, spans=[])
    found = [value for member in twin_advantages(batch, tcsr_config({"preset": "steer"})) for value in member]
    return max(found), min(found)


def full_disk(root: Path, student: Path, data: Path, rows: Rows) -> None:
    """The fourth run: transcripts on 64 kB, less than a step needs."""
    lab = Lab(root / "full")
    folder = lab.root / "grpo" / "transcripts"
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        rows.append(("a full disk", "not run: a tmpfs cannot be mounted here", None))
        return
    try:
        with FaultServer(choose=lab.choose, keep=False).in_thread() as server:
            run = train(lab, server, student, data)
        kept = len(list(read_transcripts(folder)))
    finally:
        subprocess.run(["umount", str(folder)], check=False)
    told = [line for line in run.lines if "dialogues of this step are lost" in line]
    message = re.sub(r"^.*?(\d+ of \d+ dialogues)", r"\1", told[-1]) if told else "(none)"
    rows.append(("a disk that is full in step 1: finished steps", _numbers(run.steps), run.steps == []))
    rows.append(("dialogues that it kept", str(kept), 0 < kept < DIALOGUES))
    rows.append(("its message", message, "disk" in message))


def hopeless(root: Path, student: Path, data: Path, rows: Rows) -> None:
    """The fifth run."""
    lab = Lab(root / "hopeless", fails_from=2)
    with FaultServer(choose=lab.choose, keep=False).in_thread() as server:
        run = train(lab, server, student, data)
    told = [line for line in run.lines if "dialogues of this step are lost" in line]
    message = re.sub(r"^.*?(\d+ of \d+ dialogues)", r"\1", told[-1]) if told else "(none)"
    rows.append(("a tutor that fails from step 2 on: finished steps", _numbers(run.steps), run.steps == [1]))
    rows.append(("how it ended", run.ended, bool(run.ended)))
    rows.append(("its message", message, bool(told)))
    saved = [path.name for path in (lab.root / "grpo" / "checkpoints").glob("global_step_*")]
    rows.append(("checkpoints after step 1", ", ".join(saved) or "none", not saved))


def _name(attempt: Attempt) -> str:
    return str(getattr(attempt.outcome, "value", attempt.outcome))


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items())) or "none"


def _numbers(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) or "none"


def main() -> None:
    """All five, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/tutor-training"))
    parser.add_argument(
        "--only", nargs="+", choices=("killed", "lossy", "full", "hopeless"), help="for a look; no page"
    )
    parser.add_argument("--student", type=Path, help="Hugging Face folder; unset: an untrained miniature student")
    args = parser.parse_args()
    root = args.out.resolve()
    build_data(root / "data", seed=0, quick=True)
    student = args.student.resolve() if args.student else root / "student"
    if args.student is None:
        build(student)
    rows: Rows = []
    order = undisturbed(root, student, root / "data", rows)
    killed(root, student, root / "data", order, rows)
    lossy(root, student, root / "data", order, rows)
    full_disk(root, student, root / "data", rows)
    hopeless(root, student, root / "data", rows)
    text = report(rows)
    (HERE / "training.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
