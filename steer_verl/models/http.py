"""HTTP to a server that is not trusted: bytes, time and text are bounded, whatever it sends.

A body is read in pieces and cut off at :data:`MAX_BODY` decoded bytes; compression is not asked for, and what comes
compressed all the same is unpacked piece by piece under the same cap. Text is UTF-8, whatever charset a header names.
Redirects are not followed, cookies not kept.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import zlib
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from steer_verl.errors import ConfigError
from steer_verl.models.streaming import EventStream

MAX_BODY = 4 * 2**20
"""Decoded bytes of a reply; a verdict has about 2,000, a long chain of reasoning 200,000."""
MAX_ERROR_BODY = 64 * 2**10
"""Decoded bytes of an error body that are looked at."""
LINGER = 0.05
"""Seconds that the end of a stream may take behind its last event."""
_PIECE = 64 * 2**10
_SHORT_KEY = 6
"""Characters below which a key is a placeholder such as ``none`` and not struck out."""


class TooLarge(Exception):
    """A body beyond its cap."""


class Undecodable(Exception):
    """A body in a compression that was not asked for and cannot be unpacked."""


@dataclass(frozen=True)
class Answer:
    """An HTTP response, read to its end or its cap."""

    status: int
    text: str
    retry_after: str | None

    def json(self) -> Any:
        """The body's JSON value; numbers of absurd length count as 0.

        Raises:
            ValueError: it is none, or nested beyond reason.
        """
        try:
            return json.loads(self.text.removeprefix("\ufeff"), parse_int=_int)
        except RecursionError:
            raise ValueError("nested too deeply") from None


class Secret:
    """The key of one endpoint: sent, and struck out of whatever a server says, in every form that it may take.

    Args:
        variable: environment variable that holds it; unset or empty, no key is sent.

    Raises:
        ConfigError: it holds a character that no header can carry. The message does not show it.
    """

    def __init__(self, variable: str) -> None:
        self._key = os.environ.get(variable, "").strip()
        if not re.fullmatch(r"[\x21-\x7e]*", self._key):
            raise ConfigError(
                f"environment variable {variable} holds a space, a line end or a character outside ASCII in the middle "
                "of the key; set it to the key alone"
            )
        self._seen = _any_form(self._key) if len(self._key) >= _SHORT_KEY else None

    def __repr__(self) -> str:
        return "Secret(***)" if self._key else "Secret()"

    @property
    def headers(self) -> dict[str, str]:
        """The request header that carries it."""
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    def struck_out(self, text: str) -> str:
        """``text`` with the key, in any of its forms, replaced by ``***``."""
        return self._seen.sub("***", text) if self._seen else text


def _any_form(key: str) -> re.Pattern[str]:
    """The key with each of its characters as it stands, or escaped as in JSON, Python, a URL or HTML; or in base64."""
    names = {'"': "quot", "'": "apos", "<": "lt", ">": "gt", "&": "amp"}

    def forms(char: str) -> str:
        code = ord(char)
        named = [f"&{names[char]};"] if char in names else []
        escaped = [f"u00{code:02x}", f"x{code:02x}", re.escape(char)]
        options = [
            rf"\\{{0,3}}(?:{'|'.join(escaped)})",
            f"%(?:25){{0,2}}{code:02x}",
            f"&#0{{0,6}}{code};",
            f"&#x0{{0,6}}{code:x};",
            *named,
        ]
        return f"(?:{'|'.join(options)})"

    packed = base64.b64encode(key.encode()).decode().rstrip("=")[:-1]
    packed = re.escape(packed).replace(r"\+", "[+-]").replace("/", "[/_]")
    return re.compile(f"{''.join(map(forms, key))}|{packed}", re.IGNORECASE)


class Connections:
    """The connections to one address. To be made and closed inside the event loop that uses it.

    Raises:
        ConfigError: the environment names a proxy that is no address.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._proxy, self._proxy_auth = _apart(_proxy_for(base_url))
        self._session = aiohttp.ClientSession(
            # The number in flight is bounded by steer_verl.models.limits. A connection is not used again after 4 s at
            # rest: uvicorn, which serves vLLM, closes it after 5, and a request that meets the close is lost.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4.0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,  # it would read a key for the host out of ~/.netrc
            headers={"Accept": "application/json, text/event-stream", "Accept-Encoding": "identity"},
        )

    async def send(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str],
        data: bytes | None = None,
        connect_timeout: float,
        events: EventStream | None = None,
    ) -> Answer:
        """One request. The caller bounds the whole time.

        With ``events``, an answer that comes as server-sent events is told piece by piece, and at its end is the body
        that the server would have sent at once.

        Raises:
            aiohttp.ClientError, TimeoutError: no complete answer came.
            TooLarge, Undecodable: the answer cannot be read.
        """
        async with self._session.request(
            method,
            f"{self.base_url}{path}",
            data=data,
            headers={**headers, **({"Content-Type": "application/json"} if data is not None else {})},
            allow_redirects=False,
            proxy=self._proxy,
            proxy_auth=self._proxy_auth,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout, sock_connect=connect_timeout),
        ) as response:
            good = response.status == 200
            if good and events is not None and response.content_type == "text/event-stream":
                body = await _bounded(response, MAX_BODY, whole=True, events=events)
                return Answer(200, events.body() or body.decode("utf-8", "replace"), None)  # a body that is no event
            try:
                body = await _bounded(response, MAX_BODY if good else MAX_ERROR_BODY, whole=good)
            except (Undecodable, aiohttp.ClientPayloadError):
                if good:
                    raise
                body = b""  # the status of an error tells enough
            if good and events is not None and body.startswith((b"data:", b"event:", b":")):  # under another type
                events.feed(body)
                return Answer(200, events.body(), None)
            return Answer(response.status, body.decode("utf-8", "replace"), response.headers.get("Retry-After"))

    async def close(self) -> None:
        """Close them."""
        await self._session.close()

    def abandon(self) -> None:
        """Let go of them where their event loop runs no more: nothing can be awaited, and aiohttp would complain."""
        connector = self._session.connector
        self._session.detach()
        if connector is not None:
            with contextlib.suppress(StopIteration, RuntimeError):
                next(connector.close().__await__())  # on a closed loop it has nothing to wait for


async def _bounded(
    response: aiohttp.ClientResponse, cap: int, *, whole: bool, events: EventStream | None = None
) -> bytes:
    """The decoded body; past ``cap`` bytes an error where it must be ``whole``, else what is there."""
    unpack = _unpacker(response.headers.get("Content-Encoding", "identity").strip().lower(), cap)
    body = bytearray()
    async for piece in response.content.iter_any() if events else response.content.iter_chunked(_PIECE):
        decoded = unpack(piece) if unpack else piece
        body += decoded
        if events is not None and len(body) <= cap:
            events.feed(decoded)
            if events.done:
                await _to_its_end(response.content)
                break
        if len(body) > cap:
            response.close()
            if whole:
                raise TooLarge(f"its reply is larger than {cap} bytes")
            break
    return bytes(body[:cap])


async def _to_its_end(content: aiohttp.StreamReader) -> None:
    """Read on after the last event, so that the next request finds the connection: mostly nothing but the end follows,
    at once. Some servers leave it open, and are not waited for."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(LINGER):
            while await content.readany():
                pass


def _unpacker(encoding: str, cap: int) -> Any:
    if encoding in ("", "identity"):
        return None
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Undecodable("it sends its reply in a compression that was not asked for")
    unpacked = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip and zlib

    def unpack(piece: bytes) -> bytes:
        try:
            return unpacked.decompress(piece, cap + 1)
        except zlib.error:
            raise Undecodable("its reply cannot be unpacked") from None

    return unpack


def _int(digits: str) -> int:
    return int(digits) if len(digits) <= 18 else 0


def _proxy_for(base_url: str) -> str | None:
    """The environment's proxy for an address; none for this machine itself."""
    parts = urlsplit(base_url)
    host = (parts.hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return None
    try:
        if ip_address(host).is_loopback or ip_address(host).is_unspecified:
            return None
    except ValueError:
        pass  # a name, not an address
    port = f":{parts.port}" if parts.port else ""  # an entry of no_proxy may name one
    return None if proxy_bypass(host + port) else getproxies().get(parts.scheme)


def _apart(proxy: str | None) -> tuple[URL | None, aiohttp.BasicAuth | None]:
    """A proxy's address, and the user and password that stood in it: errors repeat the address."""
    if proxy is None:
        return None, None
    try:
        url = URL(proxy if "://" in proxy else f"http://{proxy}")
        if url.scheme not in ("http", "https"):  # aiohttp would speak HTTP to a socks5 proxy
            raise ValueError
        return url.with_user(None), aiohttp.BasicAuth.from_url(url, encoding="utf-8")
    except ValueError:
        raise ConfigError(
            "http_proxy or https_proxy is no address; set it to http://USER:PASSWORD@HOST:PORT, quoted as in a URL"
        ) from None
