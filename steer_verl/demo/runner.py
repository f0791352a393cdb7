"""Going through stages: what is done is skipped, what was interrupted goes on, what fails says why.

A stage is done when its marker carries the key of its inputs: command, files it depends on, keys of the stages before.
A stage whose inputs changed starts over in an empty folder: a trainer would otherwise go on from the old checkpoint.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import re
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from rich.console import Console

from steer_verl import cpu
from steer_verl.demo.display import Display
from steer_verl.demo.stage import Stage, hydra_text
from steer_verl.errors import SteerError
from steer_verl.processes.child import StageFailed, Tail, child_environment, run_child, terminable
from steer_verl.processes.leftovers import clear_earlier
from steer_verl.records import copy_folder, held, write_whole
from steer_verl.report.training import Step, parse_step
from steer_verl.text import clock_text, one_line

TRACKER = "latest_checkpointed_iteration.txt"
"""verl's own note of the last complete checkpoint (utils/checkpoint/checkpoint_manager.py)."""

SHOWN_LINES = 15
"""Lines of a log that are shown when its stage fails."""

ADVICE = (
    (r"No space left on device|Disk quota exceeded", "the disk is full: free some space, or choose another --out"),
    (
        r"Cannot allocate memory|MemoryError|signal 9\b|OutOfMemory|DefaultCPUAllocator",
        "memory ran out: about 6 GiB must be free; close other programs and start it again",
    ),
    (r"nms does not exist|No module named|PackageNotFoundError", "the environment is not the locked one: `make env`"),
    (
        r"PytorchStreamReader|incomplete metadata|Error while deserializing|size mismatch",
        "a checkpoint is damaged, or of another version: remove the stage's folder under --out and start it again",
    ),
    ("", "run `steer doctor`, then start it again: it goes on from the last checkpoint"),
)
"""What a log says -> what to do, where the log's own words do not; the first that matches."""


def run(
    stages: Sequence[Stage], out: Path, console: Console | None = None, *, lanes: int = 1, hours: float | None = None
) -> None:
    """Run what is not done yet, up to ``lanes`` stages at once; nothing new begins after ``hours``.

    What does not need a stage that failed is still run.

    Raises:
        StageFailed: the first failure, where its log is and what to do; its last lines have been shown.
        SteerError: another run works in ``out``, or a stage's folder holds what no run wrote.
    """
    with held(out), terminable():
        for record in out.glob("stages/**/*.running"):
            clear_earlier(record)
        marks, stopping = marks_of(stages, out), threading.Event()
        waiting = [s for s in stages if _noted(s, out).get("done") != marks[s.name] or not s.result.exists()]
        for stage in waiting:
            if not _noted(stage, out) and stage.folder.is_dir() and any(stage.folder.iterdir()):
                raise SteerError(f"{stage.folder}: holds files of no run in {out}; move them, or choose another --out")
        undone, busy, failures = {stage.name for stage in waiting}, dict[Future[None], str](), list[StageFailed]()
        end = time.monotonic() + 3600 * hours if hours is not None else math.inf
        with Display(stages, undone, console, lanes) as display, ThreadPoolExecutor(lanes) as pool:
            try:
                while True:
                    ready = [stage for stage in waiting if not undone & set(stage.after) and time.monotonic() < end]
                    for stage in ready[: lanes - len(busy)]:
                        waiting.remove(stage)
                        busy[pool.submit(_run, stage, marks[stage.name], out, display, stopping)] = stage.name
                    if not busy:
                        break
                    for future in wait(busy, return_when=FIRST_COMPLETED).done:
                        name = busy.pop(future)
                        try:
                            future.result()
                            undone.remove(name)
                        except StageFailed as error:
                            failures.append(error)
            except BaseException:
                stopping.set()  # and the pool waits until nothing runs any more
                raise
    if failures:
        raise failures[0]


def marks_of(stages: Sequence[Stage], out: Path) -> dict[str, str]:
    """Stage -> what its marker holds when it is done: its key, and where it lies if its files name paths.

    A stage comes after those it depends on.
    """
    keys: dict[str, str] = {}
    for stage in stages:
        keys[stage.name] = stage_key(stage, [keys[name] for name in stage.after], out)
    return {stage.name: keys[stage.name] + f" {out.resolve()}" * stage.names_paths for stage in stages}


def stage_key(stage: Stage, before: Sequence[str], out: Path) -> str:
    """Hash of everything a stage's result depends on; where ``out`` lies does not matter."""
    place, argv = str(out), list(stage.argv)
    for spelt in (hydra_text(glob.escape(place)), hydra_text(place), json.dumps(place)[1:-1], place):
        argv = [word.replace(spelt, "OUT") for word in argv]
    files = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in stage.sources]
    return hashlib.sha256(json.dumps([stage.name, argv, list(before), files]).encode()).hexdigest()


def _run(stage: Stage, mark: str, out: Path, display: Display, stopping: threading.Event) -> None:
    """One stage to its end, in a thread of its own.

    Raises:
        StageFailed: see :func:`run`.
    """
    marker, log, began = _marker(stage, out), out / "logs" / f"{stage.name}.log", time.monotonic()

    def on_line(line: str) -> None:
        if step := parse_step(line):
            display.step(stage, int(step["step"]), metric(step, *stage.watch))

    def tick() -> None:
        if stopping.is_set():
            raise InterruptedError("was interrupted")
        display.tick()

    try:
        if _noted(stage, out).get("begun") != mark:
            shutil.rmtree(stage.folder, ignore_errors=True)
        stage.folder.mkdir(parents=True, exist_ok=True)
        write_whole(marker, json.dumps({"begun": mark}))
        display.begin(stage)
        if not trained(stage):
            run_child(
                stage.argv,
                log=log,
                record=marker.with_suffix(".running"),
                limit=stage.limit,
                cwd=out,
                env={**child_environment(), **cpu.laboratory()},
                on_line=on_line,
                tick=tick,
            )
        publish(stage)
        if not stage.result.exists():
            raise StageFailed(f"ended without writing {stage.result}")
        seconds = time.monotonic() - began
        write_whole(marker, json.dumps({"begun": mark, "done": mark, "seconds": round(seconds, 1)}))
        if stage.checkpoint and stage.keep:  # many steps' optimizer states, and nothing more to resume
            shutil.rmtree(_checkpoints(stage), ignore_errors=True)
    except (StageFailed, OSError) as error:
        lines = [line for line in Tail(log).lines() if line.strip()] if log.exists() else []
        shown = [f"    {one_line(line, 200)}" for line in lines[-SHOWN_LINES:]]
        display.end(stage, "\n".join(["failed; the last lines of its log:", *shown]))
        what = advice("\n".join([str(error), *lines[-200:]]))
        raise StageFailed(f"{stage.title} {error}; log: {log}; next: {what}") from None
    display.end(stage, f"done in {clock_text(seconds)}")


def trained(stage: Stage) -> bool:
    """Whether the last checkpoint is there already: the run was killed between saving it and saying so."""
    tracker = _checkpoints(stage) / TRACKER
    whole = bool(stage.checkpoint) and stage.model(stage.steps).is_dir() and tracker.is_file()
    return whole and tracker.read_text().strip() == str(stage.steps)


def publish(stage: Stage) -> None:
    """Copy the trained models to ``folder/hf`` and ``folder/hf-<step>``, each in one step for who looks."""
    for name, step in {"hf": stage.steps, **{f"hf-{step}": step for step in stage.keep}}.items():
        if stage.checkpoint and stage.model(step).is_dir():
            shutil.rmtree(stage.folder / name, ignore_errors=True)
            copy_folder(stage.model(step), stage.folder / name)


def advice(said: str) -> str:
    """What to do about a stage that failed, by what its log says."""
    return next(advice for pattern, advice in ADVICE if re.search(pattern, said, re.IGNORECASE))


def metric(step: Step, name: str, label: str) -> str:
    """The metric ``name`` of a step as ``label value``; empty if it is not there."""
    return f"{label} {step[name]:.3g}" if name in step else ""


def durations(stages: Sequence[Stage], out: Path) -> dict[str, float]:
    """Seconds that each finished stage took in the run that finished it."""
    seconds = {stage.name: _noted(stage, out).get("seconds") for stage in stages}
    return {name: float(value) for name, value in seconds.items() if value is not None}


def _checkpoints(stage: Stage) -> Path:
    return stage.folder.joinpath(*Path(stage.checkpoint).parts[:1])


def _marker(stage: Stage, out: Path) -> Path:
    return out / "stages" / f"{stage.name}.json"


def _noted(stage: Stage, out: Path) -> dict[str, Any]:
    """What the marker says: the marks with which the stage was begun and done, and the seconds that it took."""
    try:
        return dict(json.loads(_marker(stage, out).read_text()))
    except (OSError, ValueError):
        return {}
