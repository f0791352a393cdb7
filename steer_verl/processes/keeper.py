"""A server that ends, all of it, with whoever asked for it: :class:`Kept` is its asker's end, and its parent is

    python -m steer_verl.processes.keeper RECORD COMMAND ...

whose standard input is a pipe that the asker holds open. Once the pipe is closed, be it by ``stop`` or because a
``SIGKILL`` ended the asker, everything that carries the claim's token is ended; so it is when the server itself ends.
The record says what may be left over should even the parent be killed: the next run takes that away.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from steer_verl.errors import SteerError
from steer_verl.processes.leftovers import Claim, Survey, claim, clear, clear_earlier, processes

POLL = 0.25
"""Seconds between two looks at the server."""
END = 40.0
"""Seconds within which a parent has ended its server."""


class Kept:
    """A server that is started and stopped, again and again if need be.

    Args:
        record: says on disk what runs; there while it does.
        log: what the server says is added to it.
    """

    def __init__(self, record: Path, log: Path) -> None:
        self.record, self.log = record, log
        self._parent: subprocess.Popen[bytes] | None = None
        self._offset = 0

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._parent is not None and self._parent.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status; ``None``: it runs, or was stopped."""
        return self._parent.poll() if self._parent is not None else None

    @property
    def is_anothers(self) -> bool:
        """Whether the server of another run, or one that is being ended, is at work on the record."""
        left = Claim.load(self.record)
        return left is not None and left.leader in processes(left)

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it; what a killed run has left must have been taken away.

        Raises:
            OSError, SteerError: the folder cannot be written.
        """
        held = claim()
        try:
            self.record.parent.mkdir(parents=True, exist_ok=True)
            held.save(self.record)
            with self.log.open("ab") as output:
                self._offset = output.tell()
                self._parent = subprocess.Popen(
                    [sys.executable, "-m", "steer_verl.processes.keeper", str(self.record), *command],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=held.environment(environment),
                    start_new_session=True,
                )
            held.led_by(self._parent.pid).save(self.record)
        except (OSError, SteerError):
            clear(held)
            raise

    def said(self) -> str:
        """What the log says of this start."""
        with self.log.open("rb") as handle:
            handle.seek(self._offset)
            return handle.read().decode(errors="replace")

    def stop(self) -> None:
        """End all of it. Nothing of it runs afterwards."""
        parent, self._parent = self._parent, None
        if parent is None:
            return
        if parent.stdin is not None:
            parent.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            parent.wait(END)
        if parent.poll() is None:
            parent.kill()
            parent.wait()
        clear_earlier(self.record)


def keep(record: Path, command: list[str]) -> int:
    """Run ``command`` until it ends or standard input does; nothing of it is left running.

    Returns:
        The command's exit status; -n when a signal n ended it.
    """
    planned = Claim.load(record)
    if planned is None:
        raise SystemExit(f"keeper: no record at {record}")
    held = planned.led_by(os.getpid())
    survey, asked = Survey(held), list[int]()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: asked.append(number))
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        while child.poll() is None and not asked and not _gone():
            survey.look()
    finally:
        clear(held, survey.names)
        record.unlink(missing_ok=True)
    return child.wait()


def _gone() -> bool:
    """Whether the pipe is closed at its other end; waits a little for it."""
    ready, _, _ = select.select([sys.stdin], [], [], POLL)
    return bool(ready) and os.read(sys.stdin.fileno(), 1) == b""


if __name__ == "__main__":
    sys.exit(keep(Path(sys.argv[1]), sys.argv[2:]) & 0xFF)
