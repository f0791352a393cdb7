"""One child process: its output goes to a file that is read as it grows; it never outlives its limit."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from steer_verl import cpu
from steer_verl.errors import SteerError
from steer_verl.processes.leftovers import Survey, claim, clear

POLL = 0.25
"""Seconds between two looks at a child."""

_TOLD = re.compile(r"(?:[\w.]*(?:Error|Exception)|error)\b:? *\S")
_PREFIX = re.compile(r"^(?:\([^)]*\) *)?(?:(?:ERROR|INFO|WARNING) [\d: -]+(?:\[[^]]*\])? *)?")


class StageFailed(SteerError):
    """A child ended badly; its log says why."""


@dataclass
class Tail:
    """Reads the complete lines that were added to a file since the last look; a carriage return ends a line too."""

    path: Path
    offset: int = 0

    def lines(self) -> list[str]:
        """New complete lines, in order."""
        with self.path.open("rb") as handle:
            handle.seek(self.offset)
            new = handle.read().replace(b"\r", b"\n")
        whole = new[: new.rfind(b"\n") + 1]
        self.offset += len(whole)
        return whole.decode(errors="replace").splitlines()


def run_child(
    argv: Sequence[str],
    *,
    log: Path,
    record: Path,
    limit: float,
    cwd: Path,
    env: Mapping[str, str],
    on_line: Callable[[str], None],
    tick: Callable[[], None],
) -> None:
    """Run ``argv`` to its end; whatever happens, nothing of it is left running.

    Args:
        log: Its stdout and stderr; appended to, so that the earlier attempts can still be read.
        record: Where the claim is kept while it runs, for a run that comes after a ``SIGKILL``.
        limit: Seconds it may take.
        cwd: Working folder.
        env: Its whole environment, to which the token and Ray's temporary folder are added.
        on_line: Called with every line of output.
        tick: Called about four times a second.

    Raises:
        StageFailed: it took longer than ``limit`` or its exit status is not 0.
    """
    held = claim()
    survey = Survey(held)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        held.save(record)
        with log.open("ab") as output:
            tail = Tail(log, output.tell())
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=held.environment(env),
                start_new_session=True,
            )
        held = survey.held = held.led_by(child.pid)
        held.save(record)
        _watch(child, tail, limit, on_line, tick, survey)
    finally:
        with finishing():
            clear(held, survey.names)
            record.unlink(missing_ok=True)


def _watch(
    child: subprocess.Popen[bytes],
    tail: Tail,
    limit: float,
    on_line: Callable[[str], None],
    tick: Callable[[], None],
    survey: Survey,
) -> None:
    end, running = time.monotonic() + limit, True
    while running:
        survey.look()
        running = child.poll() is None
        for line in tail.lines():
            on_line(line)
        tick()
        if running and time.monotonic() > end:
            raise StageFailed(f"took longer than {limit:.0f} s, its limit")
        if running:
            time.sleep(POLL)
    if child.returncode < 0:
        raise StageFailed(f"was ended by signal {-child.returncode}")
    if child.returncode > 0:
        raise StageFailed(f"ended with exit status {child.returncode}")


ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask for an end."""


@contextmanager
def finishing() -> Iterator[None]:
    """Within, nobody who asks for an end is heard: what is left to do is short, and would be left half done."""
    if threading.current_thread() is not threading.main_thread():  # which alone hears signals
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """Within, a SIGTERM or the end of the terminal is like Ctrl-C, so that children are ended on the way out.

    ``nohup`` still holds: a SIGHUP that is ignored stays so.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)  # asyncio has a way of its own to be interrupted

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]
    try:
        for number in before:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def child_environment() -> dict[str, str]:
    """Of every stage: the user's own, the CPU runtime's, and nothing that hides output."""
    return {**cpu.environment(), **os.environ, cpu.ENV: "1", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "TERM": "dumb"}


def alone_environment() -> dict[str, str]:
    """Of one process that computes: where the CPU runtime is asked for, its settings beneath the user's own, and every
    core."""
    if not cpu.requested():
        return dict(os.environ)
    return {**cpu.environment(), "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))), **os.environ}


def last_words(text: str) -> str:
    """The first line that names an error among the last ones of a log, else the last line; at most 300 characters.

    The first: those that follow it are of who was waiting for the process that failed.
    """
    lines = [stripped for line in text.splitlines()[-400:] if (stripped := _PREFIX.sub("", line.strip()).strip())]
    telling = [line for line in lines if _TOLD.match(line)]
    return (telling or lines[-1:] or ["it said nothing"])[0][:300]
