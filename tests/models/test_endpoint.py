"""Several servers: who is asked, fail-over, pauses and the deadline, breakers, and one pool per process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from steer_verl.config import BreakerConfig, EndpointConfig
from steer_verl.models.endpoint import BACKOFF_BASE, BACKOFF_CAP, Endpoint, by_affinity, servers_of
from steer_verl.models.failure import Failure
from steer_verl.models.hosts import hosts
from steer_verl.models.request import Deadline, Reply, Request, RequestContext
from steer_verl.types import Unscored, UnscoredReason, Verdict
from tests.models.fault_server import FaultServer, Step, drips, dropped, filtered, good, half_sent, raw, slow, status
from tests.tutor.conftest import OpenLab, config_for, instant_endpoint
from tests.tutor.dialogues import simple

ASKED = Request([{"role": "user", "content": "The secret id is abc"}])


@contextlib.asynccontextmanager
async def two(
    first: list[Step], second: list[Step], **settings: Any
) -> AsyncIterator[tuple[Endpoint, Any, list[float]]]:
    """An endpoint of two servers, the first preferred; the servers; the pauses."""
    async with FaultServer(*first) as one, FaultServer(*second) as other:
        endpoint = Endpoint(config_for(one, other, **settings))
        yield endpoint, (one, other), instant_endpoint(endpoint)
        await endpoint.close()


def context(endpoint: Endpoint, seconds: float = 20.0, **more: Any) -> RequestContext:
    """One whose affinity prefers the endpoint's first server."""
    weights = dict.fromkeys(endpoint.servers, 1.0)
    affinity = next(str(n) for n in range(1000) if by_affinity(weights, str(n))[0] is endpoint.servers[0])
    return RequestContext(Deadline(seconds), affinity=affinity, **more)


async def replied(endpoint: Endpoint, asked: RequestContext) -> Reply:
    outcome = await endpoint.ask(ASKED, asked)
    assert isinstance(outcome, Reply), outcome
    return outcome


async def failure_of(endpoint: Endpoint, asked: RequestContext) -> Failure:
    outcome = await endpoint.ask(ASKED, asked)
    assert isinstance(outcome, Failure), outcome
    return outcome


# ----- choice


async def test_affinities_are_shared_out_by_weight_and_each_stays_where_it_is() -> None:
    weights: Any = {_Named(f"http://{name}/v1"): weight for name, weight in (("a", 1.0), ("b", 2.0), ("c", 5.0))}
    first = {str(n): by_affinity(weights, str(n))[0] for n in range(4000)}
    share = Counter(server.base_url[7] for server in first.values())
    assert {name: round(8 * count / 4000) for name, count in share.items()} == {"a": 1, "b": 2, "c": 5}
    without = {server: weight for server, weight in weights.items() if server.base_url[7] != "b"}
    for affinity, server in first.items():
        if server.base_url[7] != "b":
            assert by_affinity(without, affinity)[0] is server


class _Named:
    """Stands for a server."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url


def test_a_mirror_may_have_a_name_and_a_key_of_its_own() -> None:
    mirrors = [
        {"base_url": "http://b/v1", "model": "local", "api_key_env": "B", "weight": 3},
        {"base_url": "http://c/v1"},
        {"base_url": "http://d/v1", "api_key_env": ""},
    ]
    config = EndpointConfig.model_validate({"base_url": "http://a/v1", "model": "m", "mirrors": mirrors, "timeout": 7})
    told = [(c.base_url, c.model, c.api_key_env, c.weight, c.timeout, c.mirrors) for c in servers_of(config)]
    assert told == [
        ("http://a/v1", "m", "STEER_TUTOR_API_KEY", 1.0, 7, ()),
        ("http://b/v1", "local", "B", 3.0, 7, ()),
        ("http://c/v1", "m", "STEER_TUTOR_API_KEY", 1.0, 7, ()),
        ("http://d/v1", "m", "", 1.0, 7, ()),  # it asks for none: the endpoint's does not go there
    ]


async def test_all_turns_and_rollouts_of_a_seed_go_to_one_server() -> None:
    async with two([good()], [good()]) as (endpoint, servers, _):
        for seed in map(str, range(12)):
            before = [server.requests for server in servers]
            for _ in range(3):
                await replied(endpoint, RequestContext(Deadline(20), affinity=seed))
            assert sorted(now.requests - then for now, then in zip(servers, before, strict=True)) == [0, 3]
        assert all(server.requests for server in servers)


# ----- fail-over


@pytest.mark.parametrize(
    "fault", [status(500), status(429, retry_after=9), status(408), dropped(), half_sent(), raw(""), raw("<html>")]
)
async def test_a_passing_failure_goes_to_the_next_server_without_a_pause(fault: Step) -> None:
    async with two([fault], [good()]) as (endpoint, servers, pauses):
        asked = context(endpoint)
        await replied(endpoint, asked)
        assert pauses == [] and [server.requests for server in servers] == [1, 1] and asked.usage.requests == 2


async def test_a_silent_server_leaves_time_for_another() -> None:
    async with two([drips(0.05)], [good()]) as (endpoint, servers, _):
        asked = context(endpoint, seconds=1.0)
        await replied(endpoint, asked)
        assert asked.deadline.left > 0.2 and servers[1].requests == 1


async def test_when_all_have_failed_there_is_a_pause_and_all_are_asked_again() -> None:
    async with two([status(500), status(500), good()], [status(503)]) as (endpoint, servers, pauses):
        await replied(endpoint, context(endpoint))
        assert len(pauses) == 2 and [server.requests for server in servers] == [3, 2]


async def test_attempts_are_bounded_over_all_servers_together() -> None:
    async with two([status(500)], [status(500)], max_retries=3) as (endpoint, servers, _):
        assert (await failure_of(endpoint, context(endpoint))).reason is UnscoredReason.HTTP_5XX
        assert sum(server.requests for server in servers) == 4


@pytest.mark.parametrize("code", [400, 422])
async def test_a_request_that_can_never_succeed_is_asked_nowhere_else(code: int) -> None:
    async with two([good(), status(code)], [good()]) as (endpoint, servers, _):
        await replied(endpoint, context(endpoint))
        assert (await failure_of(endpoint, context(endpoint))).status == code
        assert [server.requests for server in servers] == [2, 0]


@pytest.mark.parametrize("code", [401, 403, 404])
async def test_a_mirror_that_refuses_key_or_model_is_left_out_with_one_warning(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with two([status(code)], [good()], max_retries=0) as (endpoint, servers, _):
        for _ in range(5):
            await replied(endpoint, context(endpoint))
        assert [server.requests for server in servers] == [1, 5]
        warned = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(warned) == 1 and "left out" in warned[0] and f"HTTP {code}" in warned[0]


async def test_when_every_server_refuses_the_key_it_is_told_at_once() -> None:
    async with two([status(401)], [status(401)]) as (endpoint, servers, pauses):
        assert (await failure_of(endpoint, context(endpoint))).status == 401
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
    async with two(*faults) as (endpoint, servers, pauses):
        await replied(endpoint, context(endpoint))
        assert [server.requests for server in servers] == [1, 2] and len(pauses) == 1 and pauses[0] < 2


# ----- breakers

TOUCHY = BreakerConfig(failures=2, cooldown=5)


async def test_an_open_breaker_sends_its_dialogues_elsewhere() -> None:
    async with two([status(500)], [good()], breaker=TOUCHY) as (endpoint, servers, pauses):
        for _ in range(6):
            await replied(endpoint, context(endpoint))
        assert [server.requests for server in servers] == [2, 6] and pauses == []


async def test_an_open_breaker_is_waited_for_and_one_probe_brings_the_server_back() -> None:
    async with FaultServer(status(500), status(500), good()) as server:
        endpoint = Endpoint(config_for(server, breaker=TOUCHY))
        pauses = instant_endpoint(endpoint)
        asked = RequestContext(Deadline(20))
        await replied(endpoint, asked)
        assert server.requests == 3 and max(pauses) == pytest.approx(5, abs=0.1)
        assert (asked.usage.requests, asked.usage.rejected) == (3, 1)
        assert endpoint.servers[0].breaker.state == "closed"
        await endpoint.close()


async def test_what_an_open_breaker_turns_away_has_its_reason_and_says_so() -> None:
    async with FaultServer(dropped()) as server:
        endpoint = Endpoint(config_for(server, breaker=BreakerConfig(failures=2, cooldown=60), max_retries=1))
        instant_endpoint(endpoint)
        assert (await failure_of(endpoint, RequestContext(Deadline(20)))).reason is UnscoredReason.CONNECT
        asked = RequestContext(Deadline(20))
        failure = await failure_of(endpoint, asked)
        assert failure.reason is UnscoredReason.CONNECT and "the breaker of" in failure.detail
        assert (asked.usage.requests, asked.usage.rejected, server.requests) == (0, 1, 2)
        await endpoint.close()


@pytest.mark.parametrize("fault", [status(429), status(400), status(401), status(408)])
async def test_load_and_bad_requests_open_no_breaker(fault: Step) -> None:
    async with FaultServer(fault) as server:
        endpoint = Endpoint(config_for(server, breaker=TOUCHY))
        instant_endpoint(endpoint)
        for _ in range(4):
            await failure_of(endpoint, RequestContext(Deadline(20)))
        assert endpoint.servers[0].breaker.state == "closed"
        await endpoint.close()


# ----- bounds, and what is shared


async def test_requests_in_flight_are_bounded_and_the_bound_is_used(lab: OpenLab) -> None:
    async with lab(slow(0.1), max_concurrency=3) as (tutor, server, _):
        await asyncio.gather(*(tutor.respond(simple(f"answer {i}")) for i in range(12)))
        assert server.peak == 3


async def test_a_server_that_takes_few_at_once_serves_all_in_the_end() -> None:
    def choose(request: Any) -> Step:
        return slow(0.15) if request.server.in_flight < 4 else status(429)

    async with FaultServer(choose=choose) as server:
        endpoint = Endpoint(config_for(server, max_concurrency=32, max_retries=20))
        endpoint.rng.uniform = lambda low, high: 0.02  # type: ignore[method-assign]
        asked = [RequestContext(Deadline(20), key=str(number)) for number in range(80)]
        await asyncio.gather(*(replied(endpoint, one) for one in asked))
        assert server.injected["slow"] == 80 and server.injected["http_429"] < 160
        assert endpoint.servers[0].limiter.limit <= 12
        await endpoint.close()


async def test_the_bound_is_per_server_whoever_asks() -> None:
    async with FaultServer(slow(0.1)) as server:
        wishes = [{}, {"temperature": 0.5}, {"model": "another"}, {"max_concurrency": 2}, {"timeout": 9}]
        configs = [config_for(server, **{"max_concurrency": 8, **wish}) for wish in wishes]
        endpoints = [Endpoint(config) for config in configs]
        for endpoint in endpoints:
            assert endpoint.servers
        await asyncio.gather(
            *(replied(e, RequestContext(Deadline(20), key=str(n))) for n in range(4) for e in endpoints)
        )
        assert server.peak == 2
        assert len({id(endpoint.servers[0].limiter) for endpoint in endpoints}) == 1
        await endpoints.pop(3).close()  # with it goes the smallest wish
        server.peak = 0
        await asyncio.gather(
            *(replied(e, RequestContext(Deadline(20), key=str(n))) for n in range(8) for e in endpoints)
        )
        assert 2 < server.peak <= 8
        for endpoint in endpoints:
            await endpoint.close()
        assert isinstance(await endpoints[0].ask(ASKED, RequestContext(Deadline(20))), Reply)
        await endpoints[0].close()


async def test_another_event_loop_has_connections_of_its_own() -> None:
    endpoint = Endpoint(EndpointConfig(base_url="http://127.0.0.1:1/v1", model="a"))
    here = endpoint.servers[0]
    assert Endpoint(endpoint.config).servers[0] is here
    elsewhere = await asyncio.to_thread(lambda: asyncio.run(_server_of(Endpoint(endpoint.config))))
    assert elsewhere is not here


async def _server_of(endpoint: Endpoint) -> Any:
    server = endpoint.servers[0]
    await endpoint.close()
    return server


async def test_a_content_filter_is_of_one_server_and_another_is_asked_first() -> None:
    async with two([filtered()], [good()]) as (endpoint, servers, pauses):
        await replied(endpoint, context(endpoint))
        assert [server.requests for server in servers] == [1, 1] and pauses == []
    async with two([status(400, "content_filter")], [filtered()]) as (endpoint, servers, _):
        assert (await failure_of(endpoint, context(endpoint))).reason is UnscoredReason.CONTENT_FILTER
        assert [server.requests for server in servers] == [1, 1]


async def test_called_off_at_any_moment_nothing_is_left_behind() -> None:
    steps = [slow(0.02), status(500), slow(0.01), dropped()]
    async with FaultServer(choose=lambda request: steps[request.number % 4]) as server:
        endpoint = Endpoint(config_for(server, max_concurrency=3, max_retries=10, breaker=TOUCHY))
        endpoint.rng.uniform = lambda low, high: 0.001  # type: ignore[method-assign]
        tasks = [asyncio.ensure_future(endpoint.ask(ASKED, RequestContext(Deadline(20)))) for _ in range(40)]
        for number, task in enumerate(tasks):
            await asyncio.sleep(0.002)
            if number % 2:
                task.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        limiter = endpoint.servers[0].limiter
        assert limiter.in_flight == 0 and not limiter.full
        for breaker in (endpoint.servers[0].breaker,):
            breaker.clock = lambda: 10**9  # long after
            assert breaker.ready
        await asyncio.sleep(0.1)
        assert server.in_flight == 0
        await endpoint.close()


async def test_many_may_give_an_address_back_at_once() -> None:
    async with FaultServer() as one, FaultServer() as other:
        endpoints = [Endpoint(config_for(one, other, temperature=number / 10)) for number in range(8)]
        await asyncio.gather(*(replied(endpoint, endpoint.context()) for endpoint in endpoints))
        await asyncio.gather(*(endpoint.close() for endpoint in endpoints))
    assert not hosts().by_url
