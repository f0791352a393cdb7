"""Sweeps go on where they were interrupted, and every cell that the page compares is trained."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.lab import sweep
from benchmarks.lab.worlds import CHECKPOINTS, PREDICTED, RISKY, Cell, Measured, by_seed, read

HERE = f"{__name__}:measured"


def measured(job: sweep.Job, lab: Path) -> Iterator[Measured]:
    """Stands for a training: how far the process is from being nice is what it measures."""
    if job.seed == 13:
        raise RuntimeError("this job fails")
    for step in CHECKPOINTS:
        yield Measured(*job, step, 50.0 + job.seed, float(os.nice(0)), 0.8, "fast")


def test_a_job_that_is_in_the_file_is_not_done_again(tmp_path: Path) -> None:
    out, todo = tmp_path / "new" / "sweep.jsonl", list(sweep.jobs([0]))[:3]
    assert sweep.run(todo[:2], out, measure=HERE) == 2
    assert sweep.run(todo, out, measure=HERE) == 1
    rows = read([out])
    assert len(rows) == 3 * len(CHECKPOINTS) and sweep.done(out) == set(todo)
    assert {row.helpfulness for row in rows} == {19.0}, "at the least priority"


def test_what_was_done_before_a_failure_is_kept(tmp_path: Path) -> None:
    good, bad = (next(iter(sweep.jobs([seed]))) for seed in (0, 13))
    with pytest.raises(RuntimeError, match="this job fails"):
        sweep.run([good, bad], tmp_path / "sweep.jsonl", measure=HERE, processes=1)
    assert sweep.done(tmp_path / "sweep.jsonl") == {good}
    many = [bad, *(next(iter(sweep.jobs([seed]))) for seed in range(20, 60))]
    with pytest.raises(RuntimeError, match="this job fails"):
        sweep.run(many, tmp_path / "other.jsonl", measure=HERE, processes=1)
    assert len(sweep.done(tmp_path / "other.jsonl")) < 40, "nothing new is begun after it"


def test_every_prediction_has_its_runs_and_every_run_its_plain_mean() -> None:
    todo = list(sweep.jobs(range(2)))
    assert len(set(todo)) == len(todo) and [job.seed for job in todo] == sorted(job.seed for job in todo)
    rows = [row for job in todo for row in measured(job, Path())]
    cells = by_seed(rows, "unbroken")
    assert {cell.mean for cell in cells} <= set(cells)
    assert {Cell("fast", world, leak, arm, alpha) for world, leak, arm, alpha in PREDICTED} <= set(cells)
    assert {cell.leak for cell in cells if cell.world == RISKY} == set(sweep.LEAKS)
