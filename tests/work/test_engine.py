"""Bounds, tries, stops and resumes of the loop."""

from __future__ import annotations

import asyncio
import pickle
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from steer_verl.errors import DataError, SteerError
from steer_verl.models.failure import AgentFailed
from steer_verl.models.place import Place
from steer_verl.work.outcomes import read_outcomes
from steer_verl.work.step import Done, Kept, Rejected, WorkSettings
from tests.work.scripted import CALL, FAST, ScriptedStep, Thing, keep, lost, odd_ones_out, things, work


def ends(folder: Path) -> dict[str, str]:
    """Item -> ``kept`` or its reason; every item has ended at most once."""
    found = list(read_outcomes(folder))
    result = {one.id: "kept" if isinstance(one.done, Kept) else one.done.reason for one in found}
    assert len(result) == len(found)
    return result


async def test_every_item_ends_once_with_its_cost(tmp_path: Path) -> None:
    tally = await work(tmp_path, ScriptedStep(odd_ones_out), things(50))
    assert ends(tmp_path) == {f"thing {n}": "odd" if n % 2 else "kept" for n in range(50)}
    assert all(outcome.usage == CALL + CALL for outcome in read_outcomes(tmp_path))
    assert (tally.kept, tally.rejected["odd"], tally.usage.requests) == (25, 25, 100)


@pytest.mark.parametrize("in_flight", [1, 5, 40])
async def test_no_more_than_the_bound_is_read_or_at_work(tmp_path: Path, in_flight: int) -> None:
    read = ended = ahead = 0

    def source() -> Iterator[Thing]:
        nonlocal read, ahead
        for item in things(100):
            read += 1
            ahead = max(ahead, read - ended)
            yield item

    async def slowly(item: Thing, place: Place) -> Done:
        nonlocal ended
        await asyncio.sleep(0.001)
        ended += 1
        return await keep(item, place)

    step = ScriptedStep(slowly)
    await work(tmp_path, step, source(), FAST.model_copy(update={"in_flight": in_flight}))
    assert step.peak == in_flight
    assert ahead <= in_flight


async def test_a_second_run_works_on_nothing(tmp_path: Path) -> None:
    await work(tmp_path, ScriptedStep(), things(20))
    again = ScriptedStep()
    await work(tmp_path, again, things(25))
    assert sorted(again.tries) == [f"thing {n}" for n in range(20, 25)]
    assert len(ends(tmp_path)) == 25


async def test_an_agent_that_comes_back_costs_another_try_and_no_other_call(tmp_path: Path) -> None:
    async def weather(item: Thing, place: Place) -> Done:
        if item.size % 10 == 3 and step.tries[item.id] < 3:
            raise lost()
        return await keep(item, place)

    step = ScriptedStep(weather)
    tally = await work(tmp_path, step, things(40))
    assert set(ends(tmp_path).values()) == {"kept"} and len(ends(tmp_path)) == 40
    assert set(step.calls.values()) == {1} and tally.failures == 8


async def test_an_item_that_always_fails_is_rejected_while_the_others_work(tmp_path: Path) -> None:
    async def poison(item: Thing, place: Place) -> Done:
        if item.size % 10 == 3:
            raise lost("no reply")
        return await keep(item, place)

    step = ScriptedStep(poison)
    await work(tmp_path, step, things(400), FAST.model_copy(update={"dead_after": 9}))
    assert sum(end == "connect" for end in ends(tmp_path).values()) == 40 and len(ends(tmp_path)) == 400
    assert {step.tries[f"thing {n}"] for n in range(3, 400, 10)} == {3}


async def test_a_failure_that_would_come_again_is_not_tried_again(tmp_path: Path) -> None:
    async def filtered(item: Thing, place: Place) -> Done:
        raise AgentFailed("content_filter", "a line")

    step = ScriptedStep(filtered)
    await work(tmp_path, step, things(100))
    assert set(ends(tmp_path).values()) == {"content_filter"} and set(step.tries.values()) == {1}
    assert next(read_outcomes(tmp_path)).done == Rejected(reason="content_filter", detail="a line")


@pytest.mark.parametrize(("count", "lives"), [(1, 0), (2, 1), (5, 0), (5, 3), (60, 0), (60, 30), (500, 30)])
async def test_a_dead_endpoint_stops_the_run_and_rejects_nothing(tmp_path: Path, count: int, lives: int) -> None:
    answered = 0

    async def dies(item: Thing, place: Place) -> Done:
        nonlocal answered
        await asyncio.sleep(0)
        if answered >= lives:
            raise lost("connection refused")
        answered += 1
        return await keep(item, place)

    step = ScriptedStep(dies)
    with pytest.raises(
        SteerError, match=r"nothing has succeeded .* connect \(connection refused\) at item 'thing \d+'"
    ):
        await work(tmp_path, step, things(count))
    assert list(ends(tmp_path).values()) == ["kept"] * lives
    assert sum(step.tries.values()) <= lives + FAST.dead_after + 2 * FAST.in_flight

    again = ScriptedStep()
    await work(tmp_path, again, things(count))
    assert list(ends(tmp_path).values()) == ["kept"] * count
    assert set((step.calls + again.calls).values()) == {1}  # nothing was paid for twice


async def test_the_last_items_are_given_up_only_when_asked_for(tmp_path: Path) -> None:
    async def dead(item: Thing, place: Place) -> Done:
        raise lost()

    with pytest.raises(SteerError, match="give_up=true"):
        await work(tmp_path, ScriptedStep(dead), things(2))
    await work(tmp_path, ScriptedStep(dead), things(50), FAST.model_copy(update={"give_up": True}))
    assert list(ends(tmp_path).values()) == ["connect"] * 50


async def test_a_fault_of_the_step_names_the_item_and_loses_nothing(tmp_path: Path) -> None:
    async def faulty(item: Thing, place: Place) -> Done:
        if item.size == 17:
            raise KeyError("nobody")
        if item.size > 17:
            await asyncio.sleep(0.01)
            raise KeyError("a later one")
        return await keep(item, place)

    step = ScriptedStep(faulty)
    with pytest.raises(SteerError, match=r"scripted/thing 17: the step failed \(KeyError: 'nobody'\)"):
        await work(tmp_path, step, things(40))
    before = ends(tmp_path)
    assert before.keys() == {f"thing {n}" for n in range(17)}
    mended = ScriptedStep()
    await work(tmp_path, mended, things(40))
    assert len(ends(tmp_path)) == 40 and not before.keys() & mended.tries.keys()
    assert set((step.calls + mended.calls).values()) == {1}


async def test_a_step_that_calls_itself_off_is_told(tmp_path: Path) -> None:
    async def off(item: Thing, place: Place) -> Done:
        raise asyncio.CancelledError

    with pytest.raises(SteerError, match=r"scripted/thing \d: the step called itself off"):
        await work(tmp_path, ScriptedStep(off), things(3))


async def test_a_source_that_breaks_is_told_in_its_own_words(tmp_path: Path) -> None:
    def breaks() -> Iterator[Thing]:
        yield from things(5)
        raise DataError("seeds.jsonl:6: not JSON; mend it")

    with pytest.raises(DataError, match=r"seeds\.jsonl:6"):
        await work(tmp_path, ScriptedStep(), breaks())
    with pytest.raises(DataError, match="'thing 1' stands twice"):
        await work(tmp_path, ScriptedStep(), [*things(5), *things(2)[1:]])
    await work(tmp_path, ScriptedStep(), things(5))
    assert list(ends(tmp_path).values()) == ["kept"] * 5


async def test_called_off_at_any_moment_it_goes_on_and_pays_for_nothing_twice(tmp_path: Path) -> None:
    rng = random.Random(5)
    steps = []

    async def waits(item: Thing, place: Place) -> Done:
        await asyncio.sleep(0.002 * rng.random())
        if rng.random() < 0.05:
            raise lost()
        return await odd_ones_out(item, place)

    patient = FAST.model_copy(update={"tries": 20})
    for _ in range(30):
        steps.append(ScriptedStep(waits))
        run = asyncio.create_task(work(tmp_path, steps[-1], things(300), patient))
        await asyncio.sleep(0.008 * rng.random())
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        ends(tmp_path)
    assert 30 < len(ends(tmp_path)) < 300
    await work(tmp_path, steps[-1], things(300), patient)
    assert ends(tmp_path) == {f"thing {n}": "odd" if n % 2 else "kept" for n in range(300)}
    made = sum((step.calls for step in steps), start=Counter[str]())
    assert set(made) == {f"thing {n}/{call}" for n in range(300) for call in ("one", "two")}
    assert set(made.values()) == {1}


async def test_a_call_that_does_not_end_is_left_after_a_while_and_made_again(tmp_path: Path) -> None:
    async def hangs(item: Thing, place: Place) -> Done:
        await asyncio.Event().wait()
        return await keep(item, place)

    step = ScriptedStep(hangs)
    run = asyncio.create_task(work(tmp_path, step, things(20), FAST.model_copy(update={"grace": 0.05})))
    await asyncio.sleep(0.05)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert len(step.tries) == FAST.in_flight and not ends(tmp_path)
    again = ScriptedStep()
    await work(tmp_path, again, things(20))
    assert set((step.calls + again.calls).values()) == {1}


async def test_nothing_new_is_begun_while_as_many_wait_as_may_be_at_work(tmp_path: Path) -> None:
    async def half_lost(item: Thing, place: Place) -> Done:
        if step.tries[item.id] == 1 and item.size % 2:
            raise lost()
        return await keep(item, place)

    settings = WorkSettings(in_flight=4, pause=1.5, shards=1)
    step = ScriptedStep(half_lost)
    running = asyncio.create_task(work(tmp_path, step, things(60), settings))
    tried = -1
    while tried != len(step.tries):  # until it stands still
        tried = len(step.tries)
        await asyncio.sleep(0.3)
    assert 2 * settings.in_flight <= tried <= 4 * settings.in_flight
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await work(tmp_path, ScriptedStep(), things(60), settings)
    assert list(ends(tmp_path).values()) == ["kept"] * 60


async def test_a_dead_endpoint_is_known_by_its_failures_in_a_row_before_any_item_has_failed_for_good(
    tmp_path: Path,
) -> None:
    async def dead(item: Thing, place: Place) -> Done:
        raise lost()

    settings = WorkSettings(in_flight=50, pause=600.0, dead_after=20)
    with pytest.raises(SteerError, match="since the last 20 failures"):
        await asyncio.wait_for(work(tmp_path, ScriptedStep(dead), things(500), settings), 30)


class OpenedStep(ScriptedStep):
    """Opens, or says why not."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault, self.opened = fault, 0

    async def open(self) -> None:
        """See :class:`~steer_verl.work.step.Step`."""
        await asyncio.sleep(0)
        self.opened += 1
        if self.fault:
            raise SteerError(self.fault)


async def test_a_step_is_opened_once_and_only_if_an_item_is_left(tmp_path: Path) -> None:
    step, again = OpenedStep(), OpenedStep()
    await work(tmp_path, step, things(20))
    await work(tmp_path, again, things(20))
    assert (step.opened, again.opened) == (1, 0)


async def test_a_step_that_does_not_open_touches_no_item(tmp_path: Path) -> None:
    step = OpenedStep("no judge at http://127.0.0.1:9; start it")
    with pytest.raises(SteerError, match=r"^no judge at"):
        await work(tmp_path, step, things(20))
    assert not step.calls and not ends(tmp_path)
    await work(tmp_path, OpenedStep(), things(20))
    assert set(ends(tmp_path).values()) == {"kept"}


async def test_what_was_made_of_an_item_stays_in_its_rejection(tmp_path: Path) -> None:
    async def half(item: Thing, place: Place) -> Done:
        if item.size == 3:
            raise AgentFailed("timeout", transient=True, value={"half": True})
        return await keep(item, place)

    await work(tmp_path, ScriptedStep(half), things(20))
    (rejected,) = (one.done for one in read_outcomes(tmp_path) if isinstance(one.done, Rejected))
    assert rejected.reason == "timeout" and rejected.value == {"half": True}


def test_a_failure_crosses_processes_whole() -> None:
    failure = AgentFailed("timeout", "late", transient=True, value={"half": True}, stage="screen")
    again = pickle.loads(pickle.dumps(failure))
    assert vars(again) == vars(failure) and again.args == failure.args
