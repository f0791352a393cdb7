"""``steer eval run`` over a foreign file with every oddity, a student that fails and a judge that does: over HTTP.

Nothing crashes, nothing is dropped, every oddity is counted; killed in the middle, it goes on and pays nothing twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from steer_verl.eval.records import EvalDialogue, EvalEnd, Rating, Unrated
from steer_verl.eval.runs import EvalRun, read_run
from tests.eval.benchmarks.samples import LINES, foreign_file
from tests.eval.judging.cases import marks
from tests.models.fault_server import (
    MODEL,
    FaultServer,
    Request,
    Step,
    dropped,
    filtered,
    half_sent,
    refuses,
    says,
    slow,
    status,
)

ROOT = Path(__file__).parents[2]
CONCURRENCY = 4
PROBE = "Which colour fills this"
"""Of the checks at each start, which are paid for each time."""
PASSING = (dropped(), status(503), status(429, retry_after=0), half_sent(text=lambda body: "It is a box."))
"""Faults that a second attempt does not meet."""

JUDGE_FAULTS: dict[str, Step] = {
    "Part 3?": says("I would give it a three.", kind="prose"),
    "Part 5?": refuses(),
    "Part 7?": marks(harmless=7),
    "Part 8?": filtered(),
}
"""By the question whose answer is to be rated: faults that every attempt meets."""

STUDENT_FAULTS: dict[str, Step] = {
    "Who made it?": says("", kind="empty"),
    "When?": status(400, "this request is longer than the model takes"),
}


class Model(FaultServer):
    """A server whose requests now and then meet a passing fault at first.

    Args:
        faults: the last question -> a fault that every attempt meets.
        good: what else is said.
        last: the last question of a request.
    """

    def __init__(self, faults: Mapping[str, Step], good: Step, last: Callable[[Request], str]) -> None:
        super().__init__(choose=self._step, keep=False)
        self.faults, self.good, self.last = faults, good, last
        self.seen, self.probes, self.answers = set[str](), set[str](), Counter[str]()

    @property
    def paid(self) -> int:
        """Completions that were charged, none of them twice, but for those of the checks."""
        assert set(self.charges.values()) == {1}
        return len(self.charges.keys() - self.probes)

    @property
    def again(self) -> int:
        """Answers of use that were given once more, but for those of the checks."""
        return sum(self.answers.values()) - len(self.answers)

    def _step(self, request: Request) -> Step:
        if PROBE in request.text:
            self.probes.add(request.key)
            return self.good
        if (asked := self.last(request).strip()) in self.faults:
            return self.faults[asked]
        first, drawn = request.key not in self.seen, int.from_bytes(request.key.encode()[-4:], "big")
        self.seen.add(request.key)
        if first and drawn % 7 == 0:
            return PASSING[drawn % len(PASSING)]
        self.answers[request.key] += 1
        return slow(0.02, self.good)


def student() -> Model:
    def last(request: Request) -> str:
        content = request.body["messages"][-1]["content"]
        return content if isinstance(content, str) else str(content[-1]["text"])

    return Model(STUDENT_FAULTS, says("It is a box."), last)


def judge() -> Model:
    def last(request: Request) -> str:
        return re.findall(r"^user \d+:\n> (.*)$", request.text, re.MULTILINE)[-1]

    return Model(JUDGE_FAULTS, marks(), last)


@dataclass(frozen=True)
class Servers:
    """Whom a run asks."""

    student: Model
    judge: Model

    @property
    def requests(self) -> int:
        return self.student.requests + self.judge.requests

    @property
    def paid(self) -> tuple[int, int]:
        return self.student.paid, self.judge.paid


@contextlib.contextmanager
def servers() -> Iterator[Servers]:
    ends = Servers(student(), judge())
    with ends.student.in_thread(), ends.judge.in_thread():
        yield ends


def recipe(folder: Path, out: Path, ends: Servers) -> Path:
    """The evaluation of the foreign file."""
    settings: dict[str, Any] = {
        "out": str(out),
        "student": {"endpoint": _endpoint(ends.student), "name": "boxes"},
        "benchmarks": {"foreign": {"file": str(folder / "foreign.jsonl")}},
        "judge": {"endpoint": _endpoint(ends.judge)},
        "work": {"in_flight": CONCURRENCY, "shards": 2, "pause": 0.05},
    }
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(settings))
    return path


def _endpoint(server: FaultServer) -> dict[str, Any]:
    return {"base_url": server.base_url, "model": MODEL, "timeout": 20, "api_key_env": "STEER_TEST_KEY"}


def start(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "steer_verl.cli", "eval", "run", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(path: Path) -> str:
    """Run to the end; what it printed."""
    process = start(path)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign") / "bench"
    foreign_file(folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EvalRun, str, tuple[int, int]]]:
    """An undisturbed run, what it printed, and what it was charged for."""
    with servers() as ends:
        out = tmp_path_factory.mktemp("run") / "out"
        said = finish(recipe(bench, out, ends))
        assert sum(ends.student.injected[fault.kind] + ends.judge.injected[fault.kind] for fault in PASSING) > 0
        yield read_run(out), said, ends.paid


def by_question(run: EvalRun, question: str) -> EvalDialogue:
    return next(d for d in run.dialogues if any(turn.user.text.endswith(question) for turn in d.turns))


@pytest.mark.slow
def test_every_row_is_a_dialogue_and_every_oddity_is_counted(evaluated: tuple[EvalRun, str, tuple[int, int]]) -> None:
    run, said, _ = evaluated
    assert len(run.dialogues) == len(LINES) + 1
    unplayed = [d for d in run.dialogues if d.end is EvalEnd.UNPLAYABLE]
    assert len(unplayed) == 1 + sum(not played for *_, played in LINES)
    assert all(d.detail and d.planned and not d.turns for d in unplayed)
    wanted = Counter(word for _, _, oddities, _ in LINES for word in oddities)
    wanted["broken_line"] += 1  # the torn end
    wanted["empty_answer"] += 1
    assert Counter(word for d in run.dialogues for word in d.oddities) == wanted
    summary = json.loads((run.folder / "summary.json").read_text())
    foreign = summary["benchmarks"]["foreign"]
    assert foreign["dialogues"] == len(run.dialogues) and foreign["oddities"] == dict(wanted)
    assert foreign["ends"] == {end.value: n for end, n in Counter(d.end for d in run.dialogues).items()}
    assert "boxes" in said and "Traceback" not in said


@pytest.mark.slow
def test_a_judge_that_fails_leaves_answers_unrated_and_bounds_that_say_so(
    evaluated: tuple[EvalRun, str, tuple[int, int]],
) -> None:
    run = evaluated[0]
    long = by_question(run, "Part 3?")
    assert len(long.turns) == long.planned == 10 and long.end is EvalEnd.COMPLETED
    reasons = {t: turn.judged.reason for t, turn in enumerate(long.turns) if isinstance(turn.judged, Unrated)}
    assert set(reasons) == {3, 5, 7, 8} and len(set(reasons.values())) == 4, reasons
    assert all(isinstance(turn.judged, Rating) for t, turn in enumerate(long.turns) if t not in reasons)
    foreign = json.loads((run.folder / "summary.json").read_text())["benchmarks"]["foreign"]
    assert all(foreign["unrated"][reason] == 1 for reason in reasons.values())
    figure = foreign["measures"]["harmless_pass"]
    assert figure["worst"] < figure["value"] <= figure["best"], "what was not rated could have been anything"


@pytest.mark.slow
def test_a_student_that_fails_leaves_its_dialogue_with_what_was_said(
    evaluated: tuple[EvalRun, str, tuple[int, int]],
) -> None:
    left = by_question(evaluated[0], "Who made it?")
    assert left.end is EvalEnd.STUDENT_FAILED and len(left.turns) == 1 and left.planned == 2
    assert left.turns[0].answer == "" and "empty_answer" in left.oddities and "too_long" in left.detail


@pytest.mark.slow
def test_killed_it_goes_on_and_pays_nothing_twice(
    bench: Path, tmp_path: Path, evaluated: tuple[EvalRun, str, tuple[int, int]]
) -> None:
    whole, _, paid = evaluated
    cut = 0
    with servers() as ends:
        path = recipe(bench, tmp_path / "out", ends)
        for more in (12, 40):
            process, until, deadline = start(path), ends.requests + more, time.monotonic() + 120
            while ends.requests < until and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            cut += ends.student.in_flight + ends.judge.in_flight + CONCURRENCY  # and those just answered
            process.send_signal(signal.SIGKILL)
            said, _ = process.communicate(timeout=60)
            assert process.returncode == -signal.SIGKILL, said
        finish(path)
        assert ends.paid == paid
        assert ends.student.again + ends.judge.again <= cut, "what was answered before a kill is asked for again"
        before = ends.requests
        finish(path)
        assert ends.paid == paid and ends.requests - before <= 8, "only the checks at the start"
    again = read_run(tmp_path / "out")
    assert [told(d) for d in again.dialogues] == [told(d) for d in whole.dialogues]


def told(dialogue: EvalDialogue) -> dict[str, Any]:
    """A dialogue without its times."""
    value = dialogue.model_dump()
    value["turns"] = [{**turn, "seconds": 0, "usage": None} for turn in value["turns"]]
    return value
