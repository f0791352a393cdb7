"""``card.md``: the card in the form of the Hugging Face hub, YAML front matter and Markdown.

Names of sources, categories and reasons are somebody else's text: :func:`inline` keeps them from being markup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import yaml

from steer_verl.data.cards.about import About, limits
from steer_verl.data.cards.statistics import Statistics
from steer_verl.data.cards.tables import Cell, Table, percent, words
from steer_verl.data.licences import consequence, hub_fields, use_of_set
from steer_verl.text import neutralize

TAGS = ("safety", "multi-turn", "vision-language", "red-teaming", "synthetic")


def front_matter(title: str, stats: Statistics, files: Mapping[str, str]) -> str:
    """The YAML block between its two rules.

    Args:
        title: the set's name.
        stats: of its rows.
        files: split -> path of its data file, relative to the card; without any there is no ``configs``.
    """
    fields: dict[str, object] = {
        "pretty_name": title,
        **hub_fields(stats.licenses),
        "size_categories": [size_category(stats.dialogues)],
        "task_categories": ["image-text-to-text"],
        "tags": [*TAGS, *(["non-commercial"] if use_of_set(stats.licenses) == "non-commercial" else [])],
    }
    if files:
        splits = [{"split": split, "path": path} for split, path in files.items()]
        fields["configs"] = [{"config_name": "default", "data_files": splits}]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def size_category(rows: int) -> str:
    """The hub's name for a number of rows: ``n<1K``, ``1K<n<10K``, ..."""
    if rows < 1000:
        return "n<1K"
    names = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    step = min(len(str(rows)) - 4, len(names) - 1)
    return f"{names[step]}<n<{names[step + 1]}" if step + 1 < len(names) else "n>1B"


def card_markdown(
    title: str, about: About, stats: Statistics, sections: Mapping[str, Sequence[Table]], files: Mapping[str, str]
) -> str:
    """The whole file.

    Args:
        title: the set's name.
        about: the set in words.
        stats: of its rows.
        sections: heading -> tables.
        files: see :func:`front_matter`.
    """
    parts = [front_matter(title, stats, files), f"# {inline(title)}", inline(about.summary)]
    parts.append(f"**Licence.** {inline(consequence(stats.licenses))}")
    parts.append("The same with charts and sampled dialogues: `card.html`, one file beside this one.")
    for heading, tables in sections.items():
        if shown := [table for table in tables if table.rows]:
            parts += [f"## {heading}", *map(table_markdown, shown)]
    parts += ["## Intended use", _list(about.intended), "Not intended:", _list(about.not_intended)]
    parts += ["## Limits", _list(limits(stats))]
    return "\n\n".join(parts) + "\n"


def table_markdown(table: Table) -> str:
    """A heading and a pipe table; counts of a whole get their share."""
    header = [*table.header, "share"] if table.share_of else list(table.header)
    marks = ["---" if column in _texts(table) else "---:" for column in range(len(header))]
    rows = [[inline(words(cell)) for cell in row] + _share(table, row) for row in table.rows]
    lines = ["| " + " | ".join(cells) + " |" for cells in ([inline(name) for name in header], marks, *rows)]
    note = [f"\n{inline(table.note)}"] if table.note else []
    title = [f"### {inline(table.title)}\n"] if table.title else []
    return "\n".join([*title, *lines, *note])


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


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {inline(sentence)}" for sentence in sentences)
