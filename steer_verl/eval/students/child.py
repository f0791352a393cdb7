"""A child process that runs torch: its environment, and what its log says last."""

from __future__ import annotations

import os
import re

from steer_verl import cpu

_TOLD = re.compile(r"(?:[\w.]*(?:Error|Exception)|error)\b:? *\S")
_PREFIX = re.compile(r"^(?:\([^)]*\) *)?(?:(?:ERROR|INFO|WARNING) [\d: -]+(?:\[[^]]*\])? *)?")


def environment() -> dict[str, str]:
    """The parent's, and where the CPU runtime is asked for its settings beneath the user's own; every core is for the
    one process that computes."""
    if not cpu.requested():
        return dict(os.environ)
    cores = str(len(os.sched_getaffinity(0)))
    return {**cpu.environment(), "OMP_NUM_THREADS": cores, **os.environ}


def last_words(text: str) -> str:
    """The first line that names an error among the last ones of a log, else the last line; at most 300 characters.

    The first: those that follow it are of who was waiting for the process that failed.
    """
    lines = [stripped for line in text.splitlines()[-400:] if (stripped := _PREFIX.sub("", line.strip()).strip())]
    telling = [line for line in lines if _TOLD.match(line)]
    return (telling or lines[-1:] or ["it said nothing"])[0][:300]
