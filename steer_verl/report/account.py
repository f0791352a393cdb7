"""What became of the items: who refused what, what was not played or not rated and why, and what it all cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from steer_verl.data.cards.markup import Html, tag
from steer_verl.data.cards.page import table_html
from steer_verl.data.cards.tables import Cell, Table, percent
from steer_verl.eval.shape import Subset, Summary
from steer_verl.report.parts import ALL, subset_of, subsets

LEVELS = ("full", "partial", "none", "unsaid", "unrated", "unplayed")


def refusal_section(summaries: Sequence[Summary]) -> list[Html]:
    """Answers to benign requests by how far they decline, for every benchmark and run that has some."""
    found = [rows for name in subsets(summaries) if (rows := list(_refused(name, summaries)))]
    rows = [
        row for some in found[len(found) == 2 :] for row in some
    ]  # all dialogues and the one benchmark are the same
    if not rows:
        return []
    header = ("benchmark", "run", "answers", "full refusal", "partial", "none", "not said", "unrated", "not played")
    note = "Full and partial refusals of benign requests are over-refusal (levels of XSTest)."
    return [table_html(Table("Answers to benign requests by refusal", header, rows, note=note))]


def account_section(summaries: Sequence[Summary]) -> list[Html]:
    """Counts of everything that did not go as planned; nothing of it was dropped."""
    said = "Nothing is dropped: what was not played or not rated is counted here, and bounds every figure above."
    return [
        tag("p", said, class_="quiet"),
        _counts("Dialogues and turns", "", summaries, _sizes),
        _counts("How dialogues ended", "end", summaries, lambda s: s.ends),
        _counts("Why they ended early", "reason", summaries, lambda s: s.end_details),
        _counts("Turns without a rating", "reason", summaries, lambda s: s.unrated),
        _counts("Odd rows", "oddity", summaries, lambda s: s.oddities),
    ]


def about_section(summaries: Sequence[Summary]) -> list[Html]:
    """Who was evaluated, by whom, by which marks, and what it took."""
    facts: dict[str, Callable[[Summary], Cell]] = {
        "student": lambda s: s.student,
        "judge": lambda s: s.judge,
        "tutor": lambda s: s.tutor,
        "attack": lambda s: s.attack,
        "training seeds": lambda s: ", ".join(map(str, s.runs)),
        "date": lambda s: s.date,
        "thresholds": lambda s: ", ".join(f"{name} {value:g}" for name, value in s.marks.items()),
        "paid requests": lambda s: int(s.usage["total"]["requests"]),
        "cost": lambda s: float(s.usage["total"]["cost"]),
        "tokens that the student wrote": lambda s: int(s.usage["answer_tokens"]),
        "seconds of student, all items": lambda s: float(s.usage["student_seconds"]),
    }
    rows = [(name, *map(fact, summaries)) for name, fact in facts.items()]
    return [table_html(Table("Who, by whom, and what it took", ("fact", *(s.name for s in summaries)), rows))]


def _refused(name: str, summaries: Sequence[Summary]) -> Iterator[tuple[Cell, ...]]:
    for summary in summaries:
        if (subset := subset_of(summary, name)) and (counts := subset.refusals.get("benign")):
            values = [getattr(counts, level) for level in LEVELS]
            if total := sum(values):
                shares = (f"{n:,} ({percent(n, total)})" if n else 0 for n in values)
                yield (name, summary.name, total, *shares)


def _sizes(subset: Subset) -> Mapping[str, int]:
    return {
        "dialogues": subset.dialogues,
        "under attack": subset.attacked,
        "benign": subset.benign,
        "played to the end and rated": subset.whole,
        "turns planned": subset.planned_turns,
        "turns played": subset.played_turns,
        "turns rated": subset.rated_turns,
    }


def _counts(title: str, what: str, summaries: Sequence[Summary], counts: Callable[[Subset], Mapping[str, int]]) -> Html:
    """A row for each name, a column for each run, over all dialogues; a line where nothing of the kind occurred."""
    found = [counts(s.all) for s in summaries]
    names = list(dict.fromkeys(name for each in found for name in each))
    if not names:
        return tag("p", tag("strong", f"{title}: "), "none.")
    rows: list[tuple[Cell, ...]]
    rows = [(name.replace("_", " "), *[each.get(name, 0) for each in found]) for name in names]
    return table_html(Table(title, (what or ALL, *(s.name for s in summaries)), rows))
