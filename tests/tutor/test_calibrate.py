"""Calibration: planted agreement is found, and unscored answers are no number."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from steer_verl.errors import DataError
from steer_verl.tutor.calibrate import Calibration
from steer_verl.tutor.identity import Identity, prompt_version
from steer_verl.tutor.labelled import Labelled, LabelledSet, Scale
from steer_verl.types import Scores, TurnVerdict, Unscored, UnscoredReason, Verdict

IDENTITY = Identity(tutor="scripted", models=(), prompt=prompt_version())
LOST = Unscored(reason=UnscoredReason.TIMEOUT)


def scored(safety: int) -> Verdict:
    return Verdict(scores=Scores(safety=safety, usefulness=5, faithfulness=5))


def data_of(humans: list[tuple[float | None, ...]]) -> LabelledSet:
    rows = tuple(Labelled(f"question {n}", f"answer {n}", human) for n, human in enumerate(humans))
    return LabelledSet("drawn", Scale.SAFETY, tuple(f"human_safety_{r}" for r in range(len(humans[0]))), rows)


def compared(data: LabelledSet, verdicts: list[TurnVerdict], **settings: int) -> Calibration:
    found = {row.key: verdict for row, verdict in zip(data.rows, verdicts, strict=True)}
    return Calibration(data, found, IDENTITY, **settings)


def test_a_tutor_that_agrees_and_one_that_does_not() -> None:
    rng = random.Random(0)
    humans = [rng.randint(1, 10) for _ in range(120)]
    data = data_of([(float(h),) for h in humans])
    same = compared(data, [scored(h) for h in humans]).figures
    assert same["mae"].value == 0 and same["spearman"].value == pytest.approx(1) and same["alpha"].value == 1
    assert same["sensitivity"].value == same["specificity"].value == 1 and "alpha_humans" not in same

    other = compared(data, [scored(11 - h) for h in humans]).figures
    assert other["spearman"].value == pytest.approx(-1) and other["alpha"].value < 0
    assert other["sensitivity"].value == 0

    every = [(human, tutor) for human in range(1, 11) for tutor in range(1, 11)]
    deaf = compared(data_of([(float(h),) for h, _ in every]), [scored(t) for _, t in every]).figures
    assert deaf["spearman"].low < 0 < deaf["spearman"].high and deaf["spearman"].value == pytest.approx(0)
    assert deaf["alpha"].low < 0 < deaf["alpha"].high


def test_a_constant_tutor_has_no_correlation_and_that_is_null_in_json() -> None:
    calibration = compared(data_of([(1.0,), (5.0,), (10.0,)]), [scored(10)] * 3)
    stored = json.loads(json.dumps(calibration.as_dict(), allow_nan=False))
    assert stored["figures"]["spearman"] == {"value": None, "low": None, "high": None}
    assert stored["figures"]["sensitivity"]["value"] == 0 and stored["figures"]["specificity"]["value"] == 1
    assert stored["figures"]["bias"]["value"] == pytest.approx(14 / 3)


def test_an_unscored_answer_enters_no_figure() -> None:
    data = data_of([(1.0,), (10.0,), (10.0,), (3.0,)])
    verdicts: list[TurnVerdict] = [scored(1), scored(10), LOST, scored(3)]
    calibration = compared(data, verdicts)
    assert calibration.figures["mae"].value == 0 and calibration.unscored == {"timeout": 1}
    stored = calibration.as_dict()
    assert (stored["n"], stored["scored"]) == (4, 3)
    assert sum(stored["detection"].values()) == 3 and sum(level["n"] for level in stored["levels"]) == 3


def test_nothing_scored_is_an_error_with_the_reasons() -> None:
    with pytest.raises(DataError, match=r"none of 2 answers was scored \(2 timeout\)"):
        compared(data_of([(1.0,), (2.0,)]), [LOST, LOST])


def test_several_people_are_averaged_and_compared_among_themselves() -> None:
    data = data_of([(1.0, 3.0, None), (10.0, 8.0, 9.0), (6.0, 6.0, 6.0)])
    calibration = compared(data, [scored(2), scored(9), scored(6)])
    assert calibration.human_N.tolist() == [2, 9, 6] and calibration.figures["mae"].value == 0
    assert 0.8 < calibration.figures["alpha_humans"].value < 1


def test_the_threshold_decides_what_a_breach_is() -> None:
    data, verdicts = data_of([(3.0,), (5.0,), (9.0,)]), [scored(6), scored(5), scored(9)]
    assert vars(compared(data, verdicts).known) == {"caught": 0, "missed": 1, "cleared": 2, "blamed": 0}
    assert vars(compared(data, verdicts, threshold=6).known) == {"caught": 2, "missed": 0, "cleared": 1, "blamed": 0}


def test_figures_are_the_same_at_every_run() -> None:
    rng = np.random.default_rng(2)
    humans = rng.integers(1, 11, 60)
    data, verdicts = data_of([(float(h),) for h in humans]), [scored(int(h)) for h in rng.permutation(humans)]
    once = compared(data, verdicts).figures
    assert once == compared(data, verdicts).figures
    assert once["mae"] != compared(data, verdicts, seed=1).figures["mae"]
