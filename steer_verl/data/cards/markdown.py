"""Tables and texts as Markdown.

Names of sources, categories and reasons are somebody else's text: :func:`inline` keeps them from being markup.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steer_verl.data.cards.tables import Table, words
from steer_verl.text import neutralize


def table_markdown(table: Table) -> str:
    """A heading and a pipe table; counts of a whole get their share."""
    texts = {column for row in table.rows for column, cell in enumerate(row) if isinstance(cell, str)}
    marks = ["---" if column in texts else "---:" for column, _ in enumerate(table.columns)]
    rows = [[*map(words, row), *filter(None, [table.share(row)])] for row in table.rows]
    cells = [[inline(cell) for cell in row] for row in (table.columns, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in (cells[0], marks, *cells[1:])]
    title = [f"#### {inline(table.title)}\n"] if table.title else []
    return "\n".join([*title, *lines, *([f"\n{inline(table.note)}"] if table.note else [])])


def bullets(sentences: Sequence[str]) -> str:
    """A list."""
    return "\n".join(f"- {inline(sentence)}" for sentence in sentences)


def inline(text: str) -> str:
    """Text as one line of Markdown that means nothing but itself."""
    line = " ".join(neutralize(text).split())
    return re.sub(r"([\\`*_{}\[\]<>|#~!&$@])|(://)", lambda m: f"\\{m[1]}" if m[1] else ":\\//", line)
