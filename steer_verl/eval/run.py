"""``steer eval run``: read the benchmarks, play and rate every item, write the run.

::

    out/items.jsonl       every row of every benchmark as an EvalItem, read anew at each start
    out/pictures/         pictures of single-turn sets, re-encoded
    out/work/             what a killed run goes on from (steer_verl/work)
    out/calls/            every attempt at a model
    out/run.json ...      see steer_verl/eval/runs.py
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console

from steer_verl import __version__
from steer_verl.errors import ConfigError, DataError
from steer_verl.eval.benchmarks.items import items_of
from steer_verl.eval.config import EvalConfig
from steer_verl.eval.judging import build_judge
from steer_verl.eval.records import EvalDialogue, EvalItem
from steer_verl.eval.runs import SUMMARY, SUMMARY_PAGE, EvalRun, RunAbout, write_run
from steer_verl.eval.step import NAME, EvalStep
from steer_verl.eval.students.build import build_student, student_label
from steer_verl.eval.summary import known_errors, summarize
from steer_verl.eval.summary_table import summary_markdown
from steer_verl.models.cache import ReplyCache
from steer_verl.records import atomic, read_records, write_whole
from steer_verl.statistics.intervals import student_t
from steer_verl.text import one_line
from steer_verl.types import Tutor
from steer_verl.work.outcomes import read_outcomes
from steer_verl.work.run import Job, run

ITEMS = "items.jsonl"


def evaluate(config: EvalConfig, *, accept_changes: bool = False, console: Console | None = None) -> EvalRun:
    """Evaluate, or go on evaluating; what is done is not done again.

    Args:
        config: of the run.
        accept_changes: a folder that was begun with another student, judge or benchmark is worked anew.
        console: where progress is shown.

    Returns:
        The finished run; ``summary.json`` is written beside it.

    Raises:
        ConfigError: a setting cannot work, or the folder was begun with others.
        DataError: a benchmark is not there.
        SteerError: a student, judge or tutor cannot be asked; the same command goes on.
    """
    student_t(1)  # what the figures need is missed now, not after hours of play
    items = config.out / ITEMS
    total = _write_items(config, items, console)
    step = make_step(config, 1)  # nothing is started yet: only who takes part is told
    who = {"student": step.student.name, "judge": step.judge.name}
    who |= {"tutor": step.tutor.name} if step.tutor else {}
    about = _about(config, who)
    known_errors(about)  # a calibration that cannot be used is told now
    fingerprint: dict[str, Any] = {
        **who,
        "attack": config.attack,
        "max_turns": config.max_turns,
        "items": hashlib.sha256(items.read_bytes()).hexdigest()[:16],
    }
    job: Job[EvalItem] = Job(
        NAME,
        config.out / "work",
        make_step=functools.partial(make_step, config),
        items=functools.partial(read_items, items),
        settings=config.work,
    )
    account = run(job, fingerprint, agents=who, total=total, accept_changes=accept_changes, console=console)
    spent = {"usage": account.usage, "seconds": account.seconds, "date": _now()}
    done = write_run(config.out, about.model_copy(update=spent), _dialogues(config.out / "work"))
    summary = summarize(done)
    write_whole(config.out / SUMMARY, summary.model_dump_json(indent=1) + "\n")
    write_whole(config.out / SUMMARY_PAGE, f"# {one_line(about.name)}\n\n{summary_markdown(summary)}")
    return done


def make_step(config: EvalConfig, processes: int, cache: ReplyCache | None = None) -> EvalStep:
    """The step, in one of so many processes that share the endpoints' bounds; its replies are kept in ``cache``.

    Raises:
        ConfigError: a setting cannot work.
    """
    return EvalStep(
        build_student(config.student, config.out, processes=processes, cache=cache),
        build_judge(config.judge, config.out, processes=processes, cache=cache),
        _tutor(config, cache),
        attack=config.attack,
        max_turns=config.max_turns,
        run=config.student.run,
        cache=cache,
    )


def read_items(path: Path) -> Iterator[EvalItem]:
    """The items of a run.

    Raises:
        DataError: not one line is an item.
    """
    yield from read_records(path, EvalItem.model_validate_json, needed="an item")


def _write_items(config: EvalConfig, path: Path, console: Console | None) -> int:
    """All rows of all benchmarks, so that a bad file is told before a model is loaded; returns how many."""
    counts: dict[str, list[int]] = {name: [0, 0] for name in config.benchmarks}
    with atomic(path) as stream:
        for item in items_of(config.benchmarks, config.out / "pictures"):
            stream.write(f"{item.model_dump_json()}\n".encode())
            counts[item.benchmark][0] += 1
            counts[item.benchmark][1] += bool(item.unplayable)
    if console is not None:
        for name, (rows, unplayable) in counts.items():
            told = f"{name}: {rows:,} items" + (f", {unplayable:,} of them cannot be played" if unplayable else "")
            console.print(told, markup=False, highlight=False, soft_wrap=True)
    total = sum(rows for rows, _ in counts.values())
    if not total:
        raise DataError(f"benchmarks {', '.join(counts)}: no row in them; check the files")
    return total


def _tutor(config: EvalConfig, cache: ReplyCache | None) -> Tutor | None:
    if config.tutor is None:
        return None
    from steer_verl.tutor import build_tutor

    logged = config.tutor if config.tutor.log else config.tutor.model_copy(update={"log": str(config.out / "calls")})
    return build_tutor(logged, cache=cache)


def _dialogues(folder: Path) -> Iterator[EvalDialogue]:
    """The record of every item, whether it was kept or given up."""
    for outcome in read_outcomes(folder):
        if outcome.done.value is None:
            raise DataError(f"{folder}: item {outcome.id!r} has no record ({outcome.done}); use a new folder")
        yield EvalDialogue.model_validate(outcome.done.value, strict=False)


def _about(config: EvalConfig, who: dict[str, str]) -> RunAbout:
    """What the run is, before it is done."""
    return RunAbout(
        name=student_label(config.student),
        student=who["student"],
        judge=who["judge"],
        tutor=who.get("tutor", ""),
        attack=config.attack,
        benchmarks={
            name: settings.model_dump(mode="json", exclude_none=True) for name, settings in config.benchmarks.items()
        },
        marks=config.marks.model_dump(),
        calibration=_calibration(config.judge.calibration),
        version=__version__,
    )


def _calibration(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        cure = "give the calibration.json of `steer eval calibrate`"
        raise ConfigError(f"judge.calibration: {path}: cannot be read ({error}); {cure}") from None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
