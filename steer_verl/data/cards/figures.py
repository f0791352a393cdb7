"""What the figures say, as tables: once for the page and once for Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from steer_verl.data.cards.card import FURTHER, Card, mean
from steer_verl.data.cards.tables import Cell, Table, percent
from steer_verl.data.licences import use_of

Account = Mapping[str, Mapping[str, Any]]
"""Step -> ``in``, ``kept`` and ``rejected`` {reason: items}, and where it has them ``undone``, ``stages`` {stage:
{reason: items}}, ``usage`` and ``agents`` {role: model and version of its prompt, or its rules}."""

TOP, TOP_SOURCES = 10, 30
"""Rows of a table by name, or by source; the others are one row."""


def overview(card: Card) -> Table:
    """The first figures that a reader asks for."""
    rows: list[tuple[Cell, ...]] = [
        ("dialogues", card.dialogues),
        ("user turns", sum(card.lengths.elements())),
        ("turns of a dialogue, mean", mean(card.lengths)),
        ("images", card.images),
    ]
    if card.answers:
        rows.append(("answers in the student's format", percent(card.well_formed, card.answers)))
        rows.append(("safety, mean of turns", mean(card.scores["safety"])))
        rows.append(("unscored turns", card.unscored))
    return Table("", ("figure", "value"), rows)


def figures(card: Card) -> dict[str, list[Table]]:
    """Heading -> tables of a set."""
    named = {"kind": card.kinds, **dict(sorted(card.names.items()))}
    names = {what: counts for what, counts in named.items() if set(counts) - {"-"}}
    origins: list[tuple[Cell, ...]] = [
        (source, license, "-" if license == FURTHER else use_of(license), count)
        for (source, license), count in card.origins.most_common(TOP_SOURCES)
    ]
    return _filled(
        {
            "Composition": [
                _whole("Turns", ("turns of a dialogue", "count"), sorted(card.lengths.items()), card.dialogues),
                *(_whole(f"By {what}", (what, "count"), c.most_common(TOP), c.total()) for what, c in names.items()),
            ],
            "Sources and licences": [
                _whole("By source", ("source", "licence", "use", "dialogues"), origins, card.dialogues)
            ],
            "Scores": _scores(card),
        }
    )


def work(account: Account) -> dict[str, list[Table]]:
    """Heading -> tables of how the sets came about."""
    return _filled({"How it came about": [_steps(account), _reasons(account), _agents(account), _usage(account)]})


def _filled(sections: dict[str, list[Table]]) -> dict[str, list[Table]]:
    """Without what has nothing to say."""
    shown = {heading: [table for table in tables if table.rows] for heading, tables in sections.items()}
    return {heading: tables for heading, tables in shown.items() if tables}


def _whole(title: str, header: tuple[str, ...], rows: Sequence[tuple[Cell, ...]], whole: int) -> Table:
    """Counts of a whole; what these do not hold of it is a row more."""
    if rest := whole - sum(row[-1] for row in rows if isinstance(row[-1], int)):
        rows = [*rows, ("(others)", *[""] * (len(header) - 2), rest)]
    return Table(title, header, rows, whole)


def _scores(card: Card) -> list[Table]:
    """Of each axis the means, and how many turns and how many lowest turns have each level."""
    axes = tuple(axis for axis, counts in card.scores.items() if counts)
    header = ("axis", "mean of turns", "lowest turn of a dialogue, mean", "scored turns")
    means = [(axis, mean(card.scores[axis]), mean(card.lowest[axis]), card.scores[axis].total()) for axis in axes]
    found = [Table("Scores, 1 to 10", header, means, note="10 is best. Unscored turns are in no figure.")]
    for title, counts in (("Turns by level", card.scores), ("Dialogues by their lowest turn", card.lowest)):
        levels = [(level, *(counts[axis][level] for axis in axes)) for level in range(10, 0, -1)]
        found.append(Table(title, ("level", *axes), levels))
    return found if axes else []


def _steps(account: Account) -> Table:
    rows = [
        (name, step["in"], step["kept"], sum(step["rejected"].values()), step.get("undone", 0))
        for name, step in account.items()
    ]
    note = "in = kept + rejected + undone. Steps before the last one work on all three sets at once."
    return Table("Steps", ("step", "in", "kept", "rejected", "undone"), rows, note=note)


def _reasons(account: Account) -> Table:
    """By stage where a step has some, the commonest reason first."""
    rows = [
        (name, reason, count)
        for step, told in account.items()
        for name, counts in (told.get("stages") or {step: told["rejected"]}).items()
        for reason, count in Counter(counts).most_common()
    ]
    return Table("Why items were left out", ("stage", "reason", "items"), rows, sum(row[2] for row in rows))


def _agents(account: Account) -> Table:
    rows = [(name, *agent) for name, step in account.items() for agent in step.get("agents", {}).items()]
    return Table("Agents", ("step", "role", "model and version of its prompt, or rules"), rows)


def _usage(account: Account) -> Table:
    names = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "cost")
    spent = {name: step["usage"] for name, step in account.items() if step.get("usage", {}).get("requests")}
    rows = [(name, *(used.get(key) or None for key in names)) for name, used in spent.items()]
    note = "Cost in the currency of the endpoints' prices; a dash without prices."
    return Table("Cost", ("step", *(name.replace("_", " ") for name in names)), rows, note=note)
