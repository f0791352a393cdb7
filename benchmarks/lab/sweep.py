"""Many short trainings over worlds, arms, alphas and leak rates: ``python -m benchmarks.lab.sweep --out SWEEP.jsonl``.

Jobs run in two processes at the least priority. Each writes its students as lines that benchmarks/lab/worlds.py reads.
A job whose last line is there is not done again, so that the same command goes on where it was interrupted. What trains
is a function ``measure(job, lab)``: it yields a ``Measured`` (worlds.py) for each checkpoint. The students that it
begins at are the runner's (``python -m benchmarks.lab``), in the folder that the lines are written to.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

from benchmarks.lab.worlds import ARMS, CHECKPOINTS, MEAN, REACHABLE, RISKY, Measured, read
from steer_verl.mini.data import LEAK_RATE

FAST = "benchmarks.lab.fast:measure"
ALPHAS = (0.3, 0.6)
LEAKS = (0.1, 0.2, 0.3)
SWEPT = ("paper", "released", "steer")


class Job(NamedTuple):
    """One training."""

    world: str
    arm: str
    alpha: float
    leak: float
    seed: int


Measure = Callable[[Job, Path], Iterable[Measured]]


def jobs(seeds: Iterable[int]) -> Iterator[Job]:
    """All of them, seed by seed, so that whatever is there is balanced: every arm, and the two sweeps."""
    for seed in seeds:
        cells = [(REACHABLE, MEAN, 0.0, 0.0), *((RISKY, MEAN, 0.0, leak) for leak in LEAKS)]
        cells += [(REACHABLE, arm, 0.3, 0.0) for arm in ARMS]
        cells += [(RISKY, arm, 0.3, LEAK_RATE) for arm in ARMS]
        cells += [(RISKY, arm, alpha, LEAK_RATE) for arm in SWEPT for alpha in ALPHAS]
        cells += [(RISKY, arm, 0.3, leak) for arm in SWEPT for leak in LEAKS]
        yield from (Job(*cell, seed) for cell in dict.fromkeys(cells))


def done(out: Path) -> set[Job]:
    """Jobs whose last checkpoint is in the file."""
    rows = read([out]) if out.exists() else []
    return {Job(r.world, r.arm, r.alpha, r.leak, r.seed) for r in rows if r.step == CHECKPOINTS[-1]}


def work(job: Job, lab: Path, measure: str) -> list[Measured]:
    """One job, in a process of its own."""
    import torch

    torch.set_num_threads(1)
    found: Measure = resolve_name(measure)
    return list(found(job, lab))


def run(todo: Iterable[Job], out: Path, *, measure: str = FAST, processes: int = 2) -> int:
    """Do what is not there yet; returns how many jobs that were. A job's lines are written at once, when it is done."""
    before = done(out)
    left = [job for job in todo if job not in before]
    out.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(processes, initializer=os.nice, initargs=(19,)) as pool:
        try:
            for future in as_completed([pool.submit(work, job, out.parent, measure) for job in left]):
                with out.open("a") as stream:
                    stream.write("".join(json.dumps(vars(row)) + "\n" for row in future.result()))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # begin none of the others
            raise
    return len(left)


def main() -> None:
    """Do all jobs, or some of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is in it is not done again")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--worlds", nargs="+", choices=(REACHABLE, RISKY), default=[REACHABLE, RISKY])
    parser.add_argument("--arms", nargs="+", choices=(MEAN, *ARMS), default=[MEAN, *ARMS])
    parser.add_argument("--first", type=int, help="only so many jobs")
    parser.add_argument("--measure", default=FAST, help="what trains and evaluates, module:function")
    args = parser.parse_args()
    wanted = [job for job in jobs(args.seeds) if job.world in args.worlds and job.arm in args.arms]
    new = run(wanted[: args.first], args.out, measure=args.measure)
    print(f"{new} jobs done; {args.out} holds {len(done(args.out))}")


if __name__ == "__main__":
    main()
