"""The figures of a dialogue: the same keys for every sample, and no figure where there is none."""

from __future__ import annotations

import math

from steer_verl.metrics import dialogue_figures
from steer_verl.types import JudgeResult, JudgeScores, QuestionOrigin, StopReason, Unscored, UnscoredReason, Usage
from tests.test_rewards import BAD_FORM, GOOD_FORM, UNSCORED, played, verdict


def test_figures_of_a_played_dialogue() -> None:
    trajectory = played(verdict(10, 10, 9), verdict(4, 1, 10), verdict(5, 1, 10), UNSCORED)
    turns = list(trajectory.turns)
    turns[1] = turns[1].model_copy(update={"origin": QuestionOrigin.FALLBACK, "answer": BAD_FORM, "tutor_seconds": 1.5})
    turns[3] = turns[3].model_copy(update={"truncated": True, "tutor_seconds": 2.0, "student_seconds": 0.25})
    trajectory = trajectory.model_copy(update={"turns": tuple(turns), "stop": StopReason.UNSCORED})
    info = dialogue_figures(trajectory, 0.5)
    assert (info["tcsr_return"], info["lost"]) == (0.5, 1)
    assert (info["safety_mean"], info["safety_min"], info["usefulness_mean"]) == (19 / 3, 4, 4)
    assert (info["turns"], info["scored_turns"], info["breaches"], info["unhelpful"]) == (4, 3, 1, 1)
    assert (info["format_ok"], info["fallback_questions"], info["truncated_answers"]) == (0.75, 1, 1)
    assert (info["tutor_seconds"], info["student_seconds"]) == (3.5, 0.25)
    stops = {key: value for key, value in info.items() if key.startswith("stop_")}
    assert stops == {f"stop_{reason.value}": float(reason is StopReason.UNSCORED) for reason in StopReason}


def test_what_the_tutor_cost_and_how_far_the_held_out_judge_disagrees() -> None:
    trajectory = played(verdict(10, 10, 10), verdict(8, 8, 8))
    usage = Usage(requests=2, prompt_tokens=100, completion_tokens=10, cost=0.25)
    turns = tuple(turn.model_copy(update={"usage": usage}) for turn in trajectory.turns)
    missing = JudgeResult(scores=Unscored(reason=UnscoredReason.TIMEOUT))
    audit = (JudgeResult(scores=JudgeScores(judge="h", safety=4)), missing)
    info = dialogue_figures(trajectory.model_copy(update={"turns": turns, "audit": audit}), 1.0)
    assert (info["tutor_requests"], info["tutor_tokens"], info["tutor_cost"], info["holdout_gap"]) == (4, 220, 0.5, 6)
    paid = (audit[0].model_copy(update={"usage": usage}), missing)
    info = dialogue_figures(trajectory.model_copy(update={"turns": turns, "audit": paid}), 1.0)
    assert (info["tutor_requests"], info["tutor_tokens"], info["tutor_cost"]) == (6, 330, 0.75), "the judge costs too"
    assert dialogue_figures(trajectory, 1.0)["holdout_gap"] is None


def test_keys_and_types_are_the_same_whatever_happened() -> None:
    samples = [
        dialogue_figures(played(verdict(10, 10, 10), verdict(8, 8, 8)), 1.0),
        dialogue_figures(played(verdict(1, 1, 1), UNSCORED, answer=""), None),
        dialogue_figures(played(UNSCORED), None),
        dialogue_figures(played(), None),  # the engine gave no first answer
    ]
    assert len({tuple(info) for info in samples}) == 1
    for info in samples:
        assert all(value is None or (type(value) is float and math.isfinite(value)) for value in info.values())


def test_a_dialogue_without_a_verdict_has_no_scores() -> None:
    info = dialogue_figures(played(UNSCORED, answer=GOOD_FORM), None)
    figures = ("tcsr_return", "safety_mean", "safety_min", "usefulness_mean", "faithfulness_mean")
    assert all(info[key] is None for key in figures)
    assert (info["lost"], info["format_ok"]) == (1, 1)
