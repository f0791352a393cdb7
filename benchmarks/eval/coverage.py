"""How often the intervals and tests of evaluation are right, in simulations where the truth is known.

``python -m benchmarks.eval.coverage`` writes ``benchmarks/eval/coverage.md``: of every interval how often a 95 % one
holds the truth and how wide it is on average, and of the permutation test how often it finds something where there is
nothing. Chances of failure ``p`` are 0, 0.02 and 0.5, dialogues ``n`` are 1, 10 and 265.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import pages
from benchmarks.eval.simulations import (
    DIFFERENCES,
    INTERVALS,
    KEPT,
    LAST,
    Draw,
    Rng,
    Simulation,
    alike,
    failing,
    figures,
    lengths,
    over,
    over_difference,
)
from steer_verl.eval.differences import differences
from steer_verl.statistics import tests

PAGE = Path(__file__).with_name("coverage.md")
SIZES, CHANCES, SEEDS = (1, 10, 265), (0.0, 0.02, 0.5), (2, 3, 5)


class Cell(NamedTuple):
    """Of one interval: how often it held the truth, and its mean width, in per cent of the scale."""

    coverage: float
    width: float


def coverage(simulate: Callable[[Rng], Draw], repeats: int) -> Cell:
    """Simulate, and count."""
    hits, width = 0, 0.0
    for seed in range(repeats):
        found, truth, span = simulate(np.random.default_rng((repeats, seed)))
        assert found.low is not None and found.high is not None
        hits += found.low - 1e-9 <= truth <= found.high + 1e-9
        width += (found.high - found.low) / span
    return Cell(100 * hits / repeats, 100 * width / repeats)


@contextmanager
def draws(number: int) -> Iterator[None]:
    """The permutation test with so many draws."""
    before = tests.DRAWS, tests.CHUNK
    tests.DRAWS = tests.CHUNK = number
    try:
        yield
    finally:
        tests.DRAWS, tests.CHUNK = before


TABLES = {
    "Intervals": (INTERVALS, SIZES, "dialogues"),
    "Differences": (DIFFERENCES, SIZES, "dialogues"),
    "Over training seeds": (
        {"share of dialogues": over, "difference of two shares": over_difference},
        SEEDS,
        "seeds",
    ),
}
"""Heading -> simulations by name, and how many of what is simulated."""


def table_of(heading: str, repeats: int) -> dict[str, dict[tuple[int, float], Cell]]:
    """Figure -> (n, p) -> what its interval is worth."""
    simulations, sizes, _ = TABLES[heading]

    def cell(f: Simulation, n: int, p: float) -> Cell:
        return coverage(lambda rng: f(n, p, rng), repeats)

    with draws(1):
        return {name: {(n, p): cell(f, n, p) for n in sizes for p in CHANCES} for name, f in simulations.items()}


def false_alarms(repeats: int) -> dict[str, dict[int, float]]:
    """Figure -> n -> how often, in per cent, the test finds two equally good students to differ at the level of 5 %."""
    found: dict[str, dict[int, float]] = {name: {} for name in (*KEPT, "survival", "mean_turns")}
    with draws(999):
        for n in ALARMED:
            hits = dict.fromkeys(found, 0)
            for seed in range(repeats):
                rng = np.random.default_rng((n, seed))
                chance, length = alike(n, 0.2, rng), lengths(n, rng)
                sides = [figures(failing(chance, rng), length) for _ in range(2)]
                seen = differences(*sides, last=LAST)
                hits = {name: hits[name] + ((seen[name].p or 1) < 0.05) for name in found}
            for name, count in hits.items():
                found[name][n] = 100 * count / repeats
    return found


def page(repeats: int, path: Path) -> None:
    """Write the whole of ``coverage.md``."""
    began = time.perf_counter()
    command = f"python -m benchmarks.eval.coverage --repeats {repeats}"
    title = "# What the intervals and tests of evaluation are worth"
    parts = [title, pages.written(command), INTRODUCTION.format(repeats=repeats)]
    for heading, (_, sizes, what) in TABLES.items():
        columns = [f"{n} {what if n > 1 else what[:-1]}, p = {p:g}" for n in sizes for p in CHANCES]
        found = table_of(heading, repeats)
        rows = ([name, *(f"{c.coverage:.1f} ({c.width:.0f})" for c in row.values())] for name, row in found.items())
        parts += [f"## {heading}", pages.table(["", *columns], rows)]
    alarms = ([name, *(f"{share:.1f}" for share in row.values())] for name, row in false_alarms(repeats).items())
    table = pages.table(["", *(f"{n} dialogues" for n in ALARMED)], alarms)
    pages.write(path, *parts, WHY, "## False alarms", ALARMS, table, f"{time.perf_counter() - began:.0f} s in all.")


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

ALARMED = (10, 50, 265)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=PAGE)
    args = parser.parse_args()
    page(args.repeats, args.out)


if __name__ == "__main__":
    main()
