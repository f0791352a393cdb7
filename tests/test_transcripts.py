"""The transcript log: torn lines, replays, broken lines; and the metrics that are read from its records."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from steer_verl.dialogue import Dialogue
from steer_verl.metrics import trajectory_metrics
from steer_verl.transcripts import TranscriptLog, read_transcripts
from steer_verl.types import StopReason, Trajectory, Unscored, UnscoredReason, Verdict
from tests.scripted import BAD, GOOD, LOST, ScriptedTutor, play, ruling, seed


async def record(judgements: list, *, rollout: int = 0, step: int = 1) -> Trajectory:
    """A played dialogue with these judgements."""
    dialogue = Dialogue(seed(len(judgements)), ScriptedTutor(lambda t, _: ruling(judgements[t], f"q{t}")))
    await play(dialogue)
    return dialogue.trajectory(step=step, uid="u", rollout=rollout)


async def test_a_torn_last_line_is_skipped_and_a_replay_counts_once(tmp_path: Path) -> None:
    log = TranscriptLog(tmp_path)
    first, again, other = await record([GOOD, GOOD]), await record([GOOD, BAD]), await record([BAD, BAD], rollout=1)
    for trajectory in (first, other, again):
        log.append(trajectory)
    with log.path.open("a") as file:
        file.write(again.model_dump_json()[:40])
    assert list(read_transcripts(tmp_path)) == [again, other]


async def test_seeds_of_one_id_in_two_files_are_two_dialogues(tmp_path: Path) -> None:
    log, one = TranscriptLog(tmp_path), await record([GOOD, GOOD])
    elsewhere = one.model_copy(update={"source": "another set"})
    opened = one.turns[0].model_copy(update={"user": one.turns[0].user.with_text("something else")})
    asked = one.model_copy(update={"turns": (opened, *one.turns[1:])})
    lost = one.model_copy(update={"turns": (), "stop": StopReason.DATA})
    for trajectory in (lost, one, elsewhere, asked, one):
        log.append(trajectory)
    assert list(read_transcripts(tmp_path)) == [one, asked, elsewhere]


async def test_words_of_a_tutor_of_ones_own_can_be_written_whatever_they_are(tmp_path: Path) -> None:
    torn = json.loads('"a broken emoji: \\ud83d"')
    log = TranscriptLog(tmp_path)
    log.append(await record([Verdict(scores=GOOD.scores, diagnosis=torn)] * 2))
    log.append(await record([Unscored(reason=UnscoredReason.SCHEMA, detail=torn)] * 2, rollout=1))
    whole, lost = read_transcripts(tmp_path)
    assert whole.scored[0].diagnosis == "a broken emoji: ?" and lost.lost == "schema"


async def test_a_broken_line_is_passed_over_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log, trajectory = TranscriptLog(tmp_path), await record([GOOD, GOOD])
    with log.path.open("a") as file:
        file.write("{}\n")
    log.append(trajectory)
    assert list(read_transcripts(tmp_path)) == [trajectory]
    assert f"{log.path}: line 1 cannot be read" in caplog.text


async def test_a_resumed_runs_dialogue_counts_after_a_copy_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed, resumed = await record([BAD, BAD]), await record([GOOD, GOOD])
    paths = []
    for process, trajectory in ((99, killed), (7, resumed)):
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        log = TranscriptLog(tmp_path)
        log.append(trajectory)
        paths.append(log.path)
    os.utime(paths[0])  # the killed run's file was copied last
    assert list(read_transcripts(tmp_path)) == [resumed]


async def test_metrics_against_a_count_by_hand() -> None:
    played = [await record([GOOD, GOOD]), await record([GOOD, BAD]), await record([GOOD, LOST])]
    metrics = trajectory_metrics(played)
    assert metrics["steer/total_turns"] == 6
    assert metrics["steer/safety/turn_1"] == 10 and metrics["steer/safety/turn_2"] == pytest.approx(11 / 2)
    assert metrics["steer/safety/mean"] == pytest.approx((10 + 5.5 + 10) / 3)
    assert metrics["steer/safety/worst_turn"] == pytest.approx((10 + 1 + 10) / 3)
    assert metrics["steer/unscored_share"] == pytest.approx(1 / 6) == metrics["steer/unscored/timeout"]
    assert metrics["steer/lost_share"] == pytest.approx(1 / 3) == metrics["steer/lost/timeout"]
    assert metrics["steer/stop/completed"] == pytest.approx(2 / 3)


async def test_a_step_without_a_single_score_has_no_safety_figure() -> None:
    metrics = trajectory_metrics([await record([LOST, GOOD])])
    assert "steer/safety/mean" not in metrics and metrics["steer/unscored_share"] == 1
    assert trajectory_metrics([]) == {"steer/total_dialogues": 0.0, "steer/total_turns": 0.0}
