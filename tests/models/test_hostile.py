"""A hostile server: whatever it sends ends as a reply or a failure, in time, in bounded memory, without the key."""

from __future__ import annotations

import asyncio
import base64
import gzip
import html
import json
import logging
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from aiohttp import web

from steer_verl.config import EndpointConfig, PriceConfig
from steer_verl.errors import ConfigError
from steer_verl.models import http
from steer_verl.models.endpoint import Endpoint
from steer_verl.models.failure import Failure
from steer_verl.models.http import MAX_BODY, MAX_ERROR_BODY, Secret, _proxy_for
from steer_verl.models.log import RequestLog
from steer_verl.models.request import Reply, Request
from steer_verl.types import UnscoredReason
from tests.models.fault_server import FaultServer, Step, delta, event, finished, says, status
from tests.models.fault_server import Request as Sent
from tests.models.kinds import BOMBS, HEADERS, ODD, answers, endless
from tests.models.replies import completion
from tests.tutor.conftest import config_for

KEY = "sk-a/b+c=d\"'<&>~very-secret-123456"


async def asked(step: Step, log: Path | None = None, **settings: Any) -> Reply | Failure:
    """What one request comes to."""
    async with FaultServer(step) as server:
        config = config_for(server, **{"max_retries": 0, "timeout": 5, **settings})
        endpoint = Endpoint(config, log=RequestLog(log) if log else None)
        try:
            return await endpoint.ask(Request([{"role": "user", "content": "Say yes."}]), endpoint.context())
        finally:
            await endpoint.close()


# ----- bytes and time


@pytest.mark.parametrize("code", [200, 400, 500])
async def test_a_reply_without_end_is_cut_off(code: int) -> None:
    tracemalloc.start()
    start = time.monotonic()
    outcome = await asked(endless(code))
    seconds, (_, peak) = time.monotonic() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(outcome, Failure) and seconds < 5 and peak < 6 * MAX_BODY
    assert code != 200 or f"larger than {MAX_BODY} bytes" in outcome.detail


@pytest.mark.parametrize("code", [200, 429, 500])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_bomb_is_not_unpacked(code: int, encoding: str) -> None:
    packed = BOMBS[encoding]
    tracemalloc.start()
    outcome = await asked(answers(packed, code, **{"Content-Encoding": encoding}))
    (_, peak) = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(outcome, Failure) and peak < 8 * MAX_BODY + len(packed)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "hex", "x" * 5000])
async def test_a_compression_that_was_not_asked_for_is_a_failure(encoding: str) -> None:
    outcome = await asked(answers(completion("yes"), **{"Content-Encoding": encoding}))
    assert isinstance(outcome, Failure) and outcome.reason is UnscoredReason.BAD_JSON
    outcome = await asked(answers(b"\x00\x01", 503, **{"Content-Encoding": encoding}))
    assert isinstance(outcome, Failure) and outcome.retryable and outcome.status == 503


async def test_a_reply_that_a_gateway_packs_all_the_same_is_read() -> None:
    for packed, encoding in ((gzip.compress(completion("yes")), "gzip"), (zlib.compress(completion("yes")), "deflate")):
        outcome = await asked(answers(packed, **{"Content-Encoding": encoding}))
        assert isinstance(outcome, Reply) and outcome.content == "yes"
    outcome = await asked(answers(b"\xef\xbb\xbf" + completion("yes")))
    assert isinstance(outcome, Reply), "a mark of the byte order is no part of it"


@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain"])
async def test_a_server_that_streams_unasked_is_read(kind: str) -> None:
    pieces = event(delta("ye")) + event(delta("s")) + event(finished("stop")) + b"data: [DONE]\n\n"
    outcome = await asked(answers(pieces, **{"Content-Type": kind}))
    assert isinstance(outcome, Reply) and outcome.content == "yes"


async def test_the_whole_time_is_bounded_however_slowly_it_comes() -> None:
    async def act(request: Sent) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request.http)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)

    start = time.monotonic()
    outcome = await asked(Step("drips", act), timeout=0.5)
    assert isinstance(outcome, Failure) and outcome.reason is UnscoredReason.TIMEOUT and time.monotonic() - start < 2


# ----- odd forms


@pytest.mark.parametrize("charset", ["hex", "zlib", "bz2", "rot13", "utf-7", "undefined", "utf-16", "none", "\u00fc"])
@pytest.mark.parametrize("code", [200, 400, 429, 503])
async def test_a_charset_means_nothing(charset: str, code: int) -> None:
    body = completion("yes") if code == 200 else b'{"error": {"message": "no \xff"}}'
    outcome = await asked(answers(body, code, **{"Content-Type": f"application/json; charset={charset}"}))
    assert isinstance(outcome, Reply if code == 200 else Failure)


@pytest.mark.parametrize("number", range(len(ODD)))
async def test_any_body_is_a_reply_or_a_failure(number: int, tmp_path: Path) -> None:
    prices = PriceConfig(prompt=1, cached=1, completion=1).model_dump()
    for code in (200, 400, 500):
        outcome = await asked(answers(ODD[number], code), tmp_path / str(code), prices=prices)
        assert isinstance(outcome, Reply | Failure)
        assert outcome.usage.cost < 1e6 and outcome.model_dump_json()


@pytest.mark.parametrize("header", HEADERS)
async def test_an_odd_retry_after_is_none(header: str) -> None:
    outcome = await asked(status(429, retry_after=header))
    assert isinstance(outcome, Failure) and outcome.reason is UnscoredReason.HTTP_429 and not outcome.wait


async def test_a_redirect_is_not_followed() -> None:
    outcome = await asked(answers(b"", 307, Location="http://127.0.0.1:1/"))
    assert isinstance(outcome, Failure) and outcome.status == 307


async def test_terminal_escapes_and_bidirectional_marks_do_not_reach_a_message() -> None:
    outcome = await asked(status(400, "bad \x1b]0;title\x07\x1b[31m\u202e\u200b request\r\nsecond line"))
    assert isinstance(outcome, Failure)
    assert not any(ord(char) < 32 or char in "\u202e\u200b\x9b" for char in outcome.detail), outcome.detail
    async with FaultServer(models=["good", "\x1b]52;c;aGk=\x07\u202emodel"]) as server:
        endpoint = Endpoint(config_for(server))
        names = await endpoint.servers[0].models(5, 5)
        await endpoint.close()
    assert names[0] == "good" and not any(ord(char) < 32 or char == "\u202e" for char in names[1])


# ----- the key

FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "json": lambda key: json.dumps(key)[1:-1],
    "repr": lambda key: repr(key)[1:-1],
    "bytes": lambda key: repr(f"Bearer {key}".encode())[2:-1],
    "url": lambda key: quote(key, safe=""),
    "form": quote_plus,
    "path": quote,
    "html": html.escape,
    "markup": lambda key: html.escape(key, quote=False),
    "entities": lambda key: "".join(f"&#{ord(char)};" for char in key),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "unicode": lambda key: "".join(f"\\u{ord(char):04x}" for char in key),
}


@pytest.mark.parametrize("code", [200, 400, 401, 500])
@pytest.mark.parametrize("form", list(FORMS))
async def test_a_key_that_a_server_repeats_is_struck_out_in_every_form(
    form: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TUTOR_KEY", KEY)
    repeated = f"you sent {FORMS[form](KEY)} to us"
    steps = {200: says(repeated, refusal=repeated, reasoning=repeated)}
    outcome = await asked(steps.get(code, status(code, repeated)), tmp_path, api_key_env="TUTOR_KEY")
    seen = outcome.model_dump_json() + caplog.text + "".join(path.read_text() for path in tmp_path.rglob("*.jsonl"))
    assert "***" in seen
    for form_of in FORMS.values():
        assert form_of(KEY) not in seen and json.dumps(form_of(KEY))[1:-1] not in seen


@pytest.mark.parametrize("around", ["{}\r", "{}\n", " {} ", "{}\r\n", "\t{}"])
async def test_space_around_a_key_is_not_part_of_it(around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTOR_KEY", around.format("sk-plain-key"))
    async with FaultServer() as server:
        endpoint = Endpoint(config_for(server, api_key_env="TUTOR_KEY"))
        await endpoint.ask(Request([{"role": "user", "content": "secret id is a"}]), endpoint.context())
        await endpoint.close()
        assert server.keys == ["Bearer sk-plain-key"]


@pytest.mark.parametrize(
    "key", ["sk-first\nsk-second", "sk-first second", "sk-\u00fcmlaut", "sk-\x00nul", "sk-\x7f", "sk-\u200bzero"]
)
async def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(
    key: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if "\x00" in key:
        monkeypatch.setattr(http.os, "environ", {"TUTOR_KEY": key})
    else:
        monkeypatch.setenv("TUTOR_KEY", key)
    with pytest.raises(ConfigError, match="TUTOR_KEY") as error:
        Secret("TUTOR_KEY")
    assert error.value.__cause__ is None
    for part in key.replace("\n", " ").split():
        assert part[:8] not in str(error.value) + repr(error.value) + caplog.text


async def test_without_a_key_none_is_sent_and_nothing_is_struck_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUTOR_KEY", raising=False)
    async with FaultServer() as server:
        endpoint = Endpoint(config_for(server, api_key_env="TUTOR_KEY"))
        await endpoint.ask(Request([{"role": "user", "content": "secret id is a"}]), endpoint.context())
        await endpoint.close()
        assert "Authorization" not in server.headers[0]
    assert Secret("TUTOR_KEY").struck_out("none") == "none"


# ----- no proxy before this machine, no key out of other files


@pytest.mark.parametrize(
    ("url", "proxied"),
    [
        ("http://127.0.0.1:8000/v1", False),
        ("http://127.9.9.9/v1", False),
        ("http://localhost/v1", False),
        ("http://localhost./v1", False),
        ("http://x.localhost/v1", False),
        ("http://0.0.0.0:8000/v1", False),
        ("http://[::1]:8000/v1", False),
        ("http://[::]:8000/v1", False),
        ("http://192.0.2.7/v1", True),
        ("http://tutor/v1", True),
        ("http://judge:8000/v1", True),
        ("http://judge:8001/v1", True),
        ("http://[fd00::7]:8000/v1", True),
        ("http://localhost.example.org/v1", True),
    ],
)
def test_the_environments_proxy_is_for_others(url: str, proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    assert _proxy_for(url) == ("http://proxy:3128" if proxied else None)
    monkeypatch.setenv("no_proxy", "tutor,192.0.2.7,example.org,judge:8000,fd00::7")
    assert _proxy_for(url) == ("http://proxy:3128" if ":8001" in url else None)


@pytest.mark.parametrize("address", ["http://al%20ice:hunter2pass@{}", "al%20ice:hunter2pass@{}"])
@pytest.mark.parametrize(("scheme", "code"), [("http", 200), ("http", 407), ("https", 407), ("https", 502)])
async def test_a_proxys_password_goes_to_the_proxy_and_nowhere_else(
    scheme: str, code: int, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        body = completion("yes") if code == 200 else b""
        head = f"HTTP/1.1 {code} As it is\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as running:
        host, port = running.sockets[0].getsockname()
        monkeypatch.setenv(f"{scheme}_proxy", address.format(f"{host}:{port}"))
        monkeypatch.delenv("no_proxy", raising=False)
        config = EndpointConfig(base_url=f"{scheme}://tutor/v1", model="m", max_retries=0, timeout=5)
        endpoint = Endpoint(config, log=RequestLog(tmp_path))
        outcome = await endpoint.ask(Request([{"role": "user", "content": "Say yes."}]), endpoint.context())
        await endpoint.close()
    assert isinstance(outcome, Reply if code == 200 else Failure) and str(code) in getattr(outcome, "detail", "200")
    told = outcome.model_dump_json() + "".join(path.read_text() for path in tmp_path.rglob("*.jsonl"))
    assert "hunter2pass" not in told and "ice" not in told
    assert b"Basic " + base64.b64encode(b"al ice:hunter2pass") in heard[0]


BAD_PROXIES = ["http://alice:hunter2pass@host:port", "http://[alice:hunter2pass@h", "socks5://alice:hunter2pass@h:1"]


@pytest.mark.parametrize("address", BAD_PROXIES)
async def test_a_proxy_that_is_no_address_is_told_without_its_password(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.delenv("no_proxy", raising=False)
    endpoint = Endpoint(EndpointConfig(base_url="http://tutor/v1", model="m"))
    with pytest.raises(ConfigError, match="http_proxy or https_proxy") as error:
        await endpoint.ask(Request([]), endpoint.context())
    assert "hunter2pass" not in str(error.value) and error.value.__cause__ is None


async def test_a_netrc_file_gives_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    async with FaultServer() as server:
        endpoint = Endpoint(EndpointConfig(base_url=server.base_url, model="m"))
        await endpoint.ask(Request([{"role": "user", "content": "secret id is a"}]), endpoint.context())
        await endpoint.close()
        assert "Authorization" not in server.headers[0] or "Basic" not in server.headers[0]["Authorization"]


def test_what_is_looked_at_of_an_error_is_little() -> None:
    assert MAX_ERROR_BODY < MAX_BODY


@pytest.mark.parametrize("flood", ["\\", "%25", "&#00", "s", "sk-a", "&", "%"])
def test_looking_for_the_key_takes_linear_time(flood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTOR_KEY", KEY)
    secret, text = Secret("TUTOR_KEY"), flood * (MAX_BODY // len(flood))
    start = time.process_time()
    assert secret.struck_out(text) == text
    assert time.process_time() - start < 3
