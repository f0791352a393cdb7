"""A command in the foreground leaves nothing behind, unless there is something to read after a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steer_verl.processes import leftovers
from steer_verl.processes.leftovers import SHM
from steer_verl.processes.tidy import run

MESS = """
import os, subprocess, sys, time
from multiprocessing import get_context, resource_tracker, shared_memory
from pathlib import Path

for name in ("RAY_TMPDIR", "TMPDIR", "VLLM_RPC_BASE_PATH"):
    folder = Path(os.environ[name]) / "ray" if name == "RAY_TMPDIR" else Path(os.environ[name])
    folder.mkdir(exist_ok=True)
    (folder / f"socket-of-{name}").touch()
if sys.argv[2:] == ["lingers"]:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
semaphore = get_context("spawn").Lock()
resource_tracker.unregister(semaphore._semlock.name, "semaphore")
block = shared_memory.SharedMemory(create=True, size=64)
resource_tracker.unregister(f"/{block.name}", "shared_memory")
Path("block").write_text(f"{block.name} sem.{semaphore._semlock.name[1:]}")
time.sleep(1)
os._exit(int(sys.argv[1]))
"""


@pytest.fixture
def tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the system for this test alone, which is also where the command runs."""
    monkeypatch.setattr(leftovers, "TMP", tmp_path)
    monkeypatch.setattr(leftovers, "GRACE", 2.0)
    monkeypatch.setattr(leftovers, "SURVEY", 0.1)
    monkeypatch.chdir(tmp_path)
    for name in leftovers.FOLDERS:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("block", "theirs"))


def shared(folder: Path) -> list[str]:
    """Shared memory of the command that is still there."""
    names = (folder / "block").read_text().split()
    assert len(names) == 2
    return [name for name in names if (SHM / name).exists()]


@pytest.mark.parametrize("how", ["", "lingers"])
def test_nothing_is_left_of_a_command_that_ends(tmp: Path, how: str) -> None:
    assert run([sys.executable, "-c", MESS, "0", *how.split()]) == 0
    assert not left(tmp) and not shared(tmp)


def test_after_a_failure_rays_logs_stay_and_are_told(tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([sys.executable, "-c", MESS, "3"]) == 3
    (folder,) = left(tmp)
    assert (tmp / folder / "ray" / "socket-of-RAY_TMPDIR").exists() and str(tmp / folder) in capsys.readouterr().err
    assert not shared(tmp)


def test_a_failure_without_ray_leaves_nothing(tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([sys.executable, "-c", "raise SystemExit(4)"]) == 4
    assert run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 128 + 9
    assert not left(tmp) and not capsys.readouterr().err


def test_a_command_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    root = str(Path(leftovers.__file__).parents[2])
    said = subprocess.run(
        [sys.executable, "-m", "steer_verl.processes.tidy", "no-such-program"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert said.returncode == 1 and said.stderr.startswith("steer: no-such-program: ") and said.stderr.count("\n") == 1


def test_folders_of_the_users_own_stay(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp / "theirs").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp / "theirs"))
    assert run([sys.executable, "-c", MESS, "0"]) == 0
    assert (tmp / "theirs" / "ray" / "socket-of-RAY_TMPDIR").exists() and not left(tmp)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_that_is_asked_for_is_the_commands_too(tmp_path: Path, number: signal.Signals) -> None:
    code = "import os, pathlib, signal, time; signal.signal(15, signal.SIG_IGN); signal.signal(2, signal.SIG_IGN); "
    code += "pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    command = [sys.executable, "-m", "steer_verl.processes.tidy", sys.executable, "-c", code]
    root = str(Path(leftovers.__file__).parents[2])
    tidy = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root})
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    os.kill(tidy.pid, number)
    time.sleep(0.5)
    os.kill(tidy.pid, number)  # by somebody who cannot wait
    assert tidy.wait(30) == 128 + signal.SIGINT
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()
