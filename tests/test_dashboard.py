"""The engine's idle share against a brute-force twin on a fine grid, and what is left out where nothing is known."""

from __future__ import annotations

import random

import pytest

from steer_verl.dashboard import busy, line, time_metrics
from steer_verl.metrics import trajectory_metrics
from steer_verl.types import DialogueKind, QuestionOrigin, Scores, StopReason, Trajectory, Turn, UserTurn, Verdict

GOOD = Verdict(scores=Scores(safety=9, usefulness=9, faithfulness=9))


def played(*turns: dict[str, float]) -> Trajectory:
    """A dialogue whose turns cost this."""
    asked = {"user": UserTurn(text="q"), "origin": QuestionOrigin.SEED, "answer": "a", "verdict": GOOD}
    made = tuple(Turn(**{**asked, **turn}) for turn in turns)
    return Trajectory(seed_id="s", kind=DialogueKind.BENIGN, turns=made, stop=StopReason.COMPLETED)


@pytest.mark.parametrize("case", range(30))
def test_busy_is_the_covered_share(case: int) -> None:
    rng = random.Random(case)
    starts = [rng.randint(-20, 120) for _ in range(rng.randint(0, 12))]
    spans = [(float(start), float(start + rng.randint(0, 30))) for start in starts]
    seconds = [any(start <= t < end for start, end in spans) for t in range(100)]
    assert busy(spans, 0.0, 100.0) == pytest.approx(sum(seconds) / 100)


def test_the_engine_idles_while_the_tutor_thinks_and_while_the_trainer_works() -> None:
    trajectories = [
        played({"asked_at": 100.0, "student_seconds": 2.0}, {"asked_at": 106.0, "student_seconds": 2.0}),
        played({"asked_at": 101.0, "student_seconds": 3.0}),
    ]
    metrics = time_metrics(trajectories, 90.0, 110.0)
    assert metrics["steer/engine_idle_share_rollout"] == pytest.approx(2 / 8), "104..106 of 100..108"
    assert metrics["steer/engine_idle_share"] == pytest.approx(14 / 20)
    first = time_metrics(trajectories, None, 110.0)
    assert first["steer/engine_idle_share"] == pytest.approx(4 / 10), "the first step begins with its first question"


def test_a_turns_time_is_split_and_cache_hits_are_of_what_is_known() -> None:
    known = {
        "student_seconds": 1.0,
        "tutor_seconds": 3.0,
        "own_seconds": 0.5,
        "prompt_tokens": 100,
        "cached_tokens": 60,
    }
    metrics = time_metrics([played(known, {"student_seconds": 3.0})], None, 0.0)
    assert metrics["steer/student_seconds"] == 2.0 and metrics["steer/tutor_seconds"] == 1.5
    assert metrics["steer/own_seconds"] == 0.25 and metrics["steer/student/cached_share"] == 0.6
    assert "steer/engine_idle_share" not in metrics, "nobody noted when the engine was asked"
    assert "steer/student/cached_share" not in time_metrics([played({})], None, 0.0)
    assert time_metrics([], None, 0.0) == {}


def test_the_line_says_it_all_and_nothing_that_is_not_known() -> None:
    asked = {"asked_at": 5.0, "student_seconds": 1.0, "tutor_seconds": 0.25, "prompt_tokens": 8, "cached_tokens": 2}
    asked["question_seconds"] = 0.125
    trajectories = [played(asked)]
    metrics = trajectory_metrics(trajectories) | time_metrics(trajectories, 0.0, 10.0)
    assert line(3, metrics) == (
        "steer step 3: 1 dialogues, 1 turns | a turn: student 1 s, question 0.125 s, verdict 0.25 s, own 0 s | prefix "
        "cache 25 % | engine idle 0 % of the rollout, 90 % of the step"
    )
    metrics = trajectory_metrics([played({})]) | time_metrics([played({})], 0.0, 10.0)
    assert "prefix cache n/a" in line(3, metrics) and "n/a of the step" in line(3, metrics)
    lost = [Trajectory(seed_id="s", kind=DialogueKind.RED_TEAM, turns=(), stop=StopReason.ERROR)]
    nothing_played = line(3, trajectory_metrics(lost) | time_metrics(lost, 0.0, 10.0))
    assert nothing_played.startswith("steer step 3: 1 dialogues, 0 turns | a turn: student n/a")
