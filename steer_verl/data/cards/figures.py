"""What the figures say, as tables: once for the page and once for Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from steer_verl.data.cards.statistics import FURTHER, Statistics, mean, quantile
from steer_verl.data.cards.tables import TOP, Cell, Table, by_name, by_number, percent
from steer_verl.data.licences import use_of

Account = Mapping[str, Mapping[str, Any]]
"""Step -> ``in``, ``kept`` and ``rejected`` {reason: items}, and where it has them ``undone``, ``stages`` {stage:
{reason: items}}, ``usage`` and ``agents`` {role: model and version of its prompt, or its rules}."""


def overview(stats: Statistics) -> Table:
    """The first figures that a reader asks for."""
    rows: list[tuple[Cell, ...]] = [
        ("dialogues", stats.dialogues),
        ("user turns", stats.asked_chars.total()),
        ("turns of a dialogue, mean", mean(stats.lengths)),
        ("images of a dialogue, mean", mean(stats.images)),
    ]
    if stats.answer_chars:
        rows.append(("answers in the student's format", percent(stats.well_formed, stats.answer_chars.total())))
        rows.append(("safety, mean of turns", mean(stats.axes["safety"].turns)))
        rows.append(("unscored turns", stats.unscored.total()))
    return Table("", ("figure", "value"), tuple(rows))


def figures(stats: Statistics) -> dict[str, list[Table]]:
    """Heading -> tables of a set; what has nothing to say is left out."""
    found = {
        "Composition": _composition(stats),
        "Sources and licences": [_origins(stats)],
        "Scores": [_scores(stats), *_levels(stats), by_name("Unscored turns", "reason", stats.unscored)],
        "Texts": [_lengths_of_text(stats)],
    }
    return _filled(found)


def work(account: Account) -> dict[str, list[Table]]:
    """Heading -> tables of how the sets came about."""
    return _filled({"How it came about": [_steps(account), _reasons(account), _agents(account), _usage(account)]})


def _filled(sections: Mapping[str, list[Table]]) -> dict[str, list[Table]]:
    shown = {heading: [table for table in tables if table.rows] for heading, tables in sections.items()}
    return {heading: tables for heading, tables in shown.items() if tables}


def _composition(stats: Statistics) -> list[Table]:
    found = [
        by_name("Kinds of dialogue", "kind", stats.kinds),
        by_number("Turns", "turns of a dialogue", stats.lengths),
        by_number("Images", "images in a dialogue", stats.images),
        *(by_name(f"By {what}", what, counts) for what, counts in sorted(stats.names.items())),
    ]
    return [table for table in found if table.rows != (("-", stats.dialogues),)]


def _origins(stats: Statistics) -> Table:
    commonest = stats.sources.most_common(TOP)
    rows: list[tuple[Cell, ...]] = [
        (source, license, "-" if license == FURTHER else use_of(license), count)
        for (source, license), count in commonest
    ]
    if rest := stats.dialogues - sum(count for _, count in commonest):
        rows.append(("(others)", "", "", rest))
    return Table("Dialogues by source", ("source", "licence", "use", "dialogues"), tuple(rows), stats.dialogues)


def _scores(stats: Statistics) -> Table:
    rows = tuple(
        (axis, mean(found.turns), mean(found.lowest), quantile(found.lowest, 0.05), found.turns.total())
        for axis, found in stats.axes.items()
        if found.turns
    )
    header = ("axis", "mean of turns", "lowest turn, mean", "lowest turn, 5 %", "scored turns")
    note = "10 is best. Of twenty dialogues, one has a turn that scored no more than the 5 % column says."
    return Table("Scores, 1 to 10", header, rows, note=note)


def _levels(stats: Statistics) -> Iterator[Table]:
    """Of each axis, how many turns and how many lowest turns have each level."""
    for axis, found in stats.axes.items():
        rows = tuple((level, found.lowest[level], found.turns[level]) for level in range(10, 0, -1))
        header = ("level", "dialogues, lowest turn", "turns")
        yield Table(f"Levels of {axis}", header, rows if found.turns else (), found.turns.total())


def _lengths_of_text(stats: Statistics) -> Table:
    pairs = (("user turn", stats.asked_chars), ("answer, tags included", stats.answer_chars))
    rows = tuple(
        (name, mean(counts), *(quantile(counts, share) for share in (0.05, 0.5, 0.95)), max(counts))
        for name, counts in pairs
        if counts
    )
    return Table("Characters of a text", ("text", "mean", "5 %", "median", "95 %", "longest"), rows)


def _steps(account: Account) -> Table:
    rows = tuple(
        (name, step["in"], step["kept"], sum(step["rejected"].values()), step.get("undone", 0))
        for name, step in account.items()
    )
    note = "in = kept + rejected + undone. Steps before the last one work on all three sets at once."
    return Table("Steps", ("step", "in", "kept", "rejected", "undone"), rows, note=note)


def _reasons(account: Account) -> Table:
    """By stage where a step has some, the commonest reason first."""
    stages = {
        name: counts
        for step, told in account.items()
        for name, counts in (told.get("stages") or {step: told["rejected"]}).items()
    }
    rows = tuple(
        (name, reason, count) for name, counts in stages.items() for reason, count in Counter(counts).most_common()
    )
    return Table("Why items were left out", ("stage", "reason", "items"), rows, sum(row[2] for row in rows))


def _agents(account: Account) -> Table:
    rows = tuple(
        (name, role, agent) for name, step in account.items() for role, agent in step.get("agents", {}).items()
    )
    return Table("Agents", ("step", "role", "model and version of its prompt, or rules"), rows)


def _usage(account: Account) -> Table:
    names = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "cost")
    spent = [(name, step["usage"]) for name, step in account.items() if step.get("usage", {}).get("requests")]
    rows = tuple((name, *(usage.get(key, 0) for key in names[:-1]), usage.get("cost") or None) for name, usage in spent)
    header = ("step", "requests", "prompt tokens", "of them cached", "completion tokens", "cost")
    return Table("Cost", header, rows, note="Cost in the currency of the endpoints' prices; a dash without prices.")
