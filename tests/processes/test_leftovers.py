"""Taking away what a killed run has left, and nothing else, whatever a record says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_verl.errors import SteerError
from steer_verl.processes import leftovers
from steer_verl.processes.leftovers import MARK, SHM, TOKEN_ENV, Claim, claim, clear, clear_earlier, processes

TOKEN = "0123456789abcdef" * 2


@pytest.fixture
def tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the system for this test alone."""
    folder = tmp_path / "system"
    folder.mkdir()
    monkeypatch.setattr(leftovers, "TMP", folder)
    monkeypatch.setattr(leftovers, "GRACE", 2.0)
    return folder


@contextmanager
def sleeping(environment: dict[str, str], *, session: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has begun and does nothing."""
    code = "print(flush=True); import time; time.sleep(60)"
    env = {**os.environ, **environment}
    child = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, start_new_session=session)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"\n"
        yield child
    finally:
        child.kill()
        child.wait()


def notes(folder: Path) -> Path:
    """Somebody's folder, with something in it."""
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("months of work")
    return folder


def test_a_claim_is_taken_away_with_all_that_is_in_its_folder(tmp: Path, tmp_path: Path) -> None:
    left, record = claim(), tmp_path / "running.json"
    left.save(record)
    assert left.folder.parent == tmp and left.folder.stat().st_mode & 0o077 == 0
    (left.folder / "ray" / "session").mkdir(parents=True)
    outside = notes(tmp_path / "outside")
    (left.folder / "link").symlink_to(outside)
    assert Claim.load(record) == left
    assert clear_earlier(record) and not record.exists() and not left.folder.exists()
    assert (outside / "notes.txt").exists(), "links in it are not followed"
    assert not clear_earlier(record)


MAKE = """
import sys, time
from pathlib import Path
from steer_verl.processes import leftovers
leftovers.TMP = Path(sys.argv[1])
held = leftovers.claim()
held.save(Path(sys.argv[2]))
print(flush=True)
time.sleep(60)
"""


def test_the_record_of_a_run_that_lives_is_no_leftover(tmp: Path, tmp_path: Path) -> None:
    """A copy of a folder in which a run is at work has a copy of its record."""
    record = tmp_path / "copy.json"
    maker = subprocess.Popen([sys.executable, "-c", MAKE, str(tmp), str(record)], stdout=subprocess.PIPE)
    try:
        assert maker.stdout is not None and maker.stdout.readline() == b"\n"
        left = Claim.load(record)
        assert left is not None
        with sleeping(left.environment({})) as server:
            with pytest.raises(
                SteerError, match=r"copy\.json: the run that wrote it is at work .process \d+.*wait for it"
            ):
                clear_earlier(record)
            assert server.poll() is None and left.folder.exists() and record.exists()
            later = left.model_copy(update={"born": left.born + 1})
            assert not later.is_at_work, "its process id has come back"
            maker.kill()  # not waited for yet: a zombie is dead
            for _ in range(100):
                if not left.is_at_work:
                    break
                time.sleep(0.05)
            assert clear_earlier(record) and server.wait(timeout=5) == -signal.SIGTERM and not left.folder.exists()
    finally:
        maker.kill()
        maker.wait()


def test_its_folder_is_short_and_no_two_are_alike() -> None:
    one, two = claim(), claim()
    try:
        assert one.folder != two.folder and one.folder.parent == Path("/tmp") and len(str(one.folder)) < 40
    finally:
        clear(one)
        clear(two)
    assert not one.folder.exists() and not two.folder.exists()


FOREIGN: dict[str, Any] = {"token": TOKEN, "boot": "another", "maker": 1, "born": 0, "leader": 0}


@pytest.mark.parametrize(
    "changes",
    [
        {"tmp": "HOME/steer-notes"},
        {"tmp": "HOME/steer-verl"},
        {"folder": "HOME/steer-notes"},
        {"token": "../HOME/steer-notes"},
        {"token": "HOME/steer-notes"},
        {"token": "notes"},
        {"token": ".." * 16},
        {"token": f"{TOKEN}/../steer-notes"},
        {"token": f"{TOKEN}\n"},
        {"token": TOKEN.upper()},
        {"token": ""},
        {"token": None},
        {"token": [TOKEN]},
        {"maker": "1"},
        {"maker": None},
        {"maker": -1, "born": -1},
        {"leader": "1"},
        {"leader": 1},
        {"leader": -1},
        {"boot": ""},
        {},
    ],
)
@pytest.mark.parametrize("here", [True, False], ids=["this boot", "another boot"])
def test_a_foreign_record_takes_nothing_of_ours(
    tmp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], here: bool
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    mine = [notes(place / name) for place in (home, tmp) for name in ("steer-notes", "steer-verl", "steer-")]
    mine.append(notes(tmp / f"steer-{TOKEN[:12]}"))  # without our mark
    given = {**FOREIGN, **({"boot": leftovers.boot_id()} if here else {}), **changes}
    record = tmp_path / "server.json"
    record.write_text(json.dumps(given).replace("HOME", str(home)))
    with sleeping({}) as bystander:
        clear_earlier(record)
        assert bystander.poll() is None
    assert all((folder / "notes.txt").exists() for folder in mine) and not record.exists()


@given(
    st.dictionaries(
        st.sampled_from(["token", "boot", "maker", "born", "leader", "tmp"]), st.text(max_size=40) | st.integers()
    )
)
def test_a_record_of_any_form_is_read_or_none(fields: dict[str, Any]) -> None:
    try:
        read = Claim.model_validate_json(json.dumps(fields))
    except ValueError:
        return
    assert read.folder.parent == Path("/tmp") and read.folder.name.startswith("steer-")


def test_a_link_in_place_of_the_folder_stays(tmp: Path, tmp_path: Path) -> None:
    mine = notes(tmp_path / "steer-notes")
    (mine / MARK).write_text(TOKEN)
    left = Claim.model_validate({**FOREIGN})
    left.folder.symlink_to(mine)
    clear(left)
    assert (mine / "notes.txt").exists() and left.folder.is_symlink()


def test_the_folder_of_another_user_stays(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = claim()
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    clear(left)
    assert left.folder.exists()


def test_the_mark_holds_the_whole_token(tmp: Path) -> None:
    made = claim()
    clear(made.model_copy(update={"token": made.token[:12] + "0" * 20}))
    assert made.folder.exists(), "same name, another token"
    (made.folder / MARK).write_bytes(b"\xff\xfe")
    clear(made)
    assert made.folder.exists(), "no mark that can be read"


def test_a_recorded_process_without_the_token_is_left_alone(tmp: Path) -> None:
    left = claim()
    with sleeping({}) as shell, sleeping({TOKEN_ENV: "f" * 32}) as other:
        for child in (shell, other):
            foreign = left.led_by(child.pid)
            assert processes(foreign) == []
            clear(foreign)
            assert child.poll() is None, "its session neither"


def test_a_session_is_ours_only_when_a_process_with_the_token_leads_it(tmp: Path) -> None:
    left = claim()
    env = left.environment({})
    with sleeping(env, session=False) as child:  # in the session of the tests
        assert processes(left) == [child.pid], "and nobody else of that session"
        clear(left)
        assert child.wait(timeout=5) == -signal.SIGTERM


def test_a_process_that_hides_its_environment_goes_with_its_session(tmp: Path) -> None:
    left = claim()
    hidden = "import subprocess, sys, time; c = subprocess.Popen(['sleep', '60'], env={}); print(c.pid, flush=True)"
    env = left.environment(os.environ)
    leader = subprocess.Popen(
        [sys.executable, "-c", f"{hidden}; time.sleep(60)"], env=env, stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout is not None
    bare = int(leader.stdout.readline())
    assert set(processes(left)) == {leader.pid, bare}
    clear(left.led_by(leader.pid))
    assert leader.wait(timeout=5) == -signal.SIGTERM and processes(left) == []


def test_a_run_within_a_run_carries_both_tokens(tmp: Path) -> None:
    outer, inner = claim(), claim()
    env = inner.environment(outer.environment({"HOME": "/root"}))
    assert env[TOKEN_ENV].split() == [outer.token, inner.token] and env["RAY_TMPDIR"] == str(inner.folder)
    with sleeping(env) as child:
        assert processes(outer) == processes(inner) == [child.pid]
        clear(outer)
        assert child.wait(timeout=5) == -signal.SIGTERM
    clear(inner)


def test_processes_of_an_earlier_boot_are_left_alone(tmp: Path) -> None:
    left = claim()
    earlier = left.model_copy(update={"boot": "another"})
    with sleeping(left.environment({})) as child:
        assert processes(left) == [child.pid]
        clear(earlier)
        assert child.poll() is None and not left.folder.exists(), "the folder is ours in every boot"
        clear(left)
        assert child.wait(timeout=5) == -signal.SIGTERM


def test_shared_memory_seen_with_the_run_is_removed_unless_it_is_in_use(tmp: Path) -> None:
    left = claim()
    foreign, orphan = (SHM / f"psm_steer{os.getpid()}{letter}" for letter in "ab")
    foreign.touch()
    orphan.touch()
    used = shared_memory.SharedMemory(name=f"psm_steer{os.getpid()}c", create=True, size=16)
    try:
        clear(left, {orphan.name, used.name})
        assert foreign.exists() and not orphan.exists() and (SHM / used.name).exists()
    finally:
        used.close()
        used.unlink()
        foreign.unlink()


def test_a_process_may_be_called_anything_and_map_anything(tmp: Path, tmp_path: Path) -> None:
    """Linux cuts names after 15 bytes, in the middle of a letter too."""
    left, named = claim(), tmp_path / "r\u2028\udce9)"
    named.write_bytes(b"x")
    code = """if True:
        import mmap, sys, time
        from pathlib import Path
        Path("/proc/self/comm").write_bytes(b"sauvegard\\xe9 1) S")
        file = open(sys.argv[1], "rb")
        held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        print(flush=True)
        time.sleep(60)"""
    env = left.environment(dict(os.environ))
    with subprocess.Popen([sys.executable, "-c", code, named], env=env, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"\n"
        assert processes(left) == [child.pid] and leftovers.shared_memory(left) == set()
        clear(left)
    assert child.returncode == -signal.SIGTERM


def test_a_user_without_a_name_can_start(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``docker run --user 12345``"""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert claim().environment({})["TORCHINDUCTOR_CACHE_DIR"].endswith(f"/torchinductor_uid_{os.getuid()}")


@pytest.mark.parametrize("torn", ['{"token": "x", "sess', "", "[" * 100_000, "null"])
def test_a_torn_record_is_no_record(tmp_path: Path, torn: str) -> None:
    (tmp_path / "running.json").write_text(torn)
    assert clear_earlier(tmp_path / "running.json") is False
    assert not (tmp_path / "running.json").exists()


def test_a_pipe_in_place_of_a_record_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "running.json")
    began = time.monotonic()
    assert clear_earlier(tmp_path / "running.json") is False
    assert time.monotonic() - began < 5
