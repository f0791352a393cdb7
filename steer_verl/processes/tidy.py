"""A command of which nothing is left on the machine when it ends: the run scripts start verl's trainers by

    python -m steer_verl.processes.tidy COMMAND ...

Ray's folder, temporary files, sockets and shared memory are the command's own while it runs, and go with it. A folder
that the user's environment names for them (``TMPDIR``, ``RAY_TMPDIR``) is used, and what lies there stays. After a
failure Ray's folder stays for its logs, and a line says where. A Ray cluster that was there before stays as it is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from steer_verl.errors import disk_error
from steer_verl.processes.child import POLL, finishing, terminable
from steer_verl.processes.leftovers import FOLDERS, Survey, claim, clear


def run(command: Sequence[str]) -> int:
    """Run ``command`` in the foreground; its exit status, 128 + n where a signal n ended it.

    Raises:
        OSError: the command cannot be started, or /tmp cannot be written.
    """
    held, interrupted = claim(), 128 + signal.SIGINT
    survey, status = Survey(held), interrupted
    try:
        with suppress(KeyboardInterrupt), terminable():
            given = {name: os.environ[name] for name in FOLDERS if name in os.environ}
            child = subprocess.Popen(command, env={**held.environment(os.environ), **given})
            held = survey.held = held.led_by(child.pid)
            while child.poll() is None:
                survey.look()
                with suppress(subprocess.TimeoutExpired):
                    child.wait(POLL)
            status = child.returncode if child.returncode >= 0 else 128 - child.returncode
    finally:
        with finishing():
            if status == interrupted and held.leader:  # else it was not even started
                print("interrupted; what it started is being ended, some seconds at most", file=sys.stderr)
            failed = status not in (0, interrupted) and (held.folder / "ray").exists()
            clear(held, survey.names, keep_folder=failed)
    if failed:
        print(f"failed with {status}; Ray's logs are below {held.folder}, to be removed when read", file=sys.stderr)
    return status


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:]))
    except OSError as error:
        sys.exit(f"steer: {disk_error(error)}")
