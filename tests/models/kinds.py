"""Every kind of server that we know of, as steps of a scripted one: how providers answer, and what a hostile one sends.

The tests go through them one by one; tests/models/test_soak.py draws from them at random.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from steer_verl.models.failure import Cause
from steer_verl.types import UnscoredReason
from tests.models.fault_server import (
    BREAKS,
    Step,
    dropped,
    event,
    half_sent,
    question_of,
    raw,
    says,
    status,
    streams,
)
from tests.models.fault_server import Request as Sent
from tests.models.replies import completion, fields


@dataclass(frozen=True)
class Once:
    """A failure that passes: asked again, the turn is scored."""

    step: Step
    requests: int = 2


@dataclass(frozen=True)
class Final:
    """A failure that does not: what it is taken for, and after how many requests."""

    step: Step
    cause: Cause
    reason: UnscoredReason
    requests: int = 1
    words: str = ""
    """The server's own, which must be in the detail."""


def body(error: Any, code: int = 200) -> Step:
    """An HTTP answer with any JSON body."""

    async def act(request: Sent) -> web.StreamResponse:
        return web.json_response(error, status=code)

    return Step("body", act)


def in_choice(error: Any) -> Step:
    """The error stands in the choice, beside an empty message."""
    message = {"role": "assistant", "content": ""}
    return body({"choices": [{"index": 0, "error": error, "finish_reason": "error", "message": message}]})


def ended(finish: str, text: str | None = "half an ans") -> Step:
    """A reply that ended in an odd way."""
    return says(text, finish)


def answers(body: bytes, code: int = 200, **headers: str) -> Step:
    """These bytes with these headers."""

    async def act(request: Sent) -> web.StreamResponse:
        response = web.StreamResponse(status=code, headers=headers)
        await response.prepare(request.http)
        await response.write(body)
        return response

    return Step("answers", act)


NO_IMAGES, FILTERED, ACCOUNT, MODEL = Cause.NO_IMAGES, Cause.FILTERED, Cause.ACCOUNT, Cause.MODEL
HTTP_4XX, HTTP_5XX, FILTER = UnscoredReason.HTTP_4XX, UnscoredReason.HTTP_5XX, UnscoredReason.CONTENT_FILTER

TABLE: dict[str, Once | Final] = {
    # P2 a model without sight, in many words and with many statuses
    "P2 404 endpoints": Final(status(404, "No endpoints found that support image input"), NO_IMAGES, HTTP_4XX),
    "P2 400 multimodal": Final(status(400, "Qwen2.5-7B-Instruct is not a multimodal model"), NO_IMAGES, HTTP_4XX),
    "P2 400 variant": Final(status(400, "unknown variant `image_url`, expected `text`"), NO_IMAGES, HTTP_4XX),
    "P2 400 at most 0": Final(status(400, "At most 0 image(s) may be provided in one prompt."), NO_IMAGES, HTTP_4XX),
    "P2 500 llama.cpp": Final(status(500, "image input is not supported - hint: see mmproj"), NO_IMAGES, HTTP_5XX),
    "P2 pictures": Final(status(400, "This model cannot see pictures"), NO_IMAGES, HTTP_4XX),
    "P2 422 certain models": Final(
        status(422, "Invalid content type. image_url is only supported by certain models."), NO_IMAGES, HTTP_4XX
    ),
    **{
        f"P2 strings {words[:24]}": Final(status(422, words), NO_IMAGES, HTTP_4XX)
        for words in (
            "messages.0.content: Input should be a valid string",
            "'messages.0.content' : value must be a string",
            "Failed to deserialize the JSON body: messages[0]: invalid type: sequence, expected a string",
        )
    },
    # P3 an error inside an HTTP 200
    "P3 code 502": Once(body({"error": {"code": 502, "message": "Upstream error"}})),
    "P3 code as text": Once(body({"error": {"code": "503", "message": "Service Unavailable"}})),
    "P3 in the choice": Once(in_choice({"code": 502, "message": "Provider returned error"})),
    "P3 words alone": Once(body({"error": "upstream connect error or disconnect/reset before headers"})),
    "P3 rate limit in words": Once(body({"error": {"message": "Rate limit reached", "type": "rate_limit"}})),
    "too late": Once(body({"error": "The request took too long to complete"})),
    "too late, as 400": Once(status(400, "Deadline exceeded while waiting for 100 tokens")),
    "P3 top level": Once(body({"object": "error", "message": "engine died", "code": 500})),
    "P3 detail": Once(body({"detail": "Bad gateway"})),
    "P3 error_msg": Once(body({"error_code": 17, "error_msg": "Open api daily request limit reached"})),
    "P3 base_resp": Once(body({"base_resp": {"status_code": 1000, "status_msg": "unknown"}, "choices": None})),
    "P3 errors": Final(body({"errors": [{"Message": "No authentication"}]}), ACCOUNT, HTTP_4XX, 1, "No authentication"),
    "P3 key": Final(body({"error": {"message": "Invalid API key"}}), ACCOUNT, HTTP_4XX, 1, "Invalid API key"),
    "P3 code 401": Final(body({"error": {"code": 401, "message": "No auth"}}), ACCOUNT, HTTP_4XX, 1, "No auth"),
    "P3 code 402": Final(
        body({"error": {"code": 402, "message": "Insufficient credits"}}), ACCOUNT, HTTP_4XX, 1, "Insufficient credits"
    ),
    # P4 no credit
    "P4 402": Final(status(402, "Insufficient Balance"), ACCOUNT, HTTP_4XX, 1, "Insufficient Balance"),
    "P4 400 arrears": Final(status(400, "Access denied, your account is overdue: arrears"), ACCOUNT, HTTP_4XX),
    # P5, P11 a content filter, as 403 and as 400 and as 5xx
    "P5 403": Final(status(403, 'requires moderation. Your input was flagged for "violence"'), FILTERED, FILTER),
    "P11 risk": Final(status(400, "Content Exists Risk"), FILTERED, FILTER),
    "P11 inspection": Final(status(400, "Input data may contain inappropriate content."), FILTERED, FILTER),
    "P11 azure": Final(
        body({"error": {"code": "content_filter", "message": "The response was filtered"}}, 400), FILTERED, FILTER
    ),
    "P11 wrapped": Final(
        body(
            {"error": {"message": "Provider error", "metadata": {"raw": '{"error":"blocked by content policy"}'}}}, 400
        ),
        FILTERED,
        FILTER,
    ),
    "P11 chinese": Final(
        body({"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}}, 400),
        FILTERED,
        FILTER,
    ),
    "P11 safety system": Final(status(400, "rejected as a result of our safety system"), FILTERED, FILTER),
    "P11 finish": Final(ended("content_filter", ""), FILTERED, FILTER),
    "P11 finish SAFETY": Final(ended("SAFETY"), FILTERED, FILTER),
    "P11 finish sensitive": Final(ended("sensitive"), FILTERED, FILTER),
    **{
        f"P11 violates {words[:24]}": Final(status(400, words), FILTERED, FILTER)
        for words in (
            "Your prompt violates our content rules",
            "This request may violate OpenAI's usage guidelines",
            "output in violation of the terms of service",
            "content_policy_violation",
            "Prompt violation: violence",
        )
    },
    "P11 500": Final(status(500, "Content policy violation, try again with another prompt"), FILTERED, FILTER),
    # a filter that is down has filtered nothing, and whoever asks for patience has refused nothing
    **{
        f"down {code} {words[:24]}": Once(status(code, words))
        for code, words in (
            (503, "The content safety service is temporarily unavailable, try again later"),
            (500, "Guardrails service timed out"),
            (503, "moderation service unavailable"),
            (502, "content filter: connection refused"),
            (504, "Safety system timeout"),
            (400, "Token rate limit exceeded, please try again later"),
            (400, "The model is not available at the moment. Please try again later"),
            (400, "Maximum input tokens per minute exceeded"),
        )
    },
    **{
        f"down in words {words[:24]}": Once(body({"error": {"message": words}}))
        for words in (
            "moderation service unavailable",
            "Too many tokens, please wait before trying again.",
            "This request would exceed your organization's rate limit of 40,000 input tokens per minute",
            "Token quota exceeded",
            "Our servers are at capacity",
        )
    },
    # P6 the server gave the reply up
    **{f"P6 {finish}": Once(ended(finish)) for finish in ("error", "abort", "ABORTED", "insufficient_system_resource")},
    "P6 error and null": Once(ended("error", None)),
    # P12 words about one image are no blindness
    **{
        f"P12 {words[:24]}": Final(status(415, words), Cause.REQUEST, HTTP_4XX, 3)
        for words in (
            "messages[1].content[0].image_url.url: invalid base64",
            "image_url must be a valid URL",
            "unsupported image format: image/tiff",
            "At most 1 image(s) may be provided in one prompt.",
        )
    },
    "P12 503 download": Once(status(503, "Failed to download image_url")),
    # kept: a request that is too long, an unknown model, a plain page
    **{
        f"too long {words[:24]}": Final(status(400, words), Cause.TOO_LONG, UnscoredReason.TOO_LONG)
        for words in (
            "This model's maximum context length is 4096 tokens.",
            "prompt is too long: 210000 tokens > 200000 maximum",
            "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
            "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            "`inputs` tokens + `max_new_tokens` must be <= 4097. Given: 4000 `inputs` tokens",
            "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
            "Range of input length should be [1, 30720]",
            "this request is longer than the model takes",
            "Your prompt is too long, shorten it and try again",
            "the input tokens exceed the capacity of the model",
            "Prompt \u8d85\u957f",
        )
    },
    **{
        f"not too long {words[:24]}": Final(status(400, words), Cause.REQUEST, HTTP_4XX)
        for words in (
            "messages[2].role: unknown role",
            "Input should be a valid integer",
            "max_tokens must be at most 4096",
            "max_tokens is too large: 10000. This model supports at most 4096 completion tokens",
            "this request is malformed",
            "Request validation failed: schema violation",
            "the request violates the schema: content is required",
        )
    },
    "no such model": Final(status(404, "model `x` does not exist"), MODEL, HTTP_4XX),
    "case": Final(status(400, "Model names in requests are case-sensitive"), Cause.REQUEST, HTTP_4XX),
    "no valid model": Final(status(400, "x is not a valid model ID"), MODEL, HTTP_4XX),
    "a union": Final(
        status(400, "content.str: Input should be a valid string; content.list[0].image_url: Field required"),
        Cause.REQUEST,
        HTTP_4XX,
    ),
    # HTTP 200 and no whole reply
    "a page": Once(raw("<html>", "text/html")),
    "nothing": Once(raw("")),
    "half a reply": Once(answers(completion("yes")[:60], Connection="close")),
    "no chat completion": Final(raw('{"hello": "world"}'), Cause.UNREADABLE, UnscoredReason.BAD_JSON),
    "null": Final(raw("null"), Cause.UNREADABLE, UnscoredReason.BAD_JSON),
}


# ----- hostile


def endless(code: int = 200, piece: bytes = b" " * 65536) -> Step:
    """Bytes without end, as fast as they are taken."""

    async def act(request: Sent) -> web.StreamResponse:
        response = web.StreamResponse(status=code)
        await response.prepare(request.http)
        while True:
            await response.write(piece)

    return Step("endless", act)


BOMBS = {"gzip": gzip.compress(b" " * (128 * 2**20), 1), "deflate": zlib.compress(b" " * (128 * 2**20), 1)}
"""128 MiB in less than one."""


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(completion("yes")), **fields}).encode()


HUGE = 10**400
ODD: list[bytes] = [
    completion("yes").replace(b'"prompt_tokens": 10', b'"prompt_tokens": 1e999'),
    completion("yes").replace(b'"prompt_tokens": 10', b'"prompt_tokens": ' + b"9" * 5000),
    completion("yes").replace(b'"prompt_tokens": 10', b'"prompt_tokens": -1e999'),
    completion("yes").replace(b'"prompt_tokens": 10', b'"prompt_tokens": NaN'),
    completion("yes").replace(b'"index": 0', b'"index": ' + b"7" * 5000),
    changed(usage=[1, 2]),
    changed(usage={"prompt_tokens": {}, "prompt_tokens_details": "x"}),
    changed(choices={}),
    changed(choices=[[]]),
    changed(choices="yes"),
    changed(choices=[{"message": {"content": {"a": 1}}}]),
    changed(choices=[{"message": {"content": [{"type": "text", "text": None}, 5]}, "finish_reason": ["a"]}]),
    changed(choices=[{"message": {"content": "yes", "refusal": {"a": 1}, "reasoning": [1]}, "finish_reason": 5}]),
    changed(error={"code": [1], "message": {"a": ["b"]}}, choices=None),
    changed(error=True, choices=None),
    b"[" * 2_000_000,
    b'{"a":' * 500_000,
    b'{"choices": [{"message": {"content": "' + b"\\ud800" * 1000 + b'"}}]}',
    b"\x00\xff" * 1000,
    b"",
    b"null",
    b"5",
    b'"words"',
    b"\xef\xbb\xbf" + completion("yes"),
]


HEADERS = [
    "1e999",
    "9" * 5000,
    "Mon, 01 Jan 2024 00:00:00 +99999999999999",
    "Fri, 31 Dec 99999 23:59:59 GMT",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "-5",
    "\u00fc",
    "soon",
]


HOSTILE: dict[str, Step] = {
    "endless reply": endless(),
    "endless error": endless(500),
    "gzip bomb": answers(BOMBS["gzip"], **{"Content-Encoding": "gzip"}),
    "gzip bomb as error": answers(BOMBS["gzip"], 400, **{"Content-Encoding": "gzip"}),
    "unknown compression": answers(completion("yes"), **{"Content-Encoding": "br"}),
    "charset hex": answers(b'{"error": "no"}', 400, **{"Content-Type": "application/json; charset=hex"}),
    "redirect": answers(b"", 307, Location="http://127.0.0.1:1/"),
    "dropped": dropped(),
    "half sent": half_sent(),
    "terminal escapes": status(400, "bad \x1b]52;c;aGk=\x07\u202e request"),
    "stream that breaks": streams(lambda body: json.dumps(fields(body))[:80], BREAKS),
    "stream that breaks behind its question": streams(question_of(), 0.02, BREAKS),
    "stream that ends without a word": streams(done=False),
    "stream with an error": streams("{", event({"error": {"message": "overloaded", "code": 503}}), done=False),
    "stream of no JSON": streams(b"data: {\xff\n\n" * 1000),
    "stream without end": streams(*[b": keep-alive\n\n" * 4096] * 200, done=False),
    **{f"odd body {number}": answers(body) for number, body in enumerate(ODD)},
    **{f"odd Retry-After {number}": status(429, retry_after=header) for number, header in enumerate(HEADERS)},
}
"""What ends as a failure, or as a reply of no use, whatever a client does."""
