"""A student whose server is ours: started, found, ended, and never left behind. A quick server stands for vLLM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steer_verl.errors import ConfigError, SteerError, StudentError
from steer_verl.eval.config import StudentSettings
from steer_verl.eval.students.answers import Setup
from steer_verl.eval.students.served import ServedStudent
from steer_verl.eval.students.server import VllmServer, free_port
from steer_verl.models.place import Place
from steer_verl.processes import leftovers
from steer_verl.processes.child import last_words
from tests.cli.test_disk import full_disk
from tests.eval.students.test_checkpoint import hugging_face
from tests.models.memory import MemoryCache

FAKE = Path(__file__).with_name("fake_vllm.py")
ASKED = [{"role": "user", "content": "Which colour is the box?"}]
Make = Callable[..., ServedStudent]
PLACE = Place("step/item")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """``make(mode, **server settings)``: a student whose server is the quick one."""
    real = VllmServer.command

    def made(mode: str, out: str = "out", cache: MemoryCache | None = None, **server: Any) -> ServedStudent:
        def command(self: VllmServer, port: int) -> list[str]:
            arguments = real(self, port)
            return [sys.executable, str(FAKE), mode, *arguments[arguments.index("--model") :]]

        monkeypatch.setattr(VllmServer, "command", command)
        settings = StudentSettings.model_validate({"path": hugging_face(tmp_path / "model"), "server": server})
        return ServedStudent(Setup(settings, tmp_path / out, "student@1", cache=cache, tell=lambda line: None))

    return made


def pids(tmp_path: Path) -> list[int]:
    """Of every process that the servers so far were made of."""
    path = tmp_path / "model" / "pids.txt"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_gone(tmp_path: Path, seconds: float = 20.0) -> bool:
    """Whether every process of the servers ends within so many seconds."""
    end = time.monotonic() + seconds
    while any(map(alive, pids(tmp_path))):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return bool(pids(tmp_path))


def gone(path: Path, seconds: float = 20.0) -> bool:
    """Whether a file goes away within so many seconds."""
    end = time.monotonic() + seconds
    while path.exists() and time.monotonic() < end:
        time.sleep(0.1)
    return not path.exists()


async def test_it_is_started_with_the_first_answer_and_ended_with_the_student(tmp_path: Path, make: Make) -> None:
    cache, place = MemoryCache(), PLACE
    student = make("well", cache=cache)
    assert not (tmp_path / "out").exists(), "nothing is started by making it"
    replies = await asyncio.gather(
        *(student.answer([{"role": "user", "content": str(i)}], place) for i in range(5)), student.answer(ASKED, place)
    )
    assert {reply.text for reply in replies} == {"True None"}, "it is asked by its own name, and gets no key"
    assert len(pids(tmp_path)) == 2, "one server, with its engine"
    await student.close()
    assert all_gone(tmp_path, 0), "also the engine, which had left the session"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["vllm.log"]
    again = make("dies", cache=cache)
    assert (await again.answer(ASKED, place)).text == "True None", "a known answer needs no server"
    await again.close()


async def test_two_evaluations_do_not_meet(tmp_path: Path, make: Make) -> None:
    first, second = make("well", "one"), make("well", "two")
    replies = await asyncio.gather(first.answer(ASKED, PLACE), second.answer(ASKED, PLACE))
    assert [reply.text for reply in replies] == ["True None"] * 2
    await first.close()
    assert (await second.answer(ASKED, PLACE)).text == "True None"
    await second.close()
    assert all_gone(tmp_path, 0)


async def test_a_server_that_cannot_start_is_told_at_once_and_once(tmp_path: Path, make: Make) -> None:
    student = make("dies")
    failures = await asyncio.gather(*(student.answer(ASKED, PLACE) for _ in range(3)), return_exceptions=True)
    assert {str(failure) for failure in failures} == {str(failures[0])} and isinstance(failures[0], StudentError)
    told = str(failures[0])
    assert "ended while it started (exit status 1): ValueError: weights of another shape; the folder is damaged" in told
    assert "vllm.log" in told and "\n" not in told
    assert len(pids(tmp_path)) == 2, "it was started once"
    assert all_gone(tmp_path)
    await student.close()


async def test_a_server_that_stays_silent_is_ended(tmp_path: Path, make: Make) -> None:
    student = make("silent", start_timeout=6)
    with pytest.raises(StudentError, match="silent for 6 s and was ended"):
        await student.check()
    assert all_gone(tmp_path)
    await student.close()


async def test_a_server_that_ends_in_the_middle_stops_the_run(tmp_path: Path, make: Make) -> None:
    student = make("crashes")
    with pytest.raises(
        StudentError, match=r"in the middle \(exit status 3\): RuntimeError: the engine is gone.*goes on"
    ):
        await student.answer(ASKED, PLACE)
    await student.close()
    assert all_gone(tmp_path)
    fresh = make("well")
    assert (await fresh.answer(ASKED, PLACE)).text == "True None"
    await fresh.close()


async def test_another_servers_port_is_not_taken_for_ours(tmp_path: Path, make: Make) -> None:
    student = make("other")
    with pytest.raises(StudentError, match=r"another server answers at http://127.*serves other.*0 for a free one"):
        await student.check()
    await student.close()
    assert all_gone(tmp_path)


async def test_a_port_that_is_taken_meanwhile_is_left_for_another(tmp_path: Path, make: Make) -> None:
    student = make("taken")
    assert (await student.answer(ASKED, PLACE)).text == "True None"
    await student.close()
    assert all_gone(tmp_path)
    (tmp_path / "model" / "once").unlink()
    fixed = make("taken", port=free_port())
    with pytest.raises(StudentError, match="Address already in use"):
        await fixed.check()
    await fixed.close()


async def test_a_second_run_in_the_same_folder_leaves_the_first_alone(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steer_verl.eval.students.server.END", 2.0)
    first, second = make("well"), make("well")
    await first.answer(ASKED, PLACE)
    with pytest.raises(StudentError, match="another evaluation is at work here"):
        await second.answer(ASKED, PLACE)
    assert (await first.answer(ASKED, PLACE)).text == "True None"
    await second.close()
    await first.close()


@pytest.mark.parametrize("argument", ["--port", "--host=0.0.0.0", "--served-model-name"])
async def test_an_argument_that_would_hide_the_server_is_refused(make: Make, argument: str) -> None:
    with pytest.raises(ConfigError, match="drop it"):
        await make("well", arguments=[argument]).check()


@pytest.mark.parametrize("place", ["below a file", "not ours", "full"])
async def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, make: Make, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    student = make("well", {"below a file": "file/out", "not ours": "/sys/steer", "full": "out"}[place])
    monkeypatch.setattr(leftovers, "TMP", tmp_path / "system")
    leftovers.TMP.mkdir()
    limit = full_disk() if place == "full" else contextlib.nullcontext()
    with limit, pytest.raises(SteerError, match=r"cannot be (read or )?written") as told:
        await student.answer(ASKED, PLACE)
    assert "\n" not in str(told.value)
    await student.close()
    assert not list(leftovers.TMP.iterdir()) and not (tmp_path / "out" / "server.json").exists()


def test_the_users_arguments_come_last(tmp_path: Path) -> None:
    settings = StudentSettings.model_validate(
        {"path": tmp_path, "seed": 1, "server": {"max_model_len": 512, "arguments": ["--dtype", "float16"]}}
    )
    server = VllmServer(tmp_path, settings, tmp_path, print)
    command = server.command(1234)
    assert command[-2:] == ["--dtype", "float16"] and command[command.index("--max-model-len") + 1] == "512"
    assert command[command.index("--host") + 1] == "127.0.0.1" and "--gpu-memory-utilization" not in command


def test_the_last_words_are_of_who_failed_first() -> None:
    log = (
        "INFO 11-25 19:34:54 [core.py:1] loading\n"
        "(EngineCore pid=7) ERROR 11-25 19:34:54 [core.py:1] Traceback (most recent call last):\n"
        "(EngineCore pid=7) ERROR 11-25 19:34:54 [core.py:1]   File 'error.py', line 3\n"
        "(EngineCore pid=7) ERROR 11-25 19:34:54 [core.py:1] torch.OutOfMemoryError: no room\n"
        "(APIServer pid=6) RuntimeError: Engine core initialization failed.\n"
    )
    assert last_words(log) == "torch.OutOfMemoryError: no room"
    assert last_words("a\nb\n\n") == "b" and last_words("") == "it said nothing"


RUN = """
import asyncio, sys
from pathlib import Path
from steer_verl.eval.config import StudentSettings
from steer_verl.eval.students.answers import Setup
from steer_verl.eval.students.served import ServedStudent
from steer_verl.eval.students.server import VllmServer
from steer_verl.models.place import Place

real = VllmServer.command
def command(self, port):
    arguments = real(self, port)
    return [sys.executable, sys.argv[3], "well", *arguments[arguments.index("--model"):]]
VllmServer.command = command

async def main():
    settings = StudentSettings(path=Path(sys.argv[1]))
    student = ServedStudent(Setup(settings, Path(sys.argv[2]), "student@1", tell=lambda line: None))
    try:
        await student.answer([{"role": "user", "content": "Well?"}], Place("step/item"))
        print("answered", flush=True)
        await asyncio.sleep(600)
    finally:
        await student.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, "both"])
def test_nothing_is_left_of_a_run_that_was_ended(tmp_path: Path, make: Make, how: Any) -> None:
    """``both``: the run and the keeper of its server are killed at once, and only the next run can clean up."""
    command = [sys.executable, "-c", RUN, str(hugging_face(tmp_path / "model")), str(tmp_path / "out"), str(FAKE)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()})
    try:
        assert run.stdout is not None and run.stdout.readline() == b"answered\n"
        server = pids(tmp_path)[0]
        assert alive(server)
        if how == "both":
            keeper = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
            os.kill(keeper, signal.SIGKILL)
            os.kill(run.pid, signal.SIGKILL)
            run.wait(20)
            assert alive(server)
            asyncio.run(_answer_once(make("well")))
        else:
            run.send_signal(how)
            run.wait(20)
        assert all_gone(tmp_path)
        assert gone(tmp_path / "out" / "server.json")
    finally:
        run.kill()
        run.wait()


async def _answer_once(student: ServedStudent) -> None:
    await student.answer(ASKED, PLACE)
    await student.close()
