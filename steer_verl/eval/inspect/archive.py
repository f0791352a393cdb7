"""Writing a ``.eval`` log: a ZIP of samples, their summaries and a header, one sample in memory at a time."""

from __future__ import annotations

import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean

from inspect_ai.log import EvalConfig, EvalLog, EvalMetric, EvalResults, EvalSample, EvalScore, EvalSpec, EvalStats

from steer_verl.records import atomic


def write_archive(path: Path, spec: EvalSpec, samples: Iterable[EvalSample]) -> None:
    """Write a finished log, whole or not at all.

    Args:
        path: ends in ``.eval``.
        spec: what was evaluated; the samples' ids are added to it.
        samples: each with one score; those with the same id become epochs.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    seen, summaries, tally = Counter[str](), list[str](), _Tally()
    with atomic(path) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for sample in samples:
            seen[str(sample.id)] += 1
            sample = sample.model_copy(update={"epoch": seen[str(sample.id)]})
            archive.writestr(
                f"samples/{sample.id}_epoch_{sample.epoch}.json", sample.model_dump_json(exclude_none=True)
            )
            summaries.append(sample.summary().model_dump_json(exclude_none=True))
            tally.add(sample)
        archive.writestr("summaries.json", f"[{','.join(summaries)}]")
        dataset = spec.dataset.model_copy(update={"samples": len(seen), "sample_ids": list(seen)})
        epochs = EvalConfig(epochs=max(seen.values(), default=1))
        spec = spec.model_copy(update={"dataset": dataset, "config": epochs})
        stats = EvalStats(started_at=spec.created, completed_at=spec.created)
        header = EvalLog(status="success", eval=spec, results=tally.results(), stats=stats)
        archive.writestr("header.json", header.model_dump_json(exclude_none=True))


def created(date: str) -> str:
    """A date as a log has it; now, where there is none."""
    try:
        return datetime.fromisoformat(date).isoformat()
    except ValueError:
        return datetime.now(timezone.utc).isoformat(timespec="seconds")


class _Tally:
    """The means that a log's front page shows."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._samples = 0

    def add(self, sample: EvalSample) -> None:
        self._samples += 1
        for scorer, score in (sample.scores or {}).items():
            for name, value in score.value.items() if isinstance(score.value, Mapping) else ():
                self._values[scorer, name].append(float(value or 0))

    def results(self) -> EvalResults:
        scores = [
            EvalScore(
                name=name,
                scorer=scorer,
                scored_samples=len(values),
                unscored_samples=self._samples - len(values),
                metrics={"mean": EvalMetric(name="mean", value=fmean(values))},
            )
            for (scorer, name), values in self._values.items()
        ]
        return EvalResults(total_samples=self._samples, completed_samples=self._samples, scores=scores)
