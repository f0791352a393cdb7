"""A thousand dialogues at once, with and without faults: ``STEER_CPU=1 python -m benchmarks.tutor.load``.

Plays the same dialogues of the miniature world twice against a real HTTP server that thinks for a while over each
ruling: once undisturbed, once with 5 % of the requests failing at random. Faults cost what they cost (a broken
connection, a 503, a 429 with its Retry-After, a reply of no use, and the pauses after them): the question is whether
they cost more than that. Writes benchmarks/tutor/load.md.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import os
import platform
import random
import resource
import time
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.dialogue import Dialogue
from steer_verl.tutor.client import OpenAITutor
from steer_verl.types import Seed, Trajectory, UserTurn, Verdict
from tests.models.fault_server import MODEL, FaultServer, Request, Step, dropped, flood, good, says, slow, status

HERE = Path(__file__).parent
TURNS = 6
THINKING = 2.0
"""Mean seconds of a ruling, drawn evenly from half to one and a half of it."""
STUDENT = 0.2
"""Seconds of an answer."""
FAULTS = (dropped(), status(503), status(429, retry_after=1), says("no verdict", kind="bad_json"), flood())


@dataclass(frozen=True)
class Run:
    """What a run came to."""

    trajectories: list[Trajectory]
    seconds: float
    cpu: float
    requests: int
    injected: Counter[str]
    peak: int
    paused: float
    """Seconds that rulings spent in back-off, in all."""

    @property
    def turns(self) -> int:
        """Answers judged."""
        return sum(len(t.turns) for t in self.trajectories)


async def play(dialogues: int, share: float, concurrency: int) -> Run:
    """Play so many dialogues at once with this share of faulty requests."""
    draw = random.Random(0)

    def choose(request: Request) -> Step:
        digest = int(hashlib.sha256(request.text.encode()).hexdigest()[:8], 16)
        step = draw.choice(FAULTS) if draw.random() < share else good((8, 8, 9), new_question=f"And why {digest}?")
        return slow(THINKING * (0.5 + digest % 1000 / 1000), step) if step.kind == "good" else step

    with FaultServer(choose=choose, keep=False).in_thread() as server:
        config = EndpointConfig(base_url=server.base_url, model=MODEL, max_concurrency=concurrency)
        tutor = OpenAITutor(TutorConfig(endpoint=config))
        paused = 0.0

        async def sleep(seconds: float) -> None:
            nonlocal paused
            paused += seconds
            await asyncio.sleep(seconds)

        tutor.adjudicator.sleep = sleep
        cpu, start = time.process_time(), time.perf_counter()
        played = await asyncio.gather(*(_dialogue(tutor, number) for number in range(dialogues)))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        await tutor.close()
        return Run(list(played), seconds, cpu, server.requests, server.injected, server.peak, paused)


async def _dialogue(tutor: OpenAITutor, number: int) -> Trajectory:
    seed = Seed(id=f"seed {number}", turns=tuple(UserTurn(text=f"question {t} of {number}") for t in range(TURNS)))
    dialogue = Dialogue(seed, tutor, key=f"train/1/{seed.id}/0")
    question: UserTurn | None = dialogue.open()
    while question is not None:
        await asyncio.sleep(STUDENT)
        question = await dialogue.respond(f"answer to {question.text}")
    await dialogue.settled()
    return dialogue.trajectory()


def report(runs: dict[str, Run], dialogues: int, concurrency: int, memory: float, command: str) -> str:
    """The whole of ``load.md``."""
    rows = [
        ["", *runs],
        ["---"] * (1 + len(runs)),
        ["dialogues, all with a record", *(str(len(run.trajectories)) for run in runs.values())],
        ["answers judged", *(str(run.turns) for run in runs.values())],
        ["unscored", *(str(_unscored(run)) for run in runs.values())],
        ["requests", *(str(run.requests) for run in runs.values())],
        ["faults injected", *(str(sum(_faults(run).values())) for run in runs.values())],
        ["wall time (s)", *(f"{run.seconds:.1f}" for run in runs.values())],
        ["turns judged a second", *(f"{run.turns / run.seconds:.1f}" for run in runs.values())],
        ["requests in flight at most", *(str(run.peak) for run in runs.values())],
        [
            "CPU a turn, client and server together (ms)",
            *(f"{1000 * run.cpu / run.turns:.2f}" for run in runs.values()),
        ],
        ["pauses in all (s)", *(f"{run.paused:.1f}" for run in runs.values())],
    ]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    clean, faulty = runs["fault-free"], runs["5 % faults"]
    delay = faulty.paused / concurrency
    ratio = (faulty.turns / (faulty.seconds - delay)) / (clean.turns / clean.seconds)
    return PAGE.format(
        command=command,
        today=date.today(),
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        dialogues=dialogues,
        turns=TURNS,
        concurrency=concurrency,
        thinking=THINKING,
        student=STUDENT,
        table=table,
        kinds=", ".join(f"{kind} {count}" for kind, count in sorted(_faults(faulty).items())),
        ratio=ratio,
        raw=(faulty.turns / faulty.seconds) / (clean.turns / clean.seconds),
        memory=memory,
    )


PAGE = """# A thousand dialogues at once

Written by `{command}` on {today} ({cores} cores, Python {python}); no figure is written by hand.

{dialogues} dialogues of {turns} turns in one process, at most {concurrency} requests in flight at one real HTTP server;
a reply takes {thinking} s on average, an answer {student} s. Faults, drawn at random: {kinds}.

{table}

Throughput with faults against without: {raw:.3f}; less the pauses that the faults ask for, spread over the places in
flight: {ratio:.3f}. The process grew by {memory:.0f} MiB over both runs, server included.
"""


def _faults(run: Run) -> Counter[str]:
    return Counter({kind: count for kind, count in run.injected.items() if kind != "slow"})


def _unscored(run: Run) -> int:
    return sum(not isinstance(turn.verdict, Verdict) for t in run.trajectories for turn in t.turns)


def main() -> None:
    """Play both and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=128)
    args: Any = parser.parse_args()
    logging.disable(logging.WARNING)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shares = {"fault-free": 0.0, "5 % faults": 0.05}
    runs = {name: asyncio.run(play(args.dialogues, share, args.concurrency)) for name, share in shares.items()}
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    command = "STEER_CPU=1 python -m benchmarks.tutor.load"
    text = report(runs, args.dialogues, args.concurrency, memory, command)
    (HERE / "load.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
