"""A strict JSONL reader for files that somebody else wrote.

A UTF-8 byte-order mark, CRLF ends and blank lines mean nothing and are passed over. Everything that would make two
readers disagree about a row is a problem of that line, and reading goes on: duplicate keys, NaN and infinities (even as
``1e999``), lone surrogates, lines beyond the cap, values that are no object, objects of too many keys, other encodings,
a last line torn off. Time is linear in the file.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from steer_verl.errors import DataError
from steer_verl.text import one_line

MAX_LINE_BYTES = 4 * 2**20
MAX_KEYS = 1000
"""Keys of one object. A row has some 20; facts may add their own."""
MAX_NAME = 80
"""Characters of a key that a message repeats."""
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """One line: its 1-based ``number``, its ``size`` in bytes, and an object or what is wrong with it."""

    number: int
    size: int
    value: dict[str, Any] | None = None
    what: str = ""
    cure: str = ""


class _Refused(ValueError):
    """(what is wrong, the cure)"""


def read_jsonl(path: Path) -> Iterator[Line]:
    """Every line of the file that is not blank, in order; never more than one line in memory.

    Raises:
        DataError: the file cannot be opened.
    """
    try:
        stream = path.open("rb")
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
                    number, size, what=f"longer than {MAX_LINE_BYTES} bytes", cure="give paths, not pictures, in rows"
                )
            elif raw.strip():
                yield _line(number, raw)


def parse_object(text: str) -> dict[str, Any]:
    """One JSON object under the rules above.

    Raises:
        ValueError: whose two arguments say what is wrong and the cure.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant, parse_float=_finite)
    except _Refused:
        raise
    except RecursionError:
        raise _Refused("nested too deeply", "flatten it") from None
    except ValueError as error:
        raise _Refused(f"not JSON ({error})", "write one JSON object a line, with json.dumps") from None
    if not isinstance(value, dict):
        raise _Refused(f"a {type(value).__name__}, not an object", "write one JSON object a line")
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _Refused("a lone surrogate", "write the character itself, in UTF-8") from None
    return value


def _line(number: int, raw: bytes) -> Line:
    try:
        return Line(number, len(raw), parse_object(raw.decode("utf-8")))
    except UnicodeDecodeError:
        return Line(number, len(raw), what="not UTF-8", cure="save the file as UTF-8")
    except _Refused as error:
        what, cure = error.args
        if not raw.endswith(b"\n") and what.startswith("not JSON"):
            what, cure = "the last line is torn off", "remove it, or write the file again"
        return Line(number, len(raw), what=what, cure=cure)


def _skip_line(stream: BinaryIO) -> int:
    skipped = 0
    while part := stream.readline(MAX_LINE_BYTES):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        cure = "write them as a list, or leave them out"
        raise _Refused(f"an object of {len(pairs)} keys, more than {MAX_KEYS}", cure)
    value = dict(pairs)
    if len(value) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _Refused(f"the key {one_line(twice, MAX_NAME)!r} stands twice", "keep one")
    return value


def _no_constant(name: str) -> NoReturn:
    raise _Refused(f"the number {name}", "JSON has finite numbers only; use null or drop it")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _no_constant(text)
    return value
