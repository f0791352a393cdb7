"""One server: what its failures mean, what a reply costs, and what is sent with every request."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from steer_verl.config import BreakerConfig, PriceConfig
from steer_verl.models.failure import Cause, Failure, seconds_of
from steer_verl.models.http import Connections
from steer_verl.models.limits import Limiter
from steer_verl.models.server import Server, usage_of
from steer_verl.types import UnscoredReason, Usage
from tests.models.fault_server import FaultServer, Step, drips, dropped, half_sent, raw, slow, status

BODY = {"messages": [{"role": "user", "content": 'Reply {"id":"abc"}. The secret id is abc'}]}


async def sent(fault: FaultServer, seconds: float = 5.0, times: int = 1) -> Any:
    """What the last of some attempts comes to."""
    connections = Connections(fault.base_url)
    server = Server(connections, Limiter(1), "m", "", BreakerConfig())
    try:
        for _ in range(times):
            outcome = await server.send(BODY, "the key", seconds, connect_timeout=5, prices=None)
        return outcome
    finally:
        await connections.close()


async def failure_of(step: Step, seconds: float = 5.0) -> Failure:
    """What one attempt makes of a fault."""
    async with FaultServer(step) as fault:
        outcome = await sent(fault, seconds)
    assert isinstance(outcome, Failure)
    return outcome


MEANINGS = [  # what happens, its reason, worth another attempt, speaks of the server's health
    (status(408), UnscoredReason.HTTP_4XX, True, False),
    (status(409), UnscoredReason.HTTP_4XX, True, False),
    (status(429), UnscoredReason.HTTP_429, True, False),
    (status(500), UnscoredReason.HTTP_5XX, True, True),
    (status(503), UnscoredReason.HTTP_5XX, True, True),
    (dropped(), UnscoredReason.CONNECT, True, True),
    (half_sent(), UnscoredReason.CONNECT, True, True),
    (slow(5), UnscoredReason.TIMEOUT, True, True),
    (status(400), UnscoredReason.HTTP_4XX, False, False),
    (status(422), UnscoredReason.HTTP_4XX, False, False),
    (status(400, "content_filter"), UnscoredReason.CONTENT_FILTER, False, False),
    (status(500, "image input is not supported"), UnscoredReason.HTTP_5XX, False, False),
    (raw("{"), UnscoredReason.HTTP_5XX, True, False),
    (raw("null"), UnscoredReason.BAD_JSON, False, False),
]


@pytest.mark.parametrize(("step", "reason", "retryable", "server_fault"), MEANINGS)
async def test_what_a_failure_means(step: Step, reason: UnscoredReason, retryable: bool, server_fault: bool) -> None:
    failure = await failure_of(step, seconds=0.3 if step.kind == "slow" else 5.0)
    assert (failure.reason, failure.retryable, failure.server_fault) == (reason, retryable, server_fault)


@pytest.mark.parametrize(
    ("code", "needs_user"), [(401, True), (402, True), (403, True), (404, True), (400, False), (422, False)]
)
async def test_a_wrong_key_or_model_is_told_apart_from_a_bad_request(code: int, needs_user: bool) -> None:
    assert (await failure_of(status(code))).needs_user is needs_user


async def test_an_answer_that_drips_is_cut_at_the_total_time() -> None:
    start = asyncio.get_running_loop().time()
    failure = await failure_of(drips(0.02), seconds=0.3)
    assert failure.reason is UnscoredReason.TIMEOUT and asyncio.get_running_loop().time() - start < 3


async def test_every_request_carries_its_idempotency_key_and_not_our_libraries_own() -> None:
    async with FaultServer() as fault:
        await sent(fault, times=2)
    assert [headers["Idempotency-Key"] for headers in fault.headers] == ["the key"] * 2
    assert fault.charges == {"the key": 1}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        (None, None),
        ("1" * 200, None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999", None),
    ],
)
def test_retry_after_in_seconds(header: str | None, seconds: float | None) -> None:
    assert seconds_of(header) == seconds


def test_retry_after_as_a_date() -> None:
    now = datetime.now(UTC)
    ahead = seconds_of(format_datetime(now + timedelta(seconds=30), usegmt=True))
    assert ahead is not None and 25 <= ahead <= 30
    assert seconds_of(format_datetime(now - timedelta(seconds=30), usegmt=True)) == 0


@pytest.mark.parametrize("report", [None, {}, "many", {"prompt_tokens": None, "prompt_tokens_details": None}])
def test_what_a_server_does_not_report_counts_as_nothing(report: Any) -> None:
    assert usage_of(report) == Usage(requests=1)


def test_the_cost_tells_cached_tokens_from_others() -> None:
    report = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 900}}
    usage = usage_of(report, PriceConfig(prompt=10, cached=1, completion=40))
    assert usage.cost == pytest.approx((100 * 10 + 900 * 1 + 100 * 40) / 1e6)
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (1000, 900, 100)


@pytest.mark.parametrize("count", [float("inf"), float("nan"), 10**40, -5, True, "12", [1], 1e300])
def test_an_odd_count_counts_as_nothing(count: Any) -> None:
    report = {"prompt_tokens": count, "completion_tokens": count, "prompt_tokens_details": {"cached_tokens": count}}
    assert usage_of(report, PriceConfig(prompt=10, cached=1, completion=40)) == Usage(requests=1)


async def test_a_prompt_that_is_not_utf_8_is_not_sent() -> None:
    async with FaultServer() as fault:
        connections = Connections(fault.base_url)
        server = Server(connections, Limiter(1), "m", "", BreakerConfig())
        body = {"messages": [{"role": "user", "content": "a\ud800"}]}
        outcome = await server.send(body, "k", 5.0, connect_timeout=5, prices=None)
        await connections.close()
        assert isinstance(outcome, Failure) and outcome.cause is Cause.REQUEST and fault.requests == 0
