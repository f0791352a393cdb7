"""Everything again, side by side with verl's own loop: ``STEER_CPU=1 python -m benchmarks.rollout``.

Each part runs in a process of its own and leaves its figures in ``benchmarks/rollout/results``; the page
benchmarks/rollout.md and its plot are made of those files alone. Half an hour on two cores; nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from importlib import import_module
from pathlib import Path

from benchmarks.pages import machine
from benchmarks.rollout.page import TITLES, render

HERE = Path(__file__).parent
RESULTS = HERE / "results"
WAITING = {"waiting": "no_limit", "limits": "limits", "order": "order"}
"""Parts that are functions of waiting.py; any other is ``measure`` of a module of its name."""


def measure(part: str) -> None:
    """Measure one part in this process and keep its figures: rows, notes and what else the page shows."""
    module = import_module(f"benchmarks.rollout.{'waiting' if part in WAITING else part}")
    with tempfile.TemporaryDirectory() as scratch:
        found = getattr(module, WAITING.get(part, "measure"))(Path(scratch))
    found = {"where": f"{date.today()}, {machine()}", **found}
    (RESULTS / f"{part}.json").write_text(json.dumps(found, indent=1, default=asdict) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the parts that are asked for, then write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollout", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--render", action="store_true", help="write the page from the figures that are there")
    parser.add_argument("--here", action="store_true", help="measure in this process, and write no page")
    options = parser.parse_args(argv)
    for part in () if options.render else options.only:
        if options.here:
            measure(part)
            continue
        print(f"{part} ...", flush=True)
        began = time.monotonic()
        environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_WAIT_POLICY": "PASSIVE"}
        if part in {"pictures", *WAITING}:
            environment["OMP_NUM_THREADS"] = "1"  # as Ray sets it for verl's workers
        command = [sys.executable, "-m", "benchmarks.rollout", "--here", "--only", part]
        subprocess.run(command, check=True, env=environment)
        print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
    if not options.here:
        render({p: json.loads(f.read_text()) for p in TITLES if (f := RESULTS / f"{p}.json").is_file()}, HERE.parent)


if __name__ == "__main__":
    main()
