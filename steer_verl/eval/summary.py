"""The measures of a finished evaluation: ``summary.json``, whose records are in :mod:`steer_verl.eval.shape`.

By benchmark and over all dialogues: every measure with its interval, how many dialogues or turns it rests on, and what
it could have been, had all that is missing turned out badly or well. Nothing is dropped: what was not rated is counted
by its reason.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from steer_verl.errors import ConfigError
from steer_verl.eval import tallies
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.estimate import Estimate
from steer_verl.eval.figures import FAILED, Figures, average, figures_of
from steer_verl.eval.marks import DialogueMarks, Grid, marks_of_run
from steer_verl.eval.measures import MEASURES, Measure, failed_where
from steer_verl.eval.records import EvalDialogue, EvalEnd
from steer_verl.eval.runs import EvalRun, RunAbout
from steer_verl.eval.shape import Average, Span, Strategy, Subset, Summary, Survival
from steer_verl.eval.survival import first_below
from steer_verl.statistics.agreement import Detection
from steer_verl.text import one_line

logger = logging.getLogger(__name__)

VERSION = 1


def summarize(run: EvalRun) -> Summary:
    """Everything that is measured on ``run``.

    Raises:
        ConfigError: scipy is not installed, or the calibration of its judge cannot be read.
    """
    settings, marks = run.about.mark_settings, marked(run)
    known, found = known_errors(run.about), figures_of(marks, settings, {**MEASURES, **_by_question(marks)})
    names = [*run.benchmarks, *sorted({d.benchmark for d in run.dialogues} - set(run.benchmarks))]
    parts, figures = {}, {}
    for name in names:
        rows = [i for i, d in enumerate(marks) if d.benchmark == name]
        figures[name] = found.choose({marks[i].key for i in rows})
        played = [run.dialogues[i] for i in rows]
        parts[name] = _subset(played, [marks[i] for i in rows], figures[name], settings, known)
    whole = _subset(run.dialogues, marks, found, settings, known)
    occurring = {name for part in (whole, *parts.values()) for name in part.measures}
    return Summary(
        version=VERSION,
        **{name: getattr(run.about, name) for name in ("name", "student", "judge", "tutor", "attack", "date")},
        marks=settings.model_dump(),
        runs=list(found.runs),
        about={name: measure.about for name, measure in MEASURES.items() if name in occurring},
        benchmarks=parts,
        averages=_averages(figures, parts),
        all=whole,
        usage=tallies.usage(run.dialogues, run.about.usage, run.about.seconds),
    )


def marked(run: EvalRun) -> list[DialogueMarks]:
    """The marks of a run's dialogues."""
    return marks_of_run(run.dialogues, [name for name, s in run.about.benchmarks.items() if s.get("exact_match")])


def known_errors(about: RunAbout) -> Detection | None:
    """The judge's errors as a detector of failing turns; ``None`` where it was not calibrated, or another judge was, or
    for other failures.

    Raises:
        ConfigError: the calibration does not say.
    """
    if about.calibration is None:
        return None
    try:
        counts = about.calibration["detection"]
        known = Detection(**{name: int(counts[name]) for name in ("caught", "missed", "cleared", "blamed")})
        below, judge = about.calibration["thresholds"]["harmless_below"], str(about.calibration["judge"])
    except (KeyError, TypeError, ValueError):
        what, how = "no counts of a judge's errors", "give the calibration.json of `steer eval calibrate`"
        raise ConfigError(f"judge.calibration: {what} (judge, thresholds, detection) in it; {how}") from None
    what = ""
    if judge != about.judge:
        what = f"is of {one_line(judge)}, but the judge is {about.judge}"
    elif below != about.mark_settings.fail_below:
        what = f"is of harmless < {below}, but marks.fail_below is {about.mark_settings.fail_below}"
    if what:
        how = "calibrate again with this run's judge and marks (`steer eval calibrate`)"
        logger.warning("judge.calibration %s: nothing is corrected; %s", what, how)
        return None
    return known


def _by_question(marks: Sequence[DialogueMarks]) -> dict[str, Measure]:
    """Attack success by strategy and by turn."""
    asked = sorted({turn.asked for d in marks if d.attacked for turn in d.turns})
    longest = max((d.length for d in marks if d.attacked), default=0)

    def failed(keep: Callable[[Grid, Any], np.ndarray], value: Any) -> Measure:
        return Measure(failed_where(lambda grid: keep(grid, value)), str(value), per="turn", better="low", core=True)

    def asked_so(grid: Grid, how: str) -> np.ndarray:
        return grid.asked_NT == how

    def at(grid: Grid, turn: int) -> np.ndarray:
        return np.broadcast_to(grid.turn_T == turn, grid.asked_NT.shape)

    by_strategy = {f"asked:{how}": failed(asked_so, how) for how in asked}
    return by_strategy | {f"turn:{t}": failed(at, t) for t in range(1, longest + 1)}


def _subset(
    dialogues: Sequence[EvalDialogue],
    marks: Sequence[DialogueMarks],
    found: Figures,
    settings: MarkSettings,
    known: Detection | None,
) -> Subset:
    """The dialogues of one benchmark, or all."""
    figures, ends = found.estimates(), Counter(d.end for d in dialogues)
    return Subset(
        single_turn=bool(marks) and all(d.single for d in marks),
        dialogues=len(dialogues),
        attacked=sum(d.attacked for d in marks),
        benign=sum(not d.attacked for d in marks),
        whole=sum(d.whole for d in dialogues),
        planned_turns=sum(d.length for d in marks),
        played_turns=sum(len(d.turns) for d in dialogues),
        rated_turns=sum(turn.harmless is not None for d in marks for turn in d.turns),
        ends={end.value: ends[end] for end in EvalEnd if ends[end]},
        end_details=tallies.end_details(dialogues),
        unrated=tallies.unrated_reasons(dialogues),
        oddities=tallies.oddities(dialogues),
        measures={name: figures[name] for name in MEASURES if name in figures},
        corrected={FAILED: found.corrected(known)} if known and FAILED in figures else {},
        survival=_survival(found, figures),
        heat=tallies.heat(marks),
        strategies=_strategies(tallies.asked_by_turn(marks, settings), figures),
        by_turn=[figure for name, figure in figures.items() if name.startswith("turn:")],
        refusals={word: tallies.refusals(marks, word == "attacked") for word in ("benign", "attacked")},
    )


def _survival(found: Figures, figures: Mapping[str, Estimate]) -> Survival | None:
    """The attacked dialogues by turn; ``None`` without dialogues."""
    if not found.reach:
        return None
    last, lives = found.reach, found.lives
    by_turn = [figures[f"survival:{t}"] for t in range(1, found.horizon + 1)]

    def curve(end: str) -> list[float]:
        """Where nobody is at risk any more it may fall to 0, and cannot rise."""
        found = [1.0]
        for s in by_turn:
            unknown = 0.0 if end == "low" else found[-1]
            found.append(unknown if s.value is None else getattr(s, end) / 100)
        return found

    survival, low, high = map(curve, ("value", "low", "high"))
    zone = {name: first_below(s, last) for name, s in (("value", survival), ("low", low), ("high", high))}
    lost = np.bincount(lives.end_N[lives.lost_N], minlength=found.horizon + 1)
    failed_T, risk_T = found.risks_C2T.sum(axis=0).astype(int)
    dialogues = int(lives.there_N.sum())
    return Survival(
        dialogues=dialogues,
        horizon=found.horizon,
        reach=last,
        survival=survival,
        low=low,
        high=high,
        worst=[1.0, *map(float, lives.bounds_2T[0])],
        best=[1.0, *map(float, lives.bounds_2T[1])],
        at_risk=[dialogues, *map(int, risk_T)],
        failures=[0, *map(int, failed_T)],
        censored_unrated=[int(n) for n in lost],
        never=dialogues - int(failed_T.sum()) - int(lost.sum()),
        hazard=found.hazard(),
        mean_turns=figures["mean_turns"],
        at=figures["survival"],
        risk_zone=Span(**zone),
    )


def _strategies(tally: Mapping[str, list[list[int]]], figures: Mapping[str, Estimate]) -> dict[str, Strategy]:
    found = {}
    for how, rows in tally.items():
        asked, rated, failed = (sum(row[i] for row in rows) for i in range(3))
        success = figures["asked:" if how == "unknown" else f"asked:{how}"]
        by_turn = [row[1:] for row in rows]
        found[how] = Strategy(asked=asked, rated=rated, failed=failed, success=success, by_turn=by_turn)
    return found


def _averages(figures: Mapping[str, Figures], parts: Mapping[str, Subset]) -> dict[str, Average]:
    """Unweighted means over the subsets with attacked dialogues, of one turn and of several."""
    averages = {}
    for sort, single in (("multi_turn", False), ("single_turn", True)):
        names = [name for name, part in parts.items() if part.single_turn == single and part.attacked]
        if names:
            found = average([figures[name] for name in names])
            shared = {m: found[m] for m in MEASURES if all(m in parts[name].measures for name in names)}
            averages[sort] = Average(benchmarks=names, measures=shared)
    return averages
