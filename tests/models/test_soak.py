"""A thousand dialogues at once with a real HTTP server of which every third request meets one of the known kinds.

The kinds are those of tests/models/kinds.py: how providers answer, and what a hostile server sends. Every second good
reply is streamed. No dialogue may be lost in silence, every outcome is counted, no turn outlasts its deadline, and
memory stays bounded.
"""

from __future__ import annotations

import asyncio
import random
import resource
import zlib
from collections import Counter
from pathlib import Path

import pytest

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.dialogue import Dialogue
from steer_verl.models.cache import Cache
from steer_verl.models.log import read_log, summary
from steer_verl.tutor.client import OpenAITutor
from steer_verl.types import Status, Trajectory, Unscored, UnscoredReason
from tests import scripted
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

DIALOGUES, TURNS, CONCURRENCY = 1000, 4, 128
DEADLINE, ATTEMPT = 60.0, 5.0
"""Seconds for a turn, and for one attempt at it."""
ODD, THINKING = 0.35, 0.05
"""Share of the requests that meet a kind, and mean seconds of a good reply."""
KINDS = {**{name: case.step for name, case in TABLE.items()}, **HOSTILE, "refuses the schema": refuses_schema()}


def ruling(text: str) -> Step:
    """A good reply to this prompt after a while, every second one in a stream."""
    number = zlib.crc32(text.encode())
    question, seconds = f"And what of part {number}?", THINKING * (0.5 + number % 1000 / 1000)
    if number % 2:
        return slow(seconds, good(new_question=question))
    return streams(question_of(new_question=question), seconds, verdict_of(new_question=question))


def peak_memory() -> float:
    """MiB at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.slow
async def test_no_dialogue_is_lost_in_silence_whatever_a_server_sends(tmp_path: Path) -> None:
    draw, met = random.Random(0), Counter[str]()

    def choose(request: Request) -> Step:
        if draw.random() >= ODD:
            return ruling(request.text)
        kind = draw.choice(list(KINDS))
        met[kind] += 1
        return KINDS[kind]

    async def play(number: int) -> Trajectory:
        seed = scripted.seed(TURNS, seed_id=f"seed {number}")
        dialogue = Dialogue(seed, tutor, key=f"train/1/{seed.id}/0")
        await scripted.play(dialogue, f"answer of {number}")
        return dialogue.trajectory()

    with FaultServer(choose=choose, keep=False).in_thread() as server:
        config = EndpointConfig(
            base_url=server.base_url,
            model=MODEL,
            max_concurrency=CONCURRENCY,
            timeout=DEADLINE,
            read_timeout=ATTEMPT,
            breaker={"failures": 30, "cooldown": 0.5},
        )
        settings = TutorConfig(endpoint=config, log=str(tmp_path / "log"))
        tutor, before = OpenAITutor(settings, cache=Cache(tmp_path / "cache")), peak_memory()
        played = await asyncio.gather(*map(play, range(DIALOGUES)))
        grown = peak_memory() - before
        await tutor.close()

    assert met.keys() == KINDS.keys() and grown < 300
    for record in played:
        assert record.turns and bool(record.lost) == (record.status is Status.LOST)
        assert record.lost or len(record.turns) == len(record.scored) == TURNS
    turns = [turn for record in played for turn in record.turns]
    reasons = Counter(turn.verdict.reason for turn in turns if isinstance(turn.verdict, Unscored))
    assert len(reasons) > 3 and UnscoredReason.ABANDONED not in reasons, "every verdict was waited for"
    log = summary(read_log(tmp_path / "log"))
    assert server.requests == sum(turn.usage.requests for turn in turns) == log.usage.requests
    assert server.requests == sum(log.outcomes.values())
    assert max(turn.tutor_seconds for turn in turns) < DEADLINE + 5
