"""A training run's transcripts as a log of Inspect: what the tutor scored at which step, how dialogues ended."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from inspect_ai.log import EvalConfig, EvalDataset, EvalSample, EvalSpec
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Score

from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.draft import label
from steer_verl.eval.inspect.archive import created, write_archive
from steer_verl.eval.inspect.images import shown
from steer_verl.eval.inspect.messages import conversation
from steer_verl.rubric import AXES
from steer_verl.text import one_line, unmarked
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
    spec = EvalSpec(
        created=created(""),
        task="steer_training",
        dataset=EvalDataset(name=folder.resolve().name),
        model="student",
        config=EvalConfig(),
    )
    write_archive(path, spec, map(_sample, played))


def _sample(played: Trajectory) -> EvalSample:
    last = played.turns[-1].answer if played.turns else ""
    return EvalSample(
        id=label(played.key),
        epoch=1,
        input=unmarked(played.turns[0].user.text) if played.turns else played.detail,
        target="",
        messages=conversation(played.turns, shown({}), "student", _told),
        output=ModelOutput.from_content("student", last),
        scores={TUTOR: _score(played)},
        metadata=_metadata(played),
    )


def _score(played: Trajectory) -> Score:
    """The means over the turns, each 1..10; a dialogue of which an answer has no scores is unscored."""
    words = "\n\n".join(f"Turn {number}: {_told(turn)}" for number, turn in enumerate(played.turns, 1))
    marks = [verdict.scores.model_dump() for verdict in played.scored]
    metadata = {"turns": [_scores(turn) for turn in played.turns]}
    if played.lost or not marks:
        reason = played.lost or played.stop.value
        return Score.unscored(reason=reason, explanation=words or reason, metadata=metadata)
    return Score(value={axis: fmean(one[axis] for one in marks) for axis in AXES}, explanation=words, metadata=metadata)


def _told(turn: Turn) -> str:
    if isinstance(turn.verdict, Unscored):
        return one_line(f"unscored ({turn.verdict.reason.value}) {turn.verdict.detail}")
    scores = ", ".join(f"{axis} {getattr(turn.verdict.scores, axis)}" for axis in AXES)
    return one_line(f"{scores}. {turn.verdict.diagnosis}")


def _scores(turn: Turn) -> dict[str, int] | None:
    return None if isinstance(turn.verdict, Unscored) else turn.verdict.scores.model_dump()


def _metadata(played: Trajectory) -> dict[str, Any]:
    told = {
        "step": played.step,
        "split": "validation" if played.validate_run else "training",
        "rollout": played.rollout,
        "kind": played.kind.value,
        "stop": played.stop.value,
        "status": played.status.value,
        "seed": played.seed_id,
        "source": played.source,
        "detail": played.detail,
    }
    return {name: value for name, value in told.items() if value != ""}
