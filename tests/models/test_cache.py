"""The one cache: killed anywhere and started again, nothing is paid for twice, and nothing else counts."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from steer_verl.config import TutorConfig
from steer_verl.errors import SteerError
from steer_verl.models import cache as cache_module
from steer_verl.models.cache import Cache, remembered
from steer_verl.models.endpoint import Endpoint
from steer_verl.models.failure import AgentFailed, Failure
from steer_verl.models.place import Place
from steer_verl.models.request import Reply, Request
from steer_verl.tutor.client import OpenAITutor
from steer_verl.types import Unscored, UnscoredReason, Usage, Verdict
from tests.models.fault_server import FaultServer, Step, filtered, good, refuses, says, status
from tests.tutor.conftest import config_for, instant
from tests.tutor.dialogues import simple

TURN = "train/3/seed-1/0/1"
REPLY = Reply(content="yes", usage=Usage(requests=1, prompt_tokens=5))


def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows writes to files of another name."""
    from steer_verl import records

    records._process_name.cache_clear()


async def test_a_verdict_is_not_asked_for_twice_and_costs_nothing_the_second_time(tmp_path: Path) -> None:
    request = simple().model_copy(update={"turn_key": TURN})
    async with FaultServer(good((8, 8, 9)), good((1, 1, 1))) as server:
        config = TutorConfig(endpoint=config_for(server))
        for _ in range(3):  # three processes
            tutor = OpenAITutor(config, cache=Cache(tmp_path))
            response = await tutor.respond(request)
            await tutor.close()
            assert isinstance(response.verdict, Verdict) and response.verdict.scores.safety == 8
        assert server.requests == 1 and response.usage == Usage()


CHANGES: list[dict[str, Any]] = [
    {"answer": "Another answer."},
    {"turn_key": "train/3/seed-1/0/2"},
    {"turn_key": "train/4/seed-1/0/1"},
    {"turn_key": "val/3/seed-1/0/1"},
    {"static_next_turn": None},
]


@pytest.mark.parametrize("change", CHANGES)
async def test_another_turn_or_another_answer_is_another_request(tmp_path: Path, change: dict[str, Any]) -> None:
    request = simple().model_copy(update={"turn_key": TURN})
    async with FaultServer() as server:
        tutor = OpenAITutor(TutorConfig(endpoint=config_for(server)), cache=Cache(tmp_path))
        await tutor.respond(request)
        await tutor.respond(request.model_copy(update=change))
        await tutor.close()
        assert server.requests == 2


@pytest.mark.parametrize(
    "change", [{"temperature": 0.5}, {"max_tokens": 300}, {"model": "other"}, {"json_schema": "off"}]
)
async def test_other_settings_are_another_request_and_how_a_server_is_reached_is_not(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    request = simple().model_copy(update={"turn_key": TURN})
    async with FaultServer() as server, FaultServer() as moved:
        for config in (
            config_for(server),
            config_for(server, **change),
            config_for(server, timeout=9, max_retries=1, max_concurrency=2),
            config_for(moved),
        ):
            tutor = OpenAITutor(TutorConfig(endpoint=config), cache=Cache(tmp_path))
            await tutor.respond(request)
            await tutor.close()
        assert (server.requests, moved.requests) == (2, 0)


TERMINAL: list[tuple[Step, UnscoredReason]] = [
    (refuses(), UnscoredReason.TUTOR_REFUSAL),
    (says("prose"), UnscoredReason.BAD_JSON),
]
FAILURES = [
    *(status(code) for code in (401, 402, 429, 500, 404, 418)),
    filtered(),
    status(400, "Content Exists Risk"),
    status(400, "maximum context length is 100 tokens"),
]


@pytest.mark.parametrize(("step", "reason"), TERMINAL)
async def test_every_reply_is_kept_refusals_too(tmp_path: Path, step: Step, reason: UnscoredReason) -> None:
    request = simple().model_copy(update={"turn_key": TURN})
    async with FaultServer(step) as server:
        for _ in range(2):
            tutor = OpenAITutor(TutorConfig(endpoint=config_for(server, max_retries=0)), cache=Cache(tmp_path))
            verdict = (await tutor.respond(request)).verdict
            await tutor.close()
            assert isinstance(verdict, Unscored) and verdict.reason is reason
            asked, server.script = server.requests, [good()]
        assert server.requests == asked, "nobody is asked again"


@pytest.mark.parametrize("step", FAILURES)
async def test_no_failure_is_kept_because_its_cause_may_be_mended(tmp_path: Path, step: Step) -> None:
    request = simple().model_copy(update={"turn_key": TURN})
    async with FaultServer(step) as server, FaultServer() as mended:
        for at, expected in ((server, Unscored), (mended, Verdict)):
            tutor = OpenAITutor(TutorConfig(endpoint=config_for(at, max_retries=0)), cache=Cache(tmp_path))
            instant(tutor)
            assert isinstance((await tutor.respond(request)).verdict, expected)
            await tutor.close()


async def test_a_reply_that_could_not_be_read_is_replayed_with_what_was_asked_after_it(tmp_path: Path) -> None:
    request = simple().model_copy(update={"turn_key": TURN})
    async with FaultServer(says("prose"), good(), says("never")) as server:
        verdicts = []
        for _ in range(2):
            tutor = OpenAITutor(TutorConfig(endpoint=config_for(server)), cache=Cache(tmp_path))
            verdicts.append((await tutor.respond(request)).verdict)
            await tutor.close()
        assert server.requests == 2 and verdicts[0] == verdicts[1]


async def test_without_a_key_or_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    async with FaultServer() as server:
        for cache, key in ((Cache(tmp_path), ""), (Cache(None), TURN)):
            endpoint = Endpoint(config_for(server), cache=cache)
            for _ in range(2):
                await endpoint.ask(
                    Request([{"role": "user", "content": "secret id is abc"}]), endpoint.context(key=key)
                )
            await endpoint.close()
        assert server.requests == 4 and not list(tmp_path.rglob("*.jsonl"))


def test_every_prefix_of_the_file_gives_exactly_its_whole_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    for number in range(4):
        cache.put(TURN, f"d{number}", REPLY.model_copy(update={"content": f"reply {number} \u00e9"}))
    [path] = tmp_path.rglob("*.jsonl")
    whole = path.read_bytes()
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        found = [Cache(tmp_path).get(TURN, f"d{number}", Reply) is not None for number in range(4)]
        assert sum(found) == whole[:cut].count(b"\n") and found == sorted(found, reverse=True)


def test_a_torn_or_foreign_line_makes_no_folder_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    cache.put(TURN, "a", REPLY)
    [path] = tmp_path.rglob("*.jsonl")
    path.write_bytes(b'{"key": "tor' + b"\n" + b"\xff\xfe\n" + b"[" * 100_000 + b"\n{}\n" + path.read_bytes())
    fresh_process(monkeypatch)
    second = Cache(tmp_path)
    assert second.get(TURN, "a", Reply) == REPLY
    second.put(TURN, "b", REPLY)
    assert Cache(tmp_path).get(TURN, "b", Reply) == REPLY
    assert second.get(TURN, "a", Failure) is None, "an entry of another form is none"


def test_a_full_disk_costs_entries_and_one_error_and_never_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache, write = Cache(tmp_path), os.write
    cache.put(TURN, "a", REPLY)

    def full(handle: int, data: Any) -> int:
        if len(data) > 40:
            return write(handle, bytes(data)[:40])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for name in "bcd":
            cache.put(TURN, name, REPLY)
    assert cache.lost == 3
    assert [record.levelno for record in caplog.records if "cannot be written" in record.getMessage()] == [
        logging.ERROR
    ]
    cache.put(TURN, "e", REPLY)
    again = Cache(tmp_path)
    assert [again.get(TURN, name, Reply) is not None for name in "abcde"] == [True, False, False, False, True]


def test_one_process_recalls_what_it_has_itself_been_told(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.get(TURN, "a", Reply) is None
    cache.put(TURN, "a", REPLY)
    assert cache.get(TURN, "a", Reply) == REPLY


@pytest.mark.parametrize(
    "key", ["train/3/s/0/1", "../../etc/x", "/abs/x", "a", "val/-1/../../x", "\u00fc/\ud800/x", "./.."]
)
def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    cache = Cache(tmp_path / "cache")
    cache.put(key, "d", REPLY)
    files = [path for path in tmp_path.rglob("*.jsonl")]
    assert all(path.is_relative_to(tmp_path / "cache") for path in files)
    assert Cache(tmp_path / "cache").get(key, "d", Reply) == (REPLY if files else None)


def test_keys_without_a_step_are_spread_over_few_folders(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number in range(500):
        cache.put(f"calibrate/{number:x}z", "d", REPLY)
    assert len(list(tmp_path.glob("calibrate/*"))) <= cache_module.BUCKETS
    assert all(cache.get(f"calibrate/{number:x}z", "d", Reply) == REPLY for number in range(500))


def test_the_index_in_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "MAX_ENTRIES", 50)
    cache = Cache(tmp_path)
    for step in range(20):
        for number in range(10):
            cache.put(f"train/{step}/s/0/{number}", "d", REPLY)
            assert cache.get(f"train/{step}/s/0/{number}", "d", Reply) == REPLY
    assert sum(map(len, cache._indexes.values())) <= 60
    assert cache.get("train/0/s/0/1", "d", Reply) == REPLY, "and what fell out of it is found again"


def test_the_secret_outlives_the_process_and_is_the_owners_alone(tmp_path: Path) -> None:
    first = Cache(tmp_path / "run")
    assert first.secret == Cache(tmp_path / "run").secret != Cache(tmp_path / "another").secret
    assert len(first.secret) == 32 and (tmp_path / "run" / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["secret"]
    assert Cache(None).secret != Cache(None).secret


def test_a_disk_without_links_holds_a_secret_and_a_full_one_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    for name in ("link", "symlink", "rename", "replace"):
        monkeypatch.setattr(os, name, refuse)
    assert Cache(tmp_path / "run").secret == Cache(tmp_path / "run").secret
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["secret"]
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="not permitted"):
        _ = Cache(tmp_path / "full").secret
    assert not list((tmp_path / "full").iterdir())


def test_a_secret_that_another_process_is_writing_is_waited_for_and_a_torn_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pauses = tmp_path / "secret", list[float]()
    path.touch()
    monkeypatch.setattr(cache_module.time, "sleep", pauses.append)
    with pytest.raises(SteerError, match="secret: it holds 0 bytes and not 32"):
        _ = Cache(tmp_path).secret
    assert 1 < sum(pauses) < 10
    monkeypatch.setattr(cache_module.time, "sleep", lambda _: path.write_bytes(b"s" * 32))
    assert Cache(tmp_path).secret == b"s" * 32


def test_no_prompt_and_no_image_is_written(tmp_path: Path) -> None:
    Cache(tmp_path).put(TURN, "d", REPLY)
    [path] = tmp_path.rglob("*.jsonl")
    assert set(json.loads(path.read_text())) == {"key", "digest", "value"}


async def test_a_result_of_no_endpoint_is_made_once_at_a_place_and_a_failure_is_made_again(tmp_path: Path) -> None:
    made: list[str] = []

    async def work() -> Reply:
        made.append("once more")
        if len(made) == 1:
            raise AgentFailed("timeout", transient=True)
        return REPLY.model_copy(update={"content": f"reply {len(made)}"})

    place = Place("evaluate/item")
    with pytest.raises(AgentFailed):
        await remembered(Cache(tmp_path), place, "what", Reply, work)
    for _ in range(2):
        assert (await remembered(Cache(tmp_path), place, "what", Reply, work)).content == "reply 2"
    assert (await remembered(Cache(tmp_path), place, "another", Reply, work)).content == "reply 3"
    assert (await remembered(Cache(tmp_path), place.part("turn1"), "what", Reply, work)).content == "reply 4"
    assert (await remembered(Cache(None), place, "what", Reply, work)).content == "reply 5"
