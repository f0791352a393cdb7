"""The ledger: every attempt and every ruling is in it once, without a secret, and it outlives a kill."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from steer_verl.config import BreakerConfig, TutorConfig
from steer_verl.errors import DataError
from steer_verl.transport.inquiry import Deadline, Inquiry
from steer_verl.transport.ledger import (
    MAX_REPLY_CHARS,
    Attempt,
    Final,
    Ledger,
    by_key,
    by_place,
    final,
    kept_text,
    read_ledger,
    request_key,
    summary,
)
from steer_verl.tutor.client import OpenAITutor
from steer_verl.types import NoAttack, NoAttackReason, TutorResponse, Unscored, UnscoredReason, Usage
from tests.transport.fault_server import FaultServer, Step, good, half_sent, says, slow, status
from tests.tutor.conftest import config_for, instant
from tests.tutor.dialogues import exchange_at, picture, question, seed_of, simple

PRICES = {"prompt": 1e5, "cached": 1e4, "completion": 1e6}
PLACE = "train/3/seed-1/0/1"


async def logged(folder: Path, *script: Step, answers: int = 1, **settings: object) -> list[Attempt | Final]:
    """The ledger of some rulings on a scripted server."""
    async with FaultServer(*script) as server:
        config = config_for(server, prices=PRICES, **settings)
        tutor = OpenAITutor(TutorConfig(endpoint=config, log=str(folder)))
        instant(tutor, config)
        for number in range(answers):
            place = {"place": PLACE.replace("/0/1", f"/{number}/1")}
            await tutor.respond(simple(f"answer {number}").model_copy(update=place))
        await tutor.close()
    return list(read_ledger(folder))


async def test_each_attempt_has_a_line_and_the_ruling_the_last_one(tmp_path: Path) -> None:
    failed, unread, read, end = await logged(tmp_path, status(500), says("prose"), good())
    assert isinstance(failed, Attempt) and isinstance(unread, Attempt) and isinstance(read, Attempt)
    assert [(a.round, a.attempt, a.outcome, a.status) for a in (failed, unread, read)] == [
        (0, 0, UnscoredReason.HTTP_5XX, 500),
        (0, 1, "ok", 200),
        (1, 0, "ok", 200),
    ]
    assert failed.key == unread.key != read.key
    assert {record.place for record in (failed, unread, read, end)} == {PLACE}
    assert unread.reply == "prose" and '"scores"' in read.reply and "HTTP 500" in failed.detail
    assert isinstance(end, Final) and end.ruling.usage == failed.usage + unread.usage + read.usage
    assert end.ruling.usage.requests == 3 and end.ruling.usage.cost == pytest.approx(2 * (0.6 + 0.04 + 5))


async def test_the_key_that_is_logged_is_the_key_that_is_sent_and_a_gateway_charges_once(tmp_path: Path) -> None:
    async with FaultServer(half_sent(), status(503), good()) as server:
        config = config_for(server)
        tutor = OpenAITutor(TutorConfig(endpoint=config, log=str(tmp_path)))
        instant(tutor, config)
        await tutor.respond(simple())
        await tutor.close()
        attempts = [record for record in read_ledger(tmp_path) if isinstance(record, Attempt)]
        assert [headers["Idempotency-Key"] for headers in server.headers] == [a.key for a in attempts]
        assert server.charges == {attempts[0].key: 1} and len(attempts) == 3


async def test_what_a_breaker_turns_away_is_no_sent_attempt(tmp_path: Path) -> None:
    touchy = BreakerConfig(failures=1, cooldown=60)
    records = await logged(tmp_path, status(500), answers=2, breaker=touchy, max_retries=0)
    assert [(type(r).__name__, r.sent if isinstance(r, Attempt) else None) for r in records] == [
        ("Attempt", True),
        ("Final", None),
        ("Attempt", False),
        ("Final", None),
    ]
    told = summary(records)
    assert told.attempts == {"http_5xx": 1} and told.unscored == {"http_5xx": 2} and told.rulings == 2
    assert (told.usage.requests, told.usage.rejected) == (1, 1)


async def test_the_summary_counts_attempts_servers_and_cost(tmp_path: Path) -> None:
    told = summary(await logged(tmp_path, status(429), says("prose"), good(), answers=3))
    assert told.attempts == {"http_429": 1, "ok": 4} and sum(told.servers.values()) == 5 and len(told.servers) == 1
    assert (told.rulings, told.unscored, told.keys) == (3, {}, 4)
    assert told.usage.prompt_tokens == 40 and told.usage.cost == pytest.approx(4 * 5.64) and told.seconds > 0
    assert summary([]).usage == Usage()


async def test_many_at_once_have_exactly_one_final_line_each(tmp_path: Path) -> None:
    steps = [good(), status(500), slow(0.01), says("prose")]
    async with FaultServer(choose=lambda request: steps[request.number % 4]) as server:
        config = config_for(server)
        tutor = OpenAITutor(TutorConfig(endpoint=config, log=str(tmp_path)))
        instant(tutor, config)
        asked = [simple(f"answer {n}").model_copy(update={"place": f"train/1/s/{n}/1"}) for n in range(60)]
        rulings = await asyncio.gather(*(tutor.respond(exchange) for exchange in asked))
        await tutor.close()
    records = list(read_ledger(tmp_path))
    finals = [record for record in records if isinstance(record, Final)]
    assert len(finals) == 60 and all(
        sum(isinstance(r, Final) for r in group) <= 1 for group in by_key(records).values()
    )
    groups = by_place(records)
    for exchange, ruling in zip(asked, rulings, strict=True):
        *attempts, last = groups[exchange.turn_key]
        assert isinstance(last, Final) and last.ruling == ruling and len(attempts) == ruling.usage.requests
    assert sum(ruling.usage.requests for ruling in rulings) == server.requests


async def test_neither_key_nor_picture_nor_prompt_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-very-secret-123456"
    monkeypatch.setenv("TUTOR_KEY", secret)
    seed = seed_of([question("Which words are these?", (picture(tmp_path),)), question("Second?")])
    async with FaultServer(status(500, f"bad key {secret}"), says(f"You sent {secret}"), good()) as server:
        config = config_for(server, api_key_env="TUTOR_KEY")
        tutor = OpenAITutor(TutorConfig(endpoint=config, log=str(tmp_path / "log")))
        instant(tutor, config)
        await tutor.respond(exchange_at(seed, 0, ["An answer."]))
        await tutor.close()
        assert server.keys == [f"Bearer {secret}"] * 3
    written = "".join(path.read_text() for path in (tmp_path / "log").iterdir())
    assert not any(word in written for word in (secret, "base64", "Which words are these", "An answer"))
    assert "bad key ***" in written and "You sent ***" in written


async def test_an_answer_about_an_unreadable_picture_is_final_without_an_attempt(tmp_path: Path) -> None:
    seed = seed_of([question("First?", (str(tmp_path / "gone.png"),)), question("Second?")])
    async with FaultServer() as server:
        tutor = OpenAITutor(TutorConfig(endpoint=config_for(server), log=str(tmp_path / "log")))
        await tutor.respond(exchange_at(seed, 0, ["An answer."]))
        await tutor.close()
    [end] = read_ledger(tmp_path / "log")
    assert isinstance(end, Final) and isinstance(end.ruling.verdict, Unscored) and end.ruling.usage == Usage()


RULING = TutorResponse(
    verdict=Unscored(reason=UnscoredReason.CONNECT), attack=NoAttack(reason=NoAttackReason.UNAVAILABLE), seconds=1.0
)


def test_a_torn_last_line_is_passed_over_and_a_foreign_one_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    records = [final(f"train/1/s/0/{n}", "tutor", ["shown"], RULING) for n in range(3)]
    for record in records:
        ledger.append(record)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    assert list(read_ledger(tmp_path)) == records[:2]
    path.write_text('{"final": "maybe"}\n')
    with pytest.raises(DataError, match=r"\.jsonl:1: not a ledger line"):
        list(read_ledger(tmp_path))


def test_a_ledger_that_cannot_be_written_costs_no_ruling(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    ledger = Ledger(tmp_path / "file")
    for _ in range(3):
        ledger.append(final("place", "tutor", [], RULING))
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_the_key_tells_requests_apart_and_knows_a_picture_by_its_content() -> None:
    def body(text: str, uri: str) -> dict:
        return {"messages": [{"content": [{"text": text}, {"image_url": {"url": uri}}]}]}

    here = request_key("p", "score", 0, body("a", "data:image/png;base64,AAAA"))
    assert here == request_key("p", "score", 0, json.loads(json.dumps(body("a", "data:image/png;base64,AAAA"))))
    others = [
        request_key("q", "score", 0, body("a", "data:image/png;base64,AAAA")),
        request_key("p", "attack", 0, body("a", "data:image/png;base64,AAAA")),
        request_key("p", "score", 1, body("a", "data:image/png;base64,AAAA")),
        request_key("p", "score", 0, body("b", "data:image/png;base64,AAAA")),
        request_key("p", "score", 0, body("a", "data:image/png;base64,AAAB")),
    ]
    assert len({here, *others}) == 6


def test_without_a_place_equal_inquiries_are_two_and_each_keeps_its_key() -> None:
    first, second = Inquiry(Deadline(1)), Inquiry(Deadline(1))
    assert first.key(["body"]) == first.key(["body"]) != second.key(["body"])
    placed = [Inquiry(Deadline(1), place="train/1/s/0/1") for _ in range(2)]
    assert placed[0].key(["body"]) == placed[1].key(["body"])
    assert final("", "tutor", [], RULING).key != final("", "tutor", [], RULING).key


def test_a_reply_is_kept_in_part_and_as_utf_8() -> None:
    assert kept_text("x" * 10_000) == "x" * MAX_REPLY_CHARS
    kept_text("a\ud800b").encode()
