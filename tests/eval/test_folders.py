"""What the folder of an evaluation refuses, so that nothing that was paid for is mixed, lost or asked for again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from steer_verl.errors import ConfigError, DataError
from steer_verl.eval.config import EvalConfig, RejudgeConfig
from steer_verl.eval.records import Unrated
from steer_verl.eval.retry import retry_folder
from steer_verl.eval.run import evaluate
from steer_verl.eval.runs import read_run
from steer_verl.settings_file import parse_settings
from steer_verl.work import store
from tests.data.samples import picture
from tests.eval.test_rejudge import WORK, again, contents
from tests.eval.test_retry import DOWN, _at_once, command, finished, killed_after, play, same  # noqa: F401
from tests.eval.world import ITEMS, TURNS, World, bench, endpoint, recipe, settings


def test_a_folder_that_refuses_other_settings_is_left_as_it_is(tmp_path: Path) -> None:
    bench(tmp_path)
    bench(tmp_path / "more", range(2))
    more = {"own": {"file": str(tmp_path / "bench.jsonl")}, "more": {"file": str(tmp_path / "more" / "bench.jsonl")}}
    with World().in_thread() as server:
        play(tmp_path, server)
        again(tmp_path, server)
        before = {name: (tmp_path / name).read_bytes() for name in ("out/items.jsonl", "out/config.json")}
        for changed in (
            {"benchmarks": more},
            {"max_turns": 2},
            {"judge": {"endpoint": endpoint(server, temperature=1)}},
        ):
            with pytest.raises(ConfigError, match=r"begun with other settings: (items|max_turns|judge)"):
                play(tmp_path, server, **changed)
        with pytest.raises(ConfigError, match="begun with step 'rejudge'"):
            play(tmp_path, server, "new")
        assert before == {name: (tmp_path / name).read_bytes() for name in before}
        assert not (tmp_path / "new" / "items.jsonl").exists()


def test_two_commands_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one changes nothing, even if it may change everything."""
    bench(tmp_path)
    bench(tmp_path / "more", range(2))
    monkeypatch.setattr(store, "LOCK_WAIT", 0.1)
    with World(pause=0.3).in_thread() as server:
        config = parse_settings(EvalConfig, settings(tmp_path, tmp_path / "out", server), "here")
        first = threading.Thread(target=evaluate, args=(config,))
        first.start()
        while not server.asked:
            time.sleep(0.01)
        other = settings(tmp_path / "more", tmp_path / "out", server, judge={"endpoint": endpoint(server, model="b")})
        for retry in (False, True):
            with pytest.raises(ConfigError, match="another run is at work"):
                evaluate(parse_settings(EvalConfig, other, "here"), accept_changes=True, retry=retry)
        first.join()
        assert retry_folder(tmp_path / "out").incomplete == 0 and len(server.paid) == 2 * ITEMS * TURNS


@pytest.mark.parametrize("damaged", ['{"out": ', "[]", "null", '"x"', "\0", "[" * 10**5])
def test_damaged_settings_are_told_and_the_way_out_works(tmp_path: Path, damaged: str) -> None:
    bench(tmp_path, range(1))
    with World().in_thread() as server:
        play(tmp_path, server)
        kept, _ = tmp_path / "out" / "config.json", server.paid
        kept.write_text(damaged)
        for go in (lambda: retry_folder(tmp_path / "out"), lambda: play(tmp_path, server)):
            with pytest.raises(ConfigError, match=r"config\.json: cannot be read .* remove it, and start the command"):
                go()
        kept.unlink()
        os.mkfifo(kept)
        with pytest.raises(ConfigError, match="no regular file"):
            retry_folder(tmp_path / "out")
        kept.unlink()
        assert play(tmp_path, server).incomplete == retry_folder(tmp_path / "out").incomplete == 0 and not server.paid


def test_a_finished_run_without_its_work_is_not_asked_for_again(tmp_path: Path) -> None:
    bench(tmp_path)
    with World().in_thread() as server:
        play(tmp_path, server)
        assert server.paid
        shutil.rmtree(tmp_path / "out" / "work")
        before = contents(tmp_path / "out")
        with pytest.raises(DataError, match="without its work/"):
            play(tmp_path, server)
        with pytest.raises(DataError, match="no step was begun here"):
            retry_folder(tmp_path / "out")
        assert contents(tmp_path / "out") == before and not server.paid
        assert again(tmp_path, server).incomplete == 0, "its answers can be judged"


@pytest.mark.parametrize("out", ["out", "out/inner/new", "./out/", "link"])
def test_nothing_is_written_into_the_run_that_is_rejudged(tmp_path: Path, out: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    given = {"run": tmp_path / "out", "out": f"{tmp_path}/{out}", "judge": {"kind": "mini"}}
    with pytest.raises(ConfigError, match="the run itself or lies in it"):
        parse_settings(RejudgeConfig, given, "here")


def test_a_pipe_in_the_place_of_a_run_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    os.mkfifo(tmp_path / "dialogues.jsonl")
    with pytest.raises(DataError, match="no finished evaluation there"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("marks", "said"), [({"horizon": 0}, "marks: horizon: .*equal to 1"), ({"fail_below": 2.5}, "fail_below")]
)
def test_thresholds_that_cannot_be_are_told_as_the_run_is_read(tmp_path: Path, marks: object, said: str) -> None:
    about = {"name": "a", "student": "s", "judge": "j", "attack": "static", "benchmarks": {}, "marks": marks}
    (tmp_path / "run.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match=said):
        read_run(tmp_path)


def test_any_number_of_retries_leaves_settings_that_can_be_read(tmp_path: Path) -> None:
    bench(tmp_path, range(1))
    with World({("judge", 0, 1): DOWN}).in_thread() as server:
        play(tmp_path, server, retries=99)
        for _ in range(3):
            retry_folder(tmp_path / "out")
        server.faults = {}
        assert retry_folder(tmp_path / "out").incomplete == 0


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"endpoint": {"temperature": 0.5}}, r"\+t0\.5"),
        ({"endpoint": {"images": False}}, r"\+blind"),
        ({"order": "scores_first"}, r"\+scores_first"),
        ({"attacker": {"temperature": 1}}, r"\+attacker:fake-tutor\+t1"),
    ],
)
def test_a_tutor_that_asks_otherwise_is_another_one(tmp_path: Path, changed: dict[str, Any], name: str) -> None:
    bench(tmp_path, range(1))
    with World().in_thread() as server:
        play(tmp_path, server, adaptive=True)
        ends = {key: endpoint(server, **more) for key, more in changed.items() if key != "order"}
        other = {"endpoint": endpoint(server), **changed, **ends}
        with pytest.raises(ConfigError, match=f"tutor: .*{name}"):
            play(tmp_path, server, attack="adaptive", tutor=other)


def test_a_judge_that_samples_otherwise_is_another_one(tmp_path: Path) -> None:
    bench(tmp_path, range(1))
    with World().in_thread() as server:
        play(tmp_path, server)
        names = {
            again(tmp_path, server, f"t{t}", endpoint=endpoint(server, temperature=t)).run.about.judge for t in (0, 0.5)
        }
        assert len(names) == 2
        with pytest.raises(ConfigError, match=r"judge: .*\+t0\.5"):
            again(tmp_path, server, "t0.5", endpoint=endpoint(server, temperature=0.7))


def test_an_image_that_was_exchanged_is_shown_to_no_judge(tmp_path: Path) -> None:
    """The student was shown another one; where that comes back, its answers are rated."""
    bench(tmp_path, image="shown.png")
    picture(tmp_path / "shown.png", colour="red")
    with World().in_thread() as server:
        play(tmp_path, server)
        whole = again(tmp_path, server, "whole")
        picture(tmp_path / "shown.png", colour="blue")
        assert server.paid
        done = again(tmp_path, server)
        assert not server.paid and done.incomplete == ITEMS
        words = [turn.judged for d in done.run.dialogues for turn in d.turns]
        assert all(isinstance(word, Unrated) and "another image" in word.detail for word in words)
        picture(tmp_path / "shown.png", colour="red")
        done = again(tmp_path, server)
        assert len(server.paid) == ITEMS * TURNS and same(done.run, whole.run)


@pytest.mark.slow
def test_an_image_that_was_exchanged_while_rejudging_was_killed_is_not_mixed_with_the_first(tmp_path: Path) -> None:
    bench(tmp_path, image="shown.png")
    picture(tmp_path / "shown.png", colour="red")
    with World(pause=0.02).in_thread() as server:
        play(tmp_path, server)
        given: dict[str, Any] = {"judge": {"endpoint": endpoint(server)}, "work": {**WORK, "in_flight": 1}}
        words = ("rejudge", tmp_path / "out", recipe(tmp_path / "judge.yaml", given), "--out", tmp_path / "new")
        killed_after(server, 10, *words)
        picture(tmp_path / "shown.png", colour="blue")
        server.bodies.clear()
        assert again(tmp_path, server).incomplete == ITEMS
        assert not [body for body in server.bodies if "answer to" in json.dumps(body)]
        picture(tmp_path / "shown.png", colour="red")
        assert again(tmp_path, server).incomplete == 0


def test_a_benchmark_may_come_and_go_and_what_stays_is_not_paid_again(tmp_path: Path) -> None:
    bench(tmp_path)
    bench(tmp_path / "more", range(7, 9))
    own = {"own": {"file": str(tmp_path / "bench.jsonl")}}
    more = {**own, "more": {"file": str(tmp_path / "more" / "bench.jsonl")}}
    with World().in_thread() as server:
        first = play(tmp_path, server)
        assert len(server.paid) == 2 * ITEMS * TURNS

        def changed(benchmarks: dict[str, Any]) -> Any:
            given = settings(tmp_path, tmp_path / "out", server, benchmarks=benchmarks)
            return evaluate(parse_settings(EvalConfig, given, "here"), accept_changes=True)

        assert len(changed(more).run.dialogues) == ITEMS + 2 and len(server.paid) == 2 * 2 * TURNS
        assert same(changed(own).run, first.run) and not server.paid
        assert len(changed(more).run.dialogues) == ITEMS + 2 and not server.paid


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "adaptive"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGHUP, False), (signal.SIGINT, True)],
)
def test_a_scheduler_that_ends_the_command_loses_no_call(
    tmp_path: Path, number: signal.Signals, adaptive: bool
) -> None:
    bench(tmp_path)
    with World(pause=0.1).in_thread() as server:
        words = ("run", recipe(tmp_path / "run.yaml", settings(tmp_path, tmp_path / "out", server, adaptive=adaptive)))
        process, deadline = command(*words), time.monotonic() + 60
        while len(server.asked) < 8:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 130 and "the same command goes on from here" in said, said
        calls = (3 if adaptive else 2) * ITEMS * TURNS
        assert len(server.asked) < calls
        finished(*words)
        assert not server.twice and len(server.paid) == calls


def test_consent_to_run_code_is_not_taken_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be somebody else's."""
    given = settings(
        tmp_path, tmp_path, World(), judge={"kind": "mini"}, student={"path": "/model", "trust_checkpoint": True}
    )
    (tmp_path / "config.json").write_text(json.dumps(given))
    asked: list[EvalConfig] = []
    monkeypatch.setattr("steer_verl.eval.retry.evaluate", lambda config, **_: asked.append(config))
    retry_folder(tmp_path)
    retry_folder(tmp_path, ["student.trust_checkpoint=true"])
    assert [config.student.trust_checkpoint for config in asked] == [False, True]


def test_images_that_were_moved_are_told_before_rejudging_and_the_hint_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench(tmp_path / "here", range(2), image="shown.png")
    picture(tmp_path / "here" / "shown.png")
    with World().in_thread() as server:
        play(tmp_path / "here", server)
        assert again(tmp_path / "here", server).incomplete == 0 and not caplog.messages
        shutil.move(tmp_path / "here", tmp_path / "there")
        there, _ = tmp_path / "there", server.paid
        assert again(there, server, "new2").incomplete == 2 and not server.paid
        (told,) = [said for said in caplog.messages if "1 of 1 images cannot be opened" in said]
        assert f"`steer eval retry {there / 'out'} benchmarks.NAME.file=...`" in told
        retry_folder(there / "out", [f"benchmarks.own.file={there / 'bench.jsonl'}"])
        assert not server.paid
        assert retry_folder(there / "new2").incomplete == 0 and len(server.paid) == 2 * TURNS
