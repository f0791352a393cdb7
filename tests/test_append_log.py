"""Lines that outlive a kill."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from steer_verl.append_log import append, files, own_file, whole_lines
from steer_verl.types import Scores


def test_lines_come_back_in_order_and_a_torn_one_is_passed_over(tmp_path: Path) -> None:
    path = own_file(tmp_path / "made" / "when needed")
    records = [Scores(safety=n, usefulness=1, faithfulness=1) for n in range(1, 6)]
    for record in records:
        append(path, record)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        read = [Scores.model_validate_json(line) for _, line in whole_lines(path)]
        assert read == records[: whole[:cut].count(b"\n")]


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
    assert all(len(list(whole_lines(path))) == 50 for path in files(tmp_path))
