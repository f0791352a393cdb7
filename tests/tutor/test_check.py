"""A tutor that cannot be used is told at the start, in one line, with the hint."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from steer_verl.config import JudgeConfig, TutorConfig
from steer_verl.errors import TutorError
from steer_verl.tutor import build_judge
from steer_verl.tutor.client import OpenAITutor
from steer_verl.tutor.prompt import Order
from tests.models.fault_server import (
    FaultServer,
    Request,
    Step,
    good,
    raw,
    refuses_schema,
    says,
    slow,
    status,
    text_only,
)
from tests.tutor.conftest import OpenLab, config_for, instant


async def checked(server: FaultServer, order: Order = "question_first", **settings: Any) -> None:
    config = config_for(server, max_retries=1, **settings)
    tutor = OpenAITutor(TutorConfig(endpoint=config, order=order))
    instant(tutor)
    try:
        await tutor.check()
    finally:
        await tutor.close()


@pytest.mark.parametrize("step", [good(), refuses_schema()])
async def test_a_usable_tutor_passes_and_is_shown_a_picture(step: Step) -> None:
    async with FaultServer(step) as server:
        await checked(server)
        assert "data:image/png;base64," in str(server.bodies[-1])


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (text_only(), ["takes no images", "tutor.endpoint.images=false"]),
        (status(401), ["refuses the key", "STEER_TUTOR_API_KEY"]),
        (status(403), ["refuses the key", "STEER_TUTOR_API_KEY"]),
        (status(401, "Could not validate credentials"), ["refuses the key", "STEER_TUTOR_API_KEY"]),
        (status(301, ""), ["redirects, which is not followed", "tutor.endpoint.base_url"]),
        (status(402, "Insufficient Balance"), ["has no credit left", "Insufficient Balance"]),
        (raw('{"error": {"message": "Invalid API key"}}'), ["refuses the key", "Invalid API key"]),
        (status(404, "No endpoints found that support image input"), ["takes no images", "images=false"]),
        (status(404, "model not found"), ["not found", "tutor.endpoint.model"]),
        (status(500), ["HTTP 500", "log"]),
        (says("", "length"), ["did not finish", "max_tokens (now 512)"]),
        (says("I'm sorry, I can't assist with that."), ["declines", "tutor.endpoint.model"]),
        (says("a fine answer"), ["no complete verdict", "json_schema"]),
        (good((11, 1, 1)), ["no complete verdict", "outside 1..10"]),
        (raw("<html>", "text/html"), ["no chat completions API", "not JSON", "/v1"]),
    ],
)
async def test_what_is_wrong_comes_with_a_hint_in_one_line(step: Step, words: list[str]) -> None:
    async with FaultServer(step) as server:
        with pytest.raises(TutorError) as error:
            await checked(server)
        message = str(error.value)
        assert all(word in message for word in words) and "\n" not in message, message


async def test_an_unreachable_server_is_named_with_its_address() -> None:
    async with FaultServer() as server:
        pass
    with pytest.raises(
        TutorError, match=r"cannot be reached .*; start the server, or correct tutor\.endpoint\.base_url"
    ):
        await checked(server)


async def test_a_silent_server_is_found_within_the_deadline() -> None:
    async with FaultServer(slow(5)) as server:
        with pytest.raises(TutorError, match=r"cannot be reached in time .* or raise tutor\.endpoint\.timeout"):
            await checked(server, timeout=0.3)


async def test_a_mirror_is_told_by_the_settings_that_it_has() -> None:
    async with FaultServer() as first, FaultServer(says("", "length")) as mirror:
        with pytest.raises(TutorError, match=r"^tutor\.endpoint\.mirrors\[0\]: .*raise tutor\.endpoint\.max_tokens"):
            await checked(first, mirrors=[{"base_url": mirror.base_url}])


async def test_without_the_name_of_a_variable_the_hint_asks_for_one() -> None:
    async with FaultServer(status(401)) as server:
        with pytest.raises(TutorError, match=r"set the environment variable that tutor\.endpoint\.api_key_env is"):
            await checked(server, api_key_env="")


async def test_a_wrong_model_name_is_told_with_those_that_exist() -> None:
    async with FaultServer(status(404, "The model does not exist"), models=["qwen", "llama"]) as server:
        with pytest.raises(TutorError, match=r"correct tutor\.endpoint\.model, .*; it lists llama, qwen"):
            await checked(server)


@pytest.mark.parametrize("models", [["fake-tutor:latest"], ["models/fake-tutor"], ["something else"], []])
async def test_the_list_of_models_is_a_hint_and_the_request_decides(models: list[str]) -> None:
    async with FaultServer(models=models) as server:
        await checked(server)


async def test_a_server_that_streams_badly_is_found_for_a_run_has_it_stream() -> None:
    async with FaultServer(choose=lambda request: status(500) if request.body.get("stream") else good()) as server:
        with pytest.raises(TutorError, match="HTTP 500"):
            await checked(server)
        await checked(server, stream=False)
        await checked(server, order="scores_first")


async def test_a_judge_is_asked_for_scores_alone_as_in_a_run() -> None:
    def short(request: Request) -> Step:
        return says("", "length") if "JSON object for both" in request.text else good()

    async with FaultServer(choose=short) as server:
        judge = build_judge(JudgeConfig(endpoint=config_for(server)))
        await judge.check()
        await judge.close()


async def test_every_mirror_is_asked_what_a_run_asks() -> None:
    async with FaultServer() as first, FaultServer(status(401)) as second:
        with pytest.raises(TutorError, match=r"tutor\.endpoint\.mirrors\[0\]: .*refuses the key"):
            tutor = OpenAITutor(TutorConfig(endpoint=config_for(first, second)))
            await tutor.check()
        await tutor.close()
        assert first.bodies[0]["response_format"] == second.bodies[0]["response_format"]


@pytest.mark.parametrize("listing", [{"models": []}, {"models_status": 404}])
async def test_a_server_without_a_list_of_models_is_tried(listing: dict[str, Any]) -> None:
    async with FaultServer(**listing) as server:
        await checked(server)
        assert len(server.bodies) == 1


async def test_a_blind_tutor_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    async with FaultServer(text_only()) as server:
        await checked(server, images=False)
    assert "without seeing any image" in caplog.text


@pytest.mark.parametrize(
    ("step", "usable"), [(good(), True), (says("I'm sorry, I can't help with that."), True), (status(401), False)]
)
async def test_the_attacker_is_checked_too(step: Step, usable: bool, caplog: pytest.LogCaptureFixture) -> None:
    async with FaultServer() as judge, FaultServer(step) as attacker:
        tutor = OpenAITutor(TutorConfig(endpoint=config_for(judge), attacker=config_for(attacker)))
        if usable:
            await tutor.check()
        else:
            with pytest.raises(TutorError, match=r"tutor\.attacker: .*refuses the key"):
                await tutor.check()
        assert len(judge.bodies) == len(attacker.bodies) == 1
        await tutor.close()


async def test_a_missed_question_in_the_probe_only_warns(lab: OpenLab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with lab(good(new_question="")) as (tutor, _, _):
        await tutor.check()
    assert "no usable question" in caplog.text
