"""The tables of a card, once for Markdown and once for the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from steer_verl.data.cards.account import StepCounts, total_usage
from steer_verl.data.cards.statistics import AXES, FURTHER, Statistics, mean, quantile
from steer_verl.data.licences import use_of

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


def overview(stats: Statistics, steps: Mapping[str, StepCounts]) -> Table:
    """The first figures that a reader asks for."""
    rows: list[tuple[Cell, ...]] = [
        ("dialogues", stats.dialogues),
        ("user turns", stats.user_turns),
        ("turns of a dialogue, mean", mean(stats.lengths)),
        ("pictures of a dialogue, mean", mean(stats.pictures)),
    ]
    if stats.answers:
        share = percent(stats.well_formed, stats.answers)
        rows += [("answers", stats.answers), ("answers in the student's format", share)]
        rows.append(("unscored turns", sum(stats.unscored.values())))
    if steps:
        usage = total_usage(steps)
        rows += [("requests to models", usage.requests), ("cost", usage.cost or None)]
    return Table("", ("figure", "value"), tuple(rows))


def composition(stats: Statistics) -> list[Table]:
    """Kinds, turns, pictures, origins, strategies, categories; those that have nothing to say are left out."""
    found = [
        by_name("Kinds of dialogue", "kind", stats.kinds),
        by_number("Turns", "turns of a dialogue", stats.lengths),
        by_number("Pictures", "pictures in a dialogue", stats.pictures),
        by_name("Where the user's turns came from", "origin", stats.origins),
        by_name("Strategies of the red team", "strategy", stats.strategies),
        by_name("Pictures changed on purpose", "change", stats.perturbed),
        by_name("Categories, as the sources name them", "category", stats.categories),
    ]
    return [table for table in found if table.rows and table.rows != (("-", stats.dialogues),)]


def origins(stats: Statistics) -> Table:
    """Sources with their licences."""
    commonest = stats.sources.most_common(TOP)
    rows: list[tuple[Cell, ...]] = [
        (source, license, "-" if license == FURTHER else use_of(license), count)
        for (source, license), count in commonest
    ]
    if rest := stats.dialogues - sum(count for _, count in commonest):
        rows.append(("(others)", "", "", rest))
    return Table("Dialogues by source", ("source", "licence", "use", "dialogues"), tuple(rows), stats.dialogues)


def scores(stats: Statistics) -> Table:
    """One line an axis: over dialogues scored throughout, and over all scored turns."""
    rows = tuple(
        (
            axis,
            mean(figures.turns),
            figures.mean_of_means,
            mean(figures.lowest),
            quantile(figures.lowest, 0.05),
            sum(figures.turns.values()),
        )
        for axis, figures in ((axis, stats.axes[axis]) for axis in AXES)
        if figures.turns
    )
    header = ("axis", "mean of turns", "mean of dialogues", "lowest turn, mean", "lowest turn, 5 %", "scored turns")
    note = "10 is best. Of twenty dialogues, one has a turn that scored no more than the 5 % column says."
    return Table("Scores, 1 to 10", header, rows, note=note)


def score_counts(stats: Statistics, axis: str) -> Table:
    """The distribution of one axis, level by level."""
    figures = stats.axes[axis]
    rows = tuple(
        (level, figures.lowest[level], figures.means[level], figures.turns[level]) for level in range(10, 0, -1)
    )
    header = ("level", "dialogues, lowest turn", "dialogues, mean rounded", "turns")
    return Table(f"Levels of {axis}", header, rows, sum(figures.turns.values()))


def lengths_of_text(stats: Statistics) -> Table:
    """Characters of questions and of answers."""
    pairs = (("user turn", stats.asked_chars), ("answer, tags included", stats.answer_chars))
    rows = tuple(
        (name, mean(counts), *(quantile(counts, share) for share in (0.05, 0.5, 0.95)), max(counts))
        for name, counts in pairs
        if counts
    )
    return Table("Characters of a text", ("text", "mean", "5 %", "median", "95 %", "longest"), rows)


def steps_table(steps: Mapping[str, StepCounts]) -> Table:
    """What every step took in and what became of it."""
    rows = tuple((name, step.given, step.kept, step.refused, step.undone) for name, step in steps.items())
    note = "in = kept + rejected + undone"
    return Table("Steps", ("step", "in", "kept", "rejected", "undone"), rows, note=note)


def reasons(steps: Mapping[str, StepCounts]) -> Table:
    """Rejections by step and reason, the commonest of a step first."""
    counted = [(name, Counter(step.rejected)) for name, step in steps.items()]
    rows = tuple((name, reason, count) for name, counts in counted for reason, count in counts.most_common())
    total = sum(step.refused for step in steps.values())
    return Table("Why items were left out", ("step", "reason", "items"), rows, total)


def agents(steps: Mapping[str, StepCounts]) -> Table:
    """Who took part: models with the versions of their prompts."""
    rows = tuple((name, role, agent) for name, step in steps.items() for role, agent in step.agents.items())
    return Table("Agents", ("step", "role", "model and version of its prompt, or rules"), rows)


def usage(steps: Mapping[str, StepCounts]) -> Table:
    """What the models' work cost."""
    rows = tuple(
        (name, u.requests, u.prompt_tokens, u.cached_tokens, u.completion_tokens, u.cost or None)
        for name, u in ((name, step.usage) for name, step in steps.items())
        if u.requests
    )
    header = ("step", "requests", "prompt tokens", "of them cached", "completion tokens", "cost")
    return Table("Cost", header, rows, note="Cost in the currency of the endpoints' prices; a dash without prices.")


def prompts_table(prompts: Mapping[str, str]) -> Table:
    """Digests of the prompts."""
    return Table("Prompts", ("prompt", "digest"), tuple(sorted(prompts.items())))


def by_name(title: str, header: str, counts: Counter[str]) -> Table:
    """The commonest names; the rest is one row."""
    rows: list[tuple[Cell, ...]] = [(name or "-", count) for name, count in counts.most_common(TOP)]
    total = sum(counts.values())
    if rest := total - sum(count for _, count in counts.most_common(TOP)):
        rows.append((f"({len(counts) - TOP} others)", rest))
    return Table(title, (header, "count"), tuple(rows), total)


def by_number(title: str, header: str, counts: Counter[int]) -> Table:
    """Every number between the smallest and the largest."""
    span = range(min(counts), max(counts) + 1) if counts else range(0)
    return Table(title, (header, "count"), tuple((number, counts[number]) for number in span), sum(counts.values()))
