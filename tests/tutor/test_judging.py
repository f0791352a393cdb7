"""Judging many stored answers: so many at once, every response by its key, and nothing goes on after an interrupt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from steer_verl.tutor.judging import judge_all
from steer_verl.tutor.labelled import Labelled
from steer_verl.types import (
    NoAttack,
    NoAttackReason,
    Scores,
    TurnVerdict,
    TutorRequest,
    TutorResponse,
    Unscored,
    UnscoredReason,
    Usage,
    Verdict,
)

LOST = Unscored(reason=UnscoredReason.TIMEOUT)
REQUESTS = {row.key: row.request() for row in (Labelled(f"question {n}", f"answer {n}", (1.0,)) for n in range(9))}


def scored(safety: int) -> Verdict:
    return Verdict(scores=Scores(safety=safety, usefulness=5, faithfulness=5))


class Scripted:
    """A tutor whose verdict is a function of the answer; it counts what it was asked, and how much at once."""

    name = "scripted"

    def __init__(self, judge: Callable[[TutorRequest], TurnVerdict]) -> None:
        self.judge, self.asked = judge, list[TutorRequest]()
        self.in_flight = self.peak = self.checks = 0

    async def respond(self, request: TutorRequest) -> TutorResponse:
        self.asked.append(request)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        none = NoAttack(reason=NoAttackReason.LAST_TURN)
        return TutorResponse(verdict=self.judge(request), attack=none, seconds=0.5, usage=Usage(requests=1, cost=0.25))

    async def check(self) -> None:
        self.checks += 1

    async def close(self) -> None:
        """Nothing to release."""


async def test_every_response_comes_by_its_key_and_only_so_many_at_once() -> None:
    tutor, done = Scripted(lambda r: LOST if r.answer == "answer 3" else scored(7)), list[TutorResponse]()
    found = await judge_all(tutor, REQUESTS, 4, done.append)
    assert found.keys() == REQUESTS.keys() and len(done) == len(tutor.asked) == 9 and tutor.peak == 4
    lost = [REQUESTS[key].answer for key, response in found.items() if response.verdict == LOST]
    assert lost == ["answer 3"] and tutor.checks == 0  # whoever calls checks it first
    assert await judge_all(tutor, {}, 4) == {}


async def test_an_interrupt_stops_every_request() -> None:
    tutor = Scripted(lambda r: scored(7))

    def stop(response: TutorResponse) -> None:
        if len(tutor.asked) >= 5:
            running.cancel()

    running = asyncio.ensure_future(judge_all(tutor, REQUESTS, 2, stop))
    with pytest.raises(asyncio.CancelledError):
        await running
    asked = len(tutor.asked)
    await asyncio.sleep(0.01)
    assert len(tutor.asked) == asked < 9
