"""The table of a training run's transcripts, torn last line included."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from steer_verl.cli import app
from steer_verl.errors import DataError
from steer_verl.eval.transcripts import print_summary, summarize_steps
from steer_verl.types import (
    DialogueKind,
    QuestionOrigin,
    Scores,
    StopReason,
    Trajectory,
    Turn,
    Unscored,
    UnscoredReason,
    UserTurn,
    Verdict,
)


def turn(safety: int | None, seconds: float = 0.5) -> Turn:
    scores = Scores(safety=safety or 1, usefulness=5, faithfulness=5)
    judged = Verdict(scores=scores) if safety else Unscored(reason=UnscoredReason.TIMEOUT)
    user = UserTurn(text="?")
    return Turn(user=user, origin=QuestionOrigin.SEED, answer="a", verdict=judged, tutor_seconds=seconds)


def played(*safety: int | None, step: int = 1, validate: bool = False, rollout: int = 0) -> Trajectory:
    return Trajectory(
        seed_id="s",
        kind=DialogueKind.RED_TEAM,
        turns=tuple(turn(value) for value in safety),
        stop=StopReason.COMPLETED if None not in safety else StopReason.UNSCORED,
        step=step,
        uid="u",
        rollout=rollout,
        validate_run=validate,
    )


def test_by_step_and_turn() -> None:
    first, second = summarize_steps(
        [played(10, 8), played(4, None, rollout=1), played(9, step=2), played(1, step=2, validate=True)]
    )
    assert (first.step, first.dialogues, first.safety) == (1, 2, (7.0, 8.0))
    assert first.unscored == 0.25 and first.tutor_seconds == 0.5
    assert first.ended == {"completed": 1, "lost (timeout)": 1}
    assert (second.step, second.dialogues, second.safety) == (2, 1, (9.0,))


def test_a_turn_that_nobody_was_scored_at_shows_no_number() -> None:
    (step,) = summarize_steps([played(10, None)])
    assert step.safety == (10.0, None)


def test_the_command_prints_a_table_and_forgives_a_torn_last_line(tmp_path: Path) -> None:
    lines = [played(10, 8).model_dump_json(), played(6, step=2).model_dump_json()]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n" + lines[0][:50])
    said = CliRunner().invoke(app, ["transcripts", str(tmp_path)])
    assert said.exit_code == 0, said.output
    assert "completed 1" in said.output and "10.0" in said.output and "6.0" in said.output


def test_nothing_there_or_not_transcripts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match="no transcripts"):
        print_summary(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"seed": 1}\n{}\n')
    with pytest.raises(DataError, match="no transcripts"):
        print_summary(tmp_path)
    assert "a.jsonl: 2 lines, the first 1, cannot be read" in caplog.text
