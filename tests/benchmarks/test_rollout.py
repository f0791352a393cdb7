"""The rollout benchmark's own tools: what a dialogue waited for, stalls, the tutor's prompts, and the page."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.rollout import estimator, page, pictures, prefill, waiting
from benchmarks.rollout.page import Row
from benchmarks.rollout.simulation import Pace, keep
from steer_verl.errors import TutorError
from steer_verl.tutor.prompt import PromptBuilder, Rubric, Task


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


class Caching:
    """A server that reads words for tokens and caches by slot, and the bodies that came."""

    def __init__(self, reports: bool = True) -> None:
        self.seen: dict[int, list[str]] = {}
        self.bodies: list[dict[str, Any]] = []
        self.reports = reports
        self.http = httpx.Client(base_url="http://s/v1", transport=httpx.MockTransport(self.answer))

    def answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.bodies.append(body)
        tokens = " ".join(f"<|{m['role']}|> {m['content']}" for m in body["messages"]).split()
        pairs = zip(tokens, self.seen.get(body.get("id_slot", 0), []), strict=False)
        cached = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        self.seen[body.get("id_slot", 0)] = tokens
        details = {"prompt_tokens_details": {"cached_tokens": cached}} if self.reports else {}
        return httpx.Response(200, json={"usage": {"prompt_tokens": len(tokens), **details}})


def test_both_layouts_carry_the_same_words() -> None:
    builder = PromptBuilder(Rubric.load(), image=None, secret=b"secret")
    for exchange in prefill.dialogue(0):
        prompt = builder.build(exchange, Task.BOTH)
        said = {name: "\n".join(m["content"] for m in layout(prompt)) for name, layout in prefill.LAYOUTS.items()}
        assert sorted(said["ours"].split()) == sorted(said["rubric last"].split())
        assert said["ours"].startswith(prompt.system) and said["rubric last"].startswith(str(prompt.history[0]))
        assert said["rubric last"].index(prompt.system) > said["rubric last"].index(exchange.answer[:20])


def test_a_dialogue_grows_by_what_was_said_and_rollouts_share_the_opening_alone() -> None:
    one, other = prefill.dialogue(3), prefill.dialogue(3, rollout=1)
    assert len(one) == prefill.TURNS and one == prefill.dialogue(3)
    assert one[0].user == other[0].user and one[0].seed == other[0].seed
    assert [e.answer for e in one] != [e.answer for e in other]
    assert [e.static_next_turn is None for e in one] == [False] * 7 + [True]
    for before, after in itertools.pairwise(one):
        closed = [*((turn.user, turn.answer) for turn in before.turns), (before.user, before.answer)]
        assert [(turn.user, turn.answer) for turn in after.turns] == closed


def test_no_session_finds_another_ones_prefix() -> None:
    played = [prefill.dialogue(0)]
    firsts = [next(iter(prefill.session(name, played)))[0]["content"] for name in [*prefill.LAYOUTS] * 2]
    assert len({text.splitlines()[0] for text in firsts}) == 4


def test_what_the_server_had_in_its_cache_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(prefill.SLOTS, "2")
    server, played = Caching(), [prefill.dialogue(3, rollout) for rollout in range(2)]
    ours, last = (prefill.computed(server.http, layout, played) for layout in prefill.LAYOUTS)
    assert 0 < ours < prefill.DEMAND * last
    assert [body["id_slot"] for body in server.bodies] == [0, 1] * 16
    assert all(body["max_tokens"] == 1 for body in server.bodies)


def test_a_server_that_hides_its_cache_or_is_not_there_is_told() -> None:
    with pytest.raises(TutorError, match="cached_tokens is missing"):
        prefill.computed(Caching(reports=False).http, "ours", [prefill.dialogue(0)])
    with httpx.Client(base_url="http://127.0.0.1:9/v1") as http, pytest.raises(TutorError, match=prefill.URL):
        prefill.computed(http, "ours", [prefill.dialogue(0)])


def test_without_a_server_no_figure_and_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv(prefill.URL, raising=False)
    assert prefill.measure(tmp_path) is None and prefill.URL in capsys.readouterr().out


def test_the_slowest_preset_is_held_against_the_demand() -> None:
    times = {"verl grpo": 5.0, "a": 9.0, "b": 10.1}
    found = estimator.row(times, 320, 10_240)
    assert (found.ours, found.other, found.met) == (10.1, 5.0, False)
    assert estimator.row({**times, "b": 10.0}, 320, 10_240).met


def results() -> dict[str, Any]:
    """Made-up figures of every part."""
    rows = [
        Row("passes", "", 1, 15, "1", True).as_dict(),
        Row("320 dialogues, no limit: wall / bound", "", 1.06, 2.7, "at most 1.10", True).as_dict(),
        Row("stall", "ms", 31.4, None, "under 20 ms", False).as_dict(),
    ]
    point = dict.fromkeys(page.RUN, 1.1) | {"dialogues": 32}
    told = {"rows": rows, "notes": ["A note."], "where": "here"}
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
