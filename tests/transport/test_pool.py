"""Several servers: who is asked, fail-over, pauses and the deadline, breakers, and one pool per process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from steer_verl.config import BreakerConfig, EndpointConfig, TutorConfig
from steer_verl.transport.endpoint import Server
from steer_verl.transport.failure import CallFailed
from steer_verl.transport.inquiry import Deadline, Inquiry
from steer_verl.transport.lease import Lease, pooled
from steer_verl.transport.pool import BACKOFF_BASE, BACKOFF_CAP, Pool
from steer_verl.transport.servers import by_affinity, servers_of
from steer_verl.tutor.client import OpenAITutor
from steer_verl.types import Unscored, UnscoredReason, Verdict
from tests.transport.fault_server import FaultServer, Step, drips, dropped, good, half_sent, slow, status
from tests.tutor.conftest import OpenLab, config_for, instant_pool
from tests.tutor.dialogues import simple

MESSAGES = [{"role": "user", "content": "The secret id is abc"}]


@contextlib.asynccontextmanager
async def two(first: list[Step], second: list[Step], **settings: Any) -> AsyncIterator[tuple[Pool, Any, list[float]]]:
    """A pool of two servers, the first preferred; the servers; the pauses."""
    async with FaultServer(*first) as one, FaultServer(*second) as other:
        config = config_for(one, other, **settings)
        lease = Lease()
        pool = lease.pool(config)
        yield pool, (one, other), instant_pool(pool)
        await lease.close()


def inquiry(pool: Pool, seconds: float = 20.0, **more: Any) -> Inquiry:
    """A ruling's whose seed prefers the pool's first server."""
    seed = next(str(n) for n in range(1000) if by_affinity(pool.servers, str(n))[0] is pool.servers[0])
    return Inquiry(Deadline(seconds), seed=seed, **more)


async def failure_of(pool: Pool, asked: Inquiry) -> CallFailed:
    with pytest.raises(CallFailed) as error:
        await pool.complete(MESSAGES, None, asked)
    return error.value


# ----- choice


def single(name: str, weight: float = 1.0) -> Server:
    return Server(EndpointConfig(base_url=f"http://{name}/v1", model="m", weight=weight))


async def test_seeds_are_shared_out_by_weight_and_each_stays_where_it_is() -> None:
    servers = [single("a", 1), single("b", 2), single("c", 5)]
    first = {str(n): by_affinity(servers, str(n))[0] for n in range(4000)}
    share = Counter(server.config.base_url[7] for server in first.values())
    assert {name: round(8 * count / 4000) for name, count in share.items()} == {"a": 1, "b": 2, "c": 5}
    without = [servers[0], servers[2]]
    for seed, server in first.items():
        if server is not servers[1]:
            assert by_affinity(without, seed)[0] is server


def test_a_mirror_may_have_a_name_and_a_key_of_its_own() -> None:
    mirrors = [
        {"base_url": "http://b/v1", "model": "local", "api_key_env": "B", "weight": 3},
        {"base_url": "http://c/v1"},
    ]
    config = EndpointConfig.model_validate({"base_url": "http://a/v1", "model": "m", "mirrors": mirrors, "timeout": 7})
    told = [(c.base_url, c.model, c.api_key_env, c.weight, c.timeout, c.mirrors) for c in servers_of(config)]
    assert told == [
        ("http://a/v1", "m", "STEER_TUTOR_API_KEY", 1.0, 7, ()),
        ("http://b/v1", "local", "B", 3.0, 7, ()),
        ("http://c/v1", "m", "STEER_TUTOR_API_KEY", 1.0, 7, ()),
    ]


async def test_all_turns_and_rollouts_of_a_seed_go_to_one_server() -> None:
    async with two([good()], [good()]) as (pool, servers, _):
        for seed in map(str, range(12)):
            before = [server.requests for server in servers]
            for _ in range(3):
                await pool.complete(MESSAGES, None, Inquiry(Deadline(20), seed=seed))
            assert sorted(now.requests - then for now, then in zip(servers, before, strict=True)) == [0, 3]
        assert all(server.requests for server in servers)


# ----- fail-over


@pytest.mark.parametrize("fault", [status(500), status(429, retry_after=9), status(408), dropped(), half_sent()])
async def test_a_passing_failure_goes_to_the_next_server_without_a_pause(fault: Step) -> None:
    async with two([fault], [good()]) as (pool, servers, pauses):
        asked = inquiry(pool)
        await pool.complete(MESSAGES, None, asked)
        assert pauses == [] and [server.requests for server in servers] == [1, 1] and asked.usage.requests == 2


async def test_a_silent_server_leaves_time_for_another() -> None:
    async with two([drips(0.05)], [good()]) as (pool, servers, _):
        asked = inquiry(pool, seconds=1.0)
        await pool.complete(MESSAGES, None, asked)
        assert asked.deadline.left > 0.2 and servers[1].requests == 1


async def test_when_all_have_failed_there_is_a_pause_and_all_are_asked_again() -> None:
    async with two([status(500), status(500), good()], [status(503)]) as (pool, servers, pauses):
        await pool.complete(MESSAGES, None, inquiry(pool))
        assert len(pauses) == 2 and [server.requests for server in servers] == [3, 2]


async def test_attempts_are_bounded_over_all_servers_together() -> None:
    async with two([status(500)], [status(500)], max_retries=3) as (pool, servers, _):
        assert (await failure_of(pool, inquiry(pool))).reason is UnscoredReason.HTTP_5XX
        assert sum(server.requests for server in servers) == 4


@pytest.mark.parametrize("code", [400, 422])
async def test_a_request_that_can_never_succeed_is_asked_nowhere_else(code: int) -> None:
    async with two([status(code)], [good()]) as (pool, servers, _):
        assert (await failure_of(pool, inquiry(pool))).status == code
        assert [server.requests for server in servers] == [1, 0]


@pytest.mark.parametrize("code", [401, 403, 404])
async def test_a_mirror_that_refuses_key_or_model_is_left_out_with_one_warning(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with two([status(code)], [good()], max_retries=0) as (pool, servers, _):
        for _ in range(5):
            await pool.complete(MESSAGES, None, inquiry(pool))
        assert [server.requests for server in servers] == [1, 5]
        warned = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(warned) == 1 and "left out" in warned[0] and f"HTTP {code}" in warned[0]


async def test_when_every_server_refuses_the_key_it_is_told_at_once() -> None:
    async with two([status(401)], [status(401)]) as (pool, servers, pauses):
        assert (await failure_of(pool, inquiry(pool))).status == 401
        assert [server.requests for server in servers] == [1, 1] and pauses == []


# ----- pauses and the deadline


async def test_pauses_grow_with_full_jitter_and_stay_below_the_cap(lab: OpenLab) -> None:
    patient = BreakerConfig(failures=100)
    async with lab(status(503), max_retries=12, timeout=10_000, breaker=patient) as (tutor, server, pauses):
        await tutor.respond(simple())
        assert len(pauses) == 12 and len(server.bodies) == 13
        bounds = [min(BACKOFF_CAP, BACKOFF_BASE * 2**attempt) for attempt in range(12)]
        assert all(0 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))
        assert len(set(pauses)) == 12 and min(pauses[6:]) < 0.8 * BACKOFF_CAP


async def test_retry_after_is_a_lower_bound(lab: OpenLab) -> None:
    async with lab(status(429, retry_after=3), status(503, retry_after=0.5), good()) as (tutor, _, pauses):
        assert isinstance((await tutor.respond(simple())).verdict, Verdict)
        assert 2.9 <= pauses[0] <= 3 + BACKOFF_BASE and 0.4 <= pauses[1] <= 0.5 + 2 * BACKOFF_BASE


async def test_a_wait_beyond_the_deadline_is_given_up_at_once(lab: OpenLab) -> None:
    async with lab(status(429, retry_after=3600), good()) as (tutor, server, pauses):
        ruling = await tutor.respond(simple())
        assert isinstance(ruling.verdict, Unscored) and ruling.verdict.reason is UnscoredReason.HTTP_429
        assert pauses == [] and len(server.bodies) == 1


async def test_the_shortest_wait_counts_and_the_other_server_is_not_asked_before_its_time() -> None:
    faults = [status(429, retry_after=15)], [status(429, retry_after=1), good()]
    async with two(*faults) as (pool, servers, pauses):
        await pool.complete(MESSAGES, None, inquiry(pool))
        assert [server.requests for server in servers] == [1, 2] and len(pauses) == 1 and pauses[0] < 2


# ----- breakers

TOUCHY = BreakerConfig(failures=2, cooldown=5)


async def test_an_open_breaker_sends_its_dialogues_elsewhere() -> None:
    async with two([status(500)], [good()], breaker=TOUCHY) as (pool, servers, pauses):
        for _ in range(6):
            await pool.complete(MESSAGES, None, inquiry(pool))
        assert [server.requests for server in servers] == [2, 6] and pauses == []


async def test_an_open_breaker_is_waited_for_and_one_probe_brings_the_server_back() -> None:
    async with FaultServer(status(500), status(500), good()) as server:
        lease = Lease()
        pool = lease.pool(config_for(server, breaker=TOUCHY))
        pauses = instant_pool(pool)
        asked = Inquiry(Deadline(20))
        await pool.complete(MESSAGES, None, asked)
        assert server.requests == 3 and max(pauses) == pytest.approx(5, abs=0.1)
        assert (asked.usage.requests, asked.usage.rejected) == (3, 1)
        assert pool.servers[0].breaker.state == "closed"
        await lease.close()


async def test_what_an_open_breaker_turns_away_has_its_reason_and_says_so() -> None:
    async with FaultServer(dropped()) as server:
        lease = Lease()
        pool = lease.pool(config_for(server, breaker=BreakerConfig(failures=2, cooldown=60), max_retries=1))
        instant_pool(pool)
        assert (await failure_of(pool, Inquiry(Deadline(20)))).reason is UnscoredReason.CONNECT
        asked = Inquiry(Deadline(20))
        failure = await failure_of(pool, asked)
        assert failure.reason is UnscoredReason.CONNECT and "the breaker of" in failure.detail
        assert (asked.usage.requests, asked.usage.rejected, server.requests) == (0, 1, 2)
        await lease.close()


@pytest.mark.parametrize("fault", [status(429), status(400), status(401), status(408)])
async def test_load_and_bad_requests_open_no_breaker(fault: Step) -> None:
    async with FaultServer(fault) as server:
        lease = Lease()
        pool = lease.pool(config_for(server, breaker=TOUCHY))
        instant_pool(pool)
        for _ in range(4):
            await failure_of(pool, Inquiry(Deadline(20)))
        assert pool.servers[0].breaker.state == "closed"
        await lease.close()


# ----- bounds, and what is shared


async def test_requests_in_flight_are_bounded_and_the_bound_is_used(lab: OpenLab) -> None:
    async with lab(slow(0.1), max_concurrency=3) as (tutor, server, _):
        await asyncio.gather(*(tutor.respond(simple(f"answer {i}")) for i in range(12)))
        assert server.peak == 3


async def test_a_server_that_takes_few_at_once_serves_all_in_the_end() -> None:
    def choose(request: Any) -> Step:
        return slow(0.15) if request.server.in_flight < 4 else status(429)

    async with FaultServer(choose=choose) as server:
        lease = Lease()
        pool = lease.pool(config_for(server, max_concurrency=32, max_retries=20))
        pool.rng.uniform = lambda low, high: 0.02  # type: ignore[method-assign]
        asked = [Inquiry(Deadline(20), place=str(number)) for number in range(80)]
        await asyncio.gather(*(pool.complete(MESSAGES, None, one) for one in asked))
        assert server.injected["slow"] == 80 and server.injected["http_429"] < 160
        assert pool.servers[0].limiter.limit <= 12
        await lease.close()


async def test_the_bound_is_shared_by_all_tutors_of_an_endpoint() -> None:
    async with FaultServer(slow(0.1)) as server:
        config = config_for(server, max_concurrency=2)
        tutors = [OpenAITutor(TutorConfig(endpoint=config)) for _ in range(4)]
        await asyncio.gather(*(tutor.respond(simple(f"answer {i}")) for i, tutor in enumerate(tutors)))
        assert server.peak == 2
        assert len({id(tutor.endpoint(config)) for tutor in tutors}) == 1
        await tutors[0].close()
        assert isinstance((await tutors[1].respond(simple())).verdict, Verdict)
        for tutor in tutors[1:]:
            await tutor.close()
        assert isinstance((await tutors[0].respond(simple())).verdict, Verdict)
        await tutors[0].close()


async def test_other_settings_are_another_pool_and_another_loop_too() -> None:
    first = EndpointConfig(base_url="http://127.0.0.1:1/v1", model="a")
    assert pooled(first) is pooled(EndpointConfig(base_url="http://127.0.0.1:1/v1", model="a"))
    assert pooled(first) is not pooled(EndpointConfig(base_url="http://127.0.0.1:1/v1", model="b"))
    here = pooled(first)
    elsewhere = await asyncio.to_thread(lambda: asyncio.run(_pooled(first)))
    assert elsewhere is not here


async def _pooled(config: EndpointConfig) -> Pool:
    return pooled(config)


async def test_called_off_at_any_moment_nothing_is_left_behind() -> None:
    steps = [slow(0.02), status(500), slow(0.01), dropped()]
    async with FaultServer(choose=lambda request: steps[request.number % 4]) as server:
        lease = Lease()
        pool = lease.pool(config_for(server, max_concurrency=3, max_retries=10, breaker=TOUCHY))
        pool.rng.uniform = lambda low, high: 0.001  # type: ignore[method-assign]
        tasks = [asyncio.ensure_future(pool.complete(MESSAGES, None, Inquiry(Deadline(20)))) for _ in range(40)]
        for number, task in enumerate(tasks):
            await asyncio.sleep(0.002)
            if number % 2:
                task.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        limiter = pool.servers[0].limiter
        assert limiter.in_flight == 0 and not limiter.full
        for breaker in (pool.servers[0].breaker,):
            breaker.clock = lambda: 10**9  # long after
            assert breaker.ready
        await asyncio.sleep(0.1)
        assert server.in_flight == 0
        await lease.close()
