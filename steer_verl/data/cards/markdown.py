"""Tables and texts as Markdown.

Names of sources, categories and reasons are somebody else's text: :func:`inline` keeps them from being markup.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steer_verl.data.cards.tables import Cell, Table, percent, words
from steer_verl.text import neutralize


def table_markdown(table: Table) -> str:
    """A heading and a pipe table; counts of a whole get their share."""
    header = [*table.header, "share"] if table.share_of else list(table.header)
    marks = ["---" if column in _texts(table) else "---:" for column in range(len(header))]
    rows = [[inline(words(cell)) for cell in row] + _share(table, row) for row in table.rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in ([inline(name) for name in header], marks, *rows)]
    note = [f"\n{inline(table.note)}"] if table.note else []
    title = [f"#### {inline(table.title)}\n"] if table.title else []
    return "\n".join([*title, *lines, *note])


def bullets(sentences: Sequence[str]) -> str:
    """A list."""
    return "\n".join(f"- {inline(sentence)}" for sentence in sentences)


def inline(text: str) -> str:
    """Text as one line of Markdown that means nothing but itself."""
    line = " ".join(neutralize(text).split())
    return re.sub(r"([\\`*_{}\[\]<>|#~!&$@])|(://)", lambda m: f"\\{m[1]}" if m[1] else ":\\//", line)


def _texts(table: Table) -> set[int]:
    """The columns that hold a text."""
    return {column for row in table.rows for column, cell in enumerate(row) if isinstance(cell, str)}


def _share(table: Table, row: tuple[Cell, ...]) -> list[str]:
    count = row[-1]
    return [percent(count, table.share_of)] if table.share_of and isinstance(count, int) else []
