"""Everything again, side by side with verl's own loop: ``STEER_CPU=1 python -m benchmarks.rollout``.

Each part runs in a process of its own and leaves its figures in ``benchmarks/rollout/results``; the page
benchmarks/rollout.md and its plot are made of those files alone. Half an hour on two cores; nothing else should run.
The tutor's prefill is counted by a real server: start any OpenAI-compatible one and set STEER_PREFILL_URL and
STEER_PREFILL_MODEL; without one its last figures stay.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from benchmarks.rollout import page

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PARTS = ("pictures", "waiting", "limits", "order", "prefill", "estimator", "imports", "costs", "modes")


def run(part: str) -> None:
    """Measure one part; its last line on stdout is its figures."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_WAIT_POLICY": "PASSIVE"}
    if part in {"pictures", "waiting", "limits", "order"}:
        environment["OMP_NUM_THREADS"] = "1"  # as Ray sets it for verl's workers
    module = ["waiting", "limits"] if part == "limits" else [part]
    command = [sys.executable, "-m", f"benchmarks.rollout.{module[0]}", *module[1:]]
    told = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout.decode()
    found = json.loads(told.strip().splitlines()[-1])
    if part == "prefill" and not found["rows"]:
        print(*found["notes"], sep="\n")
        return
    where = f"{date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    (RESULTS / f"{part}.json").write_text(json.dumps({"where": where, **found}, indent=1) + "\n")


def main() -> None:
    """Measure the parts that are asked for, then write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollout", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--render", action="store_true", help="write the page from the figures that are there")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for part in () if options.render else options.only:
        began = time.monotonic()
        print(f"{part} ...", flush=True)
        run(part)
        print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
    found = {part: json.loads(path.read_text()) for part in PARTS if (path := RESULTS / f"{part}.json").is_file()}
    print(page.write(found, HERE.parent))


if __name__ == "__main__":
    main()
