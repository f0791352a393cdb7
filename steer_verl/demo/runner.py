"""Going through the stages: what is done is skipped, what was interrupted goes on, what fails says why.

A stage is done when its marker carries the key of its inputs: command, files it depends on, keys of the stages before.
A stage whose inputs changed starts over in an empty folder: a trainer would otherwise go on from the old checkpoint.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from steer_verl.demo.cures import cure
from steer_verl.demo.display import Display
from steer_verl.demo.sources import READ
from steer_verl.demo.timing import Typical
from steer_verl.errors import SteerError
from steer_verl.processes.child import StageFailed, Tail, child_environment, run_child, terminable
from steer_verl.processes.leftovers import clear_earlier
from steer_verl.records import write_whole

STEP = re.compile(r"\bstep:(\d+) - ")
"""How verl's console logger begins a line (utils/logger/aggregate_logger.py:27)."""

TRACKER = "latest_checkpointed_iteration.txt"
"""verl's own note of the last complete checkpoint (utils/checkpoint/checkpoint_manager.py)."""

SHOWN_LINES = 15
"""Lines of a log that are shown when its stage fails."""


@dataclass(frozen=True)
class Stage:
    """One step of the demo, run in a process of its own."""

    name: str
    title: str
    argv: tuple[str, ...]
    folder: Path
    """Holds everything the stage writes."""
    result: Path
    """Exists when the stage is done."""
    typical: Typical
    limit: float
    """Seconds after which it is taken to hang."""
    after: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    """Files and folders of our own code and settings that the result depends on."""
    steps: int = 0
    """Training steps, which the log counts; 0 if it does not."""
    checkpoint: str = ""
    """Where verl leaves the last checkpoint's Hugging Face model, below ``folder``; it is copied to ``folder/hf``."""
    watch: tuple[str, str] = ("", "")
    """A metric of the log to show, and what to call it."""
    env: Mapping[str, str] = field(default_factory=dict)


def run(stages: Sequence[Stage], out: Path, display: Display) -> None:
    """Run what is not done yet.

    Raises:
        StageFailed: with the last lines of the log, its path and the likely cure.
        SteerError: another run works in ``out``.
    """
    out.mkdir(parents=True, exist_ok=True)
    record = out / "running.json"
    with held(out), terminable():
        clear_earlier(record)
        with display:
            for index, (stage, key) in enumerate(zip(stages, stage_keys(stages, out), strict=True)):
                if is_done(stage, key, out):
                    display.skip(index)
                else:
                    run_stage(index, stage, key, out, display, record)


def stage_keys(stages: Sequence[Stage], out: Path) -> list[str]:
    """The key of each stage; a stage comes after those it depends on."""
    keys: dict[str, str] = {}
    for stage in stages:
        keys[stage.name] = stage_key(stage, [keys[name] for name in stage.after], out)
    return list(keys.values())


def stage_key(stage: Stage, before: Sequence[str], out: Path) -> str:
    """Hash of everything a stage's result depends on; where ``out`` lies does not matter."""
    argv = [word.replace(str(out), "OUT") for word in stage.argv]
    files = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in _files(stage.sources)]
    return hashlib.sha256(json.dumps([stage.name, argv, list(before), files]).encode()).hexdigest()


def is_done(stage: Stage, key: str, out: Path) -> bool:
    """Whether an earlier run finished this very stage."""
    return _read(_marker(stage, out)).get("done") == key and stage.result.exists()


def run_stage(index: int, stage: Stage, key: str, out: Path, display: Display, record: Path) -> None:
    """Run one stage to its end; ``record`` is where the claim on what it starts is kept meanwhile.

    Raises:
        StageFailed: see :func:`run`.
    """
    if _read(_marker(stage, out)).get("begun") != key:
        shutil.rmtree(stage.folder, ignore_errors=True)
    stage.folder.mkdir(parents=True, exist_ok=True)
    write_whole(_marker(stage, out), json.dumps({"begun": key}))
    clock, log, began = display.start(index), log_path(stage, out), time.monotonic()

    def on_line(line: str) -> None:
        if match := STEP.search(line):
            clock.report(int(match.group(1)))
            display.detail = metric(line, *stage.watch)

    try:
        if not trained(stage):
            run_child(
                stage.argv,
                log=log,
                record=record,
                limit=stage.limit,
                cwd=out,
                env={**child_environment(), **stage.env},
                on_line=on_line,
                tick=display.tick,
            )
        publish(stage)
        if not stage.result.exists():
            raise StageFailed(f"ended without writing {stage.result}")
    except StageFailed as error:
        raise StageFailed(explain(stage, log, str(error))) from None
    seconds = time.monotonic() - began
    write_whole(_marker(stage, out), json.dumps({"begun": key, "done": key, "seconds": round(seconds, 1)}))
    display.finish(seconds)


def trained(stage: Stage) -> bool:
    """Whether the last checkpoint is there already: the run was killed between saving it and saying so."""
    model = stage.folder / stage.checkpoint
    tracker = stage.folder / Path(stage.checkpoint).parts[0] / TRACKER if stage.checkpoint else model
    return (
        bool(stage.checkpoint)
        and model.is_dir()
        and tracker.is_file()
        and tracker.read_text().strip() == str(stage.steps)
    )


def publish(stage: Stage) -> None:
    """Copy the trained model to ``folder/hf``, in one step for who looks."""
    source, target = stage.folder / stage.checkpoint, stage.folder / "hf"
    if not stage.checkpoint or not source.is_dir():
        return
    fresh = stage.folder / "hf.new"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def explain(stage: Stage, log: Path, message: str) -> str:
    """What failed, the last lines of its log, where the log is, and the cure."""
    lines = [line for line in Tail(log).lines() if line.strip()] if log.exists() else []
    shown = "\n".join(f"    {line[:200]}" for line in lines[-SHOWN_LINES:])
    return f"{stage.title} {message}; its last lines:\n{shown}\n  log: {log}\n  cure: {cure([message, *lines[-200:]])}"


def metric(line: str, name: str, label: str) -> str:
    """The metric ``name`` of a line of verl's console logger as ``label value``; empty if it is not there."""
    match = re.search(rf" - {re.escape(name)}:(?:np\.float\d+\()?([-+.\de]+)", line) if name else None
    return f"{label} {float(match.group(1)):.3g}" if match else ""


def durations(stages: Sequence[Stage], out: Path) -> dict[str, float]:
    """Seconds that each finished stage took in the run that finished it."""
    seconds = {stage.name: _read(_marker(stage, out)).get("seconds") for stage in stages}
    return {name: float(value) for name, value in seconds.items() if value is not None}


def log_path(stage: Stage, out: Path) -> Path:
    """The log of a stage."""
    return out / "logs" / f"{stage.name}.log"


def _marker(stage: Stage, out: Path) -> Path:
    return out / "stages" / f"{stage.name}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _files(sources: Sequence[Path]) -> Iterator[Path]:
    for source in sources:
        found = sorted(source.rglob("*")) if source.is_dir() else [source]
        yield from (path for path in found if path.suffix in READ)


@contextmanager
def held(out: Path, *, alone: bool = True) -> Iterator[None]:
    """Hold the folder's lock, alone or with others that share it; the kernel frees it however this process ends."""
    with (out / ".lock").open("w") as handle:
        if not locked(handle, fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
            raise SteerError(f"another demo is running in {out}; wait for it, or choose another --out")
        yield


def locked(handle: IO[str], how: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file, until it is closed, unless another process has."""
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
