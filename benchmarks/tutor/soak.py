"""A thousand dialogues against every kind of server at once: ``STEER_CPU=1 python -m benchmarks.tutor.soak``.

A real HTTP server on loopback draws, for every request, either a good reply or one of the kinds of
tests/models/kinds.py: how real providers answer, and what a hostile server sends. No dialogue may be lost in silence,
every outcome is counted, no turn takes longer than its deadline, and memory stays bounded. Writes
benchmarks/tutor/soak.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import resource
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.dialogue import Dialogue
from steer_verl.models.cache import Cache
from steer_verl.models.log import Summary, read_log, summary
from steer_verl.tutor.client import OpenAITutor
from steer_verl.types import Seed, Status, Trajectory, Unscored, UnscoredReason, UserTurn, Verdict
from tests.models.fault_server import (
    MODEL,
    FaultServer,
    Request,
    Step,
    good,
    question_of,
    refuses_schema,
    slow,
    streams,
    verdict_of,
)
from tests.models.kinds import HOSTILE, TABLE

HERE = Path(__file__).parent
TURNS, THINKING = 4, 0.05
DEADLINE, ATTEMPT = 20.0, 3.0
"""Seconds for a turn, and for one attempt at it."""


@dataclass(frozen=True)
class Outcome:
    """What a soak came to."""

    trajectories: list[Trajectory]
    injected: Counter[str]
    requests: int
    log: Summary
    seconds: float
    grown: float
    """MiB."""
    kept: int
    """Replies in the cache."""

    @property
    def unscored(self) -> Counter[str]:
        """Turns without a verdict, by reason."""
        verdicts = [turn.verdict for trajectory in self.trajectories for turn in trajectory.turns]
        return Counter(verdict.reason.value for verdict in verdicts if isinstance(verdict, Unscored))

    @property
    def faults(self) -> list[str]:
        """What is not as it must be; nothing when all is well."""
        turns = [turn for trajectory in self.trajectories for turn in trajectory.turns]
        sent = sum(turn.usage.requests for turn in turns)
        checks = {
            "a dialogue without a record": all(trajectory.turns for trajectory in self.trajectories),
            "a dialogue that is neither complete nor lost for a reason": all(
                bool(trajectory.lost) == (trajectory.status is Status.LOST)
                and (trajectory.lost or len(trajectory.turns) == TURNS == len(trajectory.scored))
                for trajectory in self.trajectories
            ),
            "a verdict that nobody waited for": UnscoredReason.ABANDONED.value not in self.unscored,
            f"requests: {self.requests} at the server, {sent} in the usage, {self.log.usage.requests} in the log": (
                self.requests == sent == self.log.usage.requests
            ),
            "outcomes in the log that do not add up": sum(self.log.outcomes.values()) == self.requests,
            "a turn beyond its deadline": all(turn.tutor_seconds < DEADLINE + 5 for turn in turns),
        }
        return [what for what, good in checks.items() if not good]


def kinds() -> dict[str, Step]:
    """Every kind, by name."""
    return {**{name: case.step for name, case in TABLE.items()}, **HOSTILE, "refuses the schema": refuses_schema()}


async def soak(dialogues: int, share: float, concurrency: int, folder: Path) -> Outcome:
    """Play so many dialogues at once with this share of odd requests."""
    draw, odd = random.Random(0), kinds()
    injected: Counter[str] = Counter()

    def choose(request: Request) -> Step:
        if draw.random() >= share:
            question = f"And what of part {request.number}?"
            told = draw.random() < 0.5
            parts = (question_of(new_question=question), THINKING, verdict_of(new_question=question))
            return streams(*parts) if told else slow(THINKING, good(new_question=question))
        name = draw.choice(list(odd))
        injected[name] += 1
        return odd[name]

    with FaultServer(choose=choose, keep=False).in_thread() as server:
        config = EndpointConfig(
            base_url=server.base_url,
            model=MODEL,
            max_concurrency=concurrency,
            timeout=DEADLINE,
            read_timeout=ATTEMPT,
            breaker={"failures": 30, "cooldown": 0.5},
        )
        cache = Cache(folder / "cache")
        tutor = OpenAITutor(TutorConfig(endpoint=config, log=str(folder / "log")), cache=cache)
        before, start = _memory(), time.perf_counter()
        played = await asyncio.gather(*(_dialogue(tutor, number) for number in range(dialogues)))
        seconds = time.perf_counter() - start
        await tutor.close()
        kept = sum(len(path.read_bytes().splitlines()) for path in (folder / "cache").rglob("*.jsonl"))
        log = summary(read_log(folder / "log"))
        return Outcome(list(played), injected, server.requests, log, seconds, _memory() - before, kept)


async def _dialogue(tutor: OpenAITutor, number: int) -> Trajectory:
    seed = Seed(id=f"seed {number}", turns=tuple(UserTurn(text=f"question {t} of {number}") for t in range(TURNS)))
    dialogue = Dialogue(seed, tutor, key=f"train/1/{seed.id}/0")
    question: UserTurn | None = dialogue.open()
    while question is not None:
        question = await dialogue.respond(f"answer to {question.text}")
    await dialogue.settled()
    return dialogue.trajectory()


def _memory() -> float:
    """MiB at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def report(outcome: Outcome, dialogues: int, share: float, concurrency: int, command: str) -> str:
    """The whole of ``soak.md``."""
    turns = [turn for trajectory in outcome.trajectories for turn in trajectory.turns]
    complete = sum(t.stop.value == "completed" for t in outcome.trajectories)
    rows = [
        ("dialogues, all with a record", f"{len(outcome.trajectories)} of {dialogues}"),
        ("complete; lost, for want of a score", f"{complete}; {dialogues - complete}"),
        ("turns scored", str(sum(isinstance(turn.verdict, Verdict) for turn in turns))),
        ("turns unscored, by reason", ", ".join(f"{name} {n}" for name, n in sorted(outcome.unscored.items()))),
        ("requests at the server, in the usage and in the log", str(outcome.requests)),
        ("attempts by outcome", ", ".join(f"{name} {n}" for name, n in sorted(outcome.log.outcomes.items()))),
        ("odd requests, kinds of them", f"{sum(outcome.injected.values())}, {len(outcome.injected)}"),
        ("replies kept in the cache", str(outcome.kept)),
        ("longest turn (s; its deadline)", f"{max(turn.tutor_seconds for turn in turns):.1f}; {DEADLINE:g}"),
        ("wall time (s)", f"{outcome.seconds:.1f}"),
        ("the process grew by (MiB), server included", f"{outcome.grown:.0f}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    injected = "\n".join(f"| {name} | {count} |" for name, count in sorted(outcome.injected.items()))
    faults = "\n".join(f"- {fault}" for fault in outcome.faults) or "Nothing deviates."
    return PAGE.format(
        command=command,
        today=date.today(),
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        dialogues=dialogues,
        turns=TURNS,
        share=100 * share,
        kinds=len(kinds()),
        concurrency=concurrency,
        table=table,
        injected=injected,
        faults=faults,
    )


PAGE = """# A thousand dialogues against every kind of server

Written by `{command}` on {today} ({cores} cores, Python {python}); no figure is written by hand.

{dialogues} dialogues of {turns} turns at once, at most {concurrency} requests in flight at one real HTTP server on
loopback. Each request has a chance of {share:.0f} % of meeting one of {kinds} kinds (tests/models/kinds.py): how real
providers answer, and what a hostile server sends.

|  |  |
| --- | --- |
{table}

It must hold that every dialogue has a record, that each ends complete or with a reason, that server, usage and log
count the same requests, and that no turn outlasts its deadline. {faults}

| kind | times |
| --- | --- |
{injected}
"""


def main() -> None:
    """Run and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--concurrency", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(soak(given.dialogues, given.share, given.concurrency, Path(folder)))
    command = "STEER_CPU=1 python -m benchmarks.tutor.soak"
    page = report(outcome, given.dialogues, given.share, given.concurrency, command)
    (HERE / "soak.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
