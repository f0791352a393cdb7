"""A thousand dialogues at once, undisturbed and against bad servers: ``STEER_CPU=1 python -m benchmarks.tutor.soak``.

The same dialogues are played three times against a real HTTP server on loopback that thinks for a while over each
ruling and streams every second one: undisturbed; with faults of the usual kinds in one request of twenty; and with one
request in four that meets one of the kinds of tests/models/kinds.py: how real providers answer, and what a hostile
server sends. No dialogue may be lost in silence, every outcome is counted, no turn takes longer than its deadline, and
memory stays bounded. Writes benchmarks/tutor/soak.md.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import os
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import pages
from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.dialogue import Dialogue
from steer_verl.models.cache import Cache
from steer_verl.models.log import Summary, read_log, summary
from steer_verl.tutor.client import OpenAITutor
from steer_verl.types import Seed, Status, Trajectory, Turn, Unscored, UnscoredReason, UserTurn, Verdict
from tests.models.fault_server import (
    MODEL,
    FaultServer,
    Request,
    Step,
    dropped,
    flood,
    good,
    question_of,
    refuses_schema,
    says,
    slow,
    status,
    streams,
    verdict_of,
)
from tests.models.kinds import HOSTILE, TABLE

TURNS = 4
DEADLINE, ATTEMPT = 60.0, 5.0
"""Seconds for a turn, and for one attempt at it."""
USUAL: dict[str, Step] = {
    "connection dropped": dropped(),
    "503": status(503),
    "429, Retry-After 1": status(429, retry_after=1),
    "no JSON": says("no verdict", kind="bad_json"),
    "cut at max_tokens": flood(),
}


@dataclass(frozen=True)
class Outcome:
    """What a soak came to."""

    trajectories: list[Trajectory]
    injected: Counter[str]
    requests: int
    peak: int
    """Requests in flight at most."""
    log: Summary
    seconds: float
    cpu: float
    grown: float
    """MiB."""
    kept: int
    """Replies in the cache."""

    @property
    def turns(self) -> list[Turn]:
        """All answers."""
        return [turn for trajectory in self.trajectories for turn in trajectory.turns]

    @property
    def unscored(self) -> Counter[str]:
        """Turns without a verdict, by reason."""
        return Counter(turn.verdict.reason.value for turn in self.turns if isinstance(turn.verdict, Unscored))

    @property
    def faults(self) -> list[str]:
        """What is not as it must be; nothing when all is well."""
        sent = sum(turn.usage.requests for turn in self.turns)
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
            "a turn beyond its deadline": all(turn.tutor_seconds < DEADLINE + 5 for turn in self.turns),
        }
        return [what for what, holds in checks.items() if not holds]

    def cells(self) -> dict[str, object]:
        """Of the page's table."""
        complete = sum(trajectory.stop.value == "completed" for trajectory in self.trajectories)
        return {
            "dialogues, all with a record": len(self.trajectories),
            "complete; lost, for want of a score": f"{complete}; {len(self.trajectories) - complete}",
            "turns scored": sum(isinstance(turn.verdict, Verdict) for turn in self.turns),
            "turns unscored, by reason": _listed(self.unscored),
            "requests at the server, in the usage and in the log": self.requests,
            "attempts by outcome": _listed(self.log.outcomes),
            "odd requests, kinds of them": f"{self.injected.total()}, {len(self.injected)}",
            "requests in flight at most": self.peak,
            "replies kept in the cache": self.kept,
            "longest turn (s)": f"{max(turn.tutor_seconds for turn in self.turns):.1f}",
            "wall time (s)": f"{self.seconds:.1f}",
            "CPU a turn, client and server together (ms)": f"{1000 * self.cpu / len(self.turns):.2f}",
            "peak memory grew by (MiB), server included": f"{self.grown:.0f}",
        }


def kinds() -> dict[str, Step]:
    """Every kind, by name."""
    return {**{name: case.step for name, case in TABLE.items()}, **HOSTILE, "refuses the schema": refuses_schema()}


async def soak(
    dialogues: int, odd: Mapping[str, Step], share: float, folder: Path, *, concurrency: int, thinking: float
) -> Outcome:
    """Play so many dialogues at once with this share of odd requests; a ruling takes ``thinking`` seconds on average,
    drawn evenly from half to one and a half of it."""
    draw, injected = random.Random(0), Counter[str]()

    def choose(request: Request) -> Step:
        if draw.random() < share:
            name = draw.choice(list(odd))
            injected[name] += 1
            return odd[name]
        digest = int(hashlib.sha256(request.text.encode()).hexdigest()[:8], 16)
        question, seconds = f"And what of part {digest}?", thinking * (0.5 + digest % 1000 / 1000)
        if digest % 2:
            return streams(question_of(new_question=question), seconds, verdict_of(new_question=question))
        return slow(seconds, good(new_question=question))

    with FaultServer(choose=choose, keep=False).in_thread() as server:
        config = EndpointConfig(
            base_url=server.base_url,
            model=MODEL,
            max_concurrency=concurrency,
            timeout=DEADLINE,
            read_timeout=ATTEMPT,
            breaker={"failures": 30, "cooldown": 0.5},
        )
        tutor = OpenAITutor(TutorConfig(endpoint=config, log=str(folder / "log")), cache=Cache(folder / "cache"))
        before, cpu, start = _memory(), time.process_time(), time.perf_counter()
        played = await asyncio.gather(*(_dialogue(tutor, number) for number in range(dialogues)))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        await tutor.close()
        return Outcome(
            trajectories=list(played),
            injected=injected,
            requests=server.requests,
            peak=server.peak,
            log=summary(read_log(folder / "log")),
            seconds=seconds,
            cpu=cpu,
            grown=_memory() - before,
            kept=sum(len(path.read_bytes().splitlines()) for path in (folder / "cache").rglob("*.jsonl")),
        )


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


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


PAGE = """\
{dialogues} dialogues of {turns} turns at once, at most {concurrency} requests in flight at one real HTTP server on
loopback that takes {thinking:g} s for a ruling on average (load of the machine at the end: {load:.1f}); each turn
has {deadline:g} s. The usual faults: {usual}. Every kind: {kinds} kinds of tests/models/kinds.py.

{table}

It must hold that every dialogue has a record, that each ends complete or with a reason, that server, usage and log
count the same requests, and that no turn outlasts its deadline. {faults}"""


def main() -> None:
    """Run and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=128)
    parser.add_argument("--thinking", type=float, default=1.0, help="mean seconds of a ruling")
    given = parser.parse_args()
    logging.disable(logging.ERROR)  # breakers, retries and the server tell of every fault
    cases = {"undisturbed": ({}, 0.0), "5 % usual faults": (USUAL, 0.05), "25 % of every kind": (kinds(), 0.25)}
    found: dict[str, Outcome] = {}
    for name, (odd, share) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            play = soak(
                given.dialogues,
                odd,
                share,
                Path(folder),
                concurrency=given.concurrency,
                thinking=given.thinking,
            )
            found[name] = asyncio.run(play)
    columns = [one.cells() for one in found.values()]
    faults = [f"- {name}: {fault}" for name, one in found.items() for fault in one.faults]
    page = PAGE.format(
        **vars(given),
        turns=TURNS,
        deadline=DEADLINE,
        load=os.getloadavg()[0],
        usual=", ".join(USUAL),
        kinds=len(kinds()),
        table=pages.table(["", *found], ([title, *(column[title] for column in columns)] for title in columns[0])),
        faults="\n".join(["What deviates:\n", *faults]) if faults else "Nothing deviates.",
    )
    said = pages.written("STEER_CPU=1 python -m benchmarks.tutor.soak")
    pages.write(Path(__file__).with_suffix(".md"), "# A thousand dialogues at once, and bad servers", said, page)


if __name__ == "__main__":
    main()
