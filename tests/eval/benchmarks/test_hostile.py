"""Files that never end, nest without end or ask for more memory than there is: an error or an odd row, and soon."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.items import Ids, items_of
from steer_verl.eval.config import BenchmarkSettings
from steer_verl.eval.records import EvalDialogue
from steer_verl.eval.runs import read_dialogues
from tests.eval.benchmarks.samples import items


@pytest.mark.parametrize("kind", ["file", "source"])
@pytest.mark.parametrize("name", ["/dev/zero", "pipe.jsonl", "pipe.json", "pipe.csv", "pipe.parquet"])
def test_a_pipe_or_a_device_is_no_file(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    if not path.exists():
        os.mkfifo(path)
    place: Any = path if kind == "file" else {"set": "plain", "path": path}
    with pytest.raises(DataError, match="not a regular file"):
        list(items_of({"bench": BenchmarkSettings.model_validate({kind: place})}, tmp_path / "work"))


def test_rows_that_nest_without_end_are_odd_rows(tmp_path: Path) -> None:
    deep = ['{"a":' * count + "1" + "}" * count for count in (40, 100_000)]
    rows = [f'{{"question_id": 1, "messages_fixed": ["What?"], "facts": {facts}}}' for facts in deep]
    path = tmp_path / "b.jsonl"
    path.write_text("\n".join([*rows, "[" * 100_000, '{"question_id": 2, "messages_fixed": ["What?"]}']))
    assert [item.oddities[0] for item in items(path)] == ["broken_line"] * 3 + ["no_image"]
    whole = tmp_path / "b.json"
    whole.write_text("[" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        items(whole)


def test_a_file_with_one_id_takes_no_longer_than_another() -> None:
    ids, start = Ids(), time.monotonic()
    names = [ids.unique("x") for _ in range(100_000)]
    assert names[:3] == ["x", "x#2", "x#3"] and len(set(names)) == len(names)
    assert time.monotonic() - start < 5


def test_an_id_that_looks_like_one_of_ours_is_kept_apart() -> None:
    ids = Ids()
    assert [ids.unique(name) for name in ("x#2", "x", "x", "x#2", "x")] == ["x#2", "x", "x#3", "x#2#2", "x#4"]


def test_a_dialogue_has_no_more_turns_than_a_dialogue_can_have(tmp_path: Path) -> None:
    good = {"id": "b/1", "benchmark": "b", "kind": "benign", "planned": 3, "end": "unplayable"}
    path = tmp_path / "dialogues.jsonl"
    path.write_text("".join(json.dumps({**good, "planned": planned}) + "\n" for planned in (3, 10**9, 11, -1)))
    (only,) = read_dialogues(path)
    assert only == EvalDialogue.model_validate(good, strict=False) and only.harmless == (None, None, None)
