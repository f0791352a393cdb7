"""Survival under attack: S(t) of every run with its band, numbers at risk, and what the curves come to in figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from steer_verl.data.cards.markup import Html, joined, tag
from steer_verl.data.cards.page import table_html
from steer_verl.data.cards.tables import Table
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.published import comparable, whole
from steer_verl.eval.published import survival as published
from steer_verl.eval.shape import Span, Summary, Survival
from steer_verl.plots import TAIL
from steer_verl.report.charts import COLOURS, Frame, Line, Point, chart, legend, outline, zone
from steer_verl.report.parts import ALL, grid, line, quiet, subset_of, subsets

RISK = 0.5
"""Survival below this is the risk zone (paper, section on evaluation)."""
NOTE = (
    "A dialogue fails at its first turn with a harmless mark below {}; one that is not rated to its end counts up to "
    "there. Bands: 95 %. The dotted pair is S(t) if every missing turn had failed, or held."
)

Curves = Mapping[str, Survival | None]
"""Run -> its curve. A run without one keeps its place, so that colours stay the runs' own."""

Paper = Mapping[str, Mapping[int, float]]
"""The paper's model -> turn -> S in percent."""


def survival_section(summaries: Sequence[Summary]) -> list[Html]:
    """A chart for each benchmark that has attacked dialogues of several turns, and for all dialogues together where
    all runs were given the same benchmarks."""
    alike = len({frozenset(summary.benchmarks) for summary in summaries}) == 1
    papers = {name: published(name) if _whole(summaries, name) else {} for name in subsets(summaries)}
    beside = all(one.attack == "static" and comparable(MarkSettings.model_validate(one.marks)) for one in summaries)
    parts = []
    for name in subsets(summaries):
        curves = {s.name: subset.survival if (subset := subset_of(s, name)) else None for s in summaries}
        if any(curves.values()) and (alike or name != ALL):
            parts.append(_subset(name, curves, papers[name] if beside else {}))
    if not parts:
        return []
    said = NOTE.format(f"{summaries[0].marks['fail_below']:g}")
    if beside and any(papers.values()):
        said += " Thin grey lines: the paper's models, read off its figure."
    names = [summary.name for summary in summaries]
    return [quiet(said), legend(names), tag("div", *parts, class_="charts wide")]


def _whole(summaries: Sequence[Summary], name: str) -> bool:
    return all(whole(subset.oddities) for s in summaries if (subset := subset_of(s, name)))


def _subset(name: str, curves: Curves, paper: Paper) -> Html:
    known = {run: curve for run, curve in curves.items() if curve}
    last = max(curve.reach for curve in known.values())
    frame = Frame((0, last + TAIL), (0, 1), width=520, height=280, right=54 if paper else 10)
    drawn = chart(
        name,
        f"share of dialogues without a failure so far, to turn {last}",
        frame,
        [_line(run, curve) for run, curve in curves.items()],
        list(_readings(known, paper, last)),
        across=range(last + 1),
        up=(0, 0.25, 0.5, 0.75, 1),
        under=[*zone(frame, RISK, "risk zone: S < 0.5"), *_papers(frame, paper, last), *_bounds(frame, curves)],
    )
    numbers = tag("details", tag("summary", "All figures of these curves"), _figures(known), _hazards(known))
    return tag("div", drawn, _at_risk(name, known, last), numbers)


def _line(run: str, curve: Survival | None) -> Line:
    """The curve as far as it says something."""
    if curve is None:
        return Line(run, [])
    points, low, high = (held(values, _known_to(curve)) for values in (curve.survival, curve.low, curve.high))
    return Line(run, points, [*low, *reversed(high)])


def held(values: Sequence[float], last: int) -> list[Point]:
    """The values to a turn, each held until the next one, the last one for the tail."""
    return [(x, value) for t, value in enumerate(values[: last + 1]) for x in (t, min(t + 1, last + TAIL))]


def _known_to(curve: Survival) -> int:
    """The last turn of which it says something: then all who may still be at risk are lost, unless S = 0."""
    turns = range(1, curve.reach + 1)
    lost = (t for t in turns if curve.hazard[t - 1].of and curve.survival[t] and not curve.at_risk[t])
    return next(lost, curve.reach + 1) - 1


def _bounds(frame: Frame, curves: Curves) -> Iterator[Html]:
    """Worst and best case, where they differ from the curve."""
    for n, curve in enumerate(curves.values()):
        if curve and curve.worst != curve.best:
            for bound in (curve.worst, curve.best):
                yield outline(frame, held(bound, curve.reach), f"bound c{n % COLOURS}")


def _papers(frame: Frame, paper: Paper, last: int) -> Iterator[Html]:
    """The paper's curves through the turns that it gives, their models' names beside the plane."""
    ends, free = {}, float(frame.height)
    for model, curve in paper.items():
        points = [(0.0, 1.0), *((float(turn), share / 100) for turn, share in curve.items() if turn <= last)]
        ends[model] = frame.y(points[-1][1])
        yield outline(frame, [*points, (last + TAIL, points[-1][1])], "paper")
    for model in sorted(ends, key=ends.__getitem__, reverse=True):  # from below, none over another
        free = min(ends[model], free - 11)
        yield tag("text", model, x=frame.width - frame.right + 4, y=f"{free + 4:.1f}", font_size=10)


def _readings(curves: Mapping[str, Survival], paper: Paper, last: int) -> Iterator[tuple[float, str]]:
    for t in range(last + 1):
        said = [
            f"{run}: S {c.survival[t]:.2f} ({c.low[t]:.2f} to {c.high[t]:.2f}), {c.at_risk[t]} at risk"
            for run, c in curves.items()
            if t <= _known_to(c)
        ]
        said += [f"paper, {model}: {curve[t] / 100:.2f}" for model, curve in paper.items() if t in curve]
        yield t, f"Turn {t}. {'; '.join(said)}"


def _at_risk(name: str, curves: Mapping[str, Survival], last: int) -> Html:
    lines = [line(run, *(tag("td", n) for n in curve.at_risk[: last + 1])) for run, curve in curves.items()]
    return grid(f"Dialogues at risk, {name}", "risk", ["turn", *range(last + 1)], tag("tbody", *lines))


def _figures(curves: Mapping[str, Survival]) -> Html:
    header = ("run", "dialogues", "S at the last turn (%)", "mean turns survived", "S < 0.5 from turn", "never failed")
    rows = [
        (run, c.dialogues, c.at.text(1), c.mean_turns.text(2), _turn(c.risk_zone), c.never) for run, c in curves.items()
    ]
    return table_html(Table("In figures, to the last turn that is drawn", header, rows))


def _hazards(curves: Mapping[str, Survival]) -> Html:
    header = ("turn", "at risk", "first failures", "hazard (%)", "lost to view after it")
    tables = []
    for run, c in curves.items():
        turns = range(1, c.reach + 1)
        rows = [(str(t), c.at_risk[t], c.failures[t], c.hazard[t - 1].text(1), c.censored_unrated[t]) for t in turns]
        tables.append(table_html(Table(f"Hazard by turn: {run}", header, rows)))
    return joined(tables)


def _turn(span: Span) -> str:
    """A turn with its interval; an end that is not reached is open."""
    ends = f"[{span.low or 'later'} to {span.high or 'later'}]"
    return f"{span.value or 'not reached'} {ends if span.value or span.low else ''}".strip()
