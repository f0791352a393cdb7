"""The step's figures of cost, disagreement and gaming; a figure that does not exist is absent."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from steer_verl.metrics import holdout_gaps, trajectory_metrics
from steer_verl.types import (
    DialogueKind,
    JudgeResult,
    JudgeScores,
    QuestionOrigin,
    Scores,
    StopReason,
    Trajectory,
    Turn,
    Unscored,
    UnscoredReason,
    Usage,
    UserTurn,
    Verdict,
)

LOST = Unscored(reason=UnscoredReason.TIMEOUT)


def verdict(safety: int = 8, usefulness: int = 8, faithfulness: int = 8, judge_scores: tuple[int, ...] = ()) -> Verdict:
    given = tuple(JudgeScores(judge=f"j{n}", safety=s) for n, s in enumerate(judge_scores))
    return Verdict(
        scores=Scores(safety=safety, usefulness=usefulness, faithfulness=faithfulness), diagnosis="", judge_scores=given
    )


def turn(answer: str = "a", given: Verdict | Unscored | None = None, usage: Usage | None = None) -> Turn:
    return Turn(
        user=UserTurn(text="?"),
        origin=QuestionOrigin.SEED,
        answer=answer,
        verdict=given or verdict(),
        usage=usage or Usage(),
    )


def played(*turns: Turn, seed_id: str = "s", benign: bool = False, audit: tuple[JudgeScores | Unscored, ...] = ()):
    kind = DialogueKind.BENIGN if benign else DialogueKind.RED_TEAM
    results = tuple(JudgeResult(scores=scores) for scores in audit)
    return Trajectory(seed_id=seed_id, kind=kind, turns=turns, stop=StopReason.COMPLETED, audit=results)


def figures(*trajectories: Trajectory) -> dict[str, float]:
    return trajectory_metrics(trajectories)


def test_cost_is_per_turn_and_the_price_is_the_steps():
    one = Usage(requests=3, rejected=1, prompt_tokens=100, cached_tokens=60, completion_tokens=20, cost=0.25)
    two = Usage(requests=1, prompt_tokens=300, cached_tokens=40, completion_tokens=20, cost=0.5)
    found = figures(played(turn(usage=one), turn(usage=two)))
    assert {key.removeprefix("steer/tutor/"): value for key, value in found.items() if "/tutor/" in key} == {
        "requests": 2,
        "rejected_share": 0.2,
        "prompt_tokens": 200,
        "cached_tokens": 50,
        "cached_share": 0.25,
        "completion_tokens": 20,
        "total_cost": 0.75,
    }


def test_what_does_not_exist_is_absent():
    bare = figures(played(turn()))
    for absent in ("tutor/", "panel/", "holdout/", "benign_refusal_share", "repeated_answer_share"):
        assert not [key for key in bare if absent in key], absent
    unscored = figures(played(turn(given=LOST)))
    assert "steer/best_score_share" not in unscored and not [key for key in unscored if "safety" in key]
    turned_away = figures(played(turn(given=LOST, usage=Usage(rejected=2))))
    assert turned_away["steer/tutor/rejected_share"] == 1 and "steer/tutor/total_cost" not in turned_away
    assert "steer/tutor/prompt_tokens" not in turned_away


def test_disagreement_is_mean_and_greatest_spread():
    turns = [turn(given=verdict(judge_scores=(10, 4))), turn(given=verdict(judge_scores=(8, 8, 7))), turn()]
    found = figures(played(*turns, turn(given=LOST)))
    assert (found["steer/panel/disagreement"], found["steer/panel/disagreement_max"]) == (3.5, 6)


def test_the_gap_is_over_turns_that_both_scored():
    audit = (JudgeScores(judge="h", safety=4), LOST, JudgeScores(judge="h", safety=9))
    audited = played(turn(given=verdict(10)), turn(given=verdict(10)), turn(given=LOST), audit=audit)
    assert holdout_gaps(audited) == [6]
    found = figures(audited, played(turn(given=verdict(1))))
    assert (found["steer/holdout/gap"], found["steer/holdout/total_audited"]) == (6, 2)
    lost = figures(played(turn(), audit=(LOST,)))
    assert lost["steer/holdout/total_audited"] == 0 and "steer/holdout/gap" not in lost


def test_a_benign_refusal_is_one_by_score_or_by_its_words():
    refusal = "<thinking>t</thinking><answer>I cannot help with that.</answer>"
    benign = played(turn(given=verdict(5)), turn(refusal, verdict(10)), turn(refusal, LOST), turn("Yes."), benign=True)
    found = figures(benign, played(turn(refusal)))
    assert found["steer/benign_refusal_share"] == 0.75


def test_best_scores_are_best_on_every_axis():
    turns = [turn(given=verdict(10, 10, 10)), turn(given=verdict(10, 10, 9)), turn(given=LOST)]
    assert figures(played(*turns))["steer/best_score_share"] == 0.5


@pytest.mark.parametrize("case", range(20))
def test_repeated_answers_against_a_brute_force_twin(case: int):
    rng = random.Random(case)
    dialogues = [
        played(*(turn(rng.choice("abcdef")) for _ in range(rng.randint(1, 4))), seed_id=f"s{rng.randint(0, 4)}")
        for _ in range(rng.randint(2, 6))
    ]
    answers = [(t.seed_id, x.answer) for t in dialogues for x in t.turns]
    if len({seed for seed, _ in answers}) == 1:
        assert "steer/repeated_answer_share" not in figures(*dialogues)
        return
    expected = fmean(any(a == b and s != z for z, b in answers) for s, a in answers)
    assert figures(*dialogues)["steer/repeated_answer_share"] == pytest.approx(expected)


def test_a_repeated_answer_is_found_through_case_punctuation_and_format():
    one = played(turn("<thinking>x</thinking><answer>No,  thanks!</answer>"), seed_id="a")
    assert figures(one, played(turn("no thanks"), seed_id="b"))["steer/repeated_answer_share"] == 1
    assert figures(one, played(turn("no, thanks to you"), seed_id="b"))["steer/repeated_answer_share"] == 0
    group = [one, one, played(turn("other"), seed_id="b")]
    assert figures(*group)["steer/repeated_answer_share"] == 0, "a group answers one seed: alike is no sign"
