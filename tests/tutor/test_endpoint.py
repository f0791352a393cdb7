"""Back-off, Retry-After, the bound on requests in flight, and one pool per process and endpoint."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.tutor.client import OpenAITutor
from steer_verl.tutor.endpoint import BACKOFF_BASE, BACKOFF_CAP, Endpoint, Usage, pooled, retry_after
from steer_verl.types import Unscored, UnscoredReason, Verdict
from tests.tutor.conftest import OpenLab, config_for
from tests.tutor.dialogues import simple
from tests.tutor.fake_server import FakeServer, good, slow, status


async def test_pauses_grow_with_full_jitter_and_stay_below_the_cap(lab: OpenLab) -> None:
    async with lab(status(503), max_retries=12, timeout=10_000) as (tutor, server, pauses):
        await tutor.respond(simple())
        assert len(pauses) == 12 and len(server.bodies) == 13
        bounds = [min(BACKOFF_CAP, BACKOFF_BASE * 2**attempt) for attempt in range(12)]
        assert all(0 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
        assert len(set(pauses)) == 12 and min(pauses[6:]) < 0.8 * BACKOFF_CAP


async def test_retry_after_is_a_lower_bound(lab: OpenLab) -> None:
    async with lab(status(429, retry_after=3), status(503, retry_after=0.5), good()) as (tutor, _, pauses):
        assert isinstance((await tutor.respond(simple())).judgement, Verdict)
        assert 3 <= pauses[0] <= 3 + BACKOFF_BASE and 0.5 <= pauses[1] <= 0.5 + 2 * BACKOFF_BASE


async def test_a_wait_beyond_the_deadline_is_given_up_at_once(lab: OpenLab) -> None:
    async with lab(status(429, retry_after=3600), good()) as (tutor, server, pauses):
        ruling = await tutor.respond(simple())
        assert isinstance(ruling.judgement, Unscored) and ruling.judgement.reason is UnscoredReason.HTTP_429
        assert pauses == [] and len(server.bodies) == 1


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


async def test_requests_in_flight_are_bounded_and_the_bound_is_used(lab: OpenLab) -> None:
    async with lab(slow(0.1), max_concurrency=3) as (tutor, server, _):
        await asyncio.gather(*(tutor.respond(simple(f"answer {i}")) for i in range(12)))
        assert server.peak == 3


async def test_the_bound_is_shared_by_all_tutors_of_an_endpoint() -> None:
    async with FakeServer(slow(0.1)) as server:
        config = config_for(server, max_concurrency=2)
        tutors = [OpenAITutor(TutorConfig(endpoint=config)) for _ in range(4)]
        await asyncio.gather(*(tutor.respond(simple(f"answer {i}")) for i, tutor in enumerate(tutors)))
        assert server.peak == 2
        assert len({id(tutor.endpoint(config)) for tutor in tutors}) == 1
        await tutors[0].close()
        assert isinstance((await tutors[1].respond(simple())).judgement, Verdict)
        for tutor in tutors[1:]:
            await tutor.close()
        assert isinstance((await tutors[0].respond(simple())).judgement, Verdict)
        await tutors[0].close()


async def test_other_settings_are_another_endpoint_and_another_loop_another_pool() -> None:
    first = EndpointConfig(base_url="http://127.0.0.1:1/v1", model="a")
    assert pooled(first) is pooled(EndpointConfig(base_url="http://127.0.0.1:1/v1", model="a"))
    assert pooled(first) is not pooled(EndpointConfig(base_url="http://127.0.0.1:1/v1", model="b"))
    here = pooled(first)
    elsewhere = await asyncio.to_thread(lambda: asyncio.run(_pooled(first)))
    assert elsewhere is not here


async def _pooled(config: EndpointConfig) -> Endpoint:
    return pooled(config)


def test_what_a_server_does_not_report_counts_as_nothing() -> None:
    usage = Usage()
    for report in (None, {}, "many", {"prompt_tokens": None, "prompt_tokens_details": None}, {"prompt_tokens": 3}):
        usage.add(report)
    assert usage == Usage(requests=5, prompt_tokens=3)
