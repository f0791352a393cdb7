"""A JSON file that is one long list of objects, read an object at a time.

Rules for an object are those of JSONL (steer_verl/data/jsonl.py): duplicate keys, NaN and the rest are that object's
fault, and the next one is read. Where the list itself is broken or torn off, the rest of it cannot be found any more:
that is told, after everything before it was read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from steer_verl.data.jsonl import MAX_LINE_BYTES, Line, parse_object
from steer_verl.errors import DataError

_CHUNK = 2**18
_SPACE = re.compile(r"[ \t\r\n]*")
_TORN = ("the list breaks off here", "fetch the file again; the rows before it are read")


def read_json_list(path: Path) -> Iterator[Line]:
    """Every element of the list, numbered from 1.

    Raises:
        DataError: the file cannot be opened.
    """
    try:
        # what is no UTF-8 is kept as surrogates, so that it is the fault of its own object only
        stream = path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    with stream:
        yield from _Scanner(stream).elements()


class _Scanner:
    """A window on the text: ``text[at:]`` is what was read and not yet taken."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.text, self.at, self.ended = stream, "", 0, False
        self.decoder = json.JSONDecoder()

    def elements(self) -> Iterator[Line]:
        """The list's elements, and what is wrong with the list."""
        if self._next_sign() != "[":
            yield Line(1, 0, what="not a JSON list", cure="write a list of objects, or one object a line as .jsonl")
            return
        self.at += 1
        number, sign = 1, self._next_sign()
        if sign == "]":
            return
        while True:
            element = self._element()
            if element is None:
                yield Line(number, 0, what=_TORN[0], cure=_TORN[1])
                return
            yield _line(number, element)
            number, sign = number + 1, self._next_sign()
            if sign == "]":
                return
            if sign != ",":
                yield Line(number, 0, what=_TORN[0], cure=_TORN[1])
                return
            self.at += 1

    def _element(self) -> str | None:
        """The text of the next element, or nothing if it does not end within the cap."""
        if not self._next_sign():
            return None
        size = _CHUNK
        while True:
            try:
                _, end = self.decoder.raw_decode(self.text, self.at)
            except (ValueError, RecursionError):
                end = -1
            # a number may go on beyond the window, and an object may not
            if end >= 0 and (end < len(self.text) or self.ended or self.text[self.at] in '{["'):
                element, self.at = self.text[self.at : end], end
                return element
            if self.ended or len(self.text) - self.at > MAX_LINE_BYTES:
                return None
            self._more(size)
            size *= 2

    def _next_sign(self) -> str:
        """The next character that is no space; empty at the end of the file."""
        while True:
            space = _SPACE.match(self.text, self.at)
            self.at = space.end() if space else self.at
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._more(_CHUNK)

    def _more(self, size: int) -> None:
        chunk = self.stream.read(size)
        self.text, self.at, self.ended = self.text[self.at :] + chunk, 0, not chunk


def _line(number: int, element: str) -> Line:
    size = len(element)
    try:
        element.encode()
        return Line(number, size, parse_object(element))
    except UnicodeEncodeError:
        return Line(number, size, what="not UTF-8", cure="save the file as UTF-8")
    except ValueError as error:
        what, cure = error.args if len(error.args) == 2 else (f"not JSON ({error})", "mend it")
        return Line(number, size, what=what, cure=cure)
