"""The breaker: opens after failures in a row, lets one probe through, waits longer after each that fails."""

from __future__ import annotations

import logging

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from steer_verl.config import BreakerConfig
from steer_verl.models.limits import Breaker
from steer_verl.types import UnscoredReason

CONFIG = BreakerConfig(failures=3, cooldown=10, max_cooldown=35)
DOWN = UnscoredReason.CONNECT


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def failing(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        permit = breaker.admit()
        assert permit is not None
        breaker.failed(permit, DOWN)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(CONFIG, "http://here", clock)


def test_it_opens_after_so_many_failures_in_a_row_and_remembers_why(breaker: Breaker) -> None:
    failing(breaker, 2)
    assert breaker.state == "closed"
    permit = breaker.admit()
    assert permit is not None
    breaker.failed(permit, UnscoredReason.TIMEOUT)
    assert breaker.state == "open" and breaker.admit() is None and breaker.wait == 10
    assert breaker.reason is UnscoredReason.TIMEOUT


def test_a_success_between_them_starts_the_count_again(breaker: Breaker) -> None:
    failing(breaker, 2)
    permit = breaker.admit()
    assert permit is not None
    breaker.succeeded(permit)
    failing(breaker, 2)
    assert breaker.state == "closed"


def test_one_probe_at_a_time_and_its_success_closes(breaker: Breaker, clock: Clock) -> None:
    failing(breaker, 3)
    clock.now += 10
    assert breaker.state == "half-open" and breaker.ready
    probe = breaker.admit()
    assert probe is not None and not breaker.ready and breaker.admit() is None and 0 < breaker.wait < 1
    breaker.succeeded(probe)
    assert breaker.state == "closed" and breaker.wait == 0
    failing(breaker, 2)
    assert breaker.state == "closed"


def test_each_failed_probe_doubles_the_wait_up_to_its_cap_and_a_success_resets_it(
    breaker: Breaker, clock: Clock
) -> None:
    failing(breaker, 3)
    waits = []
    for _ in range(4):
        waits.append(breaker.wait)
        clock.now += breaker.wait
        failing(breaker, 1)
    assert waits == [10, 20, 35, 35]
    clock.now += 35
    probe = breaker.admit()
    assert probe is not None
    breaker.succeeded(probe)
    failing(breaker, 3)
    assert breaker.wait == 10


def test_a_probe_that_is_called_off_makes_room_for_another(breaker: Breaker, clock: Clock) -> None:
    failing(breaker, 3)
    clock.now += 10
    probe = breaker.admit()
    assert probe is not None
    breaker.abandoned(probe)
    assert breaker.ready


def test_late_news_of_an_earlier_time_changes_nothing(breaker: Breaker, clock: Clock) -> None:
    early, late = breaker.admit(), breaker.admit()
    assert early is not None and late is not None
    failing(breaker, 3)
    breaker.succeeded(early)
    assert breaker.state == "open"
    clock.now += 4
    breaker.failed(late, DOWN)
    assert breaker.wait == 6


def test_opening_and_closing_are_told_in_the_log(
    breaker: Breaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    failing(breaker, 3)
    clock.now += 10
    probe = breaker.admit()
    assert probe is not None
    breaker.succeeded(probe)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and "left alone for 10 s (last failure: connect)" in told[0] and "answers again" in told[1]


class AnyOrder(RuleBasedStateMachine):
    """Whatever the order of events: an open breaker admits nobody, a half-open one a single probe."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(CONFIG, "", self.clock)
        self.out: list[tuple[int, bool]] = []

    @rule()
    def ask(self) -> None:
        state, probes = self.breaker.state, sum(probe for _, probe in self.out)
        permit = self.breaker.admit()
        if state == "open" or (state == "half-open" and probes):
            assert permit is None
        if state == "closed":
            assert permit is not None
        if permit is not None:
            self.out.append((permit, state == "half-open"))

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 50), outcome=st.sampled_from(["succeeded", "failed", "abandoned"]))
    def hear(self, which: int, outcome: str) -> None:
        permit, probe = self.out.pop(which % len(self.out))
        if outcome == "failed":
            self.breaker.failed(permit, DOWN)
            assert not probe or self.breaker.state == "open"
        else:
            getattr(self.breaker, outcome)(permit)
            assert not probe or outcome == "abandoned" or self.breaker.state == "closed"

    @rule(seconds=st.floats(0, 50))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def wait_and_ready_agree(self) -> None:
        assert (self.breaker.wait == 0) == self.breaker.ready
        assert self.breaker.wait <= CONFIG.max_cooldown + 1e-6


TestAnyOrder = AnyOrder.TestCase
