"""Strict readers for JSON that somebody else wrote: a line of objects each (JSONL), or one file of them.

A UTF-8 byte-order mark, CRLF ends and blank lines mean nothing and are passed over. Everything that would make two
readers disagree about a row is a problem of that row, and reading goes on: duplicate keys, NaN and infinities (even as
``1e999``), lone surrogates, lines beyond the cap, values that are no object, objects of too many keys or nested too
deeply, other encodings, a last line torn off. Time is linear in the file. A file that cannot be read at all is one
:class:`DataError`, with the place.
"""

from __future__ import annotations

import json
import math
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
_PACKED = "packed; unpack it, and give the file that was in it"
_FOREIGN = {
    b"\x1f\x8b": _PACKED,
    b"BZh": _PACKED,
    b"\xfd7zXZ": _PACKED,
    b"\x28\xb5\x2f\xfd": _PACKED,
    b"7z\xbc\xaf": _PACKED,
    b"PK\x03\x04": "a zip file, or a spreadsheet; unpack it, or save it as CSV",
    b"PAR1": "a parquet file; let its name end in .parquet",
}
"""First bytes of what is no text, whatever its name -> what it is."""


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


class NoRows(DataError):
    """A JSON file that is whole, and no table."""


class _Refused(ValueError):
    """(what is wrong, the hint)"""


class _Twice(dict[str, Any]):
    """An object with a key that stands twice; whoever asks for it may be far above."""

    key = ""

    def fault(self) -> tuple[str, str]:
        return f"the key {one_line(self.key, MAX_NAME)!r} stands twice", "keep one"


def regular_file(path: Path) -> Path:
    """The same path, or DataError: a pipe or a device, which may never end, is no data."""
    with _told(path):
        if stat.S_ISREG(path.stat().st_mode):
            return path
    raise DataError(f"{path}: not a regular file; give a file of rows")


def _text_file(path: Path) -> Path:
    with regular_file(path).open("rb") as stream:
        head = stream.read(8)
    if what := next((what for mark, what in _FOREIGN.items() if head.startswith(mark)), ""):
        raise DataError(f"{path}: {what}")
    return path


def read_jsonl(path: Path) -> Iterator[Line]:
    """Every line of the file that is not blank, in order; never more than one line in memory."""
    with _told(path):
        stream = _text_file(path).open("rb")
    with stream:
        number = 0
        while raw := stream.readline(MAX_LINE_BYTES + 1):
            number, part = number + 1, raw
            if len(raw) <= MAX_LINE_BYTES or raw.endswith(b"\n"):
                if (line := raw.removeprefix(BOM)).strip():  # files that were joined have one inside
                    yield _line(number, line)
                continue
            size = len(raw)
            while part and not part.endswith(b"\n"):
                size += len(part := stream.readline(MAX_LINE_BYTES))
            what, hint = f"longer than {MAX_LINE_BYTES} bytes", "give paths, not images, in rows"
            yield Line(number, size, what=what, hint=hint)


def read_json(path: Path) -> Iterator[Line]:
    """The rows of a JSON file: a list of objects, an object of objects (each has its key), or one of the two under a
    key of its own, as in ``{"data": [...]}``."""
    rows = _rows_of(_parsed(path), path)
    share = path.stat().st_size // max(len(rows), 1)
    for number, (key, value) in enumerate(rows, start=1):
        try:
            yield Line(number, share, _object(value), key=key)
        except _Refused as error:
            what, hint = error.args
            yield Line(number, share, None, what, hint, key)


def parse_object(text: str) -> dict[str, Any]:
    """One JSON object under the rules above; a ValueError has two arguments, what is wrong and how to fix it."""
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise _Refused("nested too deeply", "flatten it") from None
    except ValueError as error:
        raise _Refused(f"not JSON ({error})", "write one JSON object a line, with json.dumps") from None
    return _object(value)


def check_json(value: Any) -> None:
    """Look through a value that is to be JSON: none too deep, large or at fault. Raises as :func:`parse_object`."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for one in level if isinstance(one, dict | list) for inner in _inside(one)]
        if not level:
            break
    else:
        raise _Refused("nested too deeply", "flatten it")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _Refused("a lone surrogate", "write the character itself, in UTF-8") from None
    except (TypeError, ValueError):
        raise _Refused("a value that JSON does not have", "write it as a text") from None


def _inside(value: dict[str, Any] | list[Any]) -> list[Any]:
    if isinstance(value, dict) and len(value) > MAX_KEYS:
        what = f"an object of {len(value)} keys, more than {MAX_KEYS}"
        raise _Refused(what, "write them as a list, or leave them out")
    if isinstance(value, _Twice):
        raise _Refused(*value.fault())
    inner = list(value.values()) if isinstance(value, dict) else value
    if any(isinstance(one, float) and not math.isfinite(one) for one in inner):
        raise _Refused("a number that is not finite", "JSON has finite numbers only; use null or drop it")
    return inner


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Refused(f"a {type(value).__name__}, not an object", "write one JSON object for each row")
    check_json(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        value = _Twice(value)
        value.key = Counter(name for name, _ in pairs).most_common(1)[0][0]
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _parsed(path: Path) -> Any:
    with _told(path):
        size = _text_file(path).stat().st_size
        if size > MAX_FILE_BYTES:
            raise DataError(f"{path}: {size} bytes, more than {MAX_FILE_BYTES}; write it as JSONL, one object a line")
        return _DECODER.decode(path.read_text(encoding="utf-8-sig"))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say what is wrong with a file as a whole."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except RecursionError:
        raise DataError(f"{path}: nested too deeply; flatten it") from None
    except ValueError as error:
        lines = str(error).startswith("Extra data")
        hint = "name it .jsonl if it has one object a line" if lines else "fetch or write the file again"
        raise DataError(f"{path}: not JSON ({error}); {hint}") from None


def _rows_of(value: Any, path: Path) -> list[tuple[str | None, Any]]:
    if isinstance(value, list):
        return [(None, row) for row in value]
    if isinstance(value, _Twice):
        raise DataError(f"{path}: {'; '.join(value.fault())}")
    inner = list(value.values()) if isinstance(value, dict) else []
    lists = [one for one in inner if isinstance(one, list) and any(map(_is_object, one))]
    if len(lists) == 1 and not any(map(_is_object, inner)):
        return _rows_of(lists[0], path)
    if len(inner) == 1 and _is_object(inner[0]) and inner[0] and all(map(_is_object, inner[0].values())):
        return _rows_of(inner[0], path)
    if any(map(_is_object, inner)):
        return list(value.items())
    raise NoRows(f"{path}: neither a list of objects nor objects by their ids; write one object a line as .jsonl")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _line(number: int, raw: bytes) -> Line:
    try:
        return Line(number, len(raw), parse_object(raw.decode("utf-8")))
    except UnicodeDecodeError:
        return Line(number, len(raw), None, "not UTF-8", "save the file as UTF-8")
    except _Refused as error:
        what, hint = error.args
        if not raw.endswith(b"\n") and what.startswith("not JSON"):
            what, hint = "the last line is torn off", "remove it, or write the file again"
        return Line(number, len(raw), None, what, hint)
