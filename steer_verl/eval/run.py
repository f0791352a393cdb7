"""``steer eval run``: read the benchmarks, play and rate every item, write the run.

::

    out/config.json       the settings, for ``steer eval retry``
    out/items.jsonl       every row of every benchmark as an EvalItem, read anew at each start
    out/images/           images of single-turn sets, re-encoded
    out/work/             what a killed run goes on from (steer_verl/work)
    out/calls/            every attempt at a model
    out/run.json ...      see steer_verl/eval/runs.py
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from steer_verl.eval.benchmarks.items import items_of
from steer_verl.eval.config import EvalConfig
from steer_verl.eval.judging import CALLS, build_judge
from steer_verl.eval.records import EvalItem, Sampling
from steer_verl.eval.runs import RunAbout, below, with_paths
from steer_verl.eval.step import NAME, EvalStep
from steer_verl.eval.students.build import build_student, student_label
from steer_verl.eval.summary import known_errors
from steer_verl.eval.working import WORK, Finished, calibration_of, digest_of, plain, with_retries, worked
from steer_verl.models.cache import ReplyCache
from steer_verl.records import atomic, read_records
from steer_verl.statistics.intervals import student_t
from steer_verl.tutor import build_tutor
from steer_verl.work.job import Job
from steer_verl.work.run import agreed_plan

ITEMS, IMAGES = "items.jsonl", "images"


def evaluate(
    config: EvalConfig, *, accept_changes: bool = False, retry: bool = False, console: Console | None = None
) -> Finished:
    """Evaluate, or go on evaluating; what is done is not done again.

    Args:
        accept_changes: a folder that was begun with another student, judge or benchmark is worked anew.
        retry: what is missing in the folder is asked for again: what was given up, left, or not rated.
        console: where progress is shown.

    Raises:
        ConfigError: a setting cannot work, or the folder was begun with others.
        DataError: a benchmark is not there.
        SteerError: a student, judge or tutor cannot be asked; the same command goes on.
    """
    student_t(1)  # what the figures need is missed now, not after hours of play
    config, items = with_retries(config, retry), config.out / ITEMS
    step = make_step(config, retry, 1)  # nothing is started yet: only who takes part is told
    about = RunAbout(
        name=student_label(config.student),
        student=step.student.name,
        judge=step.judge.name,
        tutor=step.tutor.name if step.tutor is not None else "",
        attack=config.attack,
        benchmarks={name: plain(one) for name, one in config.benchmarks.items()},
        marks=config.marks.model_dump(),
        calibration=calibration_of(config.judge.calibration),
    )
    known_errors(about)  # a calibration that cannot be used is told now
    fingerprint: dict[str, Any] = {"student": about.student, "judge": about.judge, "attack": config.attack}
    fingerprint |= {"tutor": about.tutor} if about.tutor else {}
    job: Job[EvalItem] = Job(
        NAME,
        config.out / WORK,
        make_step=functools.partial(make_step, config, retry),
        items=functools.partial(read_items, items),
        settings=config.work,
        content=content_of,
    )
    with atomic(items) as stream:
        rows = _write_items(config, stream, console)
        fingerprint |= {"max_turns": config.max_turns, "items": digest_of(rows)}
        agreed_plan(job, fingerprint, accept_changes)  # a folder that refuses them is left as it is
    return worked(
        config,
        job,
        fingerprint,
        about,
        lambda item: [turn.images for turn in item.seed.turns],
        total=len(rows),
        accept_changes=accept_changes,
        retry=retry,
        console=console,
        training_seed=config.student.run,
    )


def make_step(config: EvalConfig, retry: bool, processes: int, cache: ReplyCache | None = None) -> EvalStep:
    """The step, in one of so many processes that share the endpoints' bounds; its replies are kept in ``cache``.

    Raises:
        ConfigError: a setting cannot work.
    """
    student, out, retries, tutor = config.student, config.out, config.retries, config.tutor
    if tutor is not None and not tutor.log:
        tutor = tutor.model_copy(update={"log": str(out / CALLS)})
    return EvalStep(
        build_student(student, out, processes=processes, cache=cache),
        build_judge(config.judge, out, processes=processes, retries=retries, cache=cache),
        build_tutor(tutor, cache=cache) if tutor is not None else None,
        attack=config.attack,
        max_turns=config.max_turns,
        sampling=Sampling(
            temperature=student.temperature,
            top_p=student.top_p,
            seed=student.seed,
            max_tokens=student.max_answer_tokens,
        ),
        retries=retries,
        wake=not retry,
        cache=cache,
    )


def read_items(path: Path) -> Iterator[EvalItem]:
    """The items of a run, with the absolute paths of their images.

    Raises:
        DataError: not one line is an item.
    """
    for item in read_records(path, EvalItem.model_validate_json, needed="an item"):
        yield _placed(item, lambda image: str(path.parent / image))


def content_of(item: EvalItem) -> str:
    """Tells an item from whatever else stood under its id; where its images lie does not matter."""
    return digest_of([_placed(item, lambda image: "").model_dump_json()])


def _placed(item: EvalItem, path: Callable[[str], str]) -> EvalItem:
    turns = tuple(with_paths(turn, path) for turn in item.seed.turns)
    return item.model_copy(update={"seed": item.seed.model_copy(update={"turns": turns})})


def _write_items(config: EvalConfig, stream: IO[bytes], console: Console | None) -> list[str]:
    """All rows of all benchmarks, so that a bad file is told before a model is loaded; returns their ids."""
    rows, unplayable, ids = Counter[str](), Counter[str](), list[str]()
    relative = below(config.out)
    for item in items_of(config.benchmarks, config.out / IMAGES):
        stream.write(f"{_placed(item, relative).model_dump_json()}\n".encode())
        ids.append(item.id)
        rows[item.benchmark] += 1
        unplayable[item.benchmark] += bool(item.unplayable)
    for name in config.benchmarks:
        told = f"{name}: {rows[name]:,} items"
        told += f", {unplayable[name]:,} of them cannot be played" if unplayable[name] else ""
        if console is not None:
            console.print(told, markup=False, highlight=False, soft_wrap=True)
    return ids
