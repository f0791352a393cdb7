"""Strict readers for JSON that somebody else wrote: a line of objects each (JSONL), or one file of them.

A UTF-8 byte-order mark, CRLF ends and blank lines mean nothing and are passed over. Everything that would make two
readers disagree about a row is a problem of that row, and reading goes on: duplicate keys, NaN and infinities (even as
``1e999``), lone surrogates, lines beyond the cap, values that are no object, objects of too many keys or nested too
deeply, other encodings, a last line torn off. Time is linear in the file.
"""

from __future__ import annotations

import json
import math
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from steer_verl.errors import DataError
from steer_verl.text import one_line

MAX_LINE_BYTES = 4 * 2**20
MAX_FILE_BYTES = 2**29
"""Of a JSON file, which is read as a whole."""
MAX_KEYS = 1000
"""Keys of one object. A row has some 20; facts may add their own."""
MAX_DEPTH = 32
"""Levels of one row. A row has three or four; facts may add their own."""
MAX_NAME = 80
"""Characters of a key that a message repeats."""
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """One row: its 1-based ``number``, its ``size`` in bytes, and an object or what is wrong with it."""

    number: int
    size: int
    value: dict[str, Any] | None = None
    what: str = ""
    hint: str = ""
    key: str | None = None
    """Of an object of objects: the key that this one stands under."""


class _Refused(ValueError):
    """(what is wrong, the hint)"""


class _Faulty(dict[str, Any]):
    """An object with what is wrong with it; whoever asks for it may be far above."""

    fault: tuple[str, str] = ("", "")


def regular_file(path: Path) -> Path:
    """The same path: a pipe or a device, which may never end, is no data.

    Raises:
        DataError: it is no regular file, or it is not there.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: not a regular file; give a file of rows")
    return path


def read_jsonl(path: Path) -> Iterator[Line]:
    """Every line of the file that is not blank, in order; never more than one line in memory.

    Raises:
        DataError: the file cannot be opened.
    """
    try:
        stream = regular_file(path).open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    with stream:
        number = 0
        while raw := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if number == 1:
                raw = raw.removeprefix(BOM)
            if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
                size = len(raw) + _skip_line(stream)
                yield Line(
                    number, size, what=f"longer than {MAX_LINE_BYTES} bytes", hint="give paths, not images, in rows"
                )
            elif raw.strip():
                yield _line(number, raw)


def read_json(path: Path) -> Iterator[Line]:
    """The rows of a JSON file: a list of objects, an object of objects (each has its key), or one of the two under a
    key of its own, as in ``{"data": [...]}``.

    Raises:
        DataError: the file cannot be read, is no JSON, or is none of these. It names the place.
    """
    rows = _rows_of(_parsed(path), path)
    share = path.stat().st_size // max(len(rows), 1)
    for number, (key, value) in enumerate(rows, start=1):
        try:
            yield Line(number, share, _checked(value), key=key)
        except _Refused as error:
            yield Line(number, share, what=error.args[0], hint=error.args[1], key=key)


def parse_object(text: str) -> dict[str, Any]:
    """One JSON object under the rules above.

    Raises:
        ValueError: whose two arguments say what is wrong and how to fix it.
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise _Refused("nested too deeply", "flatten it") from None
    except ValueError as error:
        raise _Refused(f"not JSON ({error})", "write one JSON object a line, with json.dumps") from None
    return _checked(value, surrogates="\\u" in text)


def check_json(value: Any) -> None:
    """Look through a value that is to be JSON: containers of the plain kinds, none too deep, large or at fault.

    Raises:
        ValueError: whose two arguments say what is wrong and how to fix it.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for one in level if isinstance(one, dict | list) for inner in _inside(one)]
        if not level:
            return
    raise _Refused("nested too deeply", "flatten it")


def _inside(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    inner: Iterable[Any] = value if isinstance(value, list) else value.values()
    if isinstance(value, dict) and len(value) > MAX_KEYS:
        what = f"an object of {len(value)} keys, more than {MAX_KEYS}"
        raise _Refused(what, "write them as a list, or leave them out")
    if isinstance(value, _Faulty):
        raise _Refused(*value.fault)
    for one in inner:
        if isinstance(one, float) and not math.isfinite(one):
            raise _Refused("a number that is not finite", "JSON has finite numbers only; use null or drop it")
    return inner


def _checked(value: Any, *, surrogates: bool = True) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Refused(f"a {type(value).__name__}, not an object", "write one JSON object for each row")
    check_json(value)
    if surrogates:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _Refused("a lone surrogate", "write the character itself, in UTF-8") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
    faulty = _Faulty(value)
    faulty.fault = (f"the key {one_line(twice, MAX_NAME)!r} stands twice", "keep one")
    return faulty


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _parsed(path: Path) -> Any:
    try:
        size = regular_file(path).stat().st_size
        if size > MAX_FILE_BYTES:
            raise DataError(f"{path}: {size} bytes, more than {MAX_FILE_BYTES}; write it as JSONL, one object a line")
        return _DECODER.decode(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except RecursionError:
        raise DataError(f"{path}: nested too deeply; flatten it") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); fetch or write the file again") from None


def _rows_of(value: Any, path: Path) -> list[tuple[str | None, Any]]:
    if isinstance(value, list):
        return [(None, row) for row in value]
    if isinstance(value, dict):
        if isinstance(value, _Faulty):
            raise DataError(f"{path}: {value.fault[0]}; {value.fault[1]}")
        lists = [inner for inner in value.values() if isinstance(inner, list) and any(map(_is_object, inner))]
        if len(lists) == 1 and not any(map(_is_object, value.values())):
            return _rows_of(lists[0], path)
        only = next(iter(value.values())) if len(value) == 1 else None
        if isinstance(only, dict) and only and all(map(_is_object, only.values())):
            return _rows_of(only, path)
        if any(map(_is_object, value.values())):
            return list(value.items())
    raise DataError(f"{path}: neither a list of objects nor objects by their ids; write one object a line as .jsonl")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _line(number: int, raw: bytes) -> Line:
    try:
        return Line(number, len(raw), parse_object(raw.decode("utf-8")))
    except UnicodeDecodeError:
        return Line(number, len(raw), what="not UTF-8", hint="save the file as UTF-8")
    except _Refused as error:
        what, hint = error.args
        if not raw.endswith(b"\n") and what.startswith("not JSON"):
            what, hint = "the last line is torn off", "remove it, or write the file again"
        return Line(number, len(raw), what=what, hint=hint)


def _skip_line(stream: BinaryIO) -> int:
    skipped = 0
    while part := stream.readline(MAX_LINE_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped
