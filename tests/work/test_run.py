"""The door: plans, manifests, progress, and closing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from steer_verl.errors import ConfigError, DataError, SteerError
from steer_verl.types import Usage
from steer_verl.work.manifest import account, check, read_manifest, write_manifest
from steer_verl.work.plan import Plan, differences, settle, shard_of
from steer_verl.work.progress import Progress
from steer_verl.work.run import run
from steer_verl.work.step import Desk, Done, Kept, Outcome, Rejected
from steer_verl.work.tally import Tally
from tests.work.scripted import CALL, FAST, ScriptedStep, Thing, job, keep, lost, odd_ones_out, paper

PRINT = {"generator": {"model": "a", "prompt": "1f"}, "kinds": ["benign"], "share": 0.5}


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


def test_an_unfinished_step_is_counted_with_what_it_has_cost(tmp_path: Path) -> None:
    async def dead(item: Thing, desk: Desk) -> Done:
        if item.size > 5:
            raise lost()
        return await keep(item, desk)

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
    check([good])
    for change in ({"kept": 4}, {"rejected": {"odd": 5}}, {"undone": 1}, {"entered": 8}):
        with pytest.raises(DataError, match=r"step 'scripted': \d+ in, but"):
            check([good, good.model_copy(update=change)])
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
    other = {**PRINT, "generator": {"model": "b", "prompt": "1f"}, "new": 1}
    with pytest.raises(ConfigError, match=r'generator.model: "a" -> "b"; new: \(none\) -> 1; use a new folder'):
        run(job(tmp_path, ScriptedStep(), 9), other)
    found = run(job(tmp_path, ScriptedStep(), 9), other, accept_changes=True)
    assert (found.kept, found.fingerprint, found.earlier) == (9, other, [PRINT])
    assert run(job(tmp_path, ScriptedStep(), 9), other).kept == 9
    with pytest.raises(ConfigError, match="begun with shards 3, not 4"):
        run(job(tmp_path, ScriptedStep(), 9, FAST.model_copy(update={"shards": 4})), other, accept_changes=True)


def test_a_plan_is_compared_as_json_sees_it(tmp_path: Path) -> None:
    plan = Plan(step="s", shards=1, fingerprint={"a": (1, 2), "b": {"c": None}})
    settle(tmp_path, plan)
    settle(tmp_path, plan)
    assert list(differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "c": 2})) == []
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(DataError, match=r"plan\.json: not a plan"):
        settle(tmp_path, plan)
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


def test_rate_and_time_left_are_of_late() -> None:
    now = 0.0
    tally = Tally("s", total=1000, clock=lambda: now)
    tally.before = 100
    assert tally.left is None
    for second in range(1, 200):
        now = float(second)
        tally.end(Outcome(id="x", done=Kept(value={}), usage=CALL))
        if second > 100:
            tally.end(Outcome(id="x", done=Rejected(reason="odd")))
    assert tally.rate == pytest.approx(2.0, rel=0.05)
    assert tally.left == pytest.approx((1000 - 100 - 298) / 2, rel=0.05)
    assert tally.line() == "s 398/1,000 · kept 199 · rejected 99 · before 100 · 2.0/s · cost 99.5 · about 5:01 left"
    assert tally.usage == Usage(requests=199, prompt_tokens=1990, completion_tokens=995, cost=99.5)


def test_plain_lines_come_now_and_then_and_an_interruption_is_told() -> None:
    console = paper()
    with pytest.raises(KeyboardInterrupt), Progress(Tally("s"), console, every=0.0) as progress:
        progress.tick()
        progress.tick()
        raise KeyboardInterrupt
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(lines) == 4 and lines[-1] == "s: interrupted; what was done is kept, and the same command goes on"
    silent = paper()
    with Progress(Tally("s"), silent, every=1000.0) as progress:
        progress.tick()
    assert len(silent.file.getvalue().splitlines()) == 1  # type: ignore[attr-defined]


def test_on_a_terminal_one_live_line_is_shown(tmp_path: Path) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    run(job(tmp_path, ScriptedStep(), 12), PRINT, total=12, console=terminal)
    assert "scripted 12/12 · kept 12 · rejected 0" in terminal.file.getvalue()  # type: ignore[attr-defined]
