"""``steer eval retry`` over HTTP: only what is missing is asked for, and then the run is as one without faults."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steer_verl.errors import ConfigError, SteerError
from steer_verl.eval.config import EvalConfig
from steer_verl.eval.records import EvalEnd, Rating, Unrated
from steer_verl.eval.retry import retry_folder
from steer_verl.eval.run import evaluate
from steer_verl.eval.runs import EvalRun, read_run
from steer_verl.eval.working import Finished
from steer_verl.settings_file import parse_settings
from tests.data.samples import picture
from tests.eval.world import ITEMS, TURNS, Where, World, bench, recipe, settings, told
from tests.models.fault_server import Step, filtered, refuses, says, status
from tests.tutor.conftest import no_back_off

ROOT = Path(__file__).parents[2]
ON_ITS_WAY = 4 * (TURNS + 1)
"""Requests of the items at work, at most: one of the student's, and a rating for every turn."""
DOWN, PROSE = status(503), says("I would give it a three.", kind="prose")


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    with no_back_off():
        yield


def play(tmp_path: Path, server: World, out: str = "out", **more: Any) -> Finished:
    return evaluate(parse_settings(EvalConfig, settings(tmp_path, tmp_path / out, server, **more), "here"))


def same(one: EvalRun, other: EvalRun) -> bool:
    return [told(d) for d in one.dialogues] == [told(d) for d in other.dialogues]


def figures(out: Path) -> dict[str, Any]:
    """The summary without its time and cost."""
    summary = json.loads((out / "summary.json").read_text())
    return {name: value for name, value in summary.items() if name not in ("date", "usage")}


PASSING: dict[Where, Step] = {("judge", 0, 2): DOWN, ("judge", 1, 1): DOWN, ("judge", 1, 3): DOWN}
FOR_GOOD: dict[Where, Step] = {("judge", 2, 1): PROSE, ("judge", 3, 3): refuses(), ("judge", 3, 2): filtered()}
STUDENT: dict[Where, Step] = {("student", 4, 2): filtered(), ("student", 5, 3): DOWN}
LATER = [("judge", 4, 2), ("judge", 4, 3), ("judge", 5, 3), ("student", 4, 3)]
"""What comes after the answers that were missing."""


def test_only_what_is_missing_is_asked_for_and_the_figures_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    bench(tmp_path)
    with World().in_thread() as calm:
        whole = play(tmp_path, calm, "whole")
    with World({**PASSING, **FOR_GOOD, **STUDENT}).in_thread() as server:
        first = play(tmp_path, server)
        assert first.given_up == 3 and first.incomplete == 6
        ends = [d.end for d in first.run.dialogues]
        assert ends == [EvalEnd.COMPLETED] * 4 + [EvalEnd.STUDENT_FAILED] * 2
        reasons = {t.judged.reason for d in first.run.dialogues for t in d.turns if isinstance(t.judged, Unrated)}
        assert reasons == {"http_5xx", "bad_json", "refusal", "content_filter"}
        assert server.paid and same(play(tmp_path, server).run, first.run) and not server.paid, "run asks nobody again"

        server.faults = {}
        again = retry_folder(tmp_path / "out")
        assert server.paid == sorted([*PASSING, *FOR_GOOD, *STUDENT, *LATER]) and not server.twice
        assert again.incomplete == again.given_up == 0 and same(again.run, whole.run)
        assert figures(tmp_path / "out") == figures(tmp_path / "whole")
        assert again.run.about.usage.requests == ITEMS * TURNS * 2 + len(PASSING) + len(FOR_GOOD) + len(STUDENT)
        assert same(retry_folder(tmp_path / "out").run, whole.run) and not server.paid, "nothing is missing any more"
        assert same(play(tmp_path, server).run, whole.run) and not server.paid


def test_what_fails_again_is_asked_once_more_at_each_retry_and_what_is_had_stays(tmp_path: Path) -> None:
    bench(tmp_path)
    with World({("judge", 2, 1): PROSE, ("judge", 2, 2): DOWN}).in_thread() as server:
        play(tmp_path, server)
        for _ in range(2):
            server.paid  # noqa: B018
            server.faults = {("judge", 2, 1): PROSE}
            done = retry_folder(tmp_path / "out")
            lost = next(d for d in done.run.dialogues if d.id == "own/d2")
            assert [type(turn.judged) for turn in lost.turns] == [Unrated, Rating, Rating]
        assert server.paid == [("judge", 2, 1)] and not server.twice
        server.faults = {}
        assert retry_folder(tmp_path / "out").incomplete == 0 and server.paid == [("judge", 2, 1)]
        changed = settings(tmp_path, tmp_path / "out", server, max_turns=2)
        with pytest.raises(ConfigError, match="max_turns: 10 -> 2"):
            evaluate(parse_settings(EvalConfig, changed, "here"))
        anew = evaluate(parse_settings(EvalConfig, changed, "here"), accept_changes=True)
        assert anew.incomplete == 0 and not server.paid, "the retries of the folder are replayed too"


def test_a_tutor_that_failed_is_asked_again_and_its_dialogue_goes_on(tmp_path: Path) -> None:
    bench(tmp_path)
    faults: dict[Where, Step] = {("tutor", 1, 1): DOWN, ("tutor", 3, 3): DOWN, ("judge", 4, 2): PROSE}
    with World().in_thread() as calm:
        whole = play(tmp_path, calm, "whole", adaptive=True)
    assert [t.user.text for t in whole.run.dialogues[0].turns][1:] == [f"Written anew: q0 turn {t}?" for t in (2, 3)]
    with World(faults).in_thread() as server:
        first = play(tmp_path, server, adaptive=True)
        assert [d.end for d in first.run.dialogues].count(EvalEnd.TUTOR_FAILED) == 2
        assert first.given_up == 2 and first.run.dialogues[3].whole and server.paid
        server.faults = {}
        again = retry_folder(tmp_path / "out")
        rest = [(who, 1, t) for who in ("student", "judge", "tutor") for t in (2, 3)]
        assert server.paid == sorted([*faults, *rest]) and not server.twice
        assert same(again.run, whole.run) and again.given_up == 0


def test_settings_are_kept_without_keys_and_may_be_otherwise_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEER_TEST_KEY", "sk-secret")
    monkeypatch.chdir(tmp_path)
    bench(tmp_path)
    with World(PASSING).in_thread() as server:
        given = settings(Path(), Path("out"), server)
        evaluate(parse_settings(EvalConfig, given, "here"))
    kept = (tmp_path / "out" / "config.json").read_text()
    assert "sk-secret" not in kept and str(tmp_path / "bench.jsonl") in kept
    monkeypatch.chdir("/")
    with World().in_thread() as other:
        moved = [f"judge.endpoint.base_url={other.base_url}", f"student.endpoint.base_url={other.base_url}"]
        assert retry_folder(tmp_path / "out", moved).incomplete == 0
        assert other.paid == sorted(PASSING)
        with pytest.raises(ConfigError, match="begun with other settings: judge"):
            retry_folder(tmp_path / "out", [*moved, "judge.endpoint.model=other"])
    with pytest.raises(ConfigError, match=r"no config\.json there"):
        retry_folder(tmp_path)


def test_a_judge_that_is_still_down_stops_the_retry_and_loses_nothing(tmp_path: Path) -> None:
    bench(tmp_path)
    with World({("judge", n, t): DOWN for n in range(ITEMS) for t in range(1, TURNS + 1)}).in_thread() as server:
        assert play(tmp_path, server).given_up == ITEMS
        with pytest.raises(SteerError, match="the same command goes on"):
            retry_folder(tmp_path / "out", ["work.give_up=false"])
        server.faults, _ = {}, server.paid
        assert retry_folder(tmp_path / "out", ["work.give_up=false"]).incomplete == 0
        assert server.paid == [("judge", n, t) for n in range(ITEMS) for t in range(1, TURNS + 1)]


def test_a_row_that_could_not_be_played_is_played_once_it_can(tmp_path: Path) -> None:
    bench(tmp_path, range(2), image="shown.png")
    with World().in_thread() as server:
        assert [d.end for d in play(tmp_path, server).run.dialogues] == [EvalEnd.UNPLAYABLE] * 2
        picture(tmp_path / "shown.png")
        again = retry_folder(tmp_path / "out")
        assert again.incomplete == 0 and len(server.paid) == 2 * 2 * TURNS


def test_another_image_under_the_same_path_is_another_question(tmp_path: Path) -> None:
    bench(tmp_path, range(2), image="shown.png")
    picture(tmp_path / "shown.png", colour=(0, 0, 255))
    with World().in_thread() as server:
        first = play(tmp_path, server)
        assert len(server.paid) == 12 and same(play(tmp_path, server).run, first.run) and not server.paid
        picture(tmp_path / "shown.png", colour=(255, 0, 0))
        again = play(tmp_path, server)
        assert len(server.paid) == 12 and not server.twice
        assert [d.id for d in again.run.dialogues] == [d.id for d in first.run.dialogues]
        assert {d.digest for d in again.run.dialogues}.isdisjoint(d.digest for d in first.run.dialogues)


def test_a_folder_that_was_moved_with_its_benchmark_asks_nobody_and_finds_its_images(tmp_path: Path) -> None:
    here = tmp_path / "here"
    bench(here, range(2), image="shown.png")
    picture(here / "shown.png")
    with World().in_thread() as server:
        first = play(here, server)
        assert server.paid
        shutil.move(here, tmp_path / "there")
        there = tmp_path / "there"
        again = play(there, server)
        assert not server.paid
        shown = {image for d in again.run.dialogues for turn in d.turns for image in turn.user.images}
        assert shown == {str(there / "shown.png")} and read_run(there / "out") == again.run
        assert [d.digest for d in again.run.dialogues] == [d.digest for d in first.run.dialogues]


def test_another_student_answers_everything_anew_and_no_record_is_of_both(tmp_path: Path) -> None:
    bench(tmp_path)
    with World().in_thread() as server:
        first = play(tmp_path, server).run
        assert {d.student for d in first.dialogues} == {first.about.student} and server.paid
        given = settings(tmp_path, tmp_path / "out", server)
        given["student"]["max_answer_tokens"] = 77
        other = parse_settings(EvalConfig, given, "here")
        with pytest.raises(ConfigError, match="begun with other settings: student"):
            evaluate(other)
        assert read_run(tmp_path / "out") == first and retry_folder(tmp_path / "out").incomplete == 0
        anew = evaluate(other, accept_changes=True).run
        assert {d.student for d in anew.dialogues} == {anew.about.student} != {first.about.student}
        asked = [who for who, _, _ in server.paid]
        assert asked == ["student"] * (ITEMS * TURNS), "the same words are not judged again"


def test_a_moved_folder_keeps_its_own_images_and_its_benchmark_may_stay(tmp_path: Path) -> None:
    """Those of a single-turn set are re-encoded into the folder."""
    picture(tmp_path / "shown.png")
    row = {"question": "q0 turn 1?", "image": "shown.png", "license": "CC0-1.0", "unsafe": True}
    (tmp_path / "plain.jsonl").write_text(json.dumps(row) + "\n")
    source = {"own": {"source": {"set": "plain", "path": str(tmp_path / "plain.jsonl")}}}
    with World().in_thread() as server:
        play(tmp_path, server, "here", benchmarks=source)
        assert len(server.paid) == 2
        assert str(tmp_path) not in (tmp_path / "here" / "dialogues.jsonl").read_text()
        assert str(tmp_path) not in (tmp_path / "here" / "items.jsonl").read_text()
        shutil.move(tmp_path / "here", tmp_path / "there")
        moved = read_run(tmp_path / "there")
        (image,) = moved.dialogues[0].turns[0].user.images
        assert Path(image).is_file() and Path(image).is_relative_to(tmp_path / "there" / "images")
        again = play(tmp_path, server, "there", benchmarks=source)
        assert not server.paid and same(again.run, moved)
        assert same(retry_folder(tmp_path / "there").run, moved) and not server.paid


def test_rows_that_are_gone_are_in_no_figure(tmp_path: Path) -> None:
    bench(tmp_path)
    with World().in_thread() as server:
        play(tmp_path, server)
        bench(tmp_path, range(4))
        assert server.paid
        given = parse_settings(EvalConfig, settings(tmp_path, tmp_path / "out", server), "here")
        with pytest.raises(ConfigError, match="begun with other settings: items"):
            evaluate(given)
        done = evaluate(given, accept_changes=True)
        assert len(done.run.dialogues) == 4 and not server.paid
        assert json.loads((tmp_path / "out" / "summary.json").read_text())["all"]["dialogues"] == 4


# ----- killed


def command(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "steer_verl.cli", "eval", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def killed_after(server: World, places: int, *words: object) -> None:
    """Start a command, and kill it once the server was asked for so many more places."""
    until, process, deadline = len(server.asked) + places, command(*words), time.monotonic() + 120
    while len(server.asked) < until and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, said


def finished(*words: object) -> str:
    process = command(*words)
    said, _ = process.communicate(timeout=180)
    assert process.returncode == 0, said
    return said


@pytest.mark.slow
def test_a_run_that_was_killed_may_be_ended_by_retry(tmp_path: Path) -> None:
    bench(tmp_path)
    with World().in_thread() as calm:
        whole = play(tmp_path, calm, "whole")
    with World({("judge", 0, 1): PROSE, ("judge", 1, 2): DOWN}, pause=0.15).in_thread() as server:
        given = settings(tmp_path, tmp_path / "out", server)
        killed_after(server, 16, "run", recipe(tmp_path / "run.yaml", given))
        server.faults = {}
        finished("retry", tmp_path / "out")
        assert same(read_run(tmp_path / "out"), whole.run) and set(server.charges.values()) == {1}
        assert len(server.twice) <= ON_ITS_WAY


@pytest.mark.slow
def test_a_retry_that_was_killed_goes_on_and_pays_nothing_twice(tmp_path: Path) -> None:
    bench(tmp_path)
    everywhere: dict[Where, Step] = {
        ("judge", n, t): PROSE if t == 2 else DOWN for n in range(ITEMS) for t in range(1, TURNS + 1)
    }
    with World().in_thread() as calm:
        whole = play(tmp_path, calm, "whole")
    with World(everywhere, pause=0.15).in_thread() as server:
        said = finished("run", recipe(tmp_path / "run.yaml", settings(tmp_path, tmp_path / "out", server)))
        assert "6 of 6 dialogues are not whole, 6 were given up" in said and f"retry {tmp_path / 'out'}`" in said
        server.faults, _ = {}, server.paid
        killed_after(server, 7, "retry", tmp_path / "out")
        killed_after(server, 5, "retry", tmp_path / "out")
        finished("retry", tmp_path / "out")
        assert set(server.paid) == set(everywhere)
        assert len(server.twice) <= 2 * ON_ITS_WAY, "only what was on its way when it was killed"
        assert set(server.charges.values()) == {1}
        assert same(read_run(tmp_path / "out"), whole.run)
