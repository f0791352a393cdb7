"""The rollout benchmark's own tools: what a dialogue waited for, stalls, and the page."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.rollout import estimator, page, pictures, waiting
from benchmarks.rollout.page import Row
from benchmarks.rollout.simulation import QUESTION, Pace


async def test_what_a_dialogue_waits_for_is_on_its_own_account_tools_included() -> None:
    pace = Pace(student=0.002, tutor=0.004)

    async def played() -> None:
        for _ in range(3):
            await pace.take("student")
            await asyncio.gather(pace.take("tutor"))  # as verl calls its tools: in a task of their own

    await asyncio.gather(*(asyncio.create_task(played()) for _ in range(4)))
    assert [len(waits) for waits in pace.waits] == [6] * 4
    assert all(seconds > 0 for waits in pace.waits for seconds in waits)


async def test_a_limited_tutor_works_on_so_many_at_once() -> None:
    pace = Pace(tutor=0.02, tutor_slots=2)
    began = time.perf_counter()
    await asyncio.gather(*(asyncio.create_task(pace.take("tutor")) for _ in range(8)))
    assert time.perf_counter() - began >= sum(sum(waits) for waits in pace.waits) / 2 * 0.99


async def test_the_question_is_whole_before_the_ruling_is_over() -> None:
    pace, question, began = Pace(tutor=0.2), asyncio.Event(), time.perf_counter()
    ruling = asyncio.create_task(pace.take("tutor", question))
    await question.wait()
    asked, done = time.perf_counter() - began, ruling.done()
    await ruling
    ((seconds,),) = pace.waits
    assert not done and QUESTION * seconds * 0.99 <= asked < time.perf_counter() - began
    assert time.perf_counter() - began >= seconds * 0.99


def test_the_shortest_time_of_a_dialogue_ends_with_its_last_verdict() -> None:
    assert waiting.shortest([1, 2, 1, 4], 1.0) == 8
    assert waiting.shortest([1, 2, 1, 4], 0.5) == 1 + 1 + 1 + 4
    assert waiting.shortest([1, 20, 1, 4], 0.1) == 1 + 20, "a verdict may come after those of later turns"


async def test_a_step_that_holds_up_the_loop_is_found_and_waiting_is_none() -> None:
    async def played() -> None:
        await asyncio.sleep(0.1)
        time.sleep(0.04)

    with pictures.steps() as seconds:
        await asyncio.create_task(played())
    assert 0.04 <= max(seconds) < 0.1


def test_the_slowest_preset_is_held_against_the_demand() -> None:
    def row(slowest: float) -> Row:
        times = {"verl grpo": 5.0, "a": 9.0, "b": slowest}
        rows = [{"estimator": name, "ms": ms} for name, ms in times.items()]
        (found,) = estimator.shown({"dialogues": 320, "tokens": 10_240, "threads": 2, "rows": rows})["rows"]
        return found

    assert (row(10.1).ours, row(10.1).other, row(10.1).met) == (10.1, 5.0, False)
    assert row(10.0).met


def results() -> dict[str, Any]:
    """Made-up figures of every part."""
    rows = [
        Row("passes", "", 1, 15, "1", True),
        Row("320 dialogues, no limit: wall / bound", "", 1.06, 2.7, "at most 1.10", True),
        Row("stall", "ms", 31.4, None, "under 20 ms", False),
    ]
    point = dict.fromkeys(page.RUN, 1.1) | {"dialogues": 32}
    told = {"rows": [asdict(row) for row in rows], "notes": ["A note."], "where": "here"}
    run = {**point, "limit": "no limit", "side": "ours"}
    waiting = {**told, "runs": [run], "curve": [point, {**point, "dialogues": 2560}]}
    return {"pictures": told, "waiting": waiting, "limits": {**told, "runs": [{**run, "limit": "tutor"}]}}


def test_the_page_has_every_figure_its_ratio_and_whether_the_demand_is_met(tmp_path: Path) -> None:
    text = page.render(results(), tmp_path)
    assert (tmp_path / "rollout.md").read_text() == text
    assert "| passes | 1 | 15 | 0.0667 | 1 | yes |" in text
    assert "| stall | 31.4 ms |  |  | under 20 ms | **no** |" in text
    assert "| tutor | ours | 1.1 |" in text and "A note." in text
    assert (tmp_path / "rollout.png").stat().st_size > 10_000


def test_a_page_of_a_part_alone_needs_no_other(tmp_path: Path) -> None:
    text = page.render({"pictures": results()["pictures"]}, tmp_path)
    assert "Pictures" in text and "rollout.png" not in text and not (tmp_path / "rollout.png").exists()
