"""The rollout benchmark's own tools: who stopped the event loop, what a dialogue waited for, and the page."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.rollout import page
from benchmarks.rollout.pace import Pace, keep
from benchmarks.rollout.row import Row
from benchmarks.rollout.stalls import Meter, stepped, watched


async def test_a_stay_in_our_code_is_told_from_the_rest_of_its_step() -> None:
    async def ours() -> str:
        time.sleep(0.02)
        await asyncio.sleep(0.03)  # waiting is no stay
        with pytest.raises(ValueError, match="thrown in"):
            await asyncio.ensure_future(failing())
        end = time.thread_time() + 0.01
        while time.thread_time() < end:
            pass
        return "done"

    async def failing() -> None:
        raise ValueError("thrown in")

    async def step() -> str:
        time.sleep(0.04)
        return await meter.coroutine(ours)()

    with watched() as found:
        meter = Meter(found)
        handle = asyncio.Handle._run
        asyncio.Handle._run = stepped(handle, found, meter)
        try:
            assert await asyncio.create_task(step()) == "done"
        finally:
            asyncio.Handle._run = handle
    assert 0.06 <= found.longest() < 0.2
    assert 0.02 <= found.longest_of_ours() < 0.05 and found.entered == 3
    assert 0.009 <= found.most_work_of_ours() < 0.02


async def test_what_a_dialogue_waits_for_is_on_its_own_account_tools_included() -> None:
    pace = Pace(student=0.002, tutor=0.004)
    keep(pace)

    async def played() -> None:
        for _ in range(3):
            pace.draw(pace.student)
            await asyncio.gather(pace.tutoring())  # as verl calls its tools: in a task of their own

    await asyncio.gather(*(asyncio.create_task(played()) for _ in range(4)))
    assert [len(waits) for waits in pace.waits] == [6] * 4
    assert all(seconds > 0 for waits in pace.waits for seconds in waits)


async def test_a_limited_tutor_works_on_so_many_at_once() -> None:
    pace = Pace(tutor=0.02, tutor_slots=2)
    began = time.perf_counter()
    await asyncio.gather(*(asyncio.create_task(pace.tutoring()) for _ in range(8)))
    assert time.perf_counter() - began >= sum(sum(waits) for waits in pace.waits) / 2 * 0.99


def results() -> dict[str, Any]:
    """Made-up figures of every part."""
    rows = [
        Row("passes", "", 1, 15, "1", True).as_dict(),
        Row("320 dialogues, no limit: wall / bound", "", 1.06, 2.7, "at most 1.10", True).as_dict(),
        Row("stall", "ms", 31.4, None, "under 20 ms", False).as_dict(),
    ]
    point = {"dialogues": 32, "wall": 9.0, "critical_path": 8.0, "cpu_ms_per_turn": 6.0, "loop_ms_per_turn": 5.0}
    run = {**point, "limit": "no limit", "side": "ours", "work_over_capacity": 0.0, "over_bound": 1.1}
    cost = [{"owner": "verl", "what": "x.py", "share": 0.25}]
    told = {"rows": rows, "notes": ["A note."], "where": "here"}
    waiting = {**told, "runs": [run], "curve": [point, {**point, "dialogues": 2560}]}
    limits = {**told, "runs": [{**run, "limit": "tutor"}]}
    return {"pictures": told, "waiting": waiting, "limits": limits, "costs": {**told, "simulated": cost, "real": cost}}


def test_the_page_has_every_figure_its_ratio_and_whether_the_demand_is_met(tmp_path: Path) -> None:
    text = page.write(results(), tmp_path).read_text()
    assert "| passes | 1 | 15 | 0.0667 | 1 | yes |" in text
    assert "| stall | 31.4 ms |  |  | under 20 ms | **no** |" in text
    assert "| `x.py` | verl | 25.0 % |" in text and "A note." in text
    assert (tmp_path / "rollout.png").stat().st_size > 10_000


def test_a_page_of_a_part_alone_needs_no_other(tmp_path: Path) -> None:
    text = page.write({"pictures": results()["pictures"]}, tmp_path).read_text()
    assert "Pictures" in text and "rollout.png" not in text and not (tmp_path / "rollout.png").exists()
