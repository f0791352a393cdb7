"""Alarms: each fires above its threshold and only there, in one line; and the stop before the update."""

from __future__ import annotations

import logging

import pytest

from steer_verl.alarms import ALARMS, BASELINE_STEPS, Alarms, stop_if_lost
from steer_verl.config import AlarmConfig
from steer_verl.errors import TutorError
from steer_verl.metrics import trajectory_metrics
from steer_verl.types import (
    DialogueKind,
    QuestionOrigin,
    Scores,
    Status,
    StopReason,
    Trajectory,
    Turn,
    Unscored,
    UnscoredReason,
    UserTurn,
    Verdict,
)

FINE = Verdict(scores=Scores(safety=8, usefulness=8, faithfulness=9))
LOST = Unscored(reason=UnscoredReason.HTTP_429, detail="slow down")


def dialogue(*judgements: Verdict | Unscored, tokens: int = 10, seed_id: str = "s", **more: object) -> Trajectory:
    turns = [
        Turn(
            user=UserTurn(text="?"),
            origin=QuestionOrigin.SEED,
            answer=f"{seed_id} says {number}",
            answer_tokens=tokens,
            verdict=verdict,
        )
        for number, verdict in enumerate(judgements)
    ]
    lost = any(isinstance(verdict, Unscored) for verdict in judgements)
    stop = StopReason.UNSCORED if lost else StopReason.COMPLETED
    return Trajectory(seed_id=seed_id, kind=DialogueKind.BENIGN, turns=tuple(turns), stop=stop, **more)


def test_the_table_names_every_threshold_and_no_other():
    assert set(ALARMS) == set(AlarmConfig.model_fields)


@pytest.mark.parametrize("name", [name for name in ALARMS if name != "answer_growth"])
def test_an_alarm_fires_above_its_threshold_in_one_line(name, caplog):
    config = AlarmConfig()
    threshold, figure = getattr(config, name), ALARMS[name].figure
    with caplog.at_level(logging.WARNING):
        assert Alarms(config).check([], {figure: threshold}) == {f"steer/alarm/{name}": 0.0}
        assert not caplog.records
        assert Alarms(config).check([], {figure: threshold + 0.01}) == {f"steer/alarm/{name}": 1.0}
    (record,) = caplog.records
    line = record.getMessage()
    assert "\n" not in line and figure in line and f"{threshold:g}" in line and f"alarms.{name}" in line


def test_no_figure_or_no_threshold_is_no_alarm():
    off = AlarmConfig(**dict.fromkeys(AlarmConfig.model_fields))
    step = [dialogue(FINE, LOST)]
    assert Alarms(off).check(step, trajectory_metrics(step)) == {}
    assert Alarms(AlarmConfig()).check([], trajectory_metrics([])) == {}


def test_growth_is_against_the_first_training_steps():
    alarms = Alarms(AlarmConfig(answer_growth=2.0))
    for tokens in range(8, 8 + BASELINE_STEPS):  # mean 10
        assert alarms.check([dialogue(FINE, tokens=tokens)], {}) == {}
    assert alarms.check([dialogue(FINE, tokens=20)], {}) == {"steer/answer_growth": 2.0, "steer/alarm/answer_growth": 0}
    assert alarms.check([dialogue(FINE, tokens=21)], {})["steer/alarm/answer_growth"] == 1
    assert alarms.check([dialogue(FINE, tokens=15)], {})["steer/answer_growth"] == 1.5, "the baseline does not move"


def test_validation_and_empty_steps_are_no_baseline():
    alarms = Alarms(AlarmConfig())
    for _ in range(BASELINE_STEPS):
        alarms.check([dialogue(FINE, tokens=1000, validate_run=True)], {})
        alarms.check([], {})
        alarms.check([dialogue(FINE, tokens=0)], {})
    for _ in range(BASELINE_STEPS):
        assert "steer/answer_growth" not in alarms.check([dialogue(FINE, tokens=10)], {})
    assert alarms.check([dialogue(FINE, tokens=10)], {})["steer/answer_growth"] == 1


def test_a_step_stops_above_the_share_and_counts_the_reasons():
    timeout = Unscored(reason=UnscoredReason.TIMEOUT)
    step = [dialogue(FINE, FINE), dialogue(FINE, LOST), dialogue(LOST), dialogue(FINE, timeout)]
    stop_if_lost(step, 0.75)
    with pytest.raises(TutorError, match=r"3 of 4 dialogues .*http_429 2, timeout 1.*max_lost_share 0\.5") as caught:
        stop_if_lost(step, 0.5)
    assert "\n" not in str(caught.value)


def test_one_lost_dialogue_and_a_step_without_any_stop_nothing():
    stop_if_lost([], 0.0)
    stop_if_lost([dialogue(LOST)], 0.0)
    stop_if_lost([dialogue(LOST), *[dialogue(FINE)] * 3], 0.0)
    with pytest.raises(TutorError):
        stop_if_lost([dialogue(LOST), dialogue(LOST), *[dialogue(FINE)] * 30], 0.0)
    stop_if_lost([dialogue(LOST)] * 4, 1.0)


@pytest.mark.parametrize("stop", [stop for stop in StopReason if stop.status is Status.LOST])
def test_whatever_loses_dialogues_stops_a_step_and_what_the_policy_spends_does_not(stop):
    def ended(reason: StopReason, detail: str = "") -> Trajectory:
        return dialogue(FINE, FINE).model_copy(update={"stop": reason, "detail": detail})

    with pytest.raises(
        TutorError, match=rf"2 of 3 dialogues .*\({stop.value} 2\).*the first: no room on disk"
    ) as caught:
        stop_if_lost([ended(stop, "no room on disk"), ended(stop), dialogue(FINE)], 0.1)
    assert "\n" not in str(caught.value)
    for kept in (StopReason.COMPLETED, StopReason.TURN_LIMIT, StopReason.TOKEN_BUDGET):
        stop_if_lost([ended(kept)] * 4, 0.0)


def test_a_content_filter_is_told_from_the_first_dialogue_on_that_it_takes(caplog):
    taken = dialogue(FINE, Unscored(reason=UnscoredReason.CONTENT_FILTER, detail="blocked"))
    step = [taken, *[dialogue(FINE)] * 499]
    figures = trajectory_metrics(step)
    assert figures["steer/lost/content_filter"] == figures["steer/lost_share"] == 1 / 500
    found = Alarms(AlarmConfig()).check(step, figures)
    assert (found["steer/alarm/content_filter_share"], found["steer/alarm/lost_share"]) == (1, 0)
    assert "content_filter" in caplog.text
    calm = trajectory_metrics(step[1:])
    assert calm["steer/lost/content_filter"] == 0, "a curve without holes"
    assert Alarms(AlarmConfig()).check(step[1:], calm)["steer/alarm/content_filter_share"] == 0


def test_what_came_first_is_counted_and_not_what_was_abandoned_for_it():
    abandoned = Unscored(reason=UnscoredReason.ABANDONED)
    assert dialogue(FINE, abandoned, LOST).lost == "http_429"
    assert dialogue(abandoned).model_copy(update={"stop": StopReason.DISK}).lost == "disk"
    assert dialogue(abandoned, abandoned).lost == "unscored"
