"""The adaptive bound: never exceeded, first come first served, nothing lost; it finds a capacity and follows it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.models.hosts import Host
from steer_verl.models.limits import Limiter, Semaphore


async def test_never_more_than_the_limit_and_in_order() -> None:
    semaphore, order, peak = Semaphore(3), [], 0

    async def work(number: int) -> None:
        nonlocal peak
        async with semaphore:
            order.append(number)
            peak = max(peak, semaphore.in_flight)
            await asyncio.sleep(0)

    await asyncio.gather(*(work(number) for number in range(30)))
    assert order == list(range(30)) and peak == 3 and semaphore.in_flight == 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(["work", "cancel", "resize"]), st.integers(0, 9)), max_size=60),
)
def test_cancelled_waiters_and_a_changing_limit_lose_no_place(limit: int, events: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        semaphore, tasks, done = Semaphore(limit), [], []

        async def work(number: int) -> None:
            async with semaphore:
                assert semaphore.in_flight <= max(limits)
                for _ in range(number % 3):
                    await asyncio.sleep(0)
                done.append(number)

        limits = [limit]
        for number, (event, value) in enumerate(events):
            if event == "work":
                tasks.append(asyncio.ensure_future(work(number)))
            elif event == "cancel" and tasks:
                tasks[value % len(tasks)].cancel()
            elif event == "resize":
                semaphore.limit = 1 + value % 4
                limits.append(semaphore.limit)
            if value % 2:
                await asyncio.sleep(0)
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        cancelled = sum(isinstance(result, asyncio.CancelledError) for result in results)
        assert len(done) + cancelled == len(tasks)
        assert semaphore.in_flight == 0 and not semaphore.full

    asyncio.run(scenario())


async def test_a_place_given_at_the_moment_of_cancelling_is_passed_on() -> None:
    semaphore = Semaphore(1)
    await semaphore.acquire()
    first, second = (asyncio.ensure_future(semaphore.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    semaphore.release()  # the place is the first waiter's now, who has not run yet
    first.cancel()
    await asyncio.wait_for(second, 1)
    with pytest.raises(asyncio.CancelledError):
        await first
    assert semaphore.in_flight == 1


class Simulation:
    """A limiter before a server in virtual time, with more requests waiting than it lets through.

    Args:
        accepts: requests that the server takes at once; it refuses more with 429. Changes with time where it is a
            function of it.
        latency: seconds of an answer, by requests in flight.
        weather: share of requests refused at random.
    """

    def __init__(
        self,
        ceiling: int,
        accepts: Callable[[float], float] = lambda now: 10**9,
        latency: Callable[[float, int], float] = lambda now, load: 1.0,
        weather: float = 0.0,
    ) -> None:
        self.limiter = Limiter(ceiling)
        self.accepts, self.latency, self.weather = accepts, latency, weather
        self.rng, self.now, self.serial = random.Random(1), 0.0, itertools.count()
        self.events: list[tuple[float, int, bool, int]] = []
        self.at_server = 0
        self.recent: deque[bool] = deque(maxlen=200)

    def run(self, until: float) -> float:
        """Go on to a time; returns the limit there."""
        while self.now < until:
            while self.limiter.in_flight < int(self.limiter.limit):
                self._send()
            self.now, _, taken, generation = heapq.heappop(self.events)
            self.recent.append(taken)
            if taken:
                self.at_server -= 1
                self.limiter.answered(generation)
            else:
                self.limiter.refused(generation)
            self.limiter.release()
            assert 1 <= self.limiter.limit <= self.limiter.ceiling
        return self.limiter.limit

    def _send(self) -> None:
        self.limiter.in_flight += 1
        taken = self.at_server < self.accepts(self.now) and self.rng.random() >= self.weather
        seconds = 0.05
        if taken:
            self.at_server += 1
            seconds = self.latency(self.now, self.at_server) * self.rng.uniform(0.8, 1.25)
        heapq.heappush(self.events, (self.now + seconds, next(self.serial), taken, self.limiter.generation))


@pytest.mark.parametrize("capacity", [1, 4, 12, 40])
def test_it_finds_the_capacity_of_a_server_that_refuses_more(capacity: int) -> None:
    simulation = Simulation(64, accepts=lambda now: capacity)
    simulation.run(60)
    limits = [simulation.run(60 + step) for step in range(60)]
    assert capacity * 0.7 <= sum(limits) / 60 <= capacity * 1.2 + 1, limits
    assert simulation.recent.count(False) <= 0.25 * len(simulation.recent) or capacity == 1


def test_it_follows_a_capacity_that_falls_and_rises() -> None:
    simulation = Simulation(32, accepts=lambda now: 6 if 100 <= now < 200 else 32)
    assert simulation.run(100) == 32
    assert 4 <= simulation.run(200) <= 9
    assert simulation.run(400) >= 30


def test_weather_does_not_bleed_it_dry() -> None:
    simulation = Simulation(64, weather=0.01)
    limits = [simulation.run(20 + step) for step in range(200)]
    assert sum(limits) / len(limits) >= 0.95 * 64, sum(limits) / len(limits)


def test_latency_that_rises_with_load_as_of_a_batching_server_costs_no_concurrency() -> None:
    simulation = Simulation(32, latency=lambda now, load: 0.5 + load / 32)
    simulation.run(50)
    assert min(simulation.run(50 + step) for step in range(50)) >= 30


def test_one_window_in_flight_is_cut_once() -> None:
    limiter = Limiter(64)
    for _ in range(64):
        limiter.refused(0)
    assert limiter.generation == 1 and limiter.limit == 32


def test_a_bound_that_holds_nobody_back_does_not_grow() -> None:
    limiter = Limiter(64)
    for _ in range(16):
        limiter.refused(0)
    limit = limiter.limit
    for _ in range(1000):
        limiter.answered(limiter.generation)
    assert limiter.limit == limit


@pytest.mark.parametrize(("ceilings", "limit"), [([8], 8), ([8, 3], 3), ([3, 8], 3), ([64, 64, 2], 2)])
def test_the_smallest_wish_of_all_who_hold_a_host_counts(ceilings: list[int], limit: int) -> None:
    host = Host.__new__(Host)
    host._ceilings, host.limiter = {}, Limiter(1)
    for user, ceiling in enumerate(ceilings):
        host.hold(user, ceiling)
    assert host.limiter.limit == limit
    for user in range(1, len(ceilings)):
        assert not host.release(user)
    assert host.limiter.limit == ceilings[0] and host.release(0)
