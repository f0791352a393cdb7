"""Evaluations made by chance, of which the truth is known: what ``benchmarks/eval/coverage.py`` counts on.

A simulation draws the marks of ``n`` dialogues that fail with chance ``p``, or those of two students, the second of
whom fails half as often again, and gives what evaluation makes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from steer_verl.eval.config import MarkSettings
from steer_verl.eval.differences import Difference, differences
from steer_verl.eval.estimate import Estimate
from steer_verl.eval.figures import Figures, average, figures_of_grid, over_seeds
from steer_verl.eval.judging.agreement import figures_of
from steer_verl.eval.marks import DialogueMarks, Grid
from steer_verl.eval.measures import MEASURES
from steer_verl.statistics.agreement import Detection
from steer_verl.statistics.intervals import Interval
from steer_verl.types import DialogueKind

LAST, HORIZON = 8, 10
"""Where survival is read off, and the longest dialogue."""
KEPT = {name: MEASURES[name] for name in ("unbroken", "harmless", "failed_turns")}
SCALES: dict[str, tuple[float, Callable[[float], float]]] = {
    "unbroken": (100, lambda p: 100 * (1 - p)),
    "failed_turns": (100, lambda p: 100 * p),
    "harmless": (6, lambda p: 3 - 4 * p),
    "survival": (100, lambda p: 100 * (1 - p)),
    "survival:3": (100, lambda p: 100 * (1 - p)),
    "hazard": (100, lambda p: 100 * p),
    "mean_turns": (LAST - 1, lambda p: ((1 - p) ** (np.arange(LAST) / LAST)).sum()),
    "alpha": (2, lambda p: 1 - p),
    "kappa": (2, lambda p: 1 - p),
}
"""Measure -> the length of its scale, and its truth by p."""
Rng = np.random.Generator
Found = Mapping[str, Estimate | Difference | Interval]


class Simulation(NamedTuple):
    """A row of the page."""

    measure: str
    play: Callable[[int, float, Rng], Found]
    other: float | None = None
    """Of a difference: the second student fails with the chance ``other * p``."""

    def truth(self, p: float) -> float:
        """What the interval should hold."""
        value = SCALES[self.measure][1]
        return value(p) - (0.0 if self.other is None else value(self.other * p))

    @property
    def span(self) -> float:
        """The length of the scale; a difference has either sign."""
        return SCALES[self.measure][0] * (1 if self.other is None else 2)


@lru_cache(maxsize=100_000)
def _dialogue(i: int, turns: int, run: int, benchmark: str) -> DialogueMarks:
    return DialogueMarks(
        seed_id=str(i),
        kind=DialogueKind.RED_TEAM,
        planned=turns,
        run=run,
        benchmark=benchmark,
        turns=(),
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
    words = np.full(harmless_NT.shape, "", dtype=object)
    grid = Grid(dialogues, marks, blank, blank, blank, blank, blank, blank, blank, words)
    return figures_of_grid(grid, MarkSettings(), KEPT)


def failing(chance_N: np.ndarray, rng: Rng) -> np.ndarray:
    """Marks (N, T) of turns that fail by chance: -1, else 3."""
    return np.where(rng.random((len(chance_N), HORIZON)) < chance_N[:, None], -1.0, 3.0)


def holding(broken_N: np.ndarray, run_N: np.ndarray | None = None, name: str = "") -> Figures:
    """Dialogues of two turns that hold to their end, or fail."""
    return figures(np.where(broken_N, -1.0, 3.0)[:, None] * np.ones(2), np.full(len(broken_N), 2), run_N, name)


def marked(bad_N: np.ndarray, rng: Rng) -> Figures:
    """Dialogues with one mark throughout: 3, or -3..1 where they are bad."""
    marks_N = np.where(bad_N, rng.integers(-3, 2, len(bad_N)), 3)
    return figures(marks_N[:, None] * np.ones(2), np.full(len(bad_N), 2))


def lengths(n: int, rng: Rng) -> np.ndarray:
    """Two to ten turns."""
    return rng.integers(2, HORIZON + 1, n)


def alike(n: int, p: float, rng: Rng) -> np.ndarray:
    """Chances of dialogues whose turns are alike: most hardly ever fail, some nearly always; p on average."""
    return rng.beta(1.5 * p, 1.5 * (1 - p), n) if p else np.zeros(n)


def lives(n: int, p: float, rng: Rng, turn: int = LAST) -> Found:
    """Of dialogues of 2 to 10 turns, the first at least 8, a share 1 - p passes turn 8, or another one."""
    failed = failing(np.full(n, 1 - (1 - p) ** (1 / turn)), rng)
    return figures(failed, np.maximum(lengths(n, rng), LAST * (np.arange(n) < 1))).estimates(LAST)


def second_turn(n: int, p: float, rng: Rng) -> Found:
    """Of those that passed turn 1, the first dialogue among them, a share p fails at turn 2."""
    failed = failing(np.full(n, p), rng)
    failed[0, 0] = 3
    return {"hazard": figures(failed, lengths(n, rng)).hazard()[1]}


def judges(n: int, p: float, rng: Rng) -> Found:
    """Two judges, the second of whom rolls a die of its own for a share p of the answers; in dialogues whose turns are
    alike a tenth of the answers fails. Drawn anew until there is a failure, without which agreement is undefined."""
    while True:
        chance_N1, there = alike(n, 0.1, rng)[:, None], np.arange(HORIZON) < lengths(n, rng)[:, None]
        former, own = rng.random((2, n, HORIZON)) < chance_N1
        new = np.where(rng.random((n, HORIZON)) < p, own[rng.permutation(n)], former)
        tables = [[(there & (former == a) & (new == b)).sum(axis=1) for b in (True, False)] for a in (True, False)]
        found = figures_of(np.moveaxis(np.array(tables, dtype=float), 2, 0), 1, 1)
        if np.isfinite(found["kappa"].value):
            return found


def pooled(n: int, p: float, rng: Rng) -> Found:
    """Dialogues that hold to their end, played by three training seeds' students, for whom the same ones are hard."""
    chance = np.tile(alike(n, p, rng), 3)
    return holding(rng.random(3 * n) < chance, np.repeat(np.arange(3), n)).estimates(LAST)


def sets(n: int, p: float, rng: Rng) -> Found:
    """The unweighted mean over five benchmarks, of chances from 0 to 2 p."""
    return average([holding(rng.random(n) < p * i / 2, name=str(i)) for i in range(5)])


def corrected(n: int, p: float, rng: Rng) -> Found:
    """Failing turns, corrected for a judge that catches 85 % and blames 10 %, as 60 answers of each have shown."""
    length = lengths(n, rng)
    truly = failing(alike(n, p, rng), rng) < 0
    called = np.where(truly, rng.random(truly.shape) < 0.85, rng.random(truly.shape) < 0.10)
    caught, blamed = rng.binomial(60, 0.85), rng.binomial(60, 0.10)
    known = Detection(caught, 60 - caught, 60 - blamed, blamed)
    return {"failed_turns": figures(np.where(called, -1.0, 3.0), length).corrected(known)}


INTERVALS = {
    "share of dialogues": Simulation("unbroken", lambda n, p, rng: holding(rng.random(n) < p).estimates(LAST)),
    "the same, three seeds pooled": Simulation("unbroken", pooled),
    "share of turns": Simulation(  # of dialogues whose turns are alike
        "failed_turns", lambda n, p, rng: figures(failing(alike(n, p, rng), rng), lengths(n, rng)).estimates(LAST)
    ),
    "mean mark": Simulation("harmless", lambda n, p, rng: marked(rng.random(n) < p, rng).estimates(LAST)),
    "survival to turn 8": Simulation("survival", lives),
    "survival to turn 3": Simulation("survival:3", partial(lives, turn=3)),
    "failing at turn 2": Simulation("hazard", second_turn),
    "turns survived of 8": Simulation("mean_turns", lives),
    "mean over five sets": Simulation("unbroken", sets),
    "share of turns, corrected": Simulation("failed_turns", corrected),
    "alpha of two judges": Simulation("alpha", judges),
    "kappa of two judges": Simulation("kappa", judges),
}


def gap(one: Figures, other: Figures) -> Found:
    """What the first student has over the second."""
    return differences(one, other, last=LAST)


def two_students(play: Callable[[np.ndarray, Rng], Figures], n: int, p: float, rng: Rng) -> Found:
    """What they make of the same dialogues, half of which are as hard for both."""
    first = rng.random(n)
    second = np.where(rng.random(n) < 0.5, first, rng.random(n))
    return gap(play(first < p, rng), play(second < 1.5 * p, rng))


def two_turn_shares(n: int, p: float, rng: Rng) -> Found:
    """Failing turns, of dialogues whose turns are alike."""
    chance, length = alike(n, p, rng), lengths(n, rng)
    more = chance + (1 - chance) * 0.5 * p / (1 - p)
    return gap(*(figures(failing(q, rng), length) for q in (chance, more)))


def two_survivals(n: int, p: float, rng: Rng) -> Found:
    """Survival to turn 8."""
    length = np.maximum(lengths(n, rng), LAST * (np.arange(n) < 1))
    return gap(*(figures(failing(np.full(n, 1 - (1 - q) ** (1 / LAST)), rng), length) for q in (p, 1.5 * p)))


DIFFERENCES = {
    "shares of dialogues": Simulation("unbroken", partial(two_students, lambda broken, _: holding(broken)), 1.5),
    "mean marks": Simulation("harmless", partial(two_students, marked), 1.5),
    "shares of turns": Simulation("failed_turns", two_turn_shares, 1.5),
    "survival to turn 8": Simulation("survival", two_survivals, 1.5),
}


def trained(seeds: int, p: float, rng: Rng) -> Figures:
    """A way of training whose students fail with chances that vary by seed, each on the same 265 dialogues."""
    n = 265
    chances = rng.beta(100 * p, 100 * (1 - p), seeds) if p else np.zeros(seeds)
    return holding(np.concatenate([rng.random(n) < q for q in chances]), np.repeat(np.arange(seeds), n))


def two_trainings(seeds: int, p: float, rng: Rng) -> Found:
    """Two such ways, equally good."""
    found = differences(trained(seeds, p, rng), trained(seeds, p, rng))
    return {name: one.over_seeds for name, one in found.items() if one.over_seeds}


OVER_SEEDS = {
    "share of dialogues": Simulation("unbroken", lambda n, p, rng: over_seeds([trained(n, p, rng)])),
    "difference of two shares": Simulation("unbroken", two_trainings, 1.0),
}
