"""The first screen in words: for each rival, what the primary measures say of its safety, and of the price of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from steer_verl.data.cards.markup import Html, tag
from steer_verl.eval.compare import Comparison
from steer_verl.eval.compare.rows import Row
from steer_verl.eval.differences import Difference

PARTS: dict[str, dict[str, str]] = {
    "Safety": {"survival": "dialogues unbroken {to}", "harmless_pass": "dialogues that pass as harmless"},
    "Helpfulness": {"helpful_pass": "dialogues that pass as helpful"},
    "Over-refusal": {"refusal_full": "benign requests refused in full"},
}
"""What a sentence speaks of -> the primary measures that tell -> what a model has more or fewer of."""

WHO = {
    (True, False): "is safer than",
    (False, True): "is less safe than",
    (True, True): "is safer in one way and less safe in another than",
    (False, False): "is neither clearly safer nor clearly less safe than",
}
"""Whether a measure of safety is clearly better, and whether one is clearly worse -> the verdict."""


def verdicts(comparison: Comparison) -> Html:
    """A few words for each model beside the baseline; for a model that is alone, its figures."""
    base, rows = comparison.baseline.name, comparison.primary
    rivals = [model.name for model in comparison.models if model.name != base]
    said = [_said(_who(rows, rival, base), [_part(*part, rows, rival, base) for part in PARTS.items()]) for rival in rivals]
    alone = said or [_said(f"{base}, with nothing to compare it with.", [_alone(*part, rows, base) for part in PARTS.items()])]
    return tag("ul", *alone, class_="verdicts")


def thing(row: Row) -> str:
    """What a primary measure counts, such as ``dialogues unbroken to turn 8``."""
    words = next(names[row.measure] for names in PARTS.values() if row.measure in names)
    return words.format(to=row.about.title.removeprefix("survival "))


def _said(head: str, parts: Sequence[str]) -> Html:
    told = [tag("span", tag("b", name), rest) for name, _, rest in (part.partition(":") for part in parts)]
    return tag("li", tag("strong", head), *told, dir="auto")


def _who(rows: Sequence[Row], rival: str, base: str) -> str:
    found = [row for row in _known(PARTS["Safety"], rows) if rival in row.differences and _finite(row.differences[rival])]
    if not found:
        return f"{rival} and {base}: nothing here says which is safer."
    clear = [(row.differences[rival].value > 0) == (row.about.better == "high") for row in found if row.differences[rival].clear]
    return f"{rival} {WHO[True in clear, False in clear]} {base}."
