"""Lines that outlive a kill and a full disk, and their one reader."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steer_verl import records
from steer_verl.errors import DataError
from steer_verl.records import append, atomic, files, lines_at, own_file, read_records, write_whole
from steer_verl.types import Scores

parse = Scores.model_validate_json
FIVE = [Scores(safety=n, usefulness=1, faithfulness=1) for n in range(1, 6)]


def written(path: Path) -> bytes:
    """Five records."""
    for record in FIVE:
        append(path, record)
    return path.read_bytes()


def warnings(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno == logging.WARNING]


def test_lines_come_back_in_order_and_a_torn_one_is_passed_over(tmp_path: Path) -> None:
    path = own_file(tmp_path / "made" / "when needed")
    whole = written(path)
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        expected = FIVE[: whole[:cut].count(b"\n")]
        assert list(read_records(path, parse)) == list(read_records(path.parent, parse)) == expected
        assert [parse(line) for _, line in lines_at(path)] == expected


def test_a_line_is_found_again_by_where_it_begins(tmp_path: Path) -> None:
    path = own_file(tmp_path)
    offsets = [append(path, FIVE[0])]
    with path.open("ab") as file:
        file.write(b'\n \nnothing\n{"torn": ')
    offsets += [append(path, record) for record in FIVE[1:]]
    found = {offset: line for offset, line in lines_at(path) if b"safety" in line}
    assert list(found) == offsets and [parse(line) for line in found.values()] == FIVE
    for offset, record in zip(offsets, FIVE, strict=True):
        with path.open("rb") as file:
            file.seek(offset)
            assert parse(file.readline()) == record


def _write(folder: Path, count: int) -> None:
    for number in range(count):
        append(own_file(folder), Scores(safety=1 + number % 10, usefulness=1, faithfulness=1))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_every_process_has_a_file_of_its_own(tmp_path: Path, method: str) -> None:
    context = multiprocessing.get_context(method)
    workers = [context.Process(target=_write, args=(tmp_path, 50)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(files(tmp_path)) == 3
    assert all(len(list(read_records(path, parse))) == 50 for path in files(tmp_path))


def full_after(count: int) -> Callable[[int, Any], int]:
    """``os.write`` on a disk with room for so many bytes; as the kernel has it, a write takes what fits."""
    room, real = [count], os.write

    def write(handle: int, data: Any) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(handle, bytes(data)[: room[0]])
        room[0] -= done
        return done

    return write


@pytest.mark.parametrize("can_cut", [True, False])
@pytest.mark.parametrize("room", [0, 1, 20, -1])
def test_a_full_disk_costs_the_record_it_met_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_cut: bool, room: int
) -> None:
    """``-1``: all but the line's last byte, the newline: torn it is still, for the caller was told so."""
    path, lost, later = own_file(tmp_path), FIVE[3], FIVE[4]
    for record in FIVE[:3]:
        append(path, record)
    before = path.read_bytes()
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full_after(room % (len(lost.model_dump_json()) + 1)))
        if not can_cut:
            disk.setattr(os, "ftruncate", full_after(0))
        with pytest.raises(OSError) as error:
            append(path, lost)
    assert error.value.errno == errno.ENOSPC
    if can_cut:
        assert path.read_bytes() == before
    assert list(read_records(tmp_path, parse)) == FIVE[:3]
    append(path, later)  # there is room again
    append(path, later)
    assert list(read_records(tmp_path, parse)) == [*FIVE[:3], later, later]


def test_a_write_in_several_parts_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, bytes(data)[:7]))
    assert written(own_file(tmp_path)).count(b"\n") == 5
    assert list(read_records(tmp_path, parse)) == FIVE


def test_an_interrupt_between_two_parts_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(own_file(tmp_path), FIVE[0])
    real = os.write

    def interrupted(handle: int, data: Any) -> int:
        if len(data) < 10:
            raise KeyboardInterrupt
        return real(handle, bytes(data)[:-5])

    with monkeypatch.context() as signal:
        signal.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            append(own_file(tmp_path), FIVE[1])
    append(own_file(tmp_path), FIVE[2])
    assert list(read_records(tmp_path, parse)) == [FIVE[0], FIVE[2]]


def test_one_threads_full_disk_takes_no_line_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failed = os.write, threading.local()

    def write(handle: int, data: Any) -> int:
        """Every second append of a thread finds the disk full after 9 bytes."""
        failed.count = getattr(failed, "count", 0) + 1
        if failed.count % 3 == 0:
            raise OSError(errno.ENOSPC, "full")
        done = real(handle, bytes(data)[:9] if failed.count % 3 == 2 else data)
        time.sleep(0.001)
        return done

    monkeypatch.setattr(os, "write", write)
    kept: list[int] = []

    def work() -> None:
        for _ in range(10):
            try:
                append(own_file(tmp_path), FIVE[0])
                kept.append(1)
            except OSError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 20 and list(read_records(tmp_path, parse)) == [FIVE[0]] * 20


BAD_LINES = {
    "torn": b'{"safety": 1, "useful',
    "foreign": b'{"step": 1}',
    "no JSON": b"hello",
    "not UTF-8": b'{"safety": "\xff\xfe"}',
    "NUL bytes": b"\0" * 100,
    "too deep": b"[" * 100_000,
    "glued": FIVE[0].model_dump_json()[:9].encode() + FIVE[1].model_dump_json().encode(),
    "a number beyond all": b'{"safety": ' + b"9" * 5000 + b', "usefulness": 1, "faithfulness": 1}',
}


@pytest.mark.parametrize("bad", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_passed_over_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: bytes
) -> None:
    path = tmp_path / "log.jsonl"
    lines = written(path).splitlines()
    path.write_bytes(b"\n".join([*lines[:2], bad, *lines[2:4], bad, b"", lines[4], b""]))
    for _ in range(2):
        assert list(read_records(tmp_path, parse)) == FIVE
    (said,) = warnings(caplog)
    assert str(path) in said and "2 lines, the first 3," in said
    assert "useful" not in said, "what a foreign file says is not repeated"


def test_a_parser_may_raise_what_it_likes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "log.jsonl").write_text("a\nb\nc\n")

    def deep(line: bytes) -> str:
        if line == b"b":
            return deep(line)
        return line.decode()

    assert list(read_records(tmp_path, deep)) == ["a", "c"]
    assert "line 2 cannot be read and is passed over" in warnings(caplog)[0]


def test_an_endless_line_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LINE", 100)
    path = tmp_path / "log.jsonl"
    lines = written(path).splitlines()
    seen: list[int] = []

    def measured(line: bytes) -> Scores:
        seen.append(len(line))
        return parse(line)

    for length in (99, 100, 101, 200, 201, 1000):
        path.write_bytes(b"\n".join([lines[0], b"x" * length, *lines[1:], b""]))
        assert list(read_records(path, measured)) == FIVE
    assert max(seen) <= 100
    path.write_bytes(b"\n".join([*lines, b"x" * 1000]))
    assert list(read_records(path, parse)) == FIVE


@given(data=st.data(), garbage=st.binary(max_size=30), cut=st.integers(0, 400))
def test_what_is_whole_is_read_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, garbage: bytes, cut: int
) -> None:
    """Garbage between lines and a cut at any byte."""
    path = tmp_path_factory.mktemp("log") / "a.jsonl"
    lines = [line + b"\n" for line in written(path).splitlines()]
    place = data.draw(st.integers(0, len(lines)))
    spoiled = b"".join([*lines[:place], garbage, b"\n", *lines[place:]])[:cut]
    path.write_bytes(spoiled)
    expected = []
    for number, record in enumerate(FIVE):
        end = sum(map(len, lines[: number + 1])) + (len(garbage) + 1 if number >= place else 0)
        expected += [record] if end <= cut else []
    assert list(read_records(path, parse)) == expected


def test_a_file_of_something_else_is_an_error_where_records_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert list(read_records(path, parse)) == []
    with pytest.raises(DataError, match=r"log\.jsonl:1: not a score, nor is any other line"):
        list(read_records(path, parse, needed="a score"))
    for fine in (
        "",
        '{"safety": 1, "use',
        f"hello\n{FIVE[0].model_dump_json()}\n",
    ):  # nothing yet, or a kill's torn line
        path.write_text(fine)
        list(read_records(path, parse, needed="a score"))


def test_what_is_not_there_holds_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")  # opened, it would never end
    (tmp_path / "folder.jsonl").mkdir()
    assert list(read_records(tmp_path / "nowhere", parse)) == list(read_records(tmp_path, parse)) == []


def test_files_go_by_the_time_in_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 10)
    killed = own_file(tmp_path)
    append(killed, FIVE[0])
    monkeypatch.setattr(os, "getpid", lambda: 9)
    resumed = own_file(tmp_path)
    append(resumed, FIVE[1])
    for name in ("z.jsonl", "b-1-2.jsonl"):
        (tmp_path / name).touch()
    os.utime(killed)  # copied last
    assert [path.name for path in files(tmp_path)] == ["b-1-2.jsonl", "z.jsonl", killed.name, resumed.name]


def test_a_clock_that_was_set_back_reorders_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for process, now in enumerate([5_000_000_000_000_000_000, 4_000_000_000_000_000_000, 4_000_000_000_000_000_001]):
        monkeypatch.setattr(os, "getpid", lambda process=process: 900 - process)
        monkeypatch.setattr(time, "time_ns", lambda now=now: now)
        append(own_file(tmp_path), FIVE[process])
        names.append(own_file(tmp_path).name)
    assert [path.name for path in files(tmp_path)] == names
    assert list(read_records(tmp_path, parse)) == FIVE[:3]


def test_a_file_takes_its_name_only_when_its_writing_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write_whole(path, "first\n")
    with pytest.raises(KeyboardInterrupt), atomic(path) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text() == "first\n" and [each.name for each in path.parent.iterdir()] == ["page.html"]
    write_whole(path, "é \ud800\n")
    assert path.read_text(encoding="utf-8") == "é ?\n"


def test_a_folder_in_the_place_of_a_file_is_told_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    for folder in (tmp_path / "page", Path()):
        with pytest.raises(OSError) as told, atomic(folder):
            pytest.fail("it is told before anything is written")
        assert told.value.filename == str(folder) and [one.name for one in tmp_path.iterdir()] == ["page"]
