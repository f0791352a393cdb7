"""What a server did instead of replying, and what follows from it.

Servers say the same thing in many ways: as an HTTP status, as a code inside an HTTP 200, in words alone.
:func:`classify` turns all of them into one :class:`Failure`. What words mean is looked for only in what the server says
itself (:func:`message_of`), never in the part of the request that it echoes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import partial
from typing import Any

from steer_verl.types import Record, UnscoredReason, Usage

MAX_DETAIL = 300
"""Characters of a failure's detail."""
TAKES_NO_IMAGES = "takes no images"
"""What :func:`how_to_fix` says of a model without sight."""


class Cause(StrEnum):
    """What is at fault: it decides whether, where and when to ask again."""

    UNREACHABLE = "unreachable"
    """No connection, no complete answer in time, HTTP 5xx: the server is not well."""
    BUSY = "busy"
    """HTTP 429, 408, 409: the server lives and asks for patience."""
    ABORTED = "aborted"
    """HTTP 200, and no whole reply: the server gave it up, or what came is not even JSON."""
    ACCOUNT = "account"
    """The key or the credit: every request will be refused until somebody acts."""
    MODEL = "model"
    """No such model, or no API at this address: every request will be refused until somebody acts."""
    NO_IMAGES = "no_images"
    """The model takes no images."""
    FILTERED = "filtered"
    """A content filter refused this one request or its reply."""
    TOO_LONG = "too_long"
    """The request does not fit into the model's context."""
    REQUEST = "request"
    """HTTP 4xx for a reason that is not known."""
    UNREADABLE = "unreadable"
    """HTTP 200, and JSON that is no chat completion, or nothing that may be read."""


class Failure(Record):
    """A request that gave no reply."""

    reason: UnscoredReason
    detail: str
    """One line of at most :data:`MAX_DETAIL` characters, without secrets."""
    cause: Cause
    status: int = 0
    """HTTP status, or the code inside an HTTP 200; 0 when there was none."""
    wait: float | None = None
    """Seconds that the server asks to wait (``Retry-After``)."""
    message: str = ""
    """The server's own words, up to 4,000 characters, without secrets."""
    answered: bool = False
    """It came as an HTTP 200: a gateway that honours idempotency keys would give the same again."""
    usage: Usage = Usage(requests=1)
    """Of the attempt."""

    @property
    def retryable(self) -> bool:
        """Whether the same server may answer the same request later."""
        return self.cause in (Cause.UNREACHABLE, Cause.BUSY, Cause.ABORTED)

    @property
    def server_fault(self) -> bool:
        """Whether it speaks of the server's health, and not of this request or of the load."""
        return self.cause is Cause.UNREACHABLE

    @property
    def needs_user(self) -> bool:
        """Whether this server refuses every request until somebody mends its key, credit, model or address."""
        return self.cause in (Cause.ACCOUNT, Cause.MODEL)

    @property
    def of_this_request(self) -> bool:
        """Whether the request itself is refused for good, so that asking again later is of no use."""
        return self.cause in (Cause.FILTERED, Cause.TOO_LONG)


# ----- what a server's words mean

_IMAGE = r"(?:images?|image_urls?|vision|visual|multi-?modal(?:ity)?|pictures?)"
_NO = r"(?:\bnot\b|n't\b|\bcannot\b|\bonly\b|\bwithout\b|\black\w*|\bmissing\b|\bdisabled\b|\bun)"
_NO_IMAGES = re.compile(
    rf"no\s+(?:endpoints?|models?|providers?)\b[^.\n]{{0,40}}\bsupport[^.\n]{{0,20}}\b{_IMAGE}"
    rf"|{_NO}[^.\n]{{0,50}}(?:support|accept|capable|allow|enabled|provided|required)[^.\n]{{0,30}}\b{_IMAGE}\b"
    rf"|{_NO}\s+(?:process|handle|see|read|understand)\s+(?:images|image inputs?|pictures|multi-?modal)\b"
    rf"|\black\w*[^.\n]{{0,20}}\b{_IMAGE}\b"
    rf"|\b{_IMAGE}\b(?:['\"`\s]+\w+){{0,2}}['\"`\s]*(?:\s(?:is|are))?\s(?:not|un|only)\s?(?:currently\s|yet\s)?"
    r"(?:support|accept|allow|enabled|available)"
    r"|\bunsupported\b[^.\n]{0,20}\btype\W{1,5}image(?:_url)?\b"
    r"|not\s+an?\s+(?:multi-?modal|vision(?:-language)?)\s+model"
    r"|unknown\s+variant\s+.?image_url|at\s+most\s+0\s+images?|text[- ]only\s+model|\bmmproj\b",
    re.IGNORECASE,
)
_ONE_IMAGE = re.compile(
    r"\b(?:formats?|file\s*types?|mime|media[_ ]types?|sizes?|dimensions?|resolutions?|pixels|bytes|kb|mb|base64|"
    r"animated|corrupt\w*|decod\w+|download\w*|fetch\w*|scheme|https?)\b",
    re.IGNORECASE,
)
"""Words of an error about one image, not about images."""

_ONLY_STRINGS = re.compile(
    r"\bcontent\b[^\n]{0,80}(?:should be a valid string|must be (?:a |of type )?string|str type expected|not a string)"
    r"|invalid type: sequence, expected a string",
    re.IGNORECASE,
)
"""Words of a server that takes no typed parts, so no images either."""
_UNION = re.compile(r"\b(?:list|array|image_url)\b", re.IGNORECASE)
"""It does take them, and says so of each form that a content may have."""

_MATERIAL = r"(?:inputs?|prompts?|content|outputs?|responses?|messages?|requests?|completions?|text|images?|generated)"
_BAD = r"(?:flagged|inappropriate|unsafe|(?<!case[ -])sensitive|prohibited|disallowed|offensive)"
_FILTERED = re.compile(
    r"content[ _-]?(?:filter|management|policy|safety|moderation|exists[ _]risk)|contentfilter|responsible[ _]?ai"
    r"|data_?inspection_?failed|requires?\s+moderation|moderation_blocked|input_moderation"
    r"|(?:safety|moderation|guardrails?)\s+(?:system|filters?|settings?|guidelines?|polic(?:y|ies)|check|service|intervened)"
    rf"|{_MATERIAL}\b[^.\n]{{0,60}}\b{_BAD}\b"
    rf"|\b{_BAD}\b[^.\n]{{0,30}}\b{_MATERIAL}\b"
    r"|\b(?:inputs?|prompts?|content|outputs?|responses?|completions?|text)\b[^.\n]{0,60}\b(?:blocked|filtered|rejected)\b"
    r"|\bviolat\w+[^.\n]{0,40}\b(?:usage|polic(?:y|ies)|safety|terms|guidelines?|(?:content|our) (?:rule|standard)s?)\b"
    r"|\b(?:usage|policy|safety|content|terms|prompt)[ _-]violation|usage_policy|\bcontent risk\b|risk control"
    "|\u654f\u611f|\u8fdd\u89c4|\u4e0d\u5b89\u5168|\u5185\u5bb9\u5b89\u5168|\u98ce\u63a7",
    re.IGNORECASE,
)
_PASSING = re.compile(
    r"unavailable|unreachable|connect|time[sd]?[ -]?out|temporar|overload|try(?:ing)? again(?! with)", re.IGNORECASE
)
"""Words of a filter that is down, and has filtered nothing."""
_ACCOUNT = re.compile(
    r"\b(?:invalid|incorrect|missing|wrong|expired|revoked|no|malformed)\b[^.\n]{0,20}\b"
    r"(?:api[ _-]?key|token|credentials?|authentication|authorization)\b"
    r"|\b(?:unauthori[sz]ed|unauthenticated|authentication(?:_error)?|permission[ _]denied|forbidden|access denied)\b"
    r"|\binsufficient[ _](?:balance|credits?|funds|quota)\b"
    r"|\bcredits?\b[^.\n]{0,30}\b(?:exhausted|run out|required|exceeded)"
    r"|\b(?:payment|billing|arrears|overdue)\b|invalid_api_key|balance is (?:too low|not enough)"
    r"|\baccount\b[^.\n]{0,40}\b(?:suspended|deactivated|disabled|blocked|flagged|banned|not active)\b",
    re.IGNORECASE,
)
_BUSY = re.compile(
    r"rate[ _-]?limit|too many requests|quota|throttl|overloaded|try(?:ing)? again later|please wait"
    r"|\b(?:at|over|no|enough|insufficient|tier) capacity|\bper[ _-]?(?:second|min|minute|hour|day)\b"
    r"|\bt(?:akes|aking|ook) too long|\bdeadline exceeded|\btimed out",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|window|size|limit)|max(?:imum)?[ _-]?(?:model[ _-]?len|context|input|prompt|sequence)\w*"
    r"|(?:prompt|input|request|message|conversation|sequence)s?\b[^.\n]{0,40}\b(?:too (?:long|large|many tokens)"
    r"|(?:longer|larger) than\b[^.\n]{0,40}\b(?:model|max\w*|context|limit|allow\w*|supported))"
    r"|too many (?:input )?tokens|\binputs?\b[^.\n]{0,60}\bmust (?:be <=|be (?:less|fewer)|have (?:less|fewer)) "
    r"|(?:exceed\w*|greater than)[^.\n]{0,60}\btokens?\b|(?<!max_)\btokens?\b[^.\n]{0,60}\bexceed"
    r"|range of input length|string_above_max_length|reduce the length"
    "|\u8d85\u957f|\u8fc7\u957f|\u957f\u5ea6\u8d85",
    re.IGNORECASE,
)
_OF_TEXT = re.compile(r"context|prompt|token|input|length", re.IGNORECASE)
"""A 413 without such a word is a proxy's bound on bytes, which its owner may raise."""
_NO_MODEL = re.compile(
    r"model[^.\n]{0,60}(?:not (?:found|exist|available|supported)|does ?n.t exist|does not exist|unknown|is not served)"
    r"|(?:no such|unknown|invalid|not a valid) model|model_not_found",
    re.IGNORECASE,
)

_SAYS = (
    *("message", "msg", "error", "errors", "detail", "details", "reason", "description", "title", "type", "code"),
    *("param", "status", "error_message", "error_msg", "errmsg", "error_description", "innererror", "fault"),
    *("faultstring", "base_resp", "status_msg"),
)
"""Keys of an error body whose text is the server's own, in small letters."""


def says_no_images(text: str) -> bool:
    """Whether a server's error message says that the model takes no images; an error about one image does not."""
    if _ONLY_STRINGS.search(text) and not _UNION.search(text):
        return True
    return _NO_IMAGES.search(text) is not None and not _ONE_IMAGE.search(text)


def message_of(body: Any) -> str:
    """The server's own words in a decoded error body, whatever its form; what it echoes of the request is left out."""
    return "; ".join(dict.fromkeys(_words(body)))[:4000]


def _words(body: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(body, str):
        text = body.strip()
        if text[:1] in "{[" and depth < 4:  # a gateway that wraps another server's error as text
            try:
                yield from _words(json.loads(text), depth + 1)
                return
            except (ValueError, RecursionError):
                pass
        if text:
            yield text[:2000]
    elif isinstance(body, dict) and depth < 6:
        named = {str(name).lower(): value for name, value in body.items()}
        for name in _SAYS:
            if name in named:
                yield from _words(named[name], depth + 1)
        if isinstance(body.get("metadata"), dict):
            yield from _words(body["metadata"].get("raw"), depth + 1)
    elif isinstance(body, list) and depth < 6:
        for inner in body[:5]:
            yield from _words(inner, depth + 1)
    elif isinstance(body, int) and not isinstance(body, bool) and depth:
        yield str(body)[:20]


def status_in(body: Any) -> int:
    """The HTTP status that a body of HTTP 200 holds in the place of a reply; 0 when there is none."""
    error = body.get("error", body) if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return 0
    for name in ("code", "status", "status_code", "http_status"):
        value = error.get(name)
        if isinstance(value, str) and re.fullmatch(r"[1-5]\d\d", value):
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
            return value
    return 0


def classify(
    status: int, message: str, *, detail: str = "", retry_after: str | None = None, answered: bool = False
) -> Failure:
    """The failure that a status and a server's words stand for.

    Args:
        status: of HTTP, or the one inside an HTTP 200; 0 when the server gave none.
        message: what it said (:func:`message_of`).
        detail: one line for people; made of the other two unless given.
        retry_after: the header.
        answered: it came as an HTTP 200.
    """
    cause, reason = _meaning(status, message)
    line = detail or f"HTTP {status}: {message}" if status else detail or message
    return failed(cause, reason, line, status=status, wait=seconds_of(retry_after), message=message, answered=answered)


def failed(cause: Cause, reason: UnscoredReason, detail: str, **more: Any) -> Failure:
    """A failure with its detail cut to one short line; ``more``: its other fields."""
    return Failure(reason=reason, detail=" ".join(detail.split())[:MAX_DETAIL], cause=cause, **more)


def _meaning(status: int, message: str) -> tuple[Cause, UnscoredReason]:
    """Cause and reason. Words decide where a status has more than one meaning, and where there is no status."""
    if says_no_images(message) and status not in (401, 402, 429):
        return Cause.NO_IMAGES, UnscoredReason.HTTP_5XX if status >= 500 else UnscoredReason.HTTP_4XX
    if status == 429:
        return Cause.BUSY, UnscoredReason.HTTP_429
    if status in (401, 402, 407):
        return Cause.ACCOUNT, UnscoredReason.HTTP_4XX
    down = (status == 0 or status >= 500) and _PASSING.search(message)
    if _FILTERED.search(message) and not _ACCOUNT.search(message) and not down:
        return Cause.FILTERED, UnscoredReason.CONTENT_FILTER
    if status >= 500:
        return Cause.UNREACHABLE, UnscoredReason.HTTP_5XX
    if status in (408, 409, 425):
        return Cause.BUSY, UnscoredReason.HTTP_4XX
    if status == 403 or (status == 0 and _ACCOUNT.search(message)):
        return Cause.ACCOUNT, UnscoredReason.HTTP_4XX
    if status in (0, 400) and _BUSY.search(message) and not _ACCOUNT.search(message):
        return Cause.BUSY, UnscoredReason.HTTP_429
    if status in (404, 405, 410) or (status in (0, 400, 422) and _NO_MODEL.search(message)):
        return Cause.MODEL, UnscoredReason.HTTP_4XX
    if _TOO_LONG.search(message) and (status != 413 or _OF_TEXT.search(message)):
        return Cause.TOO_LONG, UnscoredReason.TOO_LONG
    if status >= 300:
        insolvent = status == 400 and _ACCOUNT.search(message)
        return Cause.ACCOUNT if insolvent else Cause.REQUEST, UnscoredReason.HTTP_4XX
    return Cause.UNREACHABLE, UnscoredReason.HTTP_5XX  # an error without a known code is mostly a passing one


def seconds_of(retry_after: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, as a number or as a date; ``None`` if it cannot be read."""
    if retry_after is None or len(retry_after) > 100:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        seconds = _seconds_until(retry_after)
    return seconds if 0 <= seconds < float("inf") else None


def _seconds_until(date: str) -> float:
    try:
        when = parsedate_to_datetime(date)
        ahead = when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)
    except (TypeError, ValueError, OverflowError):
        return -1.0
    return max(0.0, ahead.total_seconds())


# ----- how a user mends it


def how_to_fix(failure: Failure, where: str, *, model: str, base_url: str, api_key_env: str) -> str:
    """One line: what is wrong with an endpoint, the server's words, and how to fix it.

    Args:
        failure: what came instead of a reply.
        where: the endpoint's place in the configuration.
        model, base_url, api_key_env: of the endpoint.
    """
    what, hint = _diagnosis(failure, where, api_key_env)
    return f"{where}: {model} at {base_url} {what} ({failure.detail}); {hint}"


def settings_of(where: str) -> str:
    """Where the settings of the server at ``where`` stand: a mirror has its endpoint's."""
    return where.partition(".mirrors[")[0]


_UNPAID = re.compile(
    r"(?<![a-z])(?:balance|credits?|pay|payment|billing|funds|arrears|overdue)(?![a-z])", re.IGNORECASE
)  # but not credentials, nor a payload


def _diagnosis(failure: Failure, where: str, api_key_env: str) -> tuple[str, str]:
    key = api_key_env or f"that {where}.api_key_env is to name"
    if failure.cause is Cause.NO_IMAGES:
        return TAKES_NO_IMAGES, f"serve a vision model, or set {settings_of(where)}.images=false and let it work blind"
    if failure.status == 402 or (failure.cause is Cause.ACCOUNT and _UNPAID.search(failure.detail)):
        return "has no credit left", f"pay the bill, or set the key of another account in the variable {key}"
    if failure.cause is Cause.ACCOUNT:
        return "refuses the key", f"set the environment variable {key}"
    if failure.cause is Cause.MODEL:
        return "is not found", f"correct {where}.model, or {where}.base_url, which usually ends in /v1"
    if failure.cause is Cause.FILTERED:
        return "filters a harmless request", "switch the server's content filter off, or choose another model"
    if failure.cause is Cause.TOO_LONG:
        return (
            "has too short a context",
            f"serve it with a context longer than {settings_of(where)}.max_tokens and a dialogue",
        )
    if failure.reason is UnscoredReason.TIMEOUT:
        hint = f"start the server, correct {where}.base_url, or raise {settings_of(where)}.timeout"
        return "cannot be reached in time", hint
    if failure.reason is UnscoredReason.CONNECT:
        return "cannot be reached", f"start the server, or correct {where}.base_url"
    if 300 <= failure.status < 400:
        return "redirects, which is not followed", f"give the address that it redirects to in {where}.base_url"
    if failure.cause is Cause.UNREADABLE:
        return "is no chat completions API", f"correct {where}.base_url, which usually ends in /v1"
    if failure.cause is Cause.ABORTED:
        hint = f"see the server's log, or correct {where}.base_url, which usually ends in /v1"
        return "is no chat completions API, or breaks its replies off", hint
    return "fails", f"see the server's log, and check {where}"


# ----- a model that gave nothing of use, as whoever asked it passes that on


class AgentFailed(Exception):
    """An agent gave nothing that could be used.

    Args:
        reason: one word, such as ``timeout``, ``bad_json`` or ``content_filter``; it becomes the rejection's.
        detail: one line.
        transient: whether the same request may succeed later.
        value: what was made of the item so far; it stays in the rejection if it comes to that.
        stage: the part of the work that it stopped, where a step has several.
    """

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        transient: bool = False,
        value: dict[str, Any] | None = None,
        stage: str = "",
    ) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail, self.transient, self.value, self.stage = reason, detail, transient, value, stage

    def __reduce__(self) -> tuple[Any, ...]:
        more: dict[str, Any] = {"transient": self.transient, "value": self.value, "stage": self.stage}
        return partial(AgentFailed, **more), (self.reason, self.detail)
