"""A JSON list is read an object at a time, and says what is broken in it."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steer_verl.data.sources import json_list
from steer_verl.data.sources.json_list import read_json_list

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.text('a\u00e9\u597d\U0001f600"\\ \n{}[],:', max_size=6)
)
VALUES = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(st.sampled_from("abc"), LEAVES, max_size=2)


@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["a", "b", "cd"]), VALUES, max_size=3), max_size=5),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 2]),
    keep=st.booleans(),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=80, deadline=None
)
def test_it_reads_what_json_reads_whatever_the_window(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[dict[str, Any]],
    chunk: int,
    indent: int | None,
    keep: bool,
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows, ensure_ascii=keep, indent=indent), encoding="utf-8")
    monkeypatch.setattr(json_list, "_CHUNK", chunk)
    lines = list(read_json_list(path))
    assert [line.value for line in lines] == rows
    assert [line.number for line in lines] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(
    ("text", "values", "faults"),
    [
        ("", 0, ["not a JSON list"]),
        ('{"a": 1}', 0, ["not a JSON list"]),
        ("[]", 0, []),
        ('\ufeff [ {"a": 1} ]', 1, []),
        ('[{"a": 1}, 2, "x", [3], {"b": 1}]', 2, ["a int, not", "a str, not", "a list, not"]),
        ('[{"a": 1, "a": 2}, {"b": NaN}, {"c": 1}]', 1, ["stands twice", "NaN"]),
        ('[{"a": 1}, {"b": "torn', 1, ["breaks off"]),
        ('[{"a": 1}, ', 1, ["breaks off"]),
        ('[{"a": 1}', 1, ["breaks off"]),
        ('[{"a": 1} {"b": 2}]', 1, ["breaks off"]),
        ("[" * 100_000, 0, ["breaks off"]),
    ],
)
def test_faults_are_told_and_reading_goes_on_as_far_as_it_can(
    tmp_path: Path, text: str, values: int, faults: list[str]
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    lines = list(read_json_list(path))
    assert sum(line.value is not None for line in lines) == values
    found = [line.what for line in lines if line.value is None]
    assert len(found) == len(faults) and all(fault in what for fault, what in zip(faults, found, strict=True)), found


def test_an_object_in_another_encoding_is_its_own_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a": "caf\xe9"}, {"a": "caf\xc3\xa9"}]')
    bad, good = read_json_list(path)
    assert (bad.value, bad.what) == (None, "not UTF-8") and good.value == {"a": "caf\u00e9"}


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    peaks = []
    for rows in (2_000, 40_000):
        path.write_text("[" + ",".join(json.dumps({"question": "What is it? " * 10}) for _ in range(rows)) + "]")
        tracemalloc.start()
        assert sum(line.value is not None for line in read_json_list(path)) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5 + 2**19, peaks


def test_an_endless_object_is_given_up_at_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_list, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(json_list, "_CHUNK", 100)
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}, {"b": "' + "x" * 100_000 + '"}]')
    good, bad = read_json_list(path)
    assert good.value == {"a": 1} and "breaks off" in bad.what
