"""Writing a ``.eval`` log: a ZIP of samples, their summaries and a header, one sample in memory at a time."""

from __future__ import annotations

import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
)
from inspect_ai.model import ModelOutput, ModelUsage
from inspect_ai.scorer import Score

from steer_verl.eval.benchmarks.draft import label
from steer_verl.eval.inspect.images import shown
from steer_verl.eval.inspect.messages import T, conversation
from steer_verl.records import atomic
from steer_verl.text import unmarked


def write_archive(
    path: Path, samples: Iterable[EvalSample], *, task: str, dataset: str, model: str, date: str = "", **more: Any
) -> None:
    """Write a finished log, whole or not at all.

    Args:
        path: ends in ``.eval``.
        samples: those with the same id become epochs.
        task: its name.
        dataset: its name.
        model: who answered.
        date: of the evaluation, in ISO form; otherwise now.
        more: further fields of ``EvalSpec``.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    seen, summaries, values = Counter[str](), list[str](), defaultdict[tuple[str, str], list[float]](list)
    with atomic(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for sample in samples:
            seen[str(sample.id)] += 1
            sample = sample.model_copy(update={"epoch": seen[str(sample.id)]})
            name = f"samples/{sample.id}_epoch_{sample.epoch}.json"
            archive.writestr(name, sample.model_dump_json(exclude_none=True))
            summaries.append(sample.summary().model_dump_json(exclude_none=True))
            for scorer, score in (sample.scores or {}).items():
                for key, value in score.value.items() if isinstance(score.value, Mapping) else ():
                    values[scorer, key].append(float(value or 0))
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


def sample_of(
    name: str,
    turns: Sequence[T],
    told: Callable[[T], str],
    score: Callable[[Mapping[str, str]], Mapping[str, Score]],
    *,
    model: str,
    detail: str = "",
    **more: Any,
) -> EvalSample:
    """A dialogue as a sample. The first question is its input, without the image, which stands in the messages.

    Args:
        name: its id.
        turns: as they were played.
        told: what was made of an answer, in one line.
        score: path -> digest of the images that its messages hold -> its scores.
        model: who answered.
        detail: why it ended, where nothing was asked.
        more: further fields.
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
        scores=dict(score(held)),
        model_usage={model: ModelUsage(output_tokens=tokens, total_tokens=tokens)},
        **more,
    )


def explained(turns: Sequence[T], told: Callable[[T], str]) -> str:
    """What was made of each answer, turn by turn."""
    return "\n\n".join(f"Turn {number}: {told(turn)}" for number, turn in enumerate(turns, 1))


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
        return datetime.now(timezone.utc).isoformat(timespec="seconds")
