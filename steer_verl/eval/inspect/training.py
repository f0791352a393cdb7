"""A training run's transcripts as a log of Inspect: what the tutor scored at which step, how dialogues ended."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from inspect_ai.log import EvalSample
from inspect_ai.scorer import Score

from steer_verl.errors import DataError
from steer_verl.eval.inspect.archive import explained, sample_of, write_archive
from steer_verl.rubric import AXES
from steer_verl.text import one_line
from steer_verl.transcripts import read_transcripts
from steer_verl.types import Trajectory, Turn, Unscored

TUTOR = "steer_tutor"
"""Name of the score."""


def write_transcripts(folder: Path, path: Path) -> None:
    """Write every dialogue under ``folder`` (``rollout.custom.steer.transcripts``) as a sample of a ``.eval`` log.

    Raises:
        DataError: it holds no transcripts.
        OSError: the disk is full, or cannot be written.
    """
    played = sorted(read_transcripts(folder), key=lambda one: (one.validate_run, one.step, one.seed_id, one.rollout))
    if not played:
        raise DataError(f"{folder}: no transcripts; give the folder of rollout.custom.steer.transcripts")
    write_archive(path, map(_sample, played), task="steer_training", dataset=folder.resolve().name, model="student")


def _sample(played: Trajectory) -> EvalSample:
    told = {"split": "validation" if played.validate_run else "training", "status": played.status.value}
    told |= played.model_dump(mode="json", include={"step", "seed_id", "rollout", "kind", "source", "stop", "detail"})
    return sample_of(
        played.key,
        played.turns,
        _told,
        lambda held: {TUTOR: _score(played)},
        model="student",
        detail=played.detail,
        target="",
        metadata=told,
    )


def _score(played: Trajectory) -> Score:
    """The means over the turns, each 1..10; a dialogue of which an answer has no scores is unscored."""
    words = explained(played.turns, _told)
    marks = [verdict.scores.model_dump() for verdict in played.scored]
    if played.lost or not marks:
        return Score.unscored(reason=played.lost or played.stop.value, explanation=words, metadata={"scores": marks})
    means = {axis: fmean(one[axis] for one in marks) for axis in AXES}
    return Score(value=means, explanation=words, metadata={"scores": marks})


def _told(turn: Turn) -> str:
    if isinstance(turn.verdict, Unscored):
        return one_line(f"unscored ({turn.verdict.reason.value}) {turn.verdict.detail}")
    scores = ", ".join(f"{axis} {getattr(turn.verdict.scores, axis)}" for axis in AXES)
    return one_line(f"{scores}. {turn.verdict.diagnosis}")
