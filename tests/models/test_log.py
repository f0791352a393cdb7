"""The request log: every attempt is in it once, without a secret, and it outlives a kill and a full disk."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from steer_verl.config import BreakerConfig, TutorConfig
from steer_verl.errors import DataError
from steer_verl.models.cache import Cache
from steer_verl.models.log import MAX_REPLY_CHARS, Attempt, RequestLog, read_log, summary
from steer_verl.models.request import Deadline, RequestContext
from steer_verl.tutor.client import OpenAITutor
from steer_verl.types import Unscored, UnscoredReason, Usage
from tests.models.fault_server import FaultServer, Step, good, half_sent, refuses_schema, says, slow, status
from tests.tutor.conftest import config_for, instant
from tests.tutor.dialogues import exchange_at, picture, question, seed_of, simple

PRICES = {"prompt": 1e5, "cached": 1e4, "completion": 1e6}
TURN = "train/3/seed-1/0/1"


async def logged(
    folder: Path, *script: Step, answers: int = 1, cache: Cache | None = None, **settings: object
) -> list[Attempt]:
    """The log of some requests to a scripted server."""
    async with FaultServer(*script) as server:
        config = config_for(server, prices=PRICES, **settings)
        tutor = OpenAITutor(TutorConfig(endpoint=config, log=str(folder)), cache=cache)
        instant(tutor)
        for number in range(answers):
            key = {"turn_key": TURN.replace("/0/1", f"/{number}/1")}
            await tutor.respond(simple(f"answer {number}").model_copy(update=key))
        await tutor.close()
    return list(read_log(folder))


async def test_each_attempt_has_a_line(tmp_path: Path) -> None:
    failed, unread, read = await logged(tmp_path, status(500), says("prose"), good())
    assert [(a.attempt, a.outcome, a.status) for a in (failed, unread, read)] == [
        (0, UnscoredReason.HTTP_5XX, 500),
        (1, "ok", 200),
        (0, "ok", 200),
    ]
    assert failed.key == unread.key != read.key
    assert {attempt.turn_key for attempt in (failed, unread, read)} == {TURN}
    assert unread.reply == "prose" and '"scores"' in read.reply and "HTTP 500" in failed.detail
    total = failed.usage + unread.usage + read.usage
    assert total.requests == 3 and total.cost == pytest.approx(2 * (0.6 + 0.04 + 5))


async def test_a_reply_stands_in_the_cache_or_in_the_log_and_not_in_both(tmp_path: Path) -> None:
    [attempt] = await logged(tmp_path / "log", good(), cache=Cache(tmp_path / "cache"))
    assert attempt.reply == "" and "scores" in "".join(p.read_text() for p in (tmp_path / "cache").rglob("*.jsonl"))


async def test_the_key_that_is_logged_is_the_key_that_is_sent_and_a_gateway_charges_once(tmp_path: Path) -> None:
    async with FaultServer(half_sent(), status(503), good()) as server:
        tutor = OpenAITutor(TutorConfig(endpoint=config_for(server), log=str(tmp_path)))
        instant(tutor)
        await tutor.respond(simple())
        await tutor.close()
        attempts = list(read_log(tmp_path))
        assert [headers["Idempotency-Key"] for headers in server.headers] == [a.key for a in attempts]
        assert server.charges == {attempts[0].key: 1} and len(attempts) == 3


async def test_what_a_breaker_turns_away_is_no_sent_attempt(tmp_path: Path) -> None:
    touchy = BreakerConfig(failures=1, cooldown=60)
    attempts = await logged(tmp_path, status(500), answers=2, breaker=touchy, max_retries=0)
    assert [attempt.sent for attempt in attempts] == [True, False]
    counted = summary(attempts)
    assert counted.outcomes == {"http_5xx": 1} and counted.turns == 2
    assert (counted.usage.requests, counted.usage.rejected) == (1, 1)


async def test_what_a_request_went_without_is_written(tmp_path: Path) -> None:
    refused, first, second = await logged(tmp_path, refuses_schema(), answers=2)
    assert (refused.outcome, refused.left_out) == (UnscoredReason.HTTP_4XX, ())
    assert first.left_out == second.left_out == ("response_format",)
    assert summary([refused, first, second]).left_out == {"response_format": 2}


async def test_the_summary_counts_attempts_servers_and_cost(tmp_path: Path) -> None:
    counted = summary(await logged(tmp_path, status(429), says("prose"), good(), answers=3))
    assert counted.outcomes == {"http_429": 1, "ok": 4} and sum(counted.servers.values()) == 5
    assert (counted.turns, counted.requests, len(counted.servers)) == (3, 4, 1)
    assert counted.usage.prompt_tokens == 40 and counted.usage.cost == pytest.approx(4 * 5.64) and counted.seconds > 0
    assert summary([]).usage == Usage()


async def test_many_at_once_are_counted_one_by_one(tmp_path: Path) -> None:
    steps = [good(), status(500), slow(0.01), says("prose")]
    async with FaultServer(choose=lambda request: steps[request.number % 4]) as server:
        tutor = OpenAITutor(TutorConfig(endpoint=config_for(server), log=str(tmp_path)))
        instant(tutor)
        asked = [simple(f"answer {n}").model_copy(update={"turn_key": f"train/1/s/{n}/1"}) for n in range(60)]
        responses = await asyncio.gather(*(tutor.respond(request) for request in asked))
        await tutor.close()
    attempts = list(read_log(tmp_path))
    for request, response in zip(asked, responses, strict=True):
        mine = [attempt for attempt in attempts if attempt.turn_key == request.turn_key]
        assert len(mine) == response.usage.requests
    assert sum(response.usage.requests for response in responses) == server.requests == len(attempts)


async def test_neither_key_nor_image_nor_prompt_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-very-secret-123456"
    monkeypatch.setenv("TUTOR_KEY", secret)
    seed = seed_of([question("Which words are these?", (picture(tmp_path),)), question("Second?")])
    async with FaultServer(status(500, f"bad key {secret}"), says(f"You sent {secret}"), good()) as server:
        config = config_for(server, api_key_env="TUTOR_KEY")
        tutor = OpenAITutor(TutorConfig(endpoint=config, log=str(tmp_path / "log")))
        instant(tutor)
        await tutor.respond(exchange_at(seed, 0, ["An answer."]))
        await tutor.close()
        assert server.keys == [f"Bearer {secret}"] * 3
    written = "".join(path.read_text() for path in (tmp_path / "log").iterdir())
    assert not any(word in written for word in (secret, "base64", "Which words are these", "An answer"))
    assert "bad key ***" in written and "You sent ***" in written


async def test_an_answer_about_an_unreadable_image_makes_no_attempt(tmp_path: Path) -> None:
    seed = seed_of([question("First?", (str(tmp_path / "gone.png"),)), question("Second?")])
    async with FaultServer() as server:
        tutor = OpenAITutor(TutorConfig(endpoint=config_for(server), log=str(tmp_path / "log")))
        response = await tutor.respond(exchange_at(seed, 0, ["An answer."]))
        await tutor.close()
    assert list(read_log(tmp_path / "log")) == [] and server.requests == 0
    assert isinstance(response.verdict, Unscored) and response.verdict.reason is UnscoredReason.IMAGE
    assert response.usage == Usage()


def attempt(number: int) -> Attempt:
    return Attempt(
        key=f"k{number}",
        turn_key=TURN,
        purpose="score",
        attempt=0,
        server="http://a/v1",
        model="m",
        prompt="p",
        when=1.0,
        seconds=0.5,
        outcome="ok",
    )


def test_a_torn_or_foreign_line_is_passed_over_and_a_file_of_something_else_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = RequestLog(tmp_path)
    for number in range(3):
        log.append(attempt(number))
    [path] = tmp_path.iterdir()
    path.write_bytes(b'{"foreign": 1}\n' + path.read_bytes()[:-5])
    assert list(read_log(tmp_path)) == [attempt(0), attempt(1)]
    assert "passed over" in caplog.text
    path.write_text('{"final": "maybe"}\n')
    with pytest.raises(DataError, match=r"\.jsonl:1: not a line of a request log"):
        list(read_log(tmp_path))


def test_a_log_that_cannot_be_written_costs_no_reply(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    log = RequestLog(tmp_path / "file")
    for number in range(3):
        log.append(attempt(number))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_the_digest_tells_requests_apart_and_knows_an_image_by_its_content() -> None:
    def body(text: str, uri: str, **more: Any) -> dict:
        return {"messages": [{"content": [{"text": text}, {"image_url": {"url": uri}}]}], **more}

    def digest(key: str, *parts: str, **more: Any) -> str:
        return RequestContext(Deadline(1), key=key).digest(json.loads(json.dumps(body(*parts, **more))))

    here = digest("p", "a", "data:image/png;base64,AAAA")
    assert here == digest("p", "a", "data:image/png;base64,AAAA")
    others = [
        digest("q", "a", "data:image/png;base64,AAAA"),
        digest("p", "b", "data:image/png;base64,AAAA"),
        digest("p", "a", "data:image/png;base64,AAAB"),
        digest("p", "a", "data:image/png;base64,AAAA", temperature=0.5),
        digest("p", "a", "data:image/png;base64,AAAA", max_tokens=5),
    ]
    assert len({here, *others}) == 6


def test_without_a_key_equal_requests_are_two_and_each_keeps_its_digest() -> None:
    first, second = RequestContext(Deadline(1)), RequestContext(Deadline(1))
    assert first.digest({"a": 1}) == first.digest({"a": 1}) != second.digest({"a": 1})
    placed = [RequestContext(Deadline(1), key=TURN) for _ in range(2)]
    assert placed[0].digest({"a": 1}) == placed[1].digest({"a": 1})


async def test_a_long_reply_is_written_in_part(tmp_path: Path) -> None:
    [one, *_] = await logged(tmp_path, says("x" * 10_000), reasks=0)
    assert one.reply == "x" * MAX_REPLY_CHARS
