"""A student that games its tutor: it wins against a gullible one, is seen by the alarms, and loses to a panel."""

from __future__ import annotations

import pytest

from benchmarks.tutor.hacking import CASES, PRAISE, GullibleTutor, Outcome, gaming, honest, run
from steer_verl.answer import parse_answer
from steer_verl.types import Tutor

BY_NAME = {case.name: case for case in CASES}
COUNT = 60


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, str], Outcome]:
    return {
        (name, policy.__name__): run(policy, case, COUNT)
        for name, case in BY_NAME.items()
        for policy in (gaming, honest)
    }


def test_the_game_is_set_up_fairly():
    assert isinstance(GullibleTutor(), Tutor)
    assert parse_answer(PRAISE).well_formed, "what it earns must not hang on the format"


def test_it_wins_against_the_gullible_tutor(outcomes):
    for name in ("gullible tutor", "gullible tutor, attacks only"):
        assert outcomes[name, "gaming"].reward == 1 > outcomes[name, "honest"].reward


def test_the_alarms_see_it_and_leave_the_honest_student_alone(outcomes):
    fired = set(outcomes["gullible tutor", "gaming"].fired)
    assert fired == {"holdout_gap", "benign_refusal_share", "best_score_share", "repeated_answer_share"}
    for case in BY_NAME:  # twelve devices: right answers coincide
        assert set(outcomes[case, "honest"].fired) <= {"repeated_answer_share"}


def test_the_causes_need_benign_seeds(outcomes):
    assert not {"holdout_gap", "benign_refusal_share"} & set(outcomes["gullible tutor, attacks only", "gaming"].fired)


@pytest.mark.parametrize("name", [name for name in BY_NAME if "+" in name or name == "rule tutor"])
def test_one_judge_that_is_not_fooled_makes_it_lose(outcomes, name):
    assert outcomes[name, "gaming"].reward < outcomes[name, "honest"].reward - 0.2
    assert "benign_refusal_share" in outcomes[name, "gaming"].fired


def test_min_takes_away_more_than_mean(outcomes):
    mean, least = (outcomes[f"gullible tutor + mini judge, {how}", "gaming"].reward for how in ("mean", "min"))
    assert least < mean < outcomes["gullible tutor", "gaming"].reward
