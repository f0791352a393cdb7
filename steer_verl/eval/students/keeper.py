"""The parent of a server: it ends the server, all of it, when the evaluation that asked for it is gone.

    python -m steer_verl.eval.students.keeper RECORD COMMAND ...

Its standard input is a pipe that the evaluation holds open. Once the pipe is closed, be it by ``close`` or because a
``SIGKILL`` ended the evaluation, the server's whole session is ended; so it is when the server itself ends. The record
says what may be left over should even this process be killed: the next run of the same evaluation takes it away.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from steer_verl.demo.leftovers import TOKEN_ENV, Claim, clear, shared_memory

POLL = 0.25
"""Seconds between two looks at the server."""
SURVEY = 10.0
"""Seconds between two looks at the shared memory that its processes hold."""


def keep(record: Path, command: list[str]) -> int:
    """Run ``command`` until it ends or standard input does; nothing of it is left running.

    Returns:
        The command's exit status; -n when a signal n ended it.
    """
    planned = Claim.load(record)
    if planned is None:
        raise SystemExit(f"keeper: no record at {record}")
    held, shared = replace(planned, session=os.getpid()), set[str]()
    held.save(record)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: asked.append(number))
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment(held))
    survey = time.monotonic() + SURVEY
    try:
        while child.poll() is None and not asked and not _gone():
            if time.monotonic() > survey:
                shared |= shared_memory(held)
                survey = time.monotonic() + SURVEY
    finally:
        clear(held, shared)
        record.unlink(missing_ok=True)
    return child.wait()


def environment(held: Claim) -> dict[str, str]:
    """The server's: it carries the claim's token, and its sockets lie in the claim's folder."""
    return {**os.environ, TOKEN_ENV: held.token, "RAY_TMPDIR": held.tmp, "VLLM_RPC_BASE_PATH": held.tmp}


def _gone() -> bool:
    """Whether the pipe is closed at its other end; waits a little for it."""
    ready, _, _ = select.select([sys.stdin], [], [], POLL)
    return bool(ready) and os.read(sys.stdin.fileno(), 1) == b""


if __name__ == "__main__":
    sys.exit(keep(Path(sys.argv[1]), sys.argv[2:]) & 0xFF)
