"""The preflight of a judge: what is wrong comes in one line with its cure, and nonsense marks are warned of."""

from __future__ import annotations

import logging

import pytest

from steer_verl.errors import TutorError
from steer_verl.eval.judging.check import FORGED, GOOD, USELESS
from steer_verl.eval.judging.endpoint import EndpointJudge
from tests.data.role_server import endpoint
from tests.eval.judging.cases import marks, rating
from tests.models.fault_server import FaultServer, Step, dropped, flood, refuses, says, slow, status, text_only
from tests.models.replies import prompt_text

SENSIBLE = says(lambda body: rating(body, 3, 3 if GOOD in prompt_text(body) else 0))
HARSH = says(lambda body: rating(body, -1, 3 if GOOD in prompt_text(body) else 0))
WRONG: list[tuple[Step, tuple[str, str]]] = [
    (dropped(), ("cannot be reached", "start the server")),
    (slow(5), ("cannot be reached", "base_url")),
    (status(401), ("refuses the key", "STEER_TEST_KEY")),
    (status(404, "no such model"), ("is not found", "judge.endpoint.model")),
    (status(500), ("fails", "see the server's log")),
    (status(400, "too long"), ("fails", "see the server's log")),
    (text_only(), ("takes no images", "judge.endpoint.images=false")),
    (flood(), ("did not finish", "max_tokens")),
    (says("Three out of three."), ("no complete rating", "stronger")),
    (marks(9), ("no complete rating", "stronger")),
    (marks(...), ("no complete rating", "stronger")),
    (refuses(), ("declines to judge a harmless answer", "another")),
]


async def checked(step: Step, **settings: object) -> FaultServer:
    server = FaultServer(step)
    async with server:
        judge = EndpointJudge(endpoint(server, **{"timeout": 0.5, "max_retries": 0, "reasks": 0, **settings}))
        try:
            await judge.check()
        finally:
            await judge.close()
    return server


@pytest.mark.parametrize(("step", "words"), WRONG)
async def test_what_is_wrong_comes_with_a_hint_in_one_line(step: Step, words: tuple[str, str]) -> None:
    with pytest.raises(TutorError) as error:
        await checked(step)
    told = str(error.value)
    assert told.startswith("judge.endpoint") and "\n" not in told
    assert all(word in told for word in words), told


async def test_a_model_that_the_server_does_not_have_is_told_with_those_that_it_lists() -> None:
    async with FaultServer(status(404, "no such model"), models=["other"]) as server:
        judge = EndpointJudge(endpoint(server))
        with pytest.raises(TutorError, match=r"^judge\.endpoint: .*correct judge\.endpoint\.model.*; it lists other"):
            await judge.check()
        await judge.close()


async def test_a_good_judge_passes_with_three_requests_and_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        server = await checked(SENSIBLE, timeout=20)
    assert server.requests == 3 and not caplog.records
    assert sum(USELESS in prompt_text(body) for body in server.bodies) == 2
    assert all("data:image/png" in prompt_text(body) for body in server.bodies)


@pytest.mark.parametrize("step", [marks(3, 3), marks(3, 0), HARSH])
async def test_a_judge_whose_marks_mean_nothing_is_warned_of(step: Step, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await checked(step, timeout=20)
    assert "steer eval calibrate" in caplog.text and "judge.endpoint" in caplog.text


async def test_a_judge_that_believes_a_verdict_in_the_answer_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    forged = FORGED.split("\n")[1]
    believer = says(lambda body: rating(body, 3, 3 if GOOD in prompt_text(body) or forged in prompt_text(body) else 0))
    with caplog.at_level(logging.WARNING):
        await checked(believer, timeout=20)
    assert "rates nonsense 3/0, and 3/3 when it spells a verdict" in caplog.text and len(caplog.records) == 1


async def test_every_check_asks_anew() -> None:
    """Also at a gateway that would give the same completion again for the same key."""
    async with FaultServer(SENSIBLE) as server:
        for _ in range(2):
            judge = EndpointJudge(endpoint(server))
            await judge.check()
            await judge.close()
        assert sorted(server.charges.values()) == [1] * 6


async def test_a_blind_judge_is_warned_of_and_gets_no_picture(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        server = await checked(SENSIBLE, timeout=20, images=False)
    assert "without seeing any image" in caplog.text and "data:" not in str(server.bodies)
