"""What several sections are made of: which dialogues they speak of, tables, and cells with an estimate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from steer_verl.data.cards.markup import Child, Html, tag
from steer_verl.eval.estimate import Estimate
from steer_verl.eval.shape import Subset, Summary

ALL = "all dialogues"
"""The dialogues of all benchmarks together."""


def subsets(summaries: Sequence[Summary]) -> list[str]:
    """:data:`ALL` if there are several benchmarks, then every benchmark of any run."""
    names = list(dict.fromkeys(name for summary in summaries for name in summary.benchmarks))
    return [ALL, *names] if len(names) > 1 else names


def subset_of(summary: Summary, name: str) -> Subset | None:
    """One benchmark of a run, or all of its dialogues; ``None``: it was not given that benchmark."""
    return summary.all if name == ALL else summary.benchmarks.get(name)


def quiet(text: str) -> Html:
    """A remark on what follows."""
    return tag("p", text, class_="quiet prose-width", dir="auto")


def grid(title: str, kind: str, columns: Iterable[Child], *bodies: Html) -> Html:
    """A table of our own cells, in a box that scrolls: ``columns`` are its heads, ``bodies`` whole ``tbody``."""
    heads = [name if isinstance(name, Html) else tag("th", name, scope="col") for name in columns]
    table = tag("table", tag("caption", title, dir="auto"), tag("thead", tag("tr", *heads)), *bodies, class_=kind)
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=title)


def line(name: Child, *cells: Html, kind: str | None = None) -> Html:
    """A row of :func:`grid` under its name."""
    return tag("tr", tag("th", name, scope="row", dir="auto"), *cells, class_=kind)


def estimate_cell(found: Estimate, decimals: int, *more: Html, title: str = "", short: bool = False) -> Html:
    """A table's cell: figure and interval; unless it is to be ``short`` what it rests on and, where something is
    missing, what it could come to; then ``more``."""
    parts = [tag("small", title)] if title else []
    parts += [tag("b", found.number(decimals)), tag("span", found.interval(decimals))]
    if not short:
        parts.append(tag("small", f"n {found.n:,}" + (f" of {found.of:,}" if found.of > found.n else "")))
        parts += [tag("small", f"bounds {bounds}")] if (bounds := found.bounds(decimals)) else []
    return tag("td", *parts, *more, class_="estimate")
