"""The door: plans, manifests, progress, and closing."""

from __future__ import annotations

import errno
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from steer_verl.errors import ConfigError, DataError, SteerError
from steer_verl.models.failure import AgentFailed
from steer_verl.models.place import Place
from steer_verl.types import Usage
from steer_verl.work import progress
from steer_verl.work.job import Job
from steer_verl.work.manifest import Manifest, account, differences, read_manifest, read_plan, write_manifest
from steer_verl.work.outcomes import outcome_pointers, read_outcomes, shard_of
from steer_verl.work.progress import Tally
from steer_verl.work.run import run
from steer_verl.work.step import Done, Kept, Outcome, Rejected, given_up
from steer_verl.work.store import STATE
from tests.work.scripted import CALL, FAST, ScriptedStep, Thing, job, keep, lost, odd_ones_out, paper, things

PRINT = {"generator": {"model": "a", "prompt": "1f"}, "kinds": ["benign"], "share": 0.5}
OTHER = {**PRINT, "generator": {"model": "b", "prompt": "1f"}, "new": 1}


class Killed(BaseException):
    """The process would have been killed here."""


def test_a_run_is_counted_from_what_lies_on_disk(tmp_path: Path) -> None:
    step, console = ScriptedStep(odd_ones_out), paper()
    found = run(job(tmp_path / "s", step, 31), PRINT, total=31, console=console)
    assert (found.entered, found.kept, found.rejected, found.undone) == (31, 16, {"odd": 15}, 0)
    assert found.complete and found.usage.requests == 62 and found.usage.cost == 31.0
    assert found.fingerprint == PRINT and found.earlier == []
    assert step.closed
    assert "scripted 31/31 · kept 16 · rejected 15" in console.file.getvalue()  # type: ignore[attr-defined]
    write_manifest(tmp_path / "manifest.json", [found])
    assert read_manifest(tmp_path / "manifest.json").steps == [found]
    assert json.loads((tmp_path / "manifest.json").read_text())["steps"][0]["in"] == 31


def test_an_item_that_holds_something_else_is_worked_again_by_what_it_had(tmp_path: Path) -> None:
    step = ScriptedStep(odd_ones_out)
    run(job(tmp_path, step, 12, content=_size), PRINT)
    step.tries.clear()
    before, calls = sorted(outcome.id for outcome in read_outcomes(tmp_path)), step.calls.copy()
    changed = replace(job(tmp_path, step, 12, content=_size), items=_thing_7_is_even_now)
    found = run(changed, PRINT)
    assert (found.entered, found.kept, found.rejected) == (12, 7, {"odd": 5})
    assert step.tries == {"thing 7": 1} and step.calls == calls
    assert sorted(outcome.id for outcome in read_outcomes(tmp_path)) == before
    for path in tmp_path.glob(f"shard-*/{STATE}"):
        path.unlink()  # the outcomes tell what they are of
    assert run(changed, PRINT).kept == 7 and step.tries == {"thing 7": 1}


def _size(item: Thing) -> str:
    return str(item.size)


def _thing_7_is_even_now() -> list[Thing]:
    return [Thing(id=item.id, size=8 if item.size == 7 else item.size) for item in things(12)]


def test_an_unfinished_step_is_counted_with_what_it_has_cost(tmp_path: Path) -> None:
    async def dead(item: Thing, place: Place) -> Done:
        if item.size > 5:
            raise lost()
        return await keep(item, place)

    step = ScriptedStep(dead)
    with pytest.raises(SteerError):
        run(job(tmp_path, step, 2000), PRINT)
    assert step.closed
    found = account(tmp_path, {"generator": "a"})
    assert found.kept == 6 and found.undone > 0 and not found.complete and found.rejected == {}
    assert found.entered == found.kept + found.undone == len(step.tries)
    assert found.usage.requests == sum(step.calls.values())
    assert found.agents == {"generator": "a"}


def test_counts_that_do_not_add_up_name_their_step(tmp_path: Path) -> None:
    good = run(job(tmp_path / "s", ScriptedStep(odd_ones_out), 9), PRINT)
    Manifest(steps=[good])
    for change in ({"kept": 4}, {"rejected": {"odd": 5}}, {"undone": 1}, {"entered": 8}):
        with pytest.raises(DataError, match=r"step 'scripted': \d+ in, but"):
            Manifest(steps=[good, good.model_copy(update=change)])
        with pytest.raises(DataError):
            write_manifest(tmp_path / "manifest.json", [good.model_copy(update=change)])
    assert not (tmp_path / "manifest.json").exists()
    path = tmp_path / "manifest.json"
    write_manifest(path, [good])
    path.write_text(path.read_text().replace('"kept": 5', '"kept": 50'))
    with pytest.raises(DataError, match="in, but"):
        read_manifest(path)


def test_other_settings_do_not_go_on_in_the_same_folder(tmp_path: Path) -> None:
    run(job(tmp_path, ScriptedStep(), 3), PRINT)
    with pytest.raises(ConfigError, match=r'generator.model: "a" -> "b"; new: \(none\) -> 1; set it back'):
        run(job(tmp_path, ScriptedStep(), 9), OTHER)
    with pytest.raises(ConfigError, match="begun with shards 3, not 4"):
        run(job(tmp_path, ScriptedStep(), 9, FAST.model_copy(update={"shards": 4})), OTHER, accept_changes=True)


def test_accepted_changes_leave_no_outcome_of_other_settings_and_replay_what_is_unchanged(tmp_path: Path) -> None:
    first = run(job(tmp_path, ScriptedStep(odd_ones_out), 20), PRINT)
    again = ScriptedStep()
    found = run(job(tmp_path, again, 24), OTHER, accept_changes=True)
    assert (found.entered, found.kept, found.rejected) == (24, 24, {})
    assert (found.fingerprint, found.earlier) == (OTHER, [PRINT])
    assert set(again.calls) == {f"thing {n}/{call}" for n in range(20, 24) for call in ("one", "two")}
    assert found.usage.requests == first.usage.requests + 8, "what is replayed costs nothing"
    assert len(list(tmp_path.glob("shard-*/earlier-1.jsonl"))) == 3, "the earlier ones are still there"
    assert run(job(tmp_path, ScriptedStep(), 24), OTHER).kept == 24
    back = run(job(tmp_path, ScriptedStep(odd_ones_out), 24), PRINT, accept_changes=True)
    assert back.rejected == {"odd": 12} and back.earlier == [PRINT, OTHER]


@pytest.mark.parametrize("killed_at", range(7))
def test_killed_while_changes_are_accepted_no_two_settings_are_ever_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    for count in (20, 40):  # two files in every shard
        run(job(tmp_path, ScriptedStep(odd_ones_out), count), PRINT)
    replaced, replace = 0, os.replace

    def killed(old: Any, new: Any) -> None:
        nonlocal replaced
        replaced += 1
        if replaced > killed_at:
            raise Killed
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(Killed):
            run(job(tmp_path, ScriptedStep(), 40), OTHER, accept_changes=True)
    plan = read_plan(tmp_path)
    assert plan is not None
    kept = {outcome.id for outcome in read_outcomes(tmp_path) if isinstance(outcome.done, Kept)}
    assert all(int(item.split()[1]) % 2 == 0 for item in kept) if plan.fingerprint == PRINT else not kept
    found = run(job(tmp_path, ScriptedStep(), 40), OTHER, accept_changes=True)
    assert (found.kept, found.rejected, found.fingerprint) == (40, {}, OTHER)


async def flaky(item: Thing, place: Place) -> Done:
    """Two in five have an agent that never comes; one in five is rejected for good."""
    if item.size % 5 < 2:
        raise lost("no reply")
    return Rejected(reason="odd", stage="screen") if item.size % 5 == 2 else await keep(item, place)


def test_items_that_were_given_up_are_worked_again_on_demand_and_no_others(tmp_path: Path) -> None:
    patient = FAST.model_copy(update={"give_up": True, "tries": 2})
    found = run(job(tmp_path, ScriptedStep(flaky), 40, patient), PRINT)
    assert found.rejected == {"connect": 16, "odd": 8} and found.complete
    lost_ones = [outcome for outcome in read_outcomes(tmp_path) if given_up(outcome)]
    assert {outcome.done.reason for outcome in lost_ones} == {"connect"} and len(lost_ones) == 16
    assert run(job(tmp_path, ScriptedStep(), 40, patient), PRINT).rejected == found.rejected, "not unless it is asked"

    again = ScriptedStep()
    found = run(job(tmp_path, again, 40, patient), PRINT, retry=given_up)
    assert (found.entered, found.kept, found.rejected) == (40, 32, {"odd": 8})
    assert sorted(again.tries) == sorted(outcome.id for outcome in lost_ones)
    assert not again.calls and found.usage.requests == 80, "what they had is replayed"
    aside = [line for path in tmp_path.glob("shard-*/retried.jsonl") for line in path.read_text().splitlines()]
    assert len(aside) == 16 and len(list(read_outcomes(tmp_path))) == 40


def test_a_stage_stands_beside_its_reason(tmp_path: Path) -> None:
    async def staged(item: Thing, place: Place) -> Done:
        if item.size % 4 == 0:
            raise AgentFailed("refusal", "no", stage="expand")
        if item.size % 4 == 1:
            return Rejected(reason="refusal", stage="screen")
        return await keep(item, place) if item.size % 4 == 2 else Rejected(reason="odd")

    found = run(job(tmp_path, ScriptedStep(staged), 40), PRINT)
    assert found.rejected == {"odd": 10, "refusal": 20} and found.kept == 10
    assert found.stages == {"expand": {"refusal": 10}, "screen": {"refusal": 10}}


def test_a_job_that_has_finished_with_the_same_source_is_not_read_again(tmp_path: Path) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("read or made again")

    first = run(job(tmp_path, ScriptedStep(odd_ones_out), 30, source="a"), PRINT, agents={"generator": "x"})
    assert first.complete and first.source == "a"
    console = paper()
    idle = Job("scripted", tmp_path, never, never, FAST, source="a")
    assert run(idle, PRINT, agents={"generator": "x"}, total=30, console=console) == first
    assert "scripted 30/30" in console.file.getvalue()  # type: ignore[attr-defined]
    for changed in (Job("scripted", tmp_path, never, never, FAST, source="b"), Job("scripted", tmp_path, never, never)):
        with pytest.raises((AssertionError, ConfigError)):
            run(changed, PRINT)
    assert not account(tmp_path).undone


def test_another_source_goes_on_and_what_is_gone_counts_no_more(tmp_path: Path) -> None:
    def of(step: ScriptedStep, numbers: range, source: str) -> Job[Thing]:
        made = job(tmp_path, step, 0, source=source)
        return replace(made, items=lambda: (Thing(id=f"thing {n}", size=n) for n in numbers))

    run(of(ScriptedStep(), range(20), "a"), PRINT)
    second = ScriptedStep()
    found = run(of(second, range(5, 30), "b"), PRINT)
    assert (found.entered, found.kept, found.source, found.complete) == (25, 25, "b", True)
    assert set(second.tries) == {f"thing {n}" for n in range(20, 30)}
    assert {(one.done.value or {})["size"] for one in read_outcomes(tmp_path)} == set(range(5, 30))
    assert {outcome.id for outcome, _ in outcome_pointers(tmp_path)} == {f"thing {n}" for n in range(5, 30)}
    third = ScriptedStep()
    assert run(of(third, range(20), "a"), PRINT).entered == 20
    assert set(third.tries) == {f"thing {n}" for n in range(5)} and not third.calls, "who comes back is replayed"


def test_a_plan_is_compared_as_json_sees_it(tmp_path: Path) -> None:
    for _ in range(2):
        run(job(tmp_path, ScriptedStep(), 3), {"a": (1, 2), "b": {"c": None}})
    assert list(differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "c": 2})) == []
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(DataError, match=r"plan\.json: not a plan"):
        run(job(tmp_path, ScriptedStep(), 3), {})
    with pytest.raises(DataError, match="no step was begun here"):
        account(tmp_path / "nowhere")


def test_a_job_whose_step_has_another_name_is_told(tmp_path: Path) -> None:
    step = ScriptedStep()
    named = job(tmp_path, step, 3)
    step.name = "another"  # type: ignore[misc]
    with pytest.raises(SteerError, match="makes a step called 'another'"):
        run(named, {})
    assert step.closed


def test_items_are_dealt_evenly_and_for_good() -> None:
    dealt = [shard_of(f"item {n}", 8) for n in range(8000)]
    assert all(850 < dealt.count(shard) < 1150 for shard in range(8))
    assert [shard_of(name, 8) for name in ("a", "b", "ä")] == [7, 5, 1]


def test_rate_and_time_left_are_of_late(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    tally = Tally("s", total=1000)
    tally.before = 100
    assert "left" not in tally.line()
    for second in range(1, 200):
        now = float(second)
        tally.end(Outcome(id="x", done=Kept(value={}), usage=CALL))
        if second > 100:
            tally.end(Outcome(id="x", done=Rejected(reason="odd")))
    assert tally.rate == pytest.approx(2.0, rel=0.05)
    assert tally.line() == "s 398/1,000 · kept 199 · rejected 99 · before 100 · 2.0/s · cost 99.5 · about 5:01 left"
    assert tally.usage == Usage(requests=199, prompt_tokens=1990, completion_tokens=995, cost=99.5)


def test_plain_lines_come_now_and_then_and_an_interruption_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    console = paper()
    with pytest.raises(KeyboardInterrupt), Tally("s", console=console) as tally:
        tally.tick()
        tally.tick()
        raise KeyboardInterrupt
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 4 and lines[-1] == "s: interrupted; what was done is kept, and the same command goes on"
    monkeypatch.setattr(progress, "PLAIN_EVERY", 1000.0)
    silent = paper()
    with Tally("s", console=silent) as tally:
        tally.tick()
    assert len(silent.file.getvalue().splitlines()) == 1  # type: ignore[attr-defined]


def test_on_a_terminal_one_live_line_is_shown(tmp_path: Path) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    run(job(tmp_path, ScriptedStep(), 12), PRINT, total=12, console=terminal)
    assert "scripted 12/12 · kept 12 · rejected 0" in terminal.file.getvalue()  # type: ignore[attr-defined]


def test_a_full_disk_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("steer_verl.records.os.fsync", full)
    with pytest.raises(SteerError, match=r"plan\.json: cannot be written \(No space left.*the same command goes on"):
        run(job(tmp_path, ScriptedStep(), 3), PRINT)
    monkeypatch.undo()
    assert run(job(tmp_path, ScriptedStep(), 3), PRINT).kept == 3
