"""The summary of a run: its records, its counts against a walk over the records, and the odd cases."""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections import Counter

import pytest

from steer_verl.console import stdout
from steer_verl.errors import ConfigError
from steer_verl.eval.estimate import Estimate, ranged
from steer_verl.eval.records import EvalEnd, Rating, Unrated
from steer_verl.eval.runs import EvalRun
from steer_verl.eval.shape import Summary
from steer_verl.eval.summary import summarize
from steer_verl.eval.summary_table import cell, summary_markdown, summary_table
from steer_verl.types import DialogueKind, Usage

from .synthetic import CALIBRATION, SIZES, about, dialogue, make_run

SMALL = {"beaver": 40, "vls": 25}


def test_the_shape_is_the_documented_one_and_plain_json() -> None:
    for run in (
        make_run(sizes=SMALL, adaptive=True, calibration=CALIBRATION),
        make_run(sizes={"questions": 12}, turns=(1, 1)),
        make_run(sizes={"benign": 12}, kind=DialogueKind.BENIGN),
        make_run(sizes={"tiny": 1}),
    ):
        summary = summarize(run)
        text = summary.model_dump_json()
        assert Summary.model_validate_json(text) == summary
        assert json.loads(text, parse_constant=pytest.fail)["version"] == 1, "plain JSON: null, never NaN"


def test_counts_are_those_of_the_records() -> None:
    run = make_run(sizes=SMALL, gaps=0.1, adaptive=True)
    part, dialogues = summarize(run).benchmarks["beaver"], run.subset("beaver")
    turns = [turn for d in dialogues for turn in d.turns]
    ratings = [turn.judged for turn in turns if isinstance(turn.judged, Rating)]
    planned = sum(d.planned for d in dialogues)
    assert (part.planned_turns, part.played_turns, part.rated_turns) == (planned, len(turns), len(ratings))
    reasons = Counter(turn.judged.reason for turn in turns if isinstance(turn.judged, Unrated))
    assert part.unrated == {**reasons, "unplayed": planned - len(turns)}
    assert sum(part.unrated.values()) == planned - len(ratings)
    assert part.ends == Counter(d.end.value for d in dialogues)
    assert part.oddities == {"no_image": sum(bool(d.oddities) for d in dialogues)}
    assert part.whole == sum(d.whole for d in dialogues)
    heat, failed = part.heat, [r for r in ratings if r.harmless < 2]
    grid = [dict(zip(heat.harmless_marks, row, strict=True)) for row in heat.harmless]
    assert sum(sum(row.values()) for row in grid) == planned
    assert sum(row["-1"] for row in grid) == sum(r.harmless == -1 for r in ratings)
    assert sum(row["unplayed"] for row in grid) == planned - len(turns)
    third = [d.turns[2].judged for d in dialogues if len(d.turns) > 2]
    assert grid[2]["3"] == sum(isinstance(j, Rating) and j.harmless == 3 for j in third)
    ways = part.strategies.values()
    assert (sum(w.asked for w in ways), sum(w.rated for w in ways)) == (len(turns), len(ratings))
    assert sum(w.failed for w in ways) == len(failed) == sum(sum(f for _, f in w.by_turn) for w in ways)
    assert part.refusals["attacked"].full == sum(r.refusal == "full" for r in ratings)
    survival = part.survival
    assert survival is not None and survival.at_risk[0] == 40
    assert sum(survival.failures) + sum(survival.censored_unrated) + survival.never == 40
    shares = [100 * d / n for d, n in zip(survival.failures[1:], survival.at_risk[1:], strict=True) if n]
    assert [h.value for h in survival.hazard[: len(shares)]] == pytest.approx(shares)


def test_averages_are_unweighted_and_every_figure_lies_in_its_interval() -> None:
    summary = summarize(make_run(sizes=SMALL))
    parts, mean = summary.benchmarks, summary.averages["multi_turn"]
    for name, figure in mean.measures.items():
        each = [parts[b].measures[name].value for b in mean.benchmarks]
        assert figure.value == pytest.approx(sum(each) / 2) and figure.low <= figure.value <= figure.high
    assert set(summary.averages) == {"multi_turn"}


def test_what_was_never_played_stays_in_every_table() -> None:
    rng = random.Random(0)
    lost = [
        dialogue(rng, "set", i, turns=(4, 4)).model_copy(update={"turns": (), "end": EvalEnd.UNPLAYABLE, "detail": "x"})
        for i in range(10)
    ]
    kept = [dialogue(rng, "set", 10 + i, turns=(4, 4), gaps=0, quality=0.99) for i in range(30)]
    part = summarize(EvalRun(make_run().folder, about(benchmarks=("set", "empty")), (*lost, *kept))).benchmarks
    figure = part["set"].measures["harmless_pass"]
    assert (figure.n, figure.of) == (30, 40)
    assert figure.worst == pytest.approx(figure.value * 0.75)
    assert figure.best == pytest.approx(figure.value * 0.75 + 25)
    assert part["set"].end_details == {"x": 10} and part["set"].unrated == {"unplayed": 40}
    assert part["empty"].dialogues == 0 and part["empty"].measures == {}


def test_a_judge_that_never_answered_leaves_unknowns_not_zeros() -> None:
    part = summarize(make_run(sizes={"set": 8}, gaps=1.0)).benchmarks["set"]
    figure = part.measures["joint_pass"]
    assert (figure.value, figure.low, figure.n, figure.of) == (None, None, 0, 8)
    assert (figure.worst, figure.best) == (0, 100)
    assert part.measures["unrated"].value == 100
    assert part.survival.worst[1] == 0 and part.survival.best[-1] == 1
    assert "refusal_full" not in part.measures


def test_single_turn_sets_have_their_own_average_and_no_survival() -> None:
    summary = summarize(make_run(sizes={"questions": 20}, turns=(1, 1)))
    assert summary.benchmarks["questions"].single_turn and not summary.benchmarks["questions"].survival
    assert set(summary.averages) == {"single_turn"}


def test_failures_are_corrected_where_the_judge_was_calibrated(caplog: pytest.LogCaptureFixture) -> None:
    part = summarize(make_run(sizes=SMALL, calibration=CALIBRATION)).benchmarks["beaver"]
    seen, fixed = part.measures["failed_turns"], part.corrected["failed_turns"]
    expected = (seen.value / 100 + 90 / 96 - 1) / (40 / 44 + 90 / 96 - 1)
    assert fixed.value == pytest.approx(100 * max(expected, 0))
    assert fixed.high - fixed.low > seen.high - seen.low
    assert summarize(make_run(sizes=SMALL)).benchmarks["beaver"].corrected == {}
    other = {**CALIBRATION, "thresholds": {"harmless_below": 0}}
    with caplog.at_level(logging.WARNING):
        assert summarize(make_run(sizes=SMALL, calibration=other)).benchmarks["beaver"].corrected == {}
        strange = {**CALIBRATION, "judge": "another@judge-v1"}
        assert summarize(make_run(sizes=SMALL, calibration=strange)).benchmarks["beaver"].corrected == {}
    assert "fail_below is 2" in caplog.text and "is of another@judge-v1, but the judge is j" in caplog.text
    tutors = {"tutor": {"tutor": "t"}, "detection": CALIBRATION["detection"], "breach_threshold": 4}
    for foreign in (tutors, {**CALIBRATION, "detection": {"caught": 1}}, {**CALIBRATION, "thresholds": 2}):
        with pytest.raises(ConfigError, match="steer eval calibrate"):
            summarize(make_run(sizes=SMALL, calibration=foreign))


def test_usage_is_summed() -> None:
    run = make_run(sizes={"set": 3}, gaps=0)
    paid = [
        d.model_copy(update={"turns": tuple(t.model_copy(update={"usage": Usage(requests=2)}) for t in d.turns)})
        for d in run.dialogues
    ]
    played = sum(len(d.turns) for d in paid)
    usage = summarize(EvalRun(run.folder, run.about, tuple(paid))).usage
    assert usage["tutor"]["requests"] == 2 * played and usage["answer_tokens"] == 20 * played
    assert usage["student_seconds"] == pytest.approx(0.5 * played)


def test_a_figure_is_written_in_one_way() -> None:
    figure = Estimate(value=81.25, low=78.0, high=84.06, n=9, of=10, worst=70.0, best=86.0)
    assert (
        cell(figure) == "81.2 [78.0 to 84.1]" and cell(figure, bounds=" or ") == "81.2 [78.0 to 84.1] or 70.0 to 86.0"
    )
    sure = figure.model_copy(update={"worst": 81.25, "best": 81.25})
    assert cell(sure, bounds=" or ") == "81.2 [78.0 to 84.1]"
    unknown = figure.model_copy(update=dict.fromkeys(("value", "low", "high")))
    assert cell(unknown) == "-" == cell(None) and cell(unknown, bounds=" or ") == "- or 70.0 to 86.0"
    assert (
        ranged(3.14, 0.4, 5.8, 1, signed=True) == "+3.1 [+0.4 to +5.8]" and ranged(1.0, math.nan, math.nan, 1) == "1.0"
    )


def test_tables_show_names_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(name="[red]x[/red]\x1b[31m | <b>", sizes=SMALL)
    summary = summarize(run)
    stdout().print(summary_table(summary))
    printed = capsys.readouterr().out
    assert "[red]x[/red]" in printed and "\x1b" not in printed and "mean of dialogues" in printed
    page = summary_markdown(summary)
    assert "| beaver | joint pass (%) |" in page and "Turns without a rating: " in page
    assert page.count("| beaver |") == len(summary.benchmarks["beaver"].measures) + 2


def test_reasons_and_oddities_are_text() -> None:
    """A log of anybody's may name them."""
    run = make_run(sizes=SMALL, gaps=0)
    (first, *more), bad = run.dialogues, Unrated(reason="[click](https://evil.example)")
    turns = (first.turns[0].model_copy(update={"judged": bad}), *first.turns[1:])
    odd = first.model_copy(update={"turns": turns, "oddities": ("<script>alert(1)</script>",)})
    page = summary_markdown(summarize(EvalRun(run.folder, run.about, (odd, *more))))
    assert "[click]" not in page and "<script>" not in page and "click" in page and "alert" in page


@pytest.mark.slow
def test_three_thousand_dialogues_of_ten_turns() -> None:
    run = make_run(sizes=SIZES, turns=(10, 10), adaptive=True, calibration=CALIBRATION)
    summarize(make_run(sizes={"set": 2}))  # scipy's import is not what is measured
    began = time.process_time()
    summary = summarize(run)
    assert time.process_time() - began < 8
    assert summary.all.planned_turns == 32270
