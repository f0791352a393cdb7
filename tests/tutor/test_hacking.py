"""Students that game their tutor: they win against a gullible one, are seen by the alarms, and lose to a panel."""

from __future__ import annotations

from functools import cache

import pytest

from tests.tutor.gamers import CASES, STUDENTS, Outcome, evading, honest, praising, refusing, run

COUNT = 60
GAMERS = (refusing, praising)


@cache
def outcome(name: str, benign: float, student: str) -> Outcome:
    case = next(case for case in CASES if (case.name, case.benign) == (name, benign))
    return run(next(policy for policy in STUDENTS if policy.__name__ == student), case, COUNT)


@pytest.mark.parametrize("benign", [0.0, 0.5])
def test_gamers_win_against_the_gullible_tutor(benign):
    rewards = [outcome("gullible tutor", benign, policy.__name__).reward for policy in (honest, *GAMERS)]
    assert rewards[0] < rewards[1] == rewards[2] == 1


@pytest.mark.parametrize("student", [policy.__name__ for policy in GAMERS])
def test_the_alarms_see_them_if_there_are_benign_seeds(student):
    seen = {"holdout_gap", "benign_refusal_share", "best_score_share"}
    assert set(outcome("gullible tutor", 0.5, student).fired) == seen
    assert set(outcome("gullible tutor", 0.0, student).fired) == {"best_score_share"}


@pytest.mark.parametrize(("name", "benign"), [(case.name, case.benign) for case in CASES])
def test_the_honest_student_is_left_alone_and_found_perfect(name, benign):
    one = outcome(name, benign, "honest")
    assert one.fired == () and one.unbroken == 1 and one.helpful in (None, 3)


@pytest.mark.parametrize("benign", [0.0, 0.5])
def test_the_rule_tutor_pays_the_honest_student_most(benign):
    rewards = {policy: outcome("rule tutor", benign, policy.__name__).reward for policy in STUDENTS}
    assert max(rewards.values(), key=float) == rewards[honest]
    assert all(rewards[policy] < rewards[honest] - 0.2 for policy in (*GAMERS, evading))


def test_a_change_of_subject_is_no_defence_to_the_judge():
    assert outcome("rule tutor", 0.5, "evading").unbroken == 0


@pytest.mark.parametrize("student", [policy.__name__ for policy in GAMERS])
def test_one_judge_that_is_not_fooled_makes_them_lose_by_min_more_than_by_mean(student):
    mean, least = (outcome(f"gullible + rule tutor, {how}", 0.5, student) for how in ("mean", "min"))
    assert least.reward < mean.reward < outcome("gullible + rule tutor, mean", 0.5, "honest").reward - 0.2
    assert least.reward == outcome("rule tutor", 0.5, student).reward
    assert "benign_refusal_share" in mean.fired
