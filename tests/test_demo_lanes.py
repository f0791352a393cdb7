"""Lanes on stages that take milliseconds: each once, after what it needs, two at a time, going on after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steer_verl.demo.lanes import start
from steer_verl.demo.runner import held
from steer_verl.errors import SteerError

SCRIPT = """
import sys, pathlib
from steer_verl.demo.display import Display
from steer_verl.demo.lanes import share
from steer_verl.demo.runner import Stage
from steer_verl.demo.timing import Typical

out = pathlib.Path(sys.argv[1])
needs = {"a/one": (), "a/two": (), "b/one": ("a/one",), "b/both": ("a/one", "a/two")}
code = '''
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1]); folder.mkdir(parents=True, exist_ok=True)
with (folder.parents[1] / "seen").open("a") as seen:
    seen.write(f"begin {sys.argv[2]}\\\\n"); seen.flush(); time.sleep(float(sys.argv[3]))
    seen.write(f"end {sys.argv[2]}\\\\n")
if sys.argv[2] == sys.argv[4]: sys.exit("lost")
(folder / "result").touch()
'''

def stage(name, after):
    folder = out / name
    argv = (sys.executable, "-c", code, str(folder), name, *sys.argv[2:4])
    return Stage(name, name, argv, folder, folder / "result", Typical(1), 60, after)

todo = [stage(name, after) for name, after in needs.items()]
share(todo, out, Display([(s.title, s.typical, 0) for s in todo]))
"""
ALL = {"a/one", "a/two", "b/one", "b/both"}


def argv(out: Path, seconds: float, bad: str = "none") -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(out), str(seconds), bad]


def seen(out: Path) -> list[str]:
    path = out / "seen"
    return path.read_text().splitlines() if path.exists() else []


def test_two_lanes_run_every_stage_once_after_what_it_needs(tmp_path: Path) -> None:
    start(argv(tmp_path, 1.5), 2, tmp_path)
    lines = seen(tmp_path)
    assert sorted(lines) == sorted(f"{what} {name}" for what in ("begin", "end") for name in ALL)
    assert {"begin a/one", "begin a/two"} == set(lines[:2]), "two at a time"
    assert lines.index("begin b/both") > max(lines.index("end a/one"), lines.index("end a/two"))
    start(argv(tmp_path, 1.5), 1, tmp_path)
    assert seen(tmp_path) == lines, "what is done is done"


def test_what_does_not_need_the_failed_stage_is_still_run(tmp_path: Path) -> None:
    with pytest.raises(SteerError, match="lane-"):
        start(argv(tmp_path, 0.3, "a/two"), 2, tmp_path)
    lines = seen(tmp_path)
    assert lines.count("begin a/two") == 2, "once more by the other lane"
    assert "end b/one" in lines and "begin b/both" not in lines


def test_what_failed_is_tried_after_all_else(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(SteerError, match="lane-"):
            start(argv(tmp_path, 0.1, "a/two"), 1, tmp_path)
    assert seen(tmp_path)[2:] == ["begin a/two", "end a/two", "begin b/one", "end b/one", "begin a/two", "end a/two"]


def test_a_killed_lane_is_cleaned_up_by_the_next_one(tmp_path: Path) -> None:
    first = subprocess.Popen(argv(tmp_path, 120), stdout=subprocess.DEVNULL)
    end = time.monotonic() + 20
    while not seen(tmp_path):
        assert time.monotonic() < end
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (tmp_path / "lanes" / "0.json").exists()
    start(argv(tmp_path, 0.1), 2, tmp_path)
    assert {line for line in seen(tmp_path) if line.startswith("end")} == {f"end {name}" for name in ALL}
    assert not list((tmp_path / "lanes").glob("*.json"))


def test_lanes_keep_out_of_a_folder_that_a_run_has_for_itself(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(SteerError):
        start(argv(tmp_path, 0.1), 1, tmp_path)
    assert "another demo" in (tmp_path / "logs" / "lane-0.log").read_text()
    with held(tmp_path, alone=False):
        start(argv(tmp_path, 0.1), 1, tmp_path)
