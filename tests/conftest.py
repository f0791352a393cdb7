"""Every test runs as on a machine without a GPU, unless there is one or the environment says otherwise."""

import os
import signal
from collections import Counter
from typing import Any

from hypothesis import settings

from steer_verl import cpu
from steer_verl.cpu import boot, install

os.environ.setdefault(cpu.ENV, "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker a core: threads of two workers that wait for each other crawl
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if cpu.requested() and install.hook_path().exists():  # the hook itself has run only if the variable was set before
    boot.install()

settings.register_profile("same", derandomize=True, deadline=None, database=None)  # the same cases in every run
settings.load_profile("same")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started with it ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # so is what nohup starts


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What was not tested, and how to get it: a line for each reason."""
    skipped = terminalreporter.stats.get("skipped", ())
    for reason, tests in Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped).items():
        terminalreporter.write_line(f"{tests} tests not run: {reason}", yellow=True)
