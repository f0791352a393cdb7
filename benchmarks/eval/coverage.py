"""How often the intervals and tests of evaluation are right, in simulations where the truth is known.

``python -m benchmarks.eval.coverage`` writes ``benchmarks/eval/coverage.md``: of every interval how often a 95 % one
holds the truth and how wide it is on average, and of the permutation test how often it finds something where there is
nothing. Chances of failure ``p`` are 0, 0.02 and 0.5, dialogues ``n`` are 1, 10 and 265.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np

from benchmarks import pages
from benchmarks.eval import simulations
from benchmarks.eval.simulations import KEPT, LAST, Simulation, alike, failing, figures, lengths
from steer_verl.eval.differences import differences
from steer_verl.statistics import tests

PAGE = Path(__file__).with_name("coverage.md")
SIZES, CHANCES, SEEDS, ALARMED = (1, 10, 265), (0.0, 0.02, 0.5), (2, 3, 5), (10, 50, 265)

TABLES = {
    "Intervals": (simulations.INTERVALS, SIZES, "dialogues"),
    "Differences": (simulations.DIFFERENCES, SIZES, "dialogues"),
    "Over training seeds": (simulations.OVER_SEEDS, SEEDS, "seeds"),
}
"""Heading -> simulations by name, and how many of what is simulated."""

INTRODUCTION = """\
{repeats} simulations each: how often, in per cent, a 95 % interval holds the truth, and in brackets its mean width in
per cent of the scale. Dialogues (or students) fail with the chance p; at p = 0 all that is seen is equal. Of
differences the second student fails half as often again. What each row simulates is told in
`benchmarks/eval/simulations.py`."""

WHY = """Below 93 % there are two kinds of cell, and a reason for each:

- *few dialogues that hardly ever fail* (a mean over five sets of 1 or 10 dialogues at p = 0.02): on average not even
  two dialogues fail in all, and what can be seen jumps in steps. Wilson's interval for a plain share dips as low there.
- *differences of one dialogue*: nothing is known of how the two students go together."""

ALARMS = """How often, in per cent, the paired permutation test finds a difference at the level of 5 % between two
students that do not differ (p = 0.2, dialogues of 2 to 10 turns that are easy or hard for both). In few dialogues it
finds hardly any."""


class Cell(NamedTuple):
    """Of one interval: how often it held the truth, and its mean width, in per cent of the scale."""

    coverage: float
    width: float


def coverage(simulation: Simulation, n: int, p: float, repeats: int) -> Cell:
    """Simulate, and count."""
    hits, width, truth = 0, 0.0, simulation.truth(p)
    for seed in range(repeats):
        found = simulation.play(n, p, np.random.default_rng((repeats, seed)))[simulation.measure]
        assert found.low is not None and found.high is not None
        hits += found.low - 1e-9 <= truth <= found.high + 1e-9
        width += (found.high - found.low) / simulation.span
    return Cell(100 * hits / repeats, 100 * width / repeats)


def table_of(heading: str, repeats: int) -> dict[str, dict[tuple[int, float], Cell]]:
    """Figure -> (n, p) -> what its interval is worth."""
    rows, sizes, _ = TABLES[heading]
    with patch.multiple(tests, DRAWS=1, CHUNK=1):  # of the permutation test, which these intervals do not need
        return {
            name: {(n, p): coverage(one, n, p, repeats) for n in sizes for p in CHANCES} for name, one in rows.items()
        }


def false_alarms(repeats: int) -> dict[str, dict[int, float]]:
    """Figure -> n -> how often, in per cent, the test finds two equally good students to differ at the level of 5 %."""
    found: dict[str, dict[int, float]] = {
        name: dict.fromkeys(ALARMED, 0.0) for name in (*KEPT, "survival", "mean_turns")
    }
    with patch.multiple(tests, DRAWS=999, CHUNK=999):
        for n in ALARMED:
            for seed in range(repeats):
                rng = np.random.default_rng((n, seed))
                chance, length = alike(n, 0.2, rng), lengths(n, rng)
                seen = differences(*(figures(failing(chance, rng), length) for _ in range(2)), last=LAST)
                for name, row in found.items():
                    row[n] += 100 / repeats * ((seen[name].p or 1) < 0.05)
    return found


def main() -> None:
    """Write the whole of ``coverage.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    args = parser.parse_args()
    began, command = time.perf_counter(), f"python -m benchmarks.eval.coverage --repeats {args.repeats}"
    title = "# What the intervals and tests of evaluation are worth"
    parts = [title, pages.written(command), INTRODUCTION.format(repeats=args.repeats)]
    for heading, (_, sizes, what) in TABLES.items():
        columns = [f"{n} {what if n > 1 else what[:-1]}, p = {p:g}" for n in sizes for p in CHANCES]
        found = table_of(heading, args.repeats)
        rows = ([name, *(f"{c.coverage:.1f} ({c.width:.0f})" for c in row.values())] for name, row in found.items())
        parts += [f"## {heading}", pages.table(["", *columns], rows)]
    alarms = false_alarms(args.repeats).items()
    rows = ([name, *(f"{share:.1f}" for share in row.values())] for name, row in alarms)
    table = pages.table(["", *(f"{n} dialogues" for n in ALARMED)], rows)
    pages.write(PAGE, *parts, WHY, "## False alarms", ALARMS, table, f"{time.perf_counter() - began:.0f} s in all.")


if __name__ == "__main__":
    main()
