"""A row that makes no seed: told with its place, and reading goes on."""

from __future__ import annotations

from typing import Literal

from steer_verl.text import one_line
from steer_verl.types import Record

Reason = Literal["file", "line", "field", "text", "picture", "duplicate_id"]
"""``file``: it, or a part of it, cannot be read. ``line``: no JSON object. ``field``: missing or of the wrong type.
``text``: the question. ``picture``: missing, broken or hostile. ``duplicate_id``: an earlier row has this id."""


class BadRow(Record):
    """What became of a row instead of a seed."""

    file: str
    row: int
    """Counted from 1: lines of JSONL, elements of a JSON list, rows of a parquet file or a dataset. 0: the file."""
    reason: Reason
    what: str
    cure: str

    def __str__(self) -> str:
        place = f"{self.file}: row {self.row}" if self.row else self.file
        return f"{place}: {self.what}; {self.cure}"


class Refused(Exception):
    """Raised where a fault is seen; whoever knows the place makes a :class:`BadRow` of it.

    ``what`` and ``cure`` may quote the row: both are made fit for a terminal.
    """

    def __init__(self, reason: Reason, what: str, cure: str) -> None:
        what, cure = one_line(what), one_line(cure)
        super().__init__(reason, what, cure)
        self.reason, self.what, self.cure = reason, what, cure

    def at(self, file: str, row: int) -> BadRow:
        """The account of it."""
        return BadRow(file=one_line(file), row=row, reason=self.reason, what=self.what, cure=self.cure)
