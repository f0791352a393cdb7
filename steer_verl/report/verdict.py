"""The first screen in words: for each rival, what the primary measures say of its safety, and of the price of it."""

from __future__ import annotations

from collections.abc import Sequence

from steer_verl.data.cards.markup import Html, tag
from steer_verl.eval.compare import Comparison
from steer_verl.eval.compare.rows import ATTACKED, Row
from steer_verl.eval.compare.words import better
from steer_verl.eval.differences import SURE, Difference

PARTS: dict[str, dict[str, str]] = {
    "Safety": {"survival": "dialogues unbroken {to}", "harmless_pass": "dialogues that pass as harmless"},
    "Helpfulness": {"helpful_pass": "dialogues that pass as helpful"},
    "Over-refusal": {"refusal_full": "benign requests refused in full"},
}
"""What is spoken of -> the primary measures that tell of it -> what a model has more or fewer of."""

WHO = {
    (True, False): "is safer than",
    (False, True): "is less safe than",
    (True, True): "is safer in one way and less safe in another than",
    (False, False): "is neither clearly safer nor clearly less safe than",
}
"""Whether a measure of safety is clearly better, and whether one is clearly worse -> the verdict."""

UNKNOWN = "not known: no rated dialogue tells it"


def verdicts(comparison: Comparison) -> Html:
    """A few words on each rival; on a model that is alone, its figures."""
    base = comparison.baseline.name
    alone = {} if comparison.rivals else {base: f"{base}, with no other run beside it."}
    heads = {rival: _who(comparison, rival) for rival in comparison.rivals} or alone
    items = [tag("li", tag("strong", head), *_parts(comparison, model), dir="auto") for model, head in heads.items()]
    return tag("ul", *items, class_="verdicts")


def thing(row: Row) -> str:
    """What a primary measure counts: ``dialogues unbroken to turn 8``."""
    words = next(names[row.measure] for names in PARTS.values() if row.measure in names)
    return words.format(to=row.about.title.removeprefix("survival "))


def _rows(comparison: Comparison, part: str) -> list[Row]:
    """The primary rows that tell of it. Benign dialogues tell nothing of safety."""
    attacked = {row.place for row in comparison.rows if row.measure == ATTACKED}
    rows = [row for row in comparison.primary if row.measure in PARTS[part]]
    return [row for row in rows if row.place in attacked or part != "Safety"]


def _who(comparison: Comparison, rival: str) -> str:
    rows, base = [row for row in _rows(comparison, "Safety") if _gap(row, rival)], comparison.baseline.name
    found = {better(row, rival) for row in rows}
    known = f"{rival} {WHO[True in found, False in found]} {base}."
    return known if rows else f"Which is safer, {rival} or {base}, is not known."


def _parts(comparison: Comparison, model: str) -> list[Html]:
    """For each part what its measures say: of a rival beside the baseline, or of the baseline alone."""
    base, told = comparison.baseline.name, []
    for part in PARTS:
        rows = _rows(comparison, part)
        if model == base:
            said = [_alone(row, model) for row in rows if model in row.values]
        else:
            said = [_beside(row, gap, model, base) for row in rows if (gap := _gap(row, model))]
        told.append(tag("span", tag("b", f"{part}:"), f" {'; '.join(said) or UNKNOWN}. "))
    return told


def _alone(row: Row, model: str) -> str:
    """``62.0 % dialogues unbroken to turn 8 (58.1 to 65.8)``."""
    interval = row.values[model].interval(row.about.decimals)
    return f"{row.values[model].number(row.about.decimals)} % {thing(row)}{f' ({interval})' * bool(interval)}"


def _beside(row: Row, gap: Difference, rival: str, base: str) -> str:
    """``42.1 points more dialogues unbroken to turn 8 (36.0 to 48.2)``, and what speaks against it."""
    size = f"{abs(gap.value):.{row.about.decimals}f}"
    more = f"{size} points {'more' if gap.value > 0 else 'fewer'}" if float(size) else "as many"
    return f"{more} {thing(row)}{_span(gap, row.about.decimals)}{_doubt(row, gap, rival, base)}"


def _span(gap: Difference, decimals: int) -> str:
    """`` (36.0 to 48.2)``, or `` (4.0 fewer to 1.6 more)`` where it spans none."""
    if gap.low is None or gap.high is None:
        return ""
    if gap.low < 0 < gap.high:
        return f" ({-gap.low:.{decimals}f} fewer to {gap.high:.{decimals}f} more)"
    low, high = sorted((abs(gap.low), abs(gap.high)))
    return f" ({low:.{decimals}f} to {high:.{decimals}f})"


def _doubt(row: Row, gap: Difference, rival: str, base: str) -> str:
    """What speaks against a difference, if anything does."""
    more, fewer = (rival, base) if gap.value > 0 else (base, rival)
    if gap.clear:
        undone = min(_ends(row, more)) <= max(_ends(row, fewer))
        return ", though what was not rated could undo that" if undone else ""
    if gap.adjusted is not None and gap.adjusted < SURE:
        return ", clear for these students but not over training seeds"
    if gap.low is None or gap.high is None or gap.low <= 0 <= gap.high:
        return ", which these dialogues cannot tell from none"
    return ", which is not clear once corrected for several tests"


def _ends(row: Row, model: str) -> list[float]:
    """What a model's figure could have been, had all been rated."""
    found = row.values[model]
    return [found.worst or 0, 100 if found.best is None else found.best]


def _gap(row: Row, rival: str) -> Difference | None:
    gap = row.differences.get(rival)
    return gap if gap and gap.value is not None else None
