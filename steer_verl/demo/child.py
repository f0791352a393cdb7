"""One child process of the demo: its output goes to a file that is read as it grows; it never outlives its limit."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from steer_verl.demo.leftovers import TOKEN_ENV, Claim, claim, clear, shared_memory
from steer_verl.errors import SteerError

POLL = 0.25
"""Seconds between two looks at a child."""

SURVEY = 10.0
"""Seconds between two looks at the shared memory its processes hold: some never give theirs back."""


class StageFailed(SteerError):
    """A stage of the demo ended badly; its log says why."""


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
    held, shared = claim(), set[str]()
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        held.save(record)
        with log.open("ab") as output:
            tail = Tail(log, output.tell())
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**env, TOKEN_ENV: held.token, "RAY_TMPDIR": held.tmp},
                start_new_session=True,
            )
        held = replace(held, session=child.pid)
        held.save(record)
        _watch(child, tail, limit, on_line, tick, lambda: shared.update(shared_memory(held)))
    finally:
        clear(held, shared)
        record.unlink(missing_ok=True)


def _watch(
    child: subprocess.Popen[bytes],
    tail: Tail,
    limit: float,
    on_line: Callable[[str], None],
    tick: Callable[[], None],
    survey: Callable[[], None],
) -> None:
    end = time.monotonic() + limit
    running, next_survey = True, time.monotonic() + SURVEY
    while running:
        if time.monotonic() > next_survey:
            survey()
            next_survey = time.monotonic() + SURVEY
        running = child.poll() is None
        for line in tail.lines():
            on_line(line)
        tick()
        if running and time.monotonic() > end:
            raise StageFailed(f"took longer than {limit:.0f} s, the limit of this stage")
        if running:
            time.sleep(POLL)
    if child.returncode < 0:
        raise StageFailed(f"was ended by signal {-child.returncode}")
    if child.returncode > 0:
        raise StageFailed(f"ended with exit status {child.returncode}")


def clear_earlier(record: Path) -> bool:
    """Clean up after a run that was killed and could not; whether there was one."""
    left = Claim.load(record)
    if left is not None:
        clear(left)
    record.unlink(missing_ok=True)
    return left is not None


def child_environment() -> dict[str, str]:
    """The environment of every stage: the user's own, the CPU runtime's, and nothing that hides output."""
    from steer_verl import cpu

    return {**cpu.environment(), **os.environ, cpu.ENV: "1", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "TERM": "dumb"}
