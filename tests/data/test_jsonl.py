"""The strict reader: every kind of bad line, and that one bad line never hides the next."""

from __future__ import annotations

import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.data import jsonl
from steer_verl.data.jsonl import check_json, parse_object, read_json, read_jsonl
from steer_verl.errors import DataError

GOOD = b'{"a": 1}'
BAD_LINES = {
    b"[1]": "a list, not an object",
    b"3": "an? int|a int",
    b"null": "NoneType",
    b'{"a": 1, "a": 2}': "'a' stands twice",
    b'{"b": {"a": 1, "a": 2}}': "'a' stands twice",
    b'{"a": NaN}': "not finite",
    b'{"a": [-Infinity]}': "not finite",
    b'{"a": 1e999}': "not finite",
    b'{"a":' + b"[" * 40 + b"]" * 40 + b"}": "nested too deeply",
    b'{"a":' + b'{"b":' * 300 + b"1" + b"}" * 300 + b"}": "nested too deeply",
    b'{"a": "\\ud800"}': "lone surrogate",
    b'{"\\udfff": 1}': "lone surrogate",
    b'{"a": ': "not JSON",
    b'{"a": 1} {"a": 2}': "not JSON",
    b'{"a": "\xff"}': "not UTF-8",
    b'{"a": "\xed\xa0\x80"}': "not UTF-8",
    b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}": "nested too deeply",
    b'{"a":' + b"9" * 10_000 + b"}": "not JSON",
    json.dumps({f"k{i}": i for i in range(jsonl.MAX_KEYS + 1)}).encode(): "1001 keys, more than 1000",
    b'{"b": %s}' % json.dumps({f"k{i}": i for i in range(jsonl.MAX_KEYS + 1)}).encode(): "1001 keys",
    b'{"\\u001b]0;x\\u0007k\\u202e": 1, "\\u001b]0;x\\u0007k\\u202e": 2}': "the key 'k' stands twice",
}


@pytest.mark.parametrize("bad", BAD_LINES, ids=list(BAD_LINES.values()))
def test_a_bad_line_is_told_and_reading_goes_on(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b"\n" + bad + b"\n" + GOOD + b"\n")
    first, second, third = read_jsonl(path)
    assert first.value == third.value == {"a": 1}
    assert second.value is None and second.number == 2 and second.hint
    assert any(part in second.what for part in BAD_LINES[bad].split("|")), second.what


def test_byte_order_mark_crlf_and_blank_lines_mean_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n   \n" + GOOD + b"\n\xef\xbb\xbf" + GOOD)
    assert [(line.number, line.value) for line in read_jsonl(path)] == [(n, {"a": 1}) for n in (1, 4, 5)]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (gzip.compress(GOOD, mtime=0), "packed; unpack it"),
        (b"PAR1\n\n", r"end in \.parquet"),
        (b"PK\x03\x04\n", "as CSV"),
    ],
)
@pytest.mark.parametrize("read", [read_jsonl, read_json])
def test_what_is_no_text_is_told_once_and_not_line_by_line(tmp_path: Path, read: Any, data: bytes, told: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(data)
    with pytest.raises(DataError, match=told):
        list(read(tmp_path / "rows.jsonl"))


def test_utf16_is_not_taken_for_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes((GOOD.decode() + "\n").encode("utf-16"))
    assert all(line.value is None for line in read_jsonl(path))


@pytest.mark.parametrize("keep", range(1, len(GOOD)))
def test_a_torn_last_line_is_named_so(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b"\n" + GOOD[:keep])
    _, last = read_jsonl(path)
    assert last.value is None and "torn off" in last.what


def test_a_line_beyond_the_cap_is_skipped_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 16)
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b"\n" + b"x" * 1000 + b"\n" + GOOD + b"\n" + b"y" * 100)
    lines = list(read_jsonl(path))
    assert [line.value is not None for line in lines] == [True, False, True, False]
    assert sum(line.size for line in lines) == path.stat().st_size
    assert "longer than 16" in lines[1].what


@pytest.mark.parametrize("last", ["k39999", "k0", "x"])
def test_a_flood_of_keys_takes_no_time(tmp_path: Path, last: str) -> None:
    names = [f"k{number}" for number in range(40_000)]
    path = tmp_path / "a.jsonl"
    path.write_text("{" + ", ".join(f'"{name}": 1' for name in [*names, last]) + "}\n")
    started = time.process_time()
    (line,) = read_jsonl(path)
    assert line.value is None and "keys" in line.what
    assert time.process_time() - started < 1


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.jsonl: cannot be read"):
        list(read_jsonl(tmp_path / "no.jsonl"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), json_values, max_size=4), st.booleans())
def test_whatever_json_writes_is_read_back(value: dict[str, object], ascii_only: bool) -> None:
    assert parse_object(json.dumps(value, ensure_ascii=ascii_only)) == value


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("[]", []),
        ('\ufeff [ {"a": 1}, {"b": 2} ]', [(None, {"a": 1}), (None, {"b": 2})]),
        ('{"7": {"a": 1}, "8": {"a": {"b": 2}}}', [("7", {"a": 1}), ("8", {"a": {"b": 2}})]),
        ('{"version": 2, "data": [{"a": 1}]}', [(None, {"a": 1})]),
        ('{"data": {"7": {"a": 1}, "8": {"a": 2}}}', [("7", {"a": 1}), ("8", {"a": 2})]),
        (
            '{"7": {"question": "What?", "metadata": {"over": 1}}}',
            [("7", {"question": "What?", "metadata": {"over": 1}})],
        ),
    ],
)
def test_a_json_file_is_a_list_or_an_object_by_ids_perhaps_in_a_wrapper(
    tmp_path: Path, text: str, rows: list[tuple[str | None, object]]
) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    assert [(line.key, line.value) for line in read_json(path)] == rows


def test_a_row_at_fault_does_not_hide_the_next_in_a_json_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    bad = ['{"a": 1, "a": 2}', '{"b": {"a": 1, "a": 2}}', '{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "2", "[3]"]
    path.write_text("[" + ", ".join(f'{row}, {{"good": 1}}' for row in bad) + "]")
    lines = list(read_json(path))
    assert [line.value for line in lines[1::2]] == [{"good": 1}] * len(bad)
    assert all(line.value is None and line.what and line.hint for line in lines[::2])
    path.write_text('{"1": {"a": 1, "a": 2}, "2": {"good": 1}, "3": 5}')
    assert [line.value for line in read_json(path)] == [None, {"good": 1}, None]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "not JSON"),
        (b'[{"a": 1}, {"b": "torn', "line 1 column 18"),
        (b'[{"a": 1} {"b": 2}]', "line 1 column 11"),
        (b'[{"a": "caf\xe9"}]', "not UTF-8 at byte 11"),
        (b'{"a": 1}', "neither a list"),
        (b"7", "neither a list"),
        (b'{"1": {"a": 1}, "1": {"a": 2}}', "'1' stands twice"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_a_broken_json_file_is_one_line_with_the_place(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=told) as caught:
        list(read_json(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_pipe_and_a_device_are_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero"), tmp_path):
        for read in (read_json, read_jsonl):
            with pytest.raises(DataError, match="not a regular file"):
                list(read(path))
    monkeypatch.setattr(jsonl, "MAX_FILE_BYTES", 3)
    (tmp_path / "big.json").write_text("[{}]")
    with pytest.raises(DataError, match="more than 3"):
        list(read_json(tmp_path / "big.json"))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": "\ud800"}, "lone surrogate"),
        ({"\udfff": 1}, "lone surrogate"),
        ({"a": b"bytes"}, "JSON does not have"),
        ({"a": float("nan")}, "not finite"),
    ],
)
def test_a_value_that_is_no_json_is_told_wherever_it_came_from(value: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        check_json(value)
    assert len(caught.value.args) == 2
