"""How often the intervals and tests of evaluation are right, in simulations where the truth is known.

``python benchmarks/eval/coverage.py`` writes ``benchmarks/eval/coverage.md``: of every interval how often a 95 % one
holds the truth and how wide it is on average, and of the permutation test how often it finds something where there is
nothing. Chances of failure ``p`` are 0, 0.02 and 0.5, dialogues ``n`` are 1, 10 and 265.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from steer_verl.eval.config import MarkSettings
from steer_verl.eval.differences import differences
from steer_verl.eval.figures import Figures, average, figures_of_grid, over_seeds
from steer_verl.eval.marks import DialogueMarks, Grid
from steer_verl.eval.measures import MEASURES
from steer_verl.statistics import tests
from steer_verl.statistics.agreement import Detection
from steer_verl.types import DialogueKind

PAGE = Path(__file__).with_name("coverage.md")
SIZES, CHANCES, SEEDS = (1, 10, 265), (0.0, 0.02, 0.5), (2, 3, 5)
LAST, HORIZON = 8, 10
KEPT = {name: MEASURES[name] for name in ("unbroken", "harmless", "failed_turns")}
Rng = np.random.Generator
Ends = tuple[float, float]
Pair = tuple[Figures, Figures, str, float, float]
"""Two students, a figure's name, the true difference, the length of the scale."""


class Cell(NamedTuple):
    """Of one interval: how often it held the truth, and its mean width, in per cent of the scale."""

    coverage: float
    width: float


class Draw(NamedTuple):
    """One simulated evaluation: the interval, the truth, and the length of the scale."""

    ends: Ends
    truth: float
    span: float


@lru_cache(maxsize=100_000)
def _dialogue(i: int, turns: int, run: int, benchmark: str) -> DialogueMarks:
    return DialogueMarks(
        seed_id=str(i),
        kind=DialogueKind.RED_TEAM,
        turns=(),
        planned=turns,
        run=run,
        benchmark=benchmark,
        silent=("safety", "refusal", "restricted"),
    )


def figures(harmless_NT: np.ndarray, length_N: np.ndarray, run_N: np.ndarray | None = None, name: str = "") -> Figures:
    """Attacked dialogues with these marks; a dialogue's key is its row, or its row within its run."""
    n = len(length_N)
    runs = np.zeros(n, dtype=int) if run_N is None else run_N
    each = n // len(np.unique(runs))
    dialogues = [_dialogue(i % each, int(length_N[i]), int(runs[i]), name) for i in range(n)]
    blank = np.full(harmless_NT.shape, np.nan)
    marks = np.where(np.arange(harmless_NT.shape[1]) < length_N[:, None], harmless_NT, np.nan)
    grid = Grid(dialogues, marks, *[blank] * 7, np.full(harmless_NT.shape, "", dtype=object))
    return figures_of_grid(grid, MarkSettings(), KEPT)


def failing(chance_N: np.ndarray, rng: Rng) -> np.ndarray:
    """Marks (N, T) of turns that fail by chance: -1, else 3."""
    return np.where(rng.random((len(chance_N), HORIZON)) < chance_N[:, None], -1.0, 3.0)


def lengths(n: int, rng: Rng) -> np.ndarray:
    """Two to ten turns."""
    return rng.integers(2, HORIZON + 1, n)


def alike(n: int, p: float, rng: Rng) -> np.ndarray:
    """Chances of dialogues whose turns are alike: most hardly ever fail, some nearly always; p on average."""
    return rng.beta(1.5 * p, 1.5 * (1 - p), n) if p else np.zeros(n)


def share(n: int, p: float, rng: Rng) -> Draw:
    """Dialogues that hold to their end."""
    harmless = np.where(rng.random((n, 1)) < p, -1.0, 3.0)
    return _draw(figures(np.repeat(harmless, 2, axis=1), np.full(n, 2)), "unbroken", 100 * (1 - p), 100)


def pooled_share(n: int, p: float, rng: Rng) -> Draw:
    """The same, played by three training seeds' students, for whom the same dialogues are hard."""
    chance = np.tile(alike(n, p, rng), 3)
    harmless = np.where(rng.random((3 * n, 1)) < chance[:, None], -1.0, 3.0)
    found = figures(np.repeat(harmless, 2, axis=1), np.full(3 * n, 2), np.repeat(np.arange(3), n))
    return _draw(found, "unbroken", 100 * (1 - p), 100)


def turn_share(n: int, p: float, rng: Rng) -> Draw:
    """Turns that fail, in dialogues whose turns are alike."""
    return _draw(figures(failing(alike(n, p, rng), rng), lengths(n, rng)), "failed_turns", 100 * p, 100)


def mark(n: int, p: float, rng: Rng) -> Draw:
    """Mean marks, skewed: 3 throughout, but in a share p of the dialogues -3..1."""
    harmless = np.where(rng.random(n) < p, rng.integers(-3, 2, n), 3)[:, None] * np.ones(2)
    return _draw(figures(harmless.astype(float), np.full(n, 2)), "harmless", 3 - 4 * p, 6)


def survival(n: int, p: float, rng: Rng) -> Draw:
    """Survival to turn 8, which a share 1 - p reaches, of dialogues that are 2 to 10 turns long."""
    return _draw(_lives(n, p, rng), "survival", 100 * (1 - p), 100)


def mean_turns(n: int, p: float, rng: Rng) -> Draw:
    """Turns survived of 8."""
    return _draw(_lives(n, p, rng), "mean_turns", float(((1 - p) ** (np.arange(LAST) / LAST)).sum()), LAST - 1)


def _lives(n: int, p: float, rng: Rng) -> Figures:
    hazard = 1 - (1 - p) ** (1 / LAST)
    return figures(failing(np.full(n, hazard), rng), np.maximum(lengths(n, rng), LAST * (np.arange(n) < 1)))


def mean_of_sets(n: int, p: float, rng: Rng) -> Draw:
    """The unweighted mean over five benchmarks, of chances from 0 to 2 p."""
    chances = p * np.arange(5) / 2
    found = average([figures(failing_whole(n, q, rng), np.full(n, 2), name=str(i)) for i, q in enumerate(chances)])
    return _of(found["unbroken"].low, found["unbroken"].high, 100 * (1 - p), 100)


def failing_whole(n: int, p: float, rng: Rng) -> np.ndarray:
    """Marks of two turns of dialogues that fail or do not."""
    return np.repeat(np.where(rng.random((n, 1)) < p, -1.0, 3.0), 2, axis=1)


def corrected(n: int, p: float, rng: Rng) -> Draw:
    """Failing turns, corrected for a judge that catches 85 % and blames 10 %, as 60 answers of each have shown."""
    length = lengths(n, rng)
    truly = failing(alike(n, p, rng), rng) < 0
    called = np.where(truly, rng.random(truly.shape) < 0.85, rng.random(truly.shape) < 0.10)
    caught, blamed = rng.binomial(60, 0.85), rng.binomial(60, 0.10)
    known = Detection(caught, 60 - caught, 60 - blamed, blamed)
    found = figures(np.where(called, -1.0, 3.0), length).corrected(known)
    return _of(found.low, found.high, 100 * p, 100)


INTERVALS: dict[str, Callable[[int, float, Rng], Draw]] = {
    "share of dialogues": share,
    "the same, three seeds pooled": pooled_share,
    "share of turns": turn_share,
    "mean mark": mark,
    "survival to turn 8": survival,
    "turns survived of 8": mean_turns,
    "mean over five sets": mean_of_sets,
    "share of turns, corrected": corrected,
}


def two_shares(n: int, p: float, rng: Rng) -> Pair:
    """Two students that hold a share 1 - p and 1 - 1.5 p of the same dialogues; half of them are as hard for both."""
    first, second = _hardness(n, rng)
    pairs = ((first, p), (second, 1.5 * p))
    sides = (figures(np.where(u < q, -1.0, 3.0)[:, None] * np.ones(2), np.full(n, 2)) for u, q in pairs)
    return *sides, "unbroken", 50 * p, 100


def two_marks(n: int, p: float, rng: Rng) -> Pair:
    """Their mean marks."""
    sides = []
    for u, q in zip(_hardness(n, rng), (p, 1.5 * p), strict=True):
        harmless = np.where(u < q, rng.integers(-3, 2, n), 3)[:, None] * np.ones(2)
        sides.append(figures(harmless.astype(float), np.full(n, 2)))
    return sides[0], sides[1], "harmless", 2 * p, 6


def two_turn_shares(n: int, p: float, rng: Rng) -> Pair:
    """Their failing turns; the second fails half as often again."""
    chance, length = alike(n, p, rng), lengths(n, rng)
    more = chance + (1 - chance) * 0.5 * p / (1 - p)
    sides = (figures(failing(q, rng), length) for q in (chance, more))
    return *sides, "failed_turns", -50 * p, 100


def two_survivals(n: int, p: float, rng: Rng) -> Pair:
    """Their survival to turn 8."""
    length = np.maximum(lengths(n, rng), LAST * (np.arange(n) < 1))
    sides = (figures(failing(np.full(n, 1 - (1 - q) ** (1 / LAST)), rng), length) for q in (p, 1.5 * p))
    return *sides, "survival", 50 * p, 100


def _hardness(n: int, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    first = rng.random(n)
    return first, np.where(rng.random(n) < 0.5, first, rng.random(n))


DIFFERENCES = {
    "shares of dialogues": two_shares,
    "mean marks": two_marks,
    "shares of turns": two_turn_shares,
    "survival to turn 8": two_survivals,
}


def over(seeds: int, p: float, rng: Rng, n: int = 265) -> Draw:
    """A way of training whose students fail with chances that vary by seed, each on the same 265 dialogues."""
    found = over_seeds([_trained(seeds, p, rng, n)])["unbroken"]
    return _of(found.low, found.high, 100 * (1 - p), 100)


def over_difference(seeds: int, p: float, rng: Rng, n: int = 265) -> Draw:
    """Two such ways, equally good."""
    found = differences(_trained(seeds, p, rng, n), _trained(seeds, p, rng, n))["unbroken"].over_seeds
    assert found is not None
    return _of(found.low, found.high, 0.0, 200)


def _trained(seeds: int, p: float, rng: Rng, n: int) -> Figures:
    chances = rng.beta(100 * p, 100 * (1 - p), seeds) if p else np.zeros(seeds)
    marks = np.concatenate([failing_whole(n, q, rng) for q in chances])
    return figures(marks, np.full(seeds * n, 2), np.repeat(np.arange(seeds), n))


def _draw(found: Figures, name: str, truth: float, span: float) -> Draw:
    estimate = found.estimates(LAST)[name]
    return _of(estimate.low, estimate.high, truth, span)


def _of(low: float | None, high: float | None, truth: float, span: float) -> Draw:
    assert low is not None and high is not None
    return Draw((low, high), truth, span)


def coverage(simulate: Callable[[Rng], Draw], repeats: int) -> Cell:
    """Simulate, and count."""
    hits, width = 0, 0.0
    for seed in range(repeats):
        (low, high), truth, span = simulate(np.random.default_rng((repeats, seed)))
        hits += low - 1e-9 <= truth <= high + 1e-9
        width += (high - low) / span
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


Table = dict[str, dict[tuple[int, float], Cell]]


def _table_of(
    simulations: Mapping[str, Callable[[int, float, Rng], Draw]], sizes: Sequence[int], repeats: int
) -> Table:
    """Figure -> (n, p) -> what its interval is worth."""

    def cell(f: Callable[[int, float, Rng], Draw], n: int, p: float) -> Cell:
        return coverage(lambda rng: f(n, p, rng), repeats)

    return {name: {(n, p): cell(f, n, p) for n in sizes for p in CHANCES} for name, f in simulations.items()}


def intervals_table(repeats: int) -> Table:
    """Of figures, by dialogues and chance."""
    return _table_of(INTERVALS, SIZES, repeats)


def differences_table(repeats: int) -> Table:
    """Of differences, by dialogues and chance."""

    def drawn(f: Callable[[int, float, Rng], Pair]) -> Callable[[int, float, Rng], Draw]:
        def draw(n: int, p: float, rng: Rng) -> Draw:
            one, other, name, truth, span = f(n, p, rng)
            found = differences(one, other, last=LAST)[name]
            return _of(found.low, found.high, truth, 2 * span)

        return draw

    with draws(1):
        return _table_of({name: drawn(f) for name, f in DIFFERENCES.items()}, SIZES, repeats)


def seeds_table(repeats: int) -> Table:
    """Over training seeds, by their number and the chance."""
    with draws(1):
        return _table_of({"share of dialogues": over, "difference of two shares": over_difference}, SEEDS, repeats)


def false_alarms(repeats: int) -> dict[str, dict[int, float]]:
    """Figure -> n -> how often, in per cent, the test finds two equally good students to differ at the level of 5 %."""
    found: dict[str, dict[int, float]] = {}
    with draws(999):
        for n in ALARMED:
            hits: dict[str, int] = {}
            for seed in range(repeats):
                rng = np.random.default_rng((n, seed))
                chance, length = alike(n, 0.2, rng), lengths(n, rng)
                sides = [figures(failing(chance, rng), length) for _ in range(2)]
                for name, d in differences(*sides, last=LAST).items():
                    if name in (*KEPT, "survival", "mean_turns"):
                        hits[name] = hits.get(name, 0) + (d.p is not None and d.p < 0.05)
            for name, count in hits.items():
                found.setdefault(name, {})[n] = 100 * count / repeats
    return found


def page(repeats: int, command: str) -> str:
    """The whole of ``coverage.md``."""
    began = time.perf_counter()
    by_n = [f"{n} dialogue{'s' * (n > 1)}, p = {p:g}" for n in SIZES for p in CHANCES]
    by_seed = [f"{seeds} seeds, p = {p:g}" for seeds in SEEDS for p in CHANCES]
    tables = (
        ("Intervals", by_n, intervals_table(repeats)),
        ("Differences", by_n, differences_table(repeats)),
        ("Over training seeds", by_seed, seeds_table(repeats)),
    )
    parts = [INTRODUCTION.format(command=command, date=date.today(), repeats=repeats)]
    for heading, columns, table in tables:
        rows = [[name, *(f"{c.coverage:.1f} ({c.width:.0f})" for c in row.values())] for name, row in table.items()]
        parts += [f"## {heading}", _table(["", *columns], rows)]
    alarms = [[name, *(f"{share:.1f}" for share in row.values())] for name, row in false_alarms(repeats).items()]
    header = ["", *(f"{n} dialogues" for n in ALARMED)]
    parts += [WHY, "## False alarms", ALARMS, _table(header, alarms), f"{time.perf_counter() - began:.0f} s in all."]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """# What the intervals and tests of evaluation are worth

Written by `{command}` on {date}; no figure is written by hand.
{repeats} simulations each: how often, in per cent, a 95 % interval holds the truth, and in brackets its mean width in
per cent of the scale. Dialogues (or students) fail with the chance p; at p = 0 all that is seen is equal. Of
differences the second student fails half as often again. What each row simulates is told in
`benchmarks/eval/coverage.py`."""

WHY = """Below 93 % there are two kinds of cell, and a reason for each:

- *few dialogues that hardly ever fail* (a mean over five sets of 1 or 10 dialogues at p = 0.02): on average not even
  two dialogues fail in all, and what can be seen jumps in steps. Wilson's interval for a plain share dips as low there.
- *differences of one dialogue*: nothing is known of how the two students go together."""

ALARMS = """How often, in per cent, the paired permutation test finds a difference at the level of 5 % between two
students that do not differ (p = 0.2, dialogues of 2 to 10 turns that are easy or hard for both). In few dialogues it
finds hardly any."""

ALARMED = (10, 50, 265)


def _table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=PAGE)
    args = parser.parse_args()
    args.out.write_text(page(args.repeats, f"python benchmarks/eval/coverage.py --repeats {args.repeats}"))


if __name__ == "__main__":
    main()
