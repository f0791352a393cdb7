"""What the figures say, as tables: once for the page and once for Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from steer_verl.data.cards.card import FURTHER, Card, mean
from steer_verl.data.cards.tables import Cell, Table, percent
from steer_verl.data.licences import use_of

Account = Mapping[str, Mapping[str, Any]]
"""Step -> ``in``, ``kept`` and ``rejected`` {reason: items}, and where it has them ``undone``, ``stages`` {stage:
{reason: items}}, ``usage`` and ``agents`` {role: model and version of its prompt, or its rules}."""

TOP, TOP_SOURCES = 10, 30
"""Rows of a table by name, or by source; the others are one row."""
USAGE = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "cost")


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
    return Table("", ("figure", "value"), tuple(rows))


def figures(card: Card) -> dict[str, list[Table]]:
    """Heading -> tables of a set; what has nothing to say is left out."""
    whole = card.dialogues
    named = [
        _counts(f"By {what}", (what,), [((name,), count) for name, count in counts.most_common(TOP)], counts.total())
        for what, counts in sorted(card.names.items())
        if set(counts) - {"-"}
    ]
    lengths = [((length,), count) for length, count in sorted(card.lengths.items())]
    origins = [
        ((source, license, "-" if license == FURTHER else use_of(license)), count)
        for (source, license), count in card.origins.most_common(TOP_SOURCES)
    ]
    sections = {
        "Composition": [_counts("Turns", ("turns of a dialogue",), lengths, whole), *named],
        "Sources and licences": [_counts("By source", ("source", "licence", "use"), origins, whole)],
        "Scores": _scores(card),
    }
    return {heading: tables for heading, tables in sections.items() if any(table.rows for table in tables)}


def _counts(title: str, header: tuple[str, ...], counts: Iterable[tuple[tuple[Cell, ...], int]], whole: int) -> Table:
    """Counts of a whole; what these do not hold of it is a row more."""
    rows: list[tuple[Cell, ...]] = [(*names, count) for names, count in counts]
    if rest := whole - sum(row[-1] for row in rows if isinstance(row[-1], int)):
        rows.append(("(others)", *[""] * (len(header) - 1), rest))
    return Table(title, (*header, "count"), tuple(rows), whole)


def _scores(card: Card) -> list[Table]:
    """Of each axis the means, and how many turns and how many lowest turns have each level."""
    axes = tuple(card.scores)
    means = [(axis, mean(card.scores[axis]), mean(card.lowest[axis]), card.scores[axis].total()) for axis in axes]
    header = ("axis", "mean of turns", "lowest turn of a dialogue, mean", "scored turns")
    note = "10 is best. Unscored turns are in no figure."
    found = [Table("Scores, 1 to 10", header, tuple(means), note=note)]
    for title, counts in (("Turns by level", card.scores), ("Dialogues by their lowest turn", card.lowest)):
        levels = tuple((level, *(counts[axis][level] for axis in axes)) for level in range(10, 0, -1))
        found.append(Table(title, ("level", *axes), levels))
    return found if axes else []


def work(account: Account) -> dict[str, list[Table]]:
    """Heading -> tables of how the sets came about."""
    steps = [
        (name, step["in"], step["kept"], sum(step["rejected"].values()), step.get("undone", 0))
        for name, step in account.items()
    ]
    reasons = [
        (name, reason, count)
        for step, told in account.items()
        for name, counts in (told.get("stages") or {step: told["rejected"]}).items()
        for reason, count in Counter(counts).most_common()
    ]
    agents = [(name, *agent) for name, step in account.items() for agent in step.get("agents", {}).items()]
    spent = [(name, step["usage"]) for name, step in account.items() if step.get("usage", {}).get("requests")]
    usage = [(name, *(used.get(key) or None for key in USAGE)) for name, used in spent]
    tables = (
        Table(
            "Steps",
            ("step", "in", "kept", "rejected", "undone"),
            tuple(steps),
            note="in = kept + rejected + undone. Steps before the last one work on all three sets at once.",
        ),
        Table("Why items were left out", ("stage", "reason", "items"), tuple(reasons), sum(row[2] for row in reasons)),
        Table("Agents", ("step", "role", "model and version of its prompt, or rules"), tuple(agents)),
        Table(
            "Cost",
            ("step", *(key.replace("_", " ") for key in USAGE)),
            tuple(usage),
            note="Cost in the currency of the endpoints' prices; a dash without prices.",
        ),
    )
    shown = [table for table in tables if table.rows]
    return {"How it came about": shown} if shown else {}
