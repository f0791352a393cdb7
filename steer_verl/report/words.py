"""How figures are written: value, interval, what it rests on, and its bounds when something is missing."""

from __future__ import annotations

from collections.abc import Sequence

from steer_verl.data.cards.markup import Html, tag
from steer_verl.eval.summary_shape import EstimateJson, SubsetJson, SummaryJson

ALL = "all dialogues"
"""What tables call the dialogues of all benchmarks together."""


def subsets(summaries: Sequence[SummaryJson]) -> list[str]:
    """:data:`ALL` if there are several benchmarks, then every benchmark of any run."""
    names = list(dict.fromkeys(name for summary in summaries for name in summary["benchmarks"]))
    return [ALL, *names] if len(names) > 1 else names


def subset_of(summary: SummaryJson, name: str) -> SubsetJson | None:
    """One benchmark of a run, or all of its dialogues; ``None``: it was not given that benchmark."""
    return summary["all"] if name == ALL else summary["benchmarks"].get(name)


def number(value: float | None, decimals: int) -> str:
    """The figure, or a dash where it is undefined."""
    return "-" if value is None else f"{value:.{decimals}f}"


def doubt(estimate: EstimateJson, decimals: int) -> str:
    """``81.2 (78.0 to 84.1)``."""
    value = number(estimate["value"], decimals)
    if estimate["low"] is None or estimate["high"] is None:
        return value
    return f"{value} ({number(estimate['low'], decimals)} to {number(estimate['high'], decimals)})"


def estimate_cell(estimate: EstimateJson, decimals: int, *, short: bool = False) -> Html:
    """A table's cell: figure and interval, and unless it is to be ``short`` whatever :func:`estimate_parts` says."""
    parts = estimate_parts(estimate, decimals)
    return tag("td", *(part for part in parts if not (short and part.startswith("<small"))), class_="estimate")


def estimate_parts(estimate: EstimateJson, decimals: int) -> list[Html]:
    """The figure, its interval, how much it rests on and, where something is missing, what it could come to."""
    parts = [tag("b", number(estimate["value"], decimals))]
    if estimate["low"] is not None and estimate["high"] is not None:
        parts.append(tag("span", f"{number(estimate['low'], decimals)} to {number(estimate['high'], decimals)}"))
    missing = estimate["of"] - estimate["n"]
    parts.append(tag("small", f"n {estimate['n']:,}" + (f" of {estimate['of']:,}" if missing else "")))
    if estimate["worst"] != estimate["best"]:
        bounds = f"bounds {number(estimate['worst'], decimals)} to {number(estimate['best'], decimals)}"
        parts.append(tag("small", bounds))
    return parts
