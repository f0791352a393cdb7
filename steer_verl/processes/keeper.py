"""The parent of a server: it ends the server, all of it, when whoever asked for it is gone.

    python -m steer_verl.processes.keeper RECORD COMMAND ...

Its standard input is a pipe that the asker holds open. Once the pipe is closed, be it by ``close`` or because a
``SIGKILL`` ended the asker, everything that carries the claim's token is ended; so it is when the server itself ends.
The record says what may be left over should even this process be killed: the next run takes that away.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from steer_verl.processes.leftovers import Claim, Survey, clear

POLL = 0.25
"""Seconds between two looks at the server."""


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
