"""How real servers answer, over real HTTP: every kind of them, by name, and what a user needs it to come to.

The kinds are from public reports of servers that say they are OpenAI-compatible. A row is one way in which a server
answers; several rows of a kind are several wordings of it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest
from aiohttp import web

from steer_verl.config import TutorConfig
from steer_verl.errors import StudentError, TutorError
from steer_verl.eval.config import StudentSettings
from steer_verl.eval.students.answers import Setup
from steer_verl.eval.students.endpoint import EndpointStudent
from steer_verl.models.endpoint import Endpoint
from steer_verl.models.failure import Cause, Failure
from steer_verl.models.request import Reply, Request
from steer_verl.tutor.client import OpenAITutor
from steer_verl.types import Unscored, Verdict
from tests.models.fault_server import FaultServer, Step, good, says, status
from tests.models.fault_server import Request as Sent
from tests.models.kinds import FILTERED, HTTP_4XX, HTTP_5XX, TABLE, Final, Once
from tests.tutor.conftest import config_for, instant, instant_endpoint
from tests.tutor.dialogues import simple


@pytest.mark.parametrize("kind", list(TABLE))
async def test_every_kind_comes_to_what_a_user_needs(kind: str) -> None:
    case = TABLE[kind]
    script = [case.step, good()] if isinstance(case, Once) else [case.step]
    async with FaultServer(*script) as server:
        endpoint = Endpoint(config_for(server, max_retries=2))
        instant_endpoint(endpoint)
        outcome = await endpoint.ask(Request([{"role": "user", "content": "The secret id is abc"}]), endpoint.context())
        await endpoint.close()
        if isinstance(case, Once):
            assert isinstance(outcome, Reply) and server.requests == case.requests
            return
        assert isinstance(outcome, Failure), outcome
        assert (outcome.cause, outcome.reason) == (case.cause, case.reason), outcome
        assert case.words in outcome.detail
        if case.cause is not Cause.REQUEST:
            assert server.requests == case.requests


# ----- P1 the list of models: tests/tutor/test_check.py

# ----- P4 nothing is lost: an account's failure is the endpoint's, not the item's


@pytest.mark.parametrize("kind", [name for name, case in TABLE.items() if isinstance(case, Final)])
def test_only_what_is_wrong_with_the_request_itself_is_final_for_an_item(kind: str) -> None:
    case = TABLE[kind]
    assert isinstance(case, Final)
    failure = Failure(reason=case.reason, detail="", cause=case.cause)
    assert failure.of_this_request == (case.cause in (FILTERED, Cause.TOO_LONG))
    assert failure.reason.may_pass == (case.reason in (HTTP_4XX, HTTP_5XX))


# ----- P7, P8 parameters that a server refuses


def refuses(words: str, *names: str, code: int = 400, then: Step | None = None) -> Step:
    """A server that refuses a request in which all of these parameters stand, in these words, and replies otherwise."""

    async def act(request: Sent) -> web.StreamResponse:
        present = all(name in json.dumps(request.body) for name in names)
        return await (status(code, words) if present else then or good()).act(request)

    return Step("refuses", act)


BY_SCHEMA = [
    "Unknown parameter: 'response_format'",
    "For 'integer' type, properties maximum, minimum are not supported",
    "Invalid schema for response_format 'reply': 'additionalProperties' is not permitted",
    "This model does not support structured outputs",
    "json_schema is not supported by this model",
    "response_format type is unavailable now",
    "Unable to compile grammar",
    "guided decoding is disabled",
    "Request validation failed: schema violation",
    "Bad Request",
    "invalid request",
]


@pytest.mark.parametrize("code", [400, 422])
@pytest.mark.parametrize("words", BY_SCHEMA)
async def test_any_refusal_of_a_schema_falls_back_to_text(words: str, code: int) -> None:
    async with FaultServer(refuses(words, "response_format", code=code)) as server:
        tutor = OpenAITutor(TutorConfig(endpoint=config_for(server)))
        instant(tutor)
        for number in range(4):
            assert isinstance((await tutor.respond(simple(f"answer {number}"))).verdict, Verdict)
        await tutor.close()
        assert server.requests <= 6, "it is remembered"
        assert "response_format" not in server.bodies[-1] and "temperature" in server.bodies[-1]


async def test_no_bounds_are_sent_in_a_schema_for_they_are_checked_anyway() -> None:
    async with FaultServer() as server:
        tutor = OpenAITutor(TutorConfig(endpoint=config_for(server)))
        await tutor.respond(simple())
        await tutor.close()
        assert not {"minimum", "maximum"} & set(json.dumps(server.bodies[0]["response_format"]).split('"'))


BY_SAMPLING = [
    ("Unsupported value: 'temperature' does not support 0.0 with this model.", ("temperature",), {"temperature"}),
    ("`temperature` is deprecated for this model", ("temperature",), {"temperature"}),
    ("temperature: Extra inputs are not permitted", ("temperature",), {"temperature"}),
    ("`temperature` and `top_p` cannot both be specified for this model.", ("temperature", "top_p"), {"top_p"}),
    ("Unrecognized request argument supplied: seed", ("seed",), {"seed"}),
    ("unknown field `top_p`", ("top_p",), {"top_p"}),
    ("this combination of settings is not supported", ("temperature",), {"seed", "top_p", "temperature"}),
]


@pytest.mark.parametrize(("words", "together", "left_out"), BY_SAMPLING)
async def test_a_sampling_setting_that_is_refused_is_left_out_once_told_and_written(
    words: str, together: tuple[str, ...], left_out: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with FaultServer(refuses(words, *(f'"{name}"' for name in together))) as server:
        endpoint = Endpoint(config_for(server, temperature=0.7))
        request = Request([{"role": "user", "content": "The secret id is abc"}], sampling={"top_p": 0.9, "seed": 3})
        replies = [await endpoint.ask(request, endpoint.context()) for _ in range(5)]
        await endpoint.close()
    assert all(isinstance(reply, Reply) and set(reply.left_out) == left_out for reply in replies)
    assert server.requests <= 7 and not left_out & set(server.bodies[-1])
    assert sum("requests go without" in record.getMessage() for record in caplog.records) == 1


async def test_a_chance_refusal_teaches_nothing() -> None:
    async with FaultServer(status(400, "odd"), good()) as server:
        tutor = OpenAITutor(TutorConfig(endpoint=config_for(server)))
        for number in range(3):
            assert isinstance((await tutor.respond(simple(f"answer {number}"))).verdict, Verdict)
        await tutor.close()
    assert ["response_format" in sent for sent in server.bodies] == [True, False, True, True]


@pytest.mark.parametrize(("words", "together", "left_out"), BY_SAMPLING)
async def test_a_students_check_sends_what_its_run_sends(
    words: str, together: tuple[str, ...], left_out: set[str]
) -> None:
    step = refuses(words, *(f'"{name}"' for name in together), then=says("Red."))
    async with FaultServer(step) as server:
        config = config_for(server)
        settings = StudentSettings(endpoint=config, temperature=0.7, top_p=0.9, seed=1)
        student = EndpointStudent(Setup(settings, Path(), "s"), config)
        await student.check()
        assert {"temperature", "top_p", "seed"} <= set(server.bodies[0])
        await student.close()


# ----- P10 everything in reasoning_content


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_a_reply_that_is_all_reasoning_fails_the_check_and_names_the_parser(field: str) -> None:
    async with FaultServer(says(None, **{field: "The picture is red."})) as server:
        config = config_for(server)
        student = EndpointStudent(Setup(StudentSettings(endpoint=config), Path(), "s"), config)
        with pytest.raises(StudentError, match="reasoning parser"):
            await student.check()
        await student.close()
        tutor = OpenAITutor(TutorConfig(endpoint=config_for(server)))
        with pytest.raises(TutorError, match="reasoning parser"):
            await tutor.check()
        response = await tutor.respond(simple())
        assert isinstance(response.verdict, Unscored) and "reasoning_content" in response.verdict.detail
        await tutor.close()


# ----- one mirror that filters does not cost the others


async def test_a_flagged_prompt_puts_no_mirror_out() -> None:
    flagged = status(403, "requires moderation ... flagged")
    async with FaultServer(flagged, good()) as first, FaultServer() as second:
        endpoint = Endpoint(config_for(first, second))
        request = Request([{"role": "user", "content": "The secret id is abc"}])
        outcomes = await asyncio.gather(*(endpoint.ask(request, endpoint.context(affinity=str(n))) for n in range(20)))
        await endpoint.close()
    assert all(isinstance(outcome, Reply) for outcome in outcomes) and first.requests > 2
