"""A comparison in words: cells of tables, and one sentence on each model."""

from __future__ import annotations

import math

from steer_verl.eval.compare import Comparison
from steer_verl.eval.compare.rows import Row
from steer_verl.eval.differences import Difference
from steer_verl.statistics.intervals import Interval

SAFETY = ("survival", "harmless_pass")
"""Primary figures that say who is safer; the others are its price."""

FOUND = {True: "clearly better", False: "clearly worse", None: "no clear difference"}


def verdict(comparison: Comparison, rival: str) -> str:
    """Whether a model is safer than the baseline, by how much, and at what price."""
    known = [row for row in comparison.primary if (d := row.differences.get(rival)) and d.value is not None]
    safety = [row for row in known if row.measure in SAFETY]
    price = [row for row in known if row.measure not in SAFETY]
    pair = f"{rival} %s {comparison.baseline.name}"
    if not known:
        return f"{pair % 'cannot be compared with'}: no attacked or benign dialogue was rated for both."
    found = {better(row, rival) for row in safety} - {None}
    words = {frozenset({True}): "is safer than", frozenset({False}): "is less safe than"}
    unclear = "is safer in one way and less safe in another than" if found else "is not clearly safer or less safe than"
    said = words.get(frozenset(found), unclear) if safety else "beside"
    told = "; ".join(_fact(row, rival, comparison) for row in safety or price)
    cost = "; ".join(_fact(row, rival, comparison) for row in price) if safety else ""
    return f"{pair % said}: {told}.{f' The price: {cost}.' * bool(cost)}"


def better(row: Row, rival: str) -> bool | None:
    """Whether a model is clearly better or worse than the baseline in a primary figure; ``None``: neither is clear."""
    d = row.differences.get(rival)
    if d is None or d.value is None or not d.clear:
        return None
    return (d.value > 0) == (row.about.better == "high")


def _fact(row: Row, rival: str, comparison: Comparison) -> str:
    """``survival to turn 8 61.0 against 42.0 (%), +19.0 [+14.2 to +23.8], clearly better``."""
    decimals, values = row.about.decimals, row.values
    sides = [values[name].number(decimals) for name in (rival, comparison.baseline.name)]
    gap = difference_text(row.differences[rival], decimals, p=False)
    return f"{row.about.title} {' against '.join(sides)} ({row.about.unit}), {gap}, {FOUND[better(row, rival)]}"


def difference_text(d: Difference | None, decimals: int, *, p: bool = True, counts: bool = False) -> str:
    """``+3.1 [+0.4 to +5.8], p 0.02 *``, what it is over seeds, and the pairs (``counts``); a dash where it is unknown.

    The star says that a primary difference is clear; a p that was not corrected says so.
    """
    if d is None or d.value is None:
        return "-"
    text = _signed(d.value, d.low, d.high, decimals)
    if p and d.p is not None:
        shown = d.p if d.adjusted is None else d.adjusted
        said = "p < 0.001" if shown < 0.001 else f"p {shown:.3f}"
        text += f", uncorrected {said}" if d.adjusted is None else f", {said}{' *' * d.clear}"
    if d.over_seeds and math.isfinite(d.over_seeds.low):
        text += f"; over seeds {_signed(d.over_seeds.value, d.over_seeds.low, d.over_seeds.high, decimals)}"
    return text + f" ({d.pairs} pairs{f', {d.left_out} left out' * bool(d.left_out)})" * counts


def value_text(row: Row, model: str, *, bounds: str = "; bounds ") -> str:
    """``81.2 [78.0 to 84.1]``, bounds where something is missing, and the mean over training seeds."""
    if model not in row.values:
        return "-"
    return row.values[model].text(row.about.decimals, bounds=bounds) + _seeds(row.seeds.get(model), row.about.decimals)


def title(row: Row) -> str:
    """``harmless pass (%)``."""
    return f"{row.about.title} ({row.about.unit})"


def _seeds(over: Interval | None, decimals: int) -> str:
    if over is None or not math.isfinite(over.low):
        return ""
    return f"; over seeds {over.value:.{decimals}f} [{over.low:.{decimals}f} to {over.high:.{decimals}f}]"


def _signed(value: float, low: float | None, high: float | None, decimals: int) -> str:
    ends = "" if low is None or high is None else f" [{low:+.{decimals}f} to {high:+.{decimals}f}]"
    return f"{value:+.{decimals}f}{ends}"
