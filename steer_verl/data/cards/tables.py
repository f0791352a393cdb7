"""A small table, and how its cells are written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

Cell = str | int | float | None
"""A text of nobody's making that we know of, a count, a measure, or nothing."""

TOP = 30
"""Rows of a table by name; the others are one row."""


@dataclass(frozen=True)
class Table:
    """A small table."""

    title: str
    """Empty where the section's heading says it all."""
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    share_of: int = 0
    """What 100 % of the last column is: it holds counts, and a share is shown with each. 0: it is an ordinary one."""
    note: str = ""


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


def by_name(title: str, header: str, counts: Counter[str]) -> Table:
    """The commonest names; the rest is one row."""
    commonest, total = counts.most_common(TOP), sum(counts.values())
    rows: list[tuple[Cell, ...]] = [(name or "-", count) for name, count in commonest]
    if rest := total - sum(count for _, count in commonest):
        rows.append((f"({len(counts) - TOP} others)", rest))
    return Table(title, (header, "count"), tuple(rows), total)


def by_number(title: str, header: str, counts: Counter[int]) -> Table:
    """Every number between the smallest and the largest."""
    span = range(min(counts), max(counts) + 1) if counts else range(0)
    return Table(title, (header, "count"), tuple((number, counts[number]) for number in span), sum(counts.values()))
