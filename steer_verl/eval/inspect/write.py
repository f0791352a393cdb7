"""Our runs, and transcripts of trainings, as logs of Inspect (``.eval``): a ZIP of samples, summaries and a header.

:func:`write_log` keeps everything: what ``read_log`` makes of such a log equals the run. One sample is in memory at a
time.
"""

from __future__ import annotations

import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalError,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
)
from inspect_ai.model import GenerateConfig, ModelConfig, ModelOutput, ModelUsage
from inspect_ai.scorer import Score

from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.draft import label
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.inspect.messages import T, conversation, shown
from steer_verl.eval.inspect.scores import RECORD, explained, record_of, score_of, told_of
from steer_verl.eval.records import EvalDialogue, EvalEnd
from steer_verl.eval.runs import EvalRun
from steer_verl.records import atomic
from steer_verl.rubric import AXES
from steer_verl.text import one_line, unmarked
from steer_verl.transcripts import read_transcripts
from steer_verl.types import Trajectory, Turn, Unscored

JUDGE, TUTOR = "steer_judge", "steer_tutor"
"""Names of the scores."""
SHOWN = ("benchmark", "category", "kind", "planned", "end", "source", "license", "oddities")
"""What samples are sorted and filtered by, besides the turns that were played."""


def write_log(run: EvalRun, path: Path) -> None:
    """Write a run as a ``.eval`` log: one sample for each dialogue, with the images of all its messages.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    about, marks = run.about, run.about.mark_settings
    model = one_line(about.student or about.name)
    roles = {"grader": about.judge} | ({"tutor": about.tutor} if about.tutor else {})
    known = {dialogue.sampling for dialogue in run.dialogues}
    drawn = known.pop() if len(known) == 1 else None  # all were drawn the same way, and it is known
    _write(
        path,
        (_evaluated(dialogue, model, marks) for dialogue in run.dialogues),
        task="steer_eval",
        dataset=", ".join(run.benchmarks),
        model=model,
        date=about.date,
        task_args={"attack": about.attack, "benchmarks": about.benchmarks},
        model_roles={role: ModelConfig(model=one_line(who)) for role, who in roles.items()},
        model_generate_config=GenerateConfig(**drawn.model_dump()) if drawn else GenerateConfig(),
        metadata={RECORD: about.model_dump(mode="json")},
    )


def write_transcripts(folder: Path, path: Path) -> None:
    """Write every dialogue under ``folder`` (``rollout.custom.steer.transcripts``) as a sample of a ``.eval`` log.

    Raises:
        DataError: it holds no transcripts.
        OSError: the disk is full, or cannot be written.
    """
    played = sorted(read_transcripts(folder), key=lambda one: (one.validate_run, one.step, one.seed_id, one.rollout))
    if not played:
        raise DataError(f"{folder}: no transcripts; give the folder of rollout.custom.steer.transcripts")
    _write(path, map(_trained, played), task="steer_training", dataset=folder.resolve().name, model="student")


def _evaluated(dialogue: EvalDialogue, model: str, marks: MarkSettings) -> EvalSample:
    failed = EvalError(message=dialogue.detail or dialogue.end.value, traceback="", traceback_ansi="")
    told = dialogue.model_dump(mode="json", include=set(SHOWN), exclude_defaults=True)
    return _sample(
        dialogue.id,
        dialogue.turns,
        told_of,
        lambda held: {**told, "played": len(dialogue.turns), **record_of(dialogue, held)},
        model=model,
        detail=dialogue.detail,
        target=dialogue.reference,
        scores={JUDGE: score_of(dialogue, marks)},
        total_time=sum(turn.seconds for turn in dialogue.turns),
        error=None if dialogue.end is EvalEnd.COMPLETED else failed,
    )


def _trained(played: Trajectory) -> EvalSample:
    told = {"split": "validation" if played.validate_run else "training", "status": played.status.value}
    told |= played.model_dump(mode="json", include={"step", "seed_id", "rollout", "kind", "source", "stop", "detail"})
    return _sample(
        played.key,
        played.turns,
        _ruled,
        lambda held: told,
        model="student",
        detail=played.detail,
        target="",
        scores={TUTOR: _ruling(played)},
    )


def _ruling(played: Trajectory) -> Score:
    """The means over the turns, each 1..10; a dialogue of which an answer has no scores is unscored."""
    words = explained(played.turns, _ruled)
    marks = [verdict.scores.model_dump() for verdict in played.scored]
    if played.lost or not marks:
        return Score.unscored(reason=played.lost or played.stop.value, explanation=words, metadata={"scores": marks})
    means = {axis: fmean(one[axis] for one in marks) for axis in AXES}
    return Score(value=means, explanation=words, metadata={"scores": marks})


def _ruled(turn: Turn) -> str:
    if isinstance(turn.verdict, Unscored):
        return one_line(f"unscored ({turn.verdict.reason.value}) {turn.verdict.detail}")
    scores = ", ".join(f"{axis} {getattr(turn.verdict.scores, axis)}" for axis in AXES)
    return one_line(f"{scores}. {turn.verdict.diagnosis}")


def _sample(
    name: str,
    turns: Sequence[T],
    told: Callable[[T], str],
    metadata: Callable[[Mapping[str, str]], dict[str, Any]],
    *,
    model: str,
    detail: str,
    **more: Any,
) -> EvalSample:
    """A dialogue as a sample. The first question is its input, without the image, which stands in the messages.

    ``told`` says in one line what was made of an answer; ``metadata`` is given the digests of the images that the
    messages hold, by their paths.
    """
    held: dict[str, str] = {}
    said = conversation(turns, shown(held), model, told)
    tokens, output = sum(turn.answer_tokens for turn in turns), ModelOutput(model=model)
    if turns:
        output = ModelOutput.from_content(model, turns[-1].answer, "max_tokens" if turns[-1].truncated else "stop")
    return EvalSample(
        id=label(name) or "dialogue",
        epoch=1,
        input=unmarked(turns[0].user.text) if turns else detail,
        messages=said,
        output=output,
        metadata=metadata(held),
        model_usage={model: ModelUsage(output_tokens=tokens, total_tokens=tokens)},
        **more,
    )


def _write(
    path: Path, samples: Iterable[EvalSample], *, task: str, dataset: str, model: str, date: str = "", **more: Any
) -> None:
    """Write a finished log, whole or not at all; samples with the same id become epochs. ``more``: of its spec."""
    seen, summaries, values = Counter[str](), list[str](), defaultdict[tuple[str, str], list[float]](list)
    with atomic(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for sample in samples:
            seen[str(sample.id)] += 1
            sample = sample.model_copy(update={"epoch": seen[str(sample.id)]})
            name = f"samples/{sample.id}_epoch_{sample.epoch}.json"
            archive.writestr(name, sample.model_dump_json(exclude_none=True))
            summaries.append(sample.summary().model_dump_json(exclude_none=True))
            for scorer, score in (sample.scores or {}).items():
                found = score.value if isinstance(score.value, Mapping) else {}  # of an unscored sample, no number
                for key, value in found.items():
                    values[scorer, key] += [value] if isinstance(value, float) else []
        archive.writestr("summaries.json", f"[{','.join(summaries)}]")
        spec = EvalSpec(
            created=_iso(date),
            task=task,
            dataset=EvalDataset(name=dataset, samples=len(seen), sample_ids=list(seen)),
            model=model,
            config=EvalConfig(epochs=max(seen.values(), default=1)),
            **more,
        )
        stats = EvalStats(started_at=spec.created, completed_at=spec.created)
        header = EvalLog(status="success", eval=spec, stats=stats, results=_results(values, seen.total()))
        archive.writestr("header.json", header.model_dump_json(exclude_none=True))


def _results(values: Mapping[tuple[str, str], list[float]], samples: int) -> EvalResults:
    """The means that a log's front page shows."""
    scores = [
        EvalScore(
            name=name,
            scorer=scorer,
            scored_samples=len(found),
            unscored_samples=samples - len(found),
            metrics={"mean": EvalMetric(name="mean", value=fmean(found))},
        )
        for (scorer, name), found in values.items()
    ]
    return EvalResults(total_samples=samples, completed_samples=samples, scores=scores)


def _iso(date: str) -> str:
    try:
        return datetime.fromisoformat(date).isoformat()
    except ValueError:
        return datetime.now(UTC).isoformat(timespec="seconds")
