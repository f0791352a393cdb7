"""A small table, and how its cells are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | int | float | None
"""A text of nobody's making that we know of, a count, a measure, or nothing."""


@dataclass(frozen=True)
class Table:
    """A small table."""

    title: str
    """Empty where the section's heading says it all."""
    header: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    share_of: int = 0
    """What 100 % of the last column is: it holds counts, and a share is shown with each. 0: it is an ordinary one."""
    note: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Their names, the share's too."""
        return (*self.header, "share") if self.share_of else self.header

    def share(self, row: tuple[Cell, ...]) -> str:
        """A row's share; empty in an ordinary table."""
        return percent(row[-1], self.share_of) if self.share_of and isinstance(row[-1], int) else ""


def words(cell: Cell) -> str:
    """A cell in plain words: 12,934 and 6.35; a dash for nothing."""
    if cell is None or cell == "":
        return "-"
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:,.2f}"


def percent(count: int, total: int) -> str:
    """``count`` as a share of ``total``, in per cent with one decimal."""
    return f"{100 * count / total:.1f} %" if total else "-"
