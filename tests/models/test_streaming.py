"""A streamed reply: the same as a whole one in whatever pieces it comes, and harmless whatever a server sends."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import logging
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.models.cache import Cache
from steer_verl.models.endpoint import Endpoint
from steer_verl.models.failure import Failure
from steer_verl.models.http import MAX_BODY
from steer_verl.models.request import Reply, Request, Stream
from steer_verl.models.streaming import HEARD_CHARS, EventStream
from steer_verl.types import UnscoredReason, Usage
from tests.models.fault_server import (
    BREAKS,
    FaultServer,
    Part,
    Step,
    delta,
    event,
    finished,
    good,
    raw,
    says,
    status,
    streams,
)
from tests.models.kinds import answers
from tests.models.replies import USAGE, completion
from tests.models.test_providers import refuses
from tests.tutor.conftest import config_for, instant_endpoint

WORDS = 'Caf\u00e9 \u2013 \u4f60\u597d, \U0001f600 said "it" \\ twice\nand \u2028 went'
MESSAGES = [{"role": "user", "content": "The secret id is abc"}]


async def heard(step: Step, **config: Any) -> tuple[Reply | Failure, list[str], FaultServer]:
    """What a streamed request comes to, what was heard of it on the way, and the server."""
    stream, texts = Stream(), []

    async def listen() -> None:
        async for text in stream:
            texts.append(text)

    async with FaultServer(step) as server:
        endpoint = Endpoint(config_for(server, **{"max_retries": 0, "timeout": 10, **config}))
        instant_endpoint(endpoint)
        listening = asyncio.ensure_future(listen())
        try:
            outcome = await endpoint.ask(Request(MESSAGES, stream=stream), endpoint.context())
        finally:
            stream.close()
            await listening
            await endpoint.close()
    return outcome, texts, server


async def whole(content: str | None, finish: str = "stop", **message: Any) -> Reply | Failure:
    """What the same reply comes to where it comes at once."""
    outcome, texts, _ = await heard(says(content, finish, **message))
    assert texts == [], "nothing of it was streamed"
    return outcome


# ----- the pieces


def spoken(parts: list[str], line: str, *, comments: bool) -> bytes:
    """A stream of these words."""
    events = [delta({"role": "assistant", "content": ""}), *map(delta, parts), finished("stop")]
    events.append({"choices": [], "usage": USAGE})
    between = f": keep-alive{line}{line}event: message{line}id: 7{line}retry: 10{line}".encode() if comments else b""
    said = between.join(event(value, line) for value in events)
    return said + f"data: [DONE]{line}{line}".encode()


@settings(max_examples=200, deadline=None)
@given(
    words=st.text(max_size=60) | st.just(WORDS),
    cuts=st.lists(st.integers(0, 3000), max_size=30),
    parts=st.lists(st.integers(0, 60), max_size=5),
    line=st.sampled_from(["\n", "\r\n"]),
    comments=st.booleans(),
    after=st.sampled_from([b"", b"data: x\n\n", event(delta("more")), event({"error": {"message": "late"}})]),
)
def test_a_reply_is_the_same_in_whatever_pieces_it_comes(
    words: str, cuts: list[int], parts: list[int], line: str, comments: bool, after: bytes
) -> None:
    words = words.encode(errors="replace").decode()
    places = [0, *sorted(min(part, len(words)) for part in parts), len(words)]
    said = [words[a:b] for a, b in itertools.pairwise(places)]
    sent = spoken(said, line, comments=comments) + after
    told: list[str] = []
    events = EventStream(told.append)
    places = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    for a, b in itertools.pairwise(places):
        events.feed(sent[a:b])
    assert events.done
    found, wanted = json.loads(events.body()), json.loads(completion(words))
    assert found["usage"] == USAGE
    assert found["choices"][0]["finish_reason"] == "stop"
    assert found["choices"][0]["message"]["content"] == wanted["choices"][0]["message"]["content"]
    assert all(words.startswith(text) for text in told) and told == sorted(told, key=len)


AGAIN = {"choices": [{"delta": {}, "message": {"content": WORDS}, "finish_reason": "stop"}], "usage": USAGE}
LINES = spoken([WORDS[:7], WORDS[7:]], "\r\n", comments=True)
CUTS: dict[str, list[Part]] = {
    "at once": [LINES],
    "a byte a piece": [LINES[n : n + 1] for n in range(len(LINES))],
    "with pauses": [part for n in range(0, len(LINES), 97) for part in (LINES[n : n + 97], 0.001)],
    "with a mark of the byte order": [b"\xef\xbb\xbf", LINES],
    "open at its end": [LINES, 60.0],
    "all of it again at its end": [event(delta(WORDS)), event(AGAIN), b"data: [DONE]\n\n"],
    "more behind its end": [LINES, event(delta("more")), 60.0],
}


@pytest.mark.parametrize("cut", list(CUTS))
async def test_over_http_it_is_the_same_reply(cut: str) -> None:
    start = time.monotonic()
    outcome, texts, server = await heard(streams(*CUTS[cut], done=False))
    assert outcome == await whole(WORDS)
    assert isinstance(outcome, Reply) and outcome.content == WORDS and time.monotonic() - start < 5
    assert outcome.usage == Usage(requests=1, prompt_tokens=10, cached_tokens=4, completion_tokens=5)
    assert all(WORDS.startswith(text) for text in texts)
    assert server.bodies[0]["stream"] is True and server.bodies[0]["stream_options"] == {"include_usage": True}


async def test_words_are_heard_while_more_is_to_come() -> None:
    gate, stream = asyncio.Event(), Stream()
    async with FaultServer(streams("The first half, ", "and some more.", gate, " The second half.")) as server:
        endpoint = Endpoint(config_for(server))
        asking = asyncio.ensure_future(endpoint.ask(Request(MESSAGES, stream=stream), endpoint.context()))
        async for text in stream:
            if text.endswith("more."):
                break
        assert not asking.done()
        gate.set()
        reply = await asking
        await endpoint.close()
    assert isinstance(reply, Reply) and reply.content == "The first half, and some more. The second half."


@pytest.mark.parametrize("finish", ["stop", "length", "content_filter", "SAFETY", "error", "tool_calls"])
async def test_it_ends_as_a_whole_reply_does(finish: str) -> None:
    outcome, _, _ = await heard(streams("Half an answer", finish=finish))
    assert outcome == await whole("Half an answer", finish)


@pytest.mark.parametrize("field", ["refusal", "reasoning_content", "reasoning"])
async def test_a_refusal_and_reasoning_come_in_pieces_too(field: str) -> None:
    outcome, _, _ = await heard(streams({field: "I must "}, "Yes", {field: "decline."}, {"content": None}, "."))
    name = "reasoning_content" if field == "reasoning" else field
    assert outcome == await whole("Yes.", **{name: "I must decline."})


async def test_a_server_that_tells_no_usage_costs_nothing_known() -> None:
    outcome, _, _ = await heard(streams("Yes.", event(finished("stop")), b"data: [DONE]\n\n", done=False))
    assert isinstance(outcome, Reply) and outcome.usage == Usage(requests=1)


async def test_usage_beside_the_last_words_counts_too() -> None:
    last = {**delta("es."), "usage": USAGE}
    outcome, _, _ = await heard(streams("Y", event(last), event(finished("stop")), b"data: [DONE]\n\n", done=False))
    assert isinstance(outcome, Reply) and (outcome.content, outcome.usage.completion_tokens) == ("Yes.", 5)


async def test_an_end_without_done_is_one_if_it_tells_why() -> None:
    outcome, _, _ = await heard(streams("Yes.", event(finished("stop")), done=False))
    assert isinstance(outcome, Reply) and outcome.content == "Yes."


# ----- a stream that fails


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (["Half an "], UnscoredReason.HTTP_5XX),  # ended properly, in the middle of the words
        (["Half an ", 0.01, BREAKS], UnscoredReason.CONNECT),
        ([event({"error": {"message": "overloaded", "code": 503}})], UnscoredReason.HTTP_5XX),
        (["Half an ", event({"error": {"message": "slow down", "code": 429}})], UnscoredReason.HTTP_429),
        (["Half an ", event({"object": "error", "message": "boom", "code": 500})], UnscoredReason.HTTP_5XX),
        ([b'event: error\ndata: {"error": {"message": "Invalid API key"}}\n\n'], UnscoredReason.HTTP_4XX),
        (
            ["Half an ", event({"choices": [{"delta": {}, "error": {"message": "x", "code": 502}}]})],
            UnscoredReason.HTTP_5XX,
        ),
        ([b": only\n\n", b"data: [DONE]\n\n"], UnscoredReason.HTTP_5XX),
        ([b"data: {broken\n\n", b"data: [1]\n\n", b"data: [DONE]\n\n"], UnscoredReason.HTTP_5XX),
        ([b""], UnscoredReason.HTTP_5XX),
        ([event({"id": 5}), b"data: [DONE]\n\n"], UnscoredReason.BAD_JSON),
    ],
)
async def test_what_is_no_whole_reply_is_a_failure_with_its_reason(parts: list[Part], reason: UnscoredReason) -> None:
    outcome, _, _ = await heard(streams(*parts, done=False))
    assert isinstance(outcome, Failure) and outcome.reason is reason, outcome


async def test_a_stream_that_broke_off_is_asked_for_again_from_its_beginning() -> None:
    stream, texts = Stream(), []

    async def listen() -> None:
        async for text in stream:
            texts.append(text)

    nothing = [streams(b": OPENROUTER PROCESSING\n\n", done=False), streams(done=False), streams(BREAKS)]
    script = [streams("A first try of it ", 0.01, BREAKS), *nothing, streams("The second one, ", "whole.")]
    async with FaultServer(*script) as server:
        endpoint = Endpoint(config_for(server))
        instant_endpoint(endpoint)
        listening = asyncio.ensure_future(listen())
        outcome = await endpoint.ask(Request(MESSAGES, stream=stream), endpoint.context())
        stream.close()
        await listening
        await endpoint.close()
    assert isinstance(outcome, Reply) and outcome.content == "The second one, whole." and server.requests == 5
    assert texts[0] == "A first try of it " and all(outcome.content.startswith(text) for text in texts[1:])


@pytest.mark.parametrize(
    "step",
    [
        says(WORDS),
        raw(completion(WORDS).decode(), "text/event-stream"),
        raw(LINES.decode(), "application/json"),
        raw(LINES.decode(), "text/plain"),
        raw(": hello\r\n\r\n" + LINES.decode(), "application/octet-stream"),
    ],
)
async def test_a_whole_body_or_another_type_is_read_for_what_it_is(step: Step) -> None:
    outcome, _, server = await heard(step)
    assert isinstance(outcome, Reply) and outcome.content == WORDS and server.requests == 1
    assert outcome.usage.completion_tokens == 5


@pytest.mark.parametrize("code", [400, 401, 429, 500])
async def test_an_error_status_is_what_it_is_in_a_stream_too(code: int) -> None:
    told = event({"error": {"message": "no"}})
    streamed, _, _ = await heard(answers(told, code, **{"Content-Type": "text/event-stream"}), json_schema="on")
    plain, _, _ = await heard(status(code, "no"), json_schema="on")
    assert isinstance(streamed, Failure) and isinstance(plain, Failure)
    assert (streamed.reason, streamed.status, streamed.cause) == (plain.reason, plain.status, plain.cause)


# ----- a server that does not stream

BY_STREAM = [
    ("Unknown parameter: 'stream_options'", ('"stream_options"',), {"stream_options"}, 1),
    ("stream_options: Extra inputs are not permitted", ('"stream_options"',), {"stream_options"}, 1),
    ("Unsupported parameter: 'stream'", ('"stream"',), {"stream", "stream_options"}, 1),
    ("stream is not supported", ('"stream"',), {"stream", "stream_options"}, 1),
    ("Streaming is not supported for this model", ('"stream"',), {"stream", "stream_options"}, 1),
    ("streaming responses are disabled", ('"stream"',), {"stream", "stream_options"}, 1),
    ("Bad Request", ('"stream"',), {"stream", "stream_options", "temperature"}, 2),
]


@pytest.mark.parametrize("code", [400, 422])
@pytest.mark.parametrize(("words", "together", "left_out", "learns"), BY_STREAM)
async def test_a_stream_that_is_refused_is_asked_for_no_more_once_told(
    words: str,
    together: tuple[str, ...],
    left_out: set[str],
    learns: int,
    code: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with FaultServer(refuses(words, *together, code=code, then=streams("Y", "es."))) as server:
        endpoint = Endpoint(config_for(server))
        pauses = instant_endpoint(endpoint)
        replies = [await endpoint.ask(Request(MESSAGES, stream=Stream()), endpoint.context()) for _ in range(4)]
        await endpoint.close()
    assert all(isinstance(reply, Reply) and reply.content == "Yes." for reply in replies)
    assert all(isinstance(reply, Reply) and set(reply.left_out) == left_out for reply in replies)
    assert server.requests == 4 + learns and pauses == []
    assert ("stream" in server.bodies[-1]) == ("stream" not in left_out)
    assert sum("requests go without" in record.getMessage() for record in caplog.records) == 1


async def test_a_vague_refusal_of_a_stream_is_understood_by_a_server_that_has_replied_before() -> None:
    async with FaultServer(refuses("Bad Request", '"stream"', then=says("Yes."))) as server:
        endpoint = Endpoint(config_for(server))
        for stream in (None, None, Stream(), Stream(), Stream()):
            assert isinstance(await endpoint.ask(Request(MESSAGES, stream=stream), endpoint.context()), Reply)
        await endpoint.close()
    assert server.requests == 7 and "temperature" in server.bodies[-1], "nothing else is given up"


async def test_a_setting_asks_for_no_stream() -> None:
    from steer_verl.config import TutorConfig
    from steer_verl.tutor.client import OpenAITutor
    from tests.tutor.dialogues import simple

    async with FaultServer(good()) as server:
        tutor = OpenAITutor(TutorConfig(endpoint=config_for(server, stream=False)))
        await tutor.respond(simple())
        await tutor.close()
    assert not {"stream", "stream_options"} & set(server.bodies[0])


# ----- a hostile stream


async def bounded(step: Step, seconds: float = 5.0, **config: Any) -> Reply | Failure:
    """What it comes to, in bounded time."""
    cpu, start = time.process_time(), time.monotonic()
    outcome, _, _ = await heard(step, **config)
    assert time.process_time() - cpu < seconds and time.monotonic() - start < seconds + 5
    return outcome


async def test_streams_come_over_one_connection_unless_a_server_does_not_end_them() -> None:
    from aiohttp import web

    peers, pauses = list[Any](), iter((0, 0, 30, 0))

    async def act(request: Any) -> web.StreamResponse:
        peers.append(request.http.transport.get_extra_info("peername"))
        return await streams(WORDS, 0.0).act(request)

    async def held(request: Any) -> web.StreamResponse:
        response = await act(request)
        await asyncio.sleep(next(pauses))
        return response

    async with FaultServer(Step("held", held)) as server:
        endpoint = Endpoint(config_for(server))
        for _ in range(4):
            began = time.monotonic()
            reply = await endpoint.ask(Request(MESSAGES, stream=Stream()), endpoint.context())
            assert isinstance(reply, Reply) and reply.content == WORDS and time.monotonic() - began < 5
        await endpoint.close()
    assert peers[0] == peers[1] == peers[2] != peers[3]


def endless_events(piece: bytes) -> Step:
    """The same for ever."""
    from aiohttp import web

    from tests.models.fault_server import Request as Sent

    async def act(request: Sent) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request.http)
        while True:
            await response.write(piece)

    return Step("endless", act)


@pytest.mark.parametrize("piece", [event(delta("word " * 200)), b": keep-alive\n\n" * 200, b"x" * 65_536, b"\n" * 9000])
async def test_a_stream_without_end_is_cut_off(piece: bytes) -> None:
    outcome = await bounded(endless_events(piece))
    assert isinstance(outcome, Failure) and f"larger than {MAX_BODY} bytes" in outcome.detail


async def test_a_stream_that_drips_for_ever_ends_at_the_deadline() -> None:
    drops: list[Part] = [part for _ in range(1000) for part in (b": still here\n\n", 0.01)]
    outcome = await bounded(streams(*drops, done=False), timeout=0.5)
    assert isinstance(outcome, Failure) and outcome.reason is UnscoredReason.TIMEOUT


def test_a_byte_a_piece_costs_no_more_than_a_line_at_once() -> None:
    sent = b"".join(event(delta("ab")) for _ in range(2000)) + b"data: " + b"z" * 200_000
    told: list[str] = []
    events = EventStream(told.append)
    start = time.process_time()
    for n in range(len(sent)):
        events.feed(sent[n : n + 1])
    assert json.loads(events.body())["choices"][0]["message"]["content"] == "ab" * 2000
    assert time.process_time() - start < 3 and sum(map(len, told)) < 1_000_000


def test_a_long_reply_is_heard_up_to_a_bound() -> None:
    told: list[str] = []
    events = EventStream(told.append)
    for _ in range(3 * HEARD_CHARS // 8):
        events.feed(event(delta("8 letters"[:8])))
    assert HEARD_CHARS * 15 // 16 < len(told[-1]) <= HEARD_CHARS


HOSTILE: dict[str, bytes] = {
    "a line of 4 MB": b"data: " + b"a" * (MAX_BODY - 100),
    "a word of 3 MB": event(delta("a" * 3 * 2**20)),
    "many lines": b"data: {}\n" * 300_000,
    "no UTF-8": b'data: {"choices": [{"delta": {"content": "\xff\xfe\xc3("}}]}\n\n' + b"\xf0\x9f" * 1000,
    "deep JSON": b"data: " + b"[" * 100_000 + b"\n\n" + b'data: {"a":' * 10_000 + b"\n\n",
    "deep choices": b'data: {"choices": ' + b"[" * 50_000 + b"\n\n",
    "numbers without end": b'data: {"choices": [{"delta": {"content": ' + b"9" * 200_000 + b"}}]}\n\n",
    "null bytes": b"\0" * 100_000 + b"data: \0\n\n",
    "odd choices": b"".join(
        event(value)
        for value in (
            {"choices": None},
            {"choices": 7},
            {"choices": [None]},
            {"choices": [[]]},
            {"choices": [{"delta": 7}]},
            {"choices": [{"delta": {"content": {"a": 1}}}]},
            {"choices": [{"delta": {"content": [None, 7, {"text": 7}]}}]},
            {"choices": [{"finish_reason": 7}]},
            {"usage": "much"},
        )
    ),
    "surrogates": b'data: {"choices": [{"delta": {"content": "\\ud800 \\udfff"}}]}\n\n',
}


@pytest.mark.parametrize("name", list(HOSTILE))
@pytest.mark.parametrize("done", [False, True])
async def test_whatever_comes_is_a_reply_or_a_failure_in_bounded_time(name: str, done: bool) -> None:
    outcome = await bounded(streams(HOSTILE[name], b"\n\n", done=done))
    assert isinstance(outcome, Reply | Failure) and outcome.model_dump_json()
    if done and name != "a line of 4 MB":
        assert isinstance(outcome, Reply)


async def test_a_compressed_stream_is_unpacked_and_a_bomb_is_not() -> None:
    packed = gzip.compress(LINES)
    pieces = [packed[n : n + 50] for n in range(0, len(packed), 50)]
    outcome = await bounded(streams(*pieces, done=False, Content_Encoding="gzip"))
    assert isinstance(outcome, Reply) and outcome.content == WORDS
    bomb = gzip.compress(event(delta("a" * 1000)) * 20_000)
    outcome = await bounded(streams(bomb, done=False, Content_Encoding="gzip"))
    assert isinstance(outcome, Failure) and "larger than" in outcome.detail
    outcome = await bounded(streams(LINES, done=False, Content_Encoding="br"))
    assert isinstance(outcome, Failure)


KEY = "sk-very-secret-123456"


async def test_a_key_that_comes_in_pieces_is_struck_out_of_all_that_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTOR_KEY", KEY)
    said = f"you sent {KEY} to us, and {KEY} again"
    parts: list[Part] = [part for letter in said for part in (letter, 0.001)]
    outcome, texts, _ = await heard(
        streams(*parts, {"refusal": KEY[:9]}, {"refusal": KEY[9:]}), api_key_env="TUTOR_KEY"
    )
    assert isinstance(outcome, Reply) and outcome.content == "you sent *** to us, and *** again"
    assert outcome.refusal == "***" and texts
    assert KEY not in "".join(texts)


# ----- the cache


async def test_a_streamed_reply_is_kept_and_replayed_without_a_request(tmp_path: Any) -> None:
    async with FaultServer(streams("A streamed ", "reply of some length")) as server:
        replies = []
        for stream in (Stream(), Stream(), None):
            endpoint = Endpoint(config_for(server), cache=Cache(tmp_path))
            asked = endpoint.context(key="train/1/s/0/1")
            replies.append(await endpoint.ask(Request(MESSAGES, stream=stream), asked))
            await endpoint.close()
    first, *again = replies
    assert again == [first, first] and isinstance(first, Reply) and server.requests == 1


async def test_how_a_reply_comes_does_not_decide_which_one_it_is(tmp_path: Any) -> None:
    async with FaultServer(good()) as server:
        endpoint = Endpoint(config_for(server), cache=Cache(tmp_path))
        for stream in (None, Stream()):
            await endpoint.ask(Request(MESSAGES, stream=stream), endpoint.context(key="train/1/s/0/1"))
        await endpoint.close()
    assert server.requests == 1 and "stream" not in server.bodies[0]
