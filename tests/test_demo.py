"""The demo's machinery on stages that take milliseconds: order, resumption, failure, and leaving nothing behind."""

from __future__ import annotations

import glob
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from steer_verl import cpu
from steer_verl.demo import runner
from steer_verl.demo.display import Display
from steer_verl.demo.runner import advice, metric, run
from steer_verl.demo.stage import Stage, Typical, override
from steer_verl.errors import SteerError
from steer_verl.processes.child import StageFailed, Tail, run_child
from steer_verl.processes.leftovers import Claim, processes
from steer_verl.records import write_whole
from steer_verl.report.training import parse_step
from steer_verl.text import clock_text

WRITE = "import sys,pathlib; p=pathlib.Path(sys.argv[1]); p.parent.mkdir(parents=True,exist_ok=True)\n"
TYPICAL = Typical(0.1)


def stage(
    out: Path, name: str, code: str = "p.write_text('x')", after: tuple[str, ...] = (), limit: float = 30
) -> Stage:
    result = out / name / "result"
    argv = (sys.executable, "-c", WRITE + code, str(result))
    return Stage(name, name.title(), argv, out / name, result, TYPICAL, limit, after)


def go(stages: list[Stage], out: Path, **how: Any) -> str:
    text = io.StringIO()
    run(stages, out, Console(file=text, width=200), **how)
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


def test_a_stage_adds_in_one_order_whatever_the_user_has_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The laboratory's students are the same on every machine."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    told = stage(tmp_path, "told", "import json,os; p.write_text(json.dumps(dict(os.environ)))")
    go([told], tmp_path)
    assert json.loads(told.result.read_text()).items() >= cpu.laboratory().items()
    assert cpu.laboratory()["OMP_NUM_THREADS"] == "1"


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


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    ours, theirs = stage(tmp_path, "ours"), tmp_path / "data" / "thesis.txt"
    write_whole(theirs, "years of work")
    with pytest.raises(SteerError, match=r"data: holds files of no run in .*choose another --out"):
        go([ours, stage(tmp_path, "data", after=("ours",))], tmp_path)
    assert theirs.exists() and not ours.result.exists(), "told before anything begins"


@pytest.mark.parametrize("name", ["there", 'it\'s [the] "ü", $HOME\\'])
def test_a_moved_folder_is_still_done(tmp_path: Path, name: str) -> None:
    def one(out: Path) -> list[Stage]:
        words = (
            override("mini.root", out),
            f"out={json.dumps(str(out / 'one'))}",
            override("data", glob.escape(str(out))),
        )
        return [replace(stage(out, "one"), argv=(*stage(out, "one").argv, *words))]

    here, there = tmp_path / "here", tmp_path / name
    go(one(here), here)
    here.rename(there)
    assert "One: done before" in go(one(there), there)


def test_in_a_moved_folder_what_names_paths_is_made_again_and_what_came_of_it_is_kept(tmp_path: Path) -> None:
    def two(out: Path) -> list[Stage]:
        data, trained = stage(out, "data"), stage(out, "trained", after=("data",))
        return [replace(data, names_paths=True), trained]

    go(two(tmp_path / "here"), tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    said = go(two(tmp_path / "there"), tmp_path / "there")
    assert "Trained: done before" in said and "Data: done in" in said
    assert "Data: done before" in go(two(tmp_path / "there"), tmp_path / "there")


def test_a_failed_stage_shows_its_last_lines_its_log_and_what_to_do_and_is_run_again(tmp_path: Path) -> None:
    bad, text = (
        stage(tmp_path, "bad", "sys.exit('before\\nOSError: [Errno 28] No space left on device')"),
        io.StringIO(),
    )
    with pytest.raises(StageFailed) as failure:
        run([bad], tmp_path, Console(file=text, width=200))
    assert "    before\n    OSError: [Errno 28] No space left on device\n" in text.getvalue()
    message = str(failure.value)
    assert "exit status 1" in message and "free some space" in message
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
    assert not list(tmp_path.rglob("*.running"))


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
from steer_verl.demo.runner import run
from steer_verl.demo.stage import Stage, Typical
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
run([stage], out)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_interrupted_it_goes_on_where_it_was_and_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "slow").mkdir(parents=True)
    first = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stderr=subprocess.DEVNULL)
    log = tmp_path / "logs" / "slow.log"
    wait_for(lambda: log.exists() and "step:3" in log.read_text())
    stray = int((tmp_path / "slow/pid").read_text())
    claimed = Claim.load(tmp_path / "stages/slow.running")
    assert claimed and processes(claimed) and alive(stray)
    first.send_signal(how)
    first.wait(timeout=20)
    if how is signal.SIGKILL:  # it could not clean up: the next run does, a process in a session of its own included
        assert alive(stray) and claimed.folder.exists()
    else:
        assert not alive(stray) and not (tmp_path / "stages/slow.running").exists()
    second = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=30)
    assert second.returncode == 0, second.stderr
    assert not alive(stray) and not claimed.folder.exists() and not processes(claimed)
    assert log.read_text().count("step:3") == 1 and "step:4" in log.read_text()


def test_two_demos_in_one_folder_are_refused(tmp_path: Path) -> None:
    with runner.held(tmp_path), pytest.raises(SteerError, match="another run"):
        go([stage(tmp_path, "one")], tmp_path)


def test_a_checkpoint_that_was_complete_is_not_trained_again(tmp_path: Path) -> None:
    trained = replace(stage(tmp_path, "sft", "sys.exit(1)"), checkpoint="ckpt/global_step_{step}/huggingface", steps=4)
    trained = replace(trained, result=tmp_path / "sft/hf/config.json")
    model = trained.model(4)
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


def test_models_on_the_way_are_kept_and_the_checkpoints_go(tmp_path: Path) -> None:
    code = (
        "[(p.parents[1] / f'ckpt/{n}/hf').mkdir(parents=True) for n in (2, 4)]; (p.parents[1] / 'ckpt/2/hf/x').touch()"
    )
    one = replace(stage(tmp_path, "a/b", code), folder=tmp_path / "a", checkpoint="ckpt/{step}/hf", steps=4, keep=(2,))
    one = replace(one, result=tmp_path / "a/hf")
    go([one], tmp_path)
    assert (tmp_path / "a/hf-2/x").exists() and one.result.is_dir() and not (tmp_path / "a/ckpt").exists()
    assert "done before" in go([one], tmp_path)


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


def shown(name: str, typical: Typical, steps: int = 0) -> Stage:
    return replace(stage(Path("/nowhere"), name), typical=typical, steps=steps)


def test_the_time_left_learns_from_what_is_seen() -> None:
    now = [0.0]
    stages = [shown("one", Typical(0, 1), 100), shown("two", Typical(300))]
    display = Display(stages, {"one", "two"}, Console(file=io.StringIO()), now=lambda: now[0])
    assert display.left() == 400
    display.begin(stages[0])
    for step in range(1, 101):  # three times as slow as usual
        now[0] += 3.0
        display.step(stages[0], step, "")
        display.tick()
    assert display.left() == pytest.approx(3 * 300, rel=0.05), "and the later ones look longer for it"
    assert clock_text(61) == "1:01" and clock_text(3600) == "1:00:00"


def test_a_resumed_stage_counts_only_its_own_steps() -> None:
    now = [0.0]
    stages = [shown("one", Typical(start=50, step=5), 100), shown("two", Typical(300))]
    display = Display(stages, {"one", "two"}, Console(file=io.StringIO()), now=lambda: now[0])
    display.begin(stages[0])
    for now[0] in range(51):
        display.tick()
    for step in range(91, 101):
        now[0] += 5.0
        display.step(stages[0], step, "")
        display.tick()
    assert display.left() == pytest.approx(300, rel=0.05)


def test_a_terminal_shows_what_runs_and_how_long_it_takes() -> None:
    text = io.StringIO()
    stages = [shown("data", Typical(10)), shown("training", Typical(20, 2), 30)]
    console = Console(file=text, width=120, force_terminal=True, color_system=None)
    with Display(stages, {"training"}, console) as display:
        display.begin(stages[1])
        display.step(stages[1], 7, "loss 0.31")
        display.tick()
        display.refresh()
    said = text.getvalue()
    for words in ("[1/2] Data: done before", "Training · step 7/30 · loss 0.31", "left in all"):
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
    step = parse_step(line)
    assert step and metric(step, name, name.rpartition("/")[2]) == shown


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("ModuleNotFoundError: No module named 'ray'", "make env"),
        ("was ended by signal 9", "memory"),
        ("something new", "steer doctor"),
    ],
)
def test_a_failure_tells_what_to_do(log: str, words: str) -> None:
    assert words in advice(log)


SEEN = """
import time
seen = p.parents[1] / "seen"
with seen.open("a") as file: file.write("begin {NAME}\\n")
for _ in range(200 * ("{NAME}" in ("one", "two"))):  # both at once, or this takes ten seconds
    if seen.read_text().count("begin") > 1: break
    time.sleep(0.05)
with seen.open("a") as file: file.write("end {NAME}\\n")
if "{NAME}" == "{BAD}": sys.exit("lost")
p.touch()
"""
NEEDS: dict[str, tuple[str, ...]] = {"one": (), "two": (), "three": ("one",), "both": ("one", "two")}


def lanes(out: Path, bad: str = "") -> list[Stage]:
    code = SEEN.replace("{BAD}", bad)
    return [stage(out, name, code.replace("{NAME}", name), after) for name, after in NEEDS.items()]


def seen(out: Path) -> list[str]:
    return (out / "seen").read_text().splitlines()


def test_two_lanes_run_every_stage_once_after_what_it_needs(tmp_path: Path) -> None:
    go(lanes(tmp_path), tmp_path, lanes=2)
    lines = seen(tmp_path)
    assert sorted(lines) == sorted(f"{what} {name}" for what in ("begin", "end") for name in NEEDS)
    assert {"begin one", "begin two"} == set(lines[:2]), "two at a time"
    assert lines.index("begin both") > max(lines.index("end one"), lines.index("end two"))
    go(lanes(tmp_path), tmp_path, lanes=1)
    assert seen(tmp_path) == lines, "what is done is done"


def test_what_does_not_need_the_failed_stage_is_still_run(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="Two ended"):
        go(lanes(tmp_path, bad="two"), tmp_path, lanes=2)
    assert "end three" in seen(tmp_path) and "begin both" not in seen(tmp_path)


def test_nothing_new_begins_after_the_hours(tmp_path: Path) -> None:
    go(lanes(tmp_path), tmp_path, lanes=2, hours=0.1 / 3600)
    assert seen(tmp_path) and "begin both" not in seen(tmp_path)
    go(lanes(tmp_path), tmp_path, hours=1)
    assert "end both" in seen(tmp_path)


NAMES = ["".join(random.Random(i).choices("aü=()[]'\"& #~;,日{}$\\%:@*?|<>!", k=12)) for i in range(300)]


@pytest.mark.parametrize("start", range(0, 300, 100))
def test_any_path_can_be_told_to_hydra(start: int) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    names = [*NAMES[start : start + 100], "it's", "\\'", "\\\\", "a\\", "${x}", "null", "1"]
    for name in names:
        path = f"/tmp/{name}/out"
        for value in (name, path, Path(path)):
            parsed = OverridesParser.create().parse_overrides([override("mini.root", value)])[0]
            config = OmegaConf.create({"mini": {"root": parsed.value()}, "file": "${mini.root}/data"})
            assert (config.mini.root, config.file) == (str(value), f"{value}/data")


def test_any_path_can_be_told_to_an_evaluation(tmp_path: Path) -> None:
    from steer_verl.demo.stages import Plan, evaluation
    from steer_verl.eval.config import EvalConfig
    from steer_verl.settings_file import load_settings

    for name in NAMES:
        made = evaluation(
            Plan(tmp_path / name), "sft", "SFT", tmp_path / name / "hf", (), tmp_path / name / "rl.jsonl", limit=1
        )
        file, *words = made.argv[made.argv.index("run") + 1 :]
        config = load_settings(EvalConfig, Path(file), words)
        assert config.out == made.folder and config.benchmarks["mini"].file == tmp_path / name / "rl.jsonl"
