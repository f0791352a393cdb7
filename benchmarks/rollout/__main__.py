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
from datetime import date
from importlib import import_module
from pathlib import Path

from benchmarks.pages import machine
from benchmarks.rollout.page import TITLES, render

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PARTS = {part: (part, "measure") for part in TITLES} | {
    "waiting": ("waiting", "no_limit"),
    "limits": ("waiting", "limits"),
    "order": ("waiting", "order"),
}
"""Part -> module and function, which gets a folder for its files and returns rows, notes and what the page shows."""


def measure(part: str) -> None:
    """Measure one part in this process and keep its figures."""
    module, function = PARTS[part]
    with tempfile.TemporaryDirectory() as scratch:
        found = getattr(import_module(f"benchmarks.rollout.{module}"), function)(Path(scratch))
    found = {"where": f"{date.today()}, {machine()}", **found}
    (RESULTS / f"{part}.json").write_text(json.dumps(found, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the parts that are asked for, then write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollout", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
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
        if part in {"pictures", "waiting", "limits", "order"}:
            environment["OMP_NUM_THREADS"] = "1"  # as Ray sets it for verl's workers
        command = [sys.executable, "-m", "benchmarks.rollout", "--here", "--only", part]
        subprocess.run(command, check=True, env=environment)
        print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
    if not options.here:
        render({p: json.loads(f.read_text()) for p in PARTS if (f := RESULTS / f"{p}.json").is_file()}, HERE.parent)


if __name__ == "__main__":
    main()
