"""The demo's machinery on stages that take milliseconds: order, resumption, failure, and leaving nothing behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import shared_memory
from pathlib import Path

import pytest
from rich.console import Console

from steer_verl.demo import runner
from steer_verl.demo.cures import GENERAL, cure
from steer_verl.demo.display import Display
from steer_verl.demo.runner import Stage, is_done, metric, run, stage_key
from steer_verl.demo.timing import Clock, Typical, pace
from steer_verl.errors import SteerError
from steer_verl.processes.child import StageFailed, Tail, run_child
from steer_verl.processes.leftovers import Claim, processes
from steer_verl.text import clock_text

WRITE = "import sys,pathlib; p=pathlib.Path(sys.argv[1]); p.parent.mkdir(parents=True,exist_ok=True); "
TYPICAL = Typical(0.1)


def stage(
    out: Path, name: str, code: str = "p.write_text('x')", after: tuple[str, ...] = (), limit: float = 30
) -> Stage:
    result = out / name / "result"
    argv = (sys.executable, "-c", WRITE + code, str(result))
    return Stage(name, name.title(), argv, out / name, result, TYPICAL, limit, after)


def go(stages: list[Stage], out: Path) -> str:
    text = io.StringIO()
    rows = [(s.title, s.typical, s.steps) for s in stages]
    run(stages, out, Display(rows, Console(file=text, width=200)))
    return text.getvalue()


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_for(condition: object, seconds: float = 10) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_stages_run_once_and_in_order(tmp_path: Path) -> None:
    count = "p.write_text(p.read_text() + 'x' if p.exists() else 'x')"
    stages = [stage(tmp_path, "one", count), stage(tmp_path, "two", count, after=("one",))]
    assert "[2/2] Two: done" in go(stages, tmp_path)
    assert go(stages, tmp_path).count("done before") == 2
    assert (tmp_path / "one/result").read_text() == (tmp_path / "two/result").read_text() == "x"
    assert set(runner.durations(stages, tmp_path)) == {"one", "two"}


def test_changed_inputs_start_their_stage_and_the_later_ones_over_in_an_empty_folder(tmp_path: Path) -> None:
    source = tmp_path / "settings.yaml"
    source.write_text("a: 1")
    first, second, other = stage(tmp_path, "one"), stage(tmp_path, "two", after=("one",)), stage(tmp_path, "other")
    stages = [replace(first, sources=(source,)), second, other]
    go(stages, tmp_path)
    stale = tmp_path / "two" / "stale"
    stale.touch()
    source.write_text("a: 2")
    said = go(stages, tmp_path)
    assert "Other: done before" in said and said.count("done before") == 1
    assert not stale.exists()


def test_a_moved_folder_is_still_done(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    go([stage(here, "one")], here)
    here.rename(there)
    moved = stage(there, "one")
    assert is_done(moved, stage_key(moved, [], there), there)


def test_a_failed_stage_shows_its_last_lines_its_log_and_the_cure_and_is_run_again(tmp_path: Path) -> None:
    bad = stage(tmp_path, "bad", "sys.exit('before\\nOSError: [Errno 28] No space left on device')")
    with pytest.raises(StageFailed) as failure:
        go([bad], tmp_path)
    message = str(failure.value)
    assert "exit status 1" in message and "No space left" in message and "free some space" in message
    assert str(tmp_path / "logs" / "bad.log") in message
    go([replace(bad, argv=stage(tmp_path, "bad").argv)], tmp_path)


def test_success_without_a_result_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="without writing"):
        go([stage(tmp_path, "empty", "pass")], tmp_path)


def test_a_stage_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    code = "import subprocess,time; c=subprocess.Popen(['sleep','60']); p.write_text(str(c.pid)); time.sleep(60)"
    with pytest.raises(StageFailed, match="took longer than 2 s"):
        go([stage(tmp_path, "hang", code, limit=2)], tmp_path)
    assert not alive(int((tmp_path / "hang/result").read_text()))
    assert not (tmp_path / "running.json").exists()


def test_shared_memory_of_its_own_is_removed_and_that_of_another_run_is_not(tmp_path: Path) -> None:
    code = (
        "import os, signal, time; from multiprocessing import resource_tracker, shared_memory as s\n"
        "m = s.SharedMemory(create=True, size=64); p.write_text(m.name)\n"
        "os.kill(resource_tracker._resource_tracker._pid, signal.SIGKILL); time.sleep(60)"
    )
    other = shared_memory.SharedMemory(create=True, size=64)
    other.close()  # exists, mapped by nobody: as between its creation and its opening by another run's worker
    try:
        with pytest.raises(StageFailed, match="took longer"):
            go([stage(tmp_path, "leaky", code, limit=4)], tmp_path)
        name = (tmp_path / "leaky/result").read_text()
        assert not Path("/dev/shm", name).exists()
        assert Path("/dev/shm", other.name).exists()
    finally:
        other.unlink()


SCRIPT = """
import sys, pathlib
from rich.console import Console
from steer_verl.demo.display import Display
from steer_verl.demo.runner import Stage, run
from steer_verl.demo.timing import Typical
out = pathlib.Path(sys.argv[1])
child = '''
import pathlib, subprocess, sys, time
p = pathlib.Path("slow"); step = int((p / "step").read_text()) if (p / "step").exists() else 0
other = subprocess.Popen(["sleep", "300"], start_new_session=True)
(p / "pid").write_text(str(other.pid))
while step < 6:
    step += 1; (p / "step").write_text(str(step)); print(f"(Trainer pid=1) step:{step} - train/loss:0.5", flush=True)
    if step == 3 and not (p / "again").exists():
        (p / "again").touch(); time.sleep(300)
other.kill(); (p / "result").touch()
'''
argv = (sys.executable, "-c", child)
stage = Stage("slow", "Slow", argv, out / "slow", out / "slow/result", Typical(1, 1), 100, steps=6)
run([stage], out, Display([("Slow", stage.typical, 6)], Console()))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_interrupted_it_goes_on_where_it_was_and_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "slow").mkdir(parents=True)
    first = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stderr=subprocess.DEVNULL)
    log = tmp_path / "logs" / "slow.log"
    wait_for(lambda: log.exists() and "step:3" in log.read_text())
    stray = int((tmp_path / "slow/pid").read_text())
    claimed = Claim.load(tmp_path / "running.json")
    assert claimed and processes(claimed) and alive(stray)
    first.send_signal(how)
    first.wait(timeout=20)
    if how is signal.SIGKILL:  # it could not clean up: the next run does, a process in a session of its own included
        assert alive(stray) and claimed.folder.exists()
    else:
        assert not alive(stray) and not (tmp_path / "running.json").exists()
    second = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert second.returncode == 0, second.stderr
    assert not alive(stray) and not claimed.folder.exists() and not processes(claimed)
    assert log.read_text().count("step:3") == 1 and "step:4" in log.read_text()


def test_two_demos_in_one_folder_are_refused(tmp_path: Path) -> None:
    with runner.held(tmp_path), pytest.raises(SteerError, match="another demo"):
        go([stage(tmp_path, "one")], tmp_path)


def test_a_checkpoint_that_was_complete_is_not_trained_again(tmp_path: Path) -> None:
    trained = replace(stage(tmp_path, "sft", "sys.exit(1)"), checkpoint="ckpt/global_step_4/huggingface", steps=4)
    trained = replace(trained, result=tmp_path / "sft/hf/config.json")
    model = tmp_path / "sft" / trained.checkpoint
    with pytest.raises(StageFailed):
        go([trained], tmp_path)
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (tmp_path / "sft/ckpt" / runner.TRACKER).write_text("3")
    with pytest.raises(StageFailed):
        go([trained], tmp_path)
    (tmp_path / "sft/ckpt" / runner.TRACKER).write_text("4")
    go([trained], tmp_path)
    assert trained.result.read_text() == "{}"


def test_output_is_read_as_it_grows(tmp_path: Path) -> None:
    seen: list[str] = []
    code = "print('a');print('b\\rc');print('half',end='',flush=True);import time;time.sleep(.6);print(' whole')"
    run_child(
        [sys.executable, "-uc", code],
        log=tmp_path / "log",
        record=tmp_path / "record",
        limit=30,
        cwd=tmp_path,
        env=dict(os.environ),
        on_line=seen.append,
        tick=lambda: None,
    )
    assert seen == ["a", "b", "c", "half whole"]
    assert Tail(tmp_path / "log").lines() == seen


def test_the_time_left_learns_from_what_is_seen() -> None:
    now = [0.0]
    clock = Clock(Typical(start=100, step=4, close=10), steps=20, now=lambda: now[0])
    assert clock.left(1.0) == 190 and clock.left(2.0) == 380
    for step in range(1, 11):  # steps take 8 s, twice the typical time
        now[0] = 60 + 8 * step
        clock.report(step)
    assert 10 * 7 < clock.left(1.0) - 10 < 10 * 8
    now[0] = 60 + 80 + 4
    assert 0.6 < clock.fraction < 0.75
    assert pace([]) == 1 and pace([(60, 180)]) == 2
    assert clock_text(61) == "1:01" and clock_text(3600) == "1:00:00"


def test_a_slow_stage_makes_the_later_ones_look_longer() -> None:
    display = Display([("One", Typical(0, 1), 100), ("Two", Typical(300), 0)], Console(file=io.StringIO()))
    clock = display.start(0)
    before = display.left()
    now = clock.began
    clock.now = lambda: now
    for step in range(1, 51):  # three times as slow as usual
        now += 3.0
        clock.report(step)
    assert clock.seen == (49.0, 147.0)
    assert display.left() > before and display.left() - 50 * 3 > 300 * 1.5


def test_a_resumed_stage_counts_only_its_own_steps() -> None:
    now = [0.0]
    clock = Clock(Typical(start=50, step=5), steps=100, now=lambda: now[0])
    now[0] = 40.0
    clock.report(90)
    assert clock.left(1.0) == 50


def test_the_live_table_shows_every_stage() -> None:
    text = io.StringIO()
    display = Display(
        [("Data", Typical(10), 0), ("Training", Typical(20, 2), 30), ("Evaluation", Typical(60), 0)],
        Console(file=text, width=120, force_terminal=True, color_system=None),
    )
    with display:
        display.skip(0)
        display.start(1).report(7)
        display.detail = "loss 0.31"
        display.tick()
    said = text.getvalue()
    for words in ("Data", "before", "Training", "step 7/30", "loss 0.31", "Evaluation", "~1:00", "left"):
        assert words in said


@pytest.mark.parametrize(
    ("line", "name", "shown"),
    [
        ("step:3 - train/loss:1.23456 - train/lr:0.001", "train/loss", "loss 1.23"),
        ("(TaskRunner pid=3) step:3 - critic/score/mean:np.float64(0.71234)", "critic/score/mean", "mean 0.712"),
        ("step:3 - train/lr:0.001", "train/loss", ""),
    ],
)
def test_metric(line: str, name: str, shown: str) -> None:
    assert metric(line, name, name.rpartition("/")[2]) == shown


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("RuntimeError: operator torchvision::nms does not exist", "make env"),
        ("ModuleNotFoundError: No module named 'ray'", "make env"),
        ("was ended by signal 9", "memory"),
        ("OSError: AF_UNIX path length cannot exceed 107 bytes", "/tmp"),
        ("took longer than 600 s, the limit of this stage", "start the demo again"),
        ("something new", GENERAL),
    ],
)
def test_cures(log: str, words: str) -> None:
    assert words in cure(["Traceback", log])
