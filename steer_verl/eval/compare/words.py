"""A comparison in words: a sentence on each model, in two parts: who is safer, and by how much and at what price."""

from __future__ import annotations

from steer_verl.eval.compare import Comparison
from steer_verl.eval.compare.rows import Row
from steer_verl.eval.differences import Difference

THINGS = {
    "survival": "dialogues unbroken {to}",
    "harmless_pass": "dialogues judged harmless",
    "helpful_pass": "dialogues judged helpful",
    "refusal_full": "benign requests refused in full",
}
"""Primary measure -> what a model has more or fewer of."""

PARTS = {
    "safety": ("survival", "harmless_pass"),
    "helpfulness": ("helpful_pass",),
    "over-refusal": ("refusal_full",),
}
"""What a sentence speaks of -> the measures that tell of it. A later one is heard only where it says something else."""

WHO = {
    (True, False): "is safer than",
    (False, True): "is less safe than",
    (True, True): "is safer in one way and less safe in another than",
    (False, False): "is neither clearly safer nor clearly less safe than",
}
"""Whether a measure of safety is clearly better, and whether one is clearly worse -> the verdict."""


def sentences(comparison: Comparison) -> list[tuple[str, str]]:
    """One on each model that is compared with the baseline; on a model that is alone, one with its figures."""
    return [beside(comparison, rival) for rival in comparison.rivals] or [alone(comparison)]


def beside(comparison: Comparison, rival: str) -> tuple[str, str]:
    """``ours is safer than base: ``, and ``42 points more dialogues unbroken to turn 8 (36 to 48); ...``. What missing
    ratings could undo is no verdict on all dialogues, but on those that were rated."""
    base, facts, unclear, unknown = comparison.baseline.name, list[str](), list[str](), list[str]()
    safety: set[bool | None] = set()
    undone = False
    for part, measures in PARTS.items():
        rows = [row for row in comparison.primary if row.measure in measures and _known(row, rival)]
        outcomes = {better(row, rival): row for row in reversed(rows)}  # the first measure of each outcome
        for row in sorted(outcomes.values(), key=rows.index):
            sure, said = _difference(row, rival, base)
            (facts if sure else unclear).append(said)
        unknown += [] if rows else [part]
        if part == "safety":
            safety = set(outcomes)
            undone = any(sure is not None and undoable(row, rival, base) for sure, row in outcomes.items())
    facts += [f"no clear difference in {' or in '.join(unclear)}"] * bool(unclear)
    told = [*facts, *_unknown(unknown, "of both ")]
    who = WHO[True in safety, False in safety] if safety else "beside"
    return f"{rival} {who} {base}{', where both were rated' * undone}: ", f"{'; '.join(told)}."


def alone(comparison: Comparison) -> tuple[str, str]:
    """A model's own figures: ``62.0 % of dialogues unbroken to turn 8 (58.1 to 65.8)``."""
    name, told = comparison.baseline.name, []
    rows = [row for row in comparison.primary if row.values[comparison.baseline.name].value is not None]
    for row in rows:
        value, interval = row.values[name].number(1), row.values[name].interval(1)
        told.append(f"{value} % of {thing(row)}{f' ({interval})' * bool(interval)}")
    measures = {row.measure for row in rows}
    told += _unknown([part for part, needed in PARTS.items() if measures.isdisjoint(needed)])
    return f"{name}, with no other run beside it: ", f"{'; '.join(told)}."


def thing(row: Row) -> str:
    """What a primary measure counts: ``dialogues unbroken to turn 8``."""
    return THINGS[row.measure].format(to=row.about.title.removeprefix("survival "))


def better(row: Row, rival: str) -> bool | None:
    """Whether a model is clearly better or worse than the baseline in a primary figure; ``None``: neither is clear."""
    gap = row.differences.get(rival)
    if gap is None or gap.value is None or not gap.clear:
        return None
    return (gap.value > 0) == (row.about.better == "high")


def undoable(row: Row, rival: str, base: str) -> bool:
    """Whether what is missing could have turned a difference round."""
    more, fewer = (rival, base) if (row.differences[rival].value or 0) > 0 else (base, rival)
    return min(_ends(row, more)) <= max(_ends(row, fewer))


def _known(row: Row, rival: str) -> bool:
    gap = row.differences.get(rival)
    return gap is not None and gap.value is not None


def _difference(row: Row, rival: str, base: str) -> tuple[bool, str]:
    """Whether it can be told from none, and ``42 points more dialogues unbroken to turn 8 (36 to 48)``."""
    gap = row.differences[rival]
    if not gap.sure or gap.value is None:
        return False, f"{thing(row)}{_span(gap)}"
    said = f"{_short(gap.value)} points {'more' if gap.value > 0 else 'fewer'} {thing(row)}{_span(gap)}"
    if not gap.clear:
        said += ", but not beyond these students: training seeds do not bear it out"
    elif undoable(row, rival, base):
        said += ", though what was not rated could undo that"
    return True, said


def _span(gap: Difference) -> str:
    """`` (36 to 48)``, or `` (4.0 points fewer to 1.6 more)`` where none lies between."""
    if gap.low is None or gap.high is None:
        return ""
    if gap.low <= 0 <= gap.high:
        return f" ({_short(gap.low)} points fewer to {_short(gap.high)} more)"
    low, high = sorted((abs(gap.low), abs(gap.high)))
    return f" ({_short(low)} to {_short(high)})"


def _short(value: float) -> str:
    """Two or three digits of a number of points."""
    return f"{abs(value):.0f}" if abs(value) >= 9.95 else f"{abs(value):.1f}"


def _unknown(parts: list[str], whose: str = "") -> list[str]:
    named = " or ".join([*filter(None, [", ".join(parts[:-1])]), *parts[-1:]])
    return [f"nothing is known of {named}: no rated dialogue {whose}tells it"] if parts else []


def _ends(row: Row, model: str) -> tuple[float, float]:
    """What a model's figure could have been, had all been rated."""
    found = row.values[model]
    return found.worst or 0, 100 if found.best is None else found.best
