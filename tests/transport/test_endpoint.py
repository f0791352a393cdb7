"""One server: what its failures mean, what a reply costs, what is remembered, and addresses that are refused."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest

from steer_verl.config import EndpointConfig, PriceConfig
from steer_verl.errors import ConfigError
from steer_verl.transport.endpoint import Server, check_address, usage_of
from steer_verl.transport.failure import CallFailed, retry_after
from steer_verl.types import UnscoredReason, Usage
from tests.transport.fault_server import FaultServer, Step, drips, dropped, half_sent, raw, slow, status
from tests.tutor.conftest import config_for

MESSAGES = [{"role": "user", "content": 'Reply {"id":"abc"}. The secret id is abc'}]


async def failure_of(step: Step, seconds: float = 5.0) -> CallFailed:
    """What one attempt makes of a fault."""
    async with FaultServer(step) as fault:
        server = Server(config_for(fault))
        with pytest.raises(CallFailed) as error:
            await server.send(server.request(MESSAGES, None), "key", seconds)
        await server.close()
    return error.value


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
    (raw("{"), UnscoredReason.BAD_JSON, False, False),
]


@pytest.mark.parametrize(("step", "reason", "retryable", "unwell"), MEANINGS)
async def test_what_a_failure_means(step: Step, reason: UnscoredReason, retryable: bool, unwell: bool) -> None:
    failure = await failure_of(step, seconds=0.3 if step.kind == "slow" else 5.0)
    assert (failure.reason, failure.retryable, failure.unwell) == (reason, retryable, unwell)


@pytest.mark.parametrize(("code", "unwelcome"), [(401, True), (403, True), (404, True), (400, False), (422, False)])
async def test_a_wrong_key_or_model_is_told_apart_from_a_bad_request(code: int, unwelcome: bool) -> None:
    assert (await failure_of(status(code))).unwelcome is unwelcome


async def test_an_answer_that_drips_is_cut_at_the_total_time() -> None:
    start = asyncio.get_running_loop().time()
    failure = await failure_of(drips(0.02), seconds=0.3)
    assert failure.reason is UnscoredReason.TIMEOUT and asyncio.get_running_loop().time() - start < 3


async def test_every_request_carries_its_idempotency_key_and_not_our_libraries_own() -> None:
    async with FaultServer() as fault:
        server = Server(config_for(fault))
        for _ in range(2):
            await server.send(server.request(MESSAGES, None), "the key", 5.0)
        await server.close()
    assert [headers["Idempotency-Key"] for headers in fault.headers] == ["the key"] * 2
    assert fault.charges == {"the key": 1}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0.5", 0.5), ("-1", None), ("nan", None), ("inf", None), ("soon", None), (None, None)],
)
def test_retry_after_in_seconds(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_retry_after_as_a_date() -> None:
    now = datetime.now(timezone.utc)
    ahead = retry_after(format_datetime(now + timedelta(seconds=30), usegmt=True))
    assert ahead is not None and 25 <= ahead <= 30
    assert retry_after(format_datetime(now - timedelta(seconds=30), usegmt=True)) == 0


@pytest.mark.parametrize("report", [None, {}, "many", {"prompt_tokens": None, "prompt_tokens_details": None}])
def test_what_a_server_does_not_report_counts_as_nothing(report: Any) -> None:
    assert usage_of(report) == Usage(requests=1)


def test_the_cost_tells_cached_tokens_from_others() -> None:
    report = {"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 900}}
    usage = usage_of(report, PriceConfig(prompt=10, cached=1, completion=40))
    assert usage.cost == pytest.approx((100 * 10 + 900 * 1 + 100 * 40) / 1e6)
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (1000, 900, 100)


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("http://me:hunter2@127.0.0.1:1/v1", "put the key into STEER_TUTOR_API_KEY"),
        ("verl://reward_model", "reward.reward_model.enable=true"),
        ("127.0.0.1:8000/v1", "give one like http://"),
    ],
)
@pytest.mark.parametrize("mirror", [False, True])
def test_an_address_that_cannot_be_used_is_refused_with_the_cure(url: str, cure: str, mirror: bool) -> None:
    good = "http://127.0.0.1:1/v1"
    config = EndpointConfig.model_validate(
        {"base_url": good if mirror else url, "model": "m", "mirrors": [{"base_url": url}] if mirror else []}
    )
    with pytest.raises(ConfigError, match=cure) as error:
        check_address(config)
    assert "hunter2" not in str(error.value)
