"""Several processes that share the stages of one folder: each takes what can begin and nobody has begun.

A stage of the demo computes on all cores, but two thirds of a short GRPO run are its start, which is one process on one
core. Two lanes of one thread each therefore finish nearly twice as many runs as one lane of two threads.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from steer_verl.demo.display import Display
from steer_verl.demo.runner import Stage, held, is_done, locked, run_stage, stage_keys
from steer_verl.errors import SteerError
from steer_verl.processes.child import terminable
from steer_verl.processes.leftovers import clear_earlier

POLL = 2.0
"""Seconds between two looks when everything that could begin is begun."""


def share(stages: Sequence[Stage], out: Path, display: Display) -> None:
    """Run, in order, what is not done and no other lane is at; ends when everything is done.

    What another lane fails at is tried once more by this one, after all else.

    Raises:
        StageFailed: with the last lines of the log, its path and the likely cure.
        SteerError: a run that does not share works in ``out``.
    """
    out.mkdir(parents=True, exist_ok=True)
    left = dict(enumerate(zip(stages, stage_keys(stages, out), strict=True)))
    done: set[str] = set()
    with held(out, alone=False), _lane(out) as record, terminable(), display:
        clear_earlier(record)
        while left:
            for index in [i for i, (stage, key) in left.items() if is_done(stage, key, out)]:
                display.skip(index)
                done.add(left.pop(index)[0].name)
            ready = [index for index, (stage, _) in left.items() if set(stage.after) <= done]
            ready.sort(key=lambda index: _was_begun(left[index][0], out))  # begun and not done: a lane may have failed
            ran = next((index for index in ready if _ran(index, *left[index], out, display, record)), None)
            if ran is not None:
                done.add(left.pop(ran)[0].name)
            elif left:
                time.sleep(POLL)


def _ran(index: int, stage: Stage, key: str, out: Path, display: Display, record: Path) -> bool:
    """Run a stage unless another lane is at it or has just finished it; whether it was run."""
    lock = _lock(stage, out)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as handle:
        if not locked(handle) or is_done(stage, key, out):
            return False
        handle.write("begun\n")
        handle.flush()
        run_stage(index, stage, key, out, display, record)
    return True


def _lock(stage: Stage, out: Path) -> Path:
    return out / "stages" / f"{stage.name}.lock"


def _was_begun(stage: Stage, out: Path) -> bool:
    lock = _lock(stage, out)
    return lock.exists() and lock.stat().st_size > 0


@contextmanager
def _lane(out: Path) -> Iterator[Path]:
    """The first free place for a record of what runs: that of a killed lane is taken, and cleaned up, by the next."""
    folder = out / "lanes"
    folder.mkdir(exist_ok=True)
    for number in count():
        with (folder / f"{number}.lock").open("w") as handle:
            if locked(handle):
                yield folder / f"{number}.json"
                return


def start(argv: Sequence[str], number: int, out: Path) -> None:
    """Run ``number`` lanes, each a process of the command ``argv`` that calls :func:`share`, and wait for them.

    Their output goes to ``out/logs/lane-<n>.log``. A SIGTERM or Ctrl-C ends them.

    Raises:
        SteerError: one of them failed; the others have done what they could.
    """
    logs, lanes = out / "logs", list[subprocess.Popen[bytes]]()
    logs.mkdir(parents=True, exist_ok=True)
    with terminable():
        try:
            for lane in range(number):
                with (logs / f"lane-{lane}.log").open("ab") as log:
                    process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
                lanes.append(process)
            print(f"{number} lanes at work; to watch: tail -f {logs}/lane-*.log", flush=True)
            failed = [lane for lane, process in enumerate(lanes) if process.wait()]
        finally:
            for process in lanes:
                process.terminate()
            for process in lanes:
                process.wait()
    if failed:
        raise SteerError(f"a lane failed, {logs}/lane-{failed[0]}.log says why; the same command goes on")
