"""What the plugin adds to ``import verl``: fresh processes with it and without it (``VERL_USE_EXTERNAL_PLUGINS=none``).

The processes take turns, so that a machine that slows down slows both; what counts is the median of the differences of
neighbours, in wall time of the import statement alone (a note tells the processor's). ``STEER_CPU`` is unset in all of
them: this is what a user with a GPU pays, in every process and Ray actor. The plugin is the installed one, found by its
entry point; verl's search for entry points, which ``none`` spares it, counts as ours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.rollout.row import Row
from steer_verl.cpu import ENV
from steer_verl.errors import ConfigError

DEMAND = 0.2
"""Seconds more than without the plugin, at most."""
PROGRAM = """
import json, sys, time
began, worked = time.perf_counter(), time.process_time()
import verl
seconds, cpu = time.perf_counter() - began, time.process_time() - worked
modules = sorted(sys.modules)
began = time.perf_counter()
from importlib.metadata import entry_points
for point in entry_points(group="verl.plugins", name="steer"):
    point.load()
load = time.perf_counter() - began
plugged = "steer_verl.plugin" in modules
print(json.dumps({"seconds": seconds, "cpu": cpu, "load": load, "modules": modules, "plugged": plugged}))
"""


@dataclass(frozen=True)
class Import:
    """One ``import verl``."""

    seconds: float
    cpu: float
    """Seconds of processor time: what is left of a difference on a busy machine."""
    load: float
    """Seconds of finding and loading the plugin thereafter, as verl does it: all of it, where verl did not."""
    modules: list[str]
    """All that are loaded after ``import verl``."""
    plugged: bool


def import_verl(plugins: str) -> Import:
    """In a fresh process with ``VERL_USE_EXTERNAL_PLUGINS=plugins``, away from this folder.

    Raises:
        ConfigError: verl cannot be imported there.
    """
    environment = {name: value for name, value in os.environ.items() if name != ENV}
    environment["VERL_USE_EXTERNAL_PLUGINS"] = plugins
    with tempfile.TemporaryDirectory() as empty:
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, env=environment, cwd=empty, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"`import verl` failed in a fresh process: {last}; repair the environment (make env)")
    return Import(**json.loads(done.stdout.strip().splitlines()[-1]))


def difference(pairs: Sequence[tuple[Import, Import]], clock: str = "seconds") -> float:
    """Median seconds that the first of a pair took longer than the second, by the clock of that name."""
    return median(getattr(ours, clock) - getattr(plain, clock) for ours, plain in pairs)


def row(pairs: Sequence[tuple[Import, Import]]) -> Row:
    """Medians of both sides; the demand is on the median of the differences."""
    more = difference(pairs)
    return Row(
        what=f"`import verl` with the plugin: {more:+.3f} s, median of {len(pairs)} paired differences",
        unit="s",
        ours=median(ours.seconds for ours, _ in pairs),
        other=median(plain.seconds for _, plain in pairs),
        demand=f"at most {DEMAND:g} s more",
        met=more <= DEMAND,
        other_is="without the plugin",
    )


def measure(pairs: int = 9) -> dict[str, Any]:
    """Rows, notes, and each process's ``seconds`` of both sides.

    Raises:
        ConfigError: verl cannot be imported, or the plugin is not installed.
    """
    import_verl("none")  # fills the page cache and writes the bytecode
    found = []
    for number in range(pairs):
        order = ("auto", "none") if number % 2 else ("none", "auto")
        done = {plugins: import_verl(plugins) for plugins in order}
        found.append((done["auto"], done["none"]))
    ours, plain = found[0]
    if not ours.plugged:
        raise ConfigError(
            "the plugin is not loaded by `import verl`; install it (pip install -e .), see `steer doctor`"
        )
    added = sorted(set(ours.modules) - set(plain.modules))
    foreign = sorted({name.partition(".")[0] for name in added} - {"steer_verl"})
    told = (
        f"imports: the plugin adds {len(added)} modules; from outside steer_verl: {', '.join(foreign) or 'none'}; "
        f"in processor time {difference(found, 'cpu'):+.3f} s; finding and loading it after verl takes "
        f"{median(plain.load for _, plain in found):.3f} s"
    )
    return {
        "rows": [row(found).as_dict()],
        "notes": [told],
        "seconds": {"with": [one.seconds for one, _ in found], "without": [one.seconds for _, one in found]},
        "added": added,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9, help="fresh processes of each side")
    print(json.dumps(measure(parser.parse_args().pairs)))
