"""Writes the report: runs and training logs in, one HTML file out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from steer_verl.answer import parse_answer
from steer_verl.errors import ConfigError
from steer_verl.eval.compare.pairing import keys_of
from steer_verl.eval.runs import EvalRun, read_run
from steer_verl.records import atomic
from steer_verl.report.dialogues import CHUNK, chunks, rows
from steer_verl.report.images import album
from steer_verl.report.page import CLOSING, block, browser, opening, packed, script
from steer_verl.report.sections import sections
from steer_verl.report.training import Training, read_training
from steer_verl.text import one_line

TITLE = "Evaluation under multi-turn attack"
SIDE = 192
"""Longer side of a thumbnail in pixels."""


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    training: Sequence[Path] = (),
    title: str = TITLE,
    images: int = SIDE,
    fold: bool = True,
) -> Path:
    """Write the page.

    Args:
        runs: folders of finished evaluations, or logs of Inspect; differences are to the first.
        out: the HTML file; it appears whole or not at all.
        training: logs of trainings (see :func:`~steer_verl.report.training.read_training`).
        title: of the page.
        images: longer side of the thumbnails in pixels; 0: the page has none.
        fold: fold what may be harmful away until the reader asks for it.

    Returns:
        ``out``.

    Raises:
        DataError: a run is not finished, or a log tells of no step.
        ConfigError: nothing was given, the same folder twice, or scipy is not installed.
    """
    if not runs and not training:
        raise ConfigError("nothing to report: give the `out` of a `steer eval run`, or a --training log")
    if len({path.resolve() for path in runs}) < len(runs):
        raise ConfigError("a run was given twice; give each folder once")
    logs = _logs(training)
    found = [_read(path) for path in runs]
    with atomic(out) as stream:
        for part in _parts(found, logs, title, images, fold):
            stream.write(part.encode("utf-8"))
    return out


def labelled(runs: Sequence[EvalRun]) -> list[EvalRun]:
    """The runs, called ``ours``, or where two have one name ``ours, seed 1`` or ``ours (out/eval/ours)``.

    One page, one measure: all of them get the first one's thresholds.
    """
    names = [run.name for run in runs]
    seeded = [f"{run.name}, seed {', '.join(str(n) for n in sorted({d.run for d in run.dialogues}))}" for run in runs]
    found = []
    for run, name, seeds in zip(runs, names, seeded, strict=True):
        if names.count(name) > 1:
            name = seeds if seeded.count(seeds) == 1 else f"{name} ({run.folder})"
        about = run.about.model_copy(update={"name": name, "marks": runs[0].about.mark_settings.model_dump()})
        found.append(replace(run, about=about))
    return found


def _logs(paths: Sequence[Path]) -> list[Training]:
    """The trainings, whose names can be seen as a run's can; those of one name are told apart by their paths."""
    logs = [read_training(path) for path in paths]
    names = [log.name for log in logs]
    told = [
        f"{log.name} ({path})" if names.count(log.name) > 1 else log.name for log, path in zip(logs, paths, strict=True)
    ]
    return [replace(log, name=one_line(name)) for log, name in zip(logs, told, strict=True)]


def _read(path: Path) -> EvalRun:
    """A run whose name can be seen, and cannot turn around what stands beside it."""
    run = read_run(path)
    return replace(run, about=run.about.model_copy(update={"name": one_line(run.name) or "(no name)"}))


def _parts(runs: Sequence[EvalRun], logs: Sequence[Training], title: str, side: int, fold: bool) -> Iterator[str]:
    """The file piece by piece: what is read and what lists need first, so that a page of any size is there at once."""
    shown, code = labelled(runs), script()
    parts = {**sections(runs, shown, logs), "Dialogues": [browser()] if runs else []}
    yield opening(title, _lead(runs, logs), parts, code)
    yield block("about", json.dumps(_about(shown, fold), ensure_ascii=True).replace("<", "\\u003c"))
    for place, (run, keys) in enumerate(zip(shown, keys_of(runs)[0], strict=True)):
        yield block(f"rows-{place}", packed(rows(run.dialogues, keys, run.about.mark_settings.fail_below)))
    yield f"<script>{code}</script>\n"
    images, places = album(runs, side)
    for place, (run, found) in enumerate(zip(runs, places, strict=True)):
        for number, chunk in enumerate(chunks(run.dialogues, found)):
            yield block(f"chunk-{place}-{number}", packed(chunk))
    for number, image in enumerate(images):
        yield block(f"image-{number}", image)
    yield CLOSING


def _lead(runs: Sequence[EvalRun], logs: Sequence[Training]) -> str:
    lengths = [len(dialogue.turns) for run in runs for dialogue in run.dialogues]
    counts = (("run", len(runs)), ("dialogue", len(lengths)), ("turn", sum(lengths)), ("training", len(logs)))
    return ", ".join(f"{n:,} {name}{'' if n == 1 else 's'}" for name, n in counts if n) + "."


def _about(runs: Sequence[EvalRun], fold: bool) -> dict[str, Any]:
    answers = (turn.answer for run in runs for dialogue in run.dialogues for turn in dialogue.turns)
    return {
        "runs": [{"name": run.name, "chunks": -(-len(run.dialogues) // CHUNK)} for run in runs],
        "chunk": CHUNK,
        "failBelow": runs[0].about.mark_settings.fail_below if runs else 0,
        "format": any(parse_answer(answer).well_formed for answer in answers),
        "fold": fold,
    }
