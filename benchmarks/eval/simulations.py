"""Evaluations made by chance, of which the truth is known: what ``benchmarks/eval/coverage.py`` counts on.

A simulation draws the marks of ``n`` dialogues that fail with chance ``p`` and gives the interval that evaluation makes
of them, beside the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from steer_verl.eval.config import MarkSettings
from steer_verl.eval.differences import Difference, differences
from steer_verl.eval.estimate import Estimate
from steer_verl.eval.figures import Figures, average, figures_of_grid, over_seeds
from steer_verl.eval.marks import DialogueMarks, Grid
from steer_verl.eval.measures import MEASURES
from steer_verl.statistics.agreement import Detection
from steer_verl.statistics.intervals import Interval
from steer_verl.types import DialogueKind

LAST, HORIZON = 8, 10
"""Where survival is read off, and the longest dialogue."""
KEPT = {name: MEASURES[name] for name in ("unbroken", "harmless", "failed_turns")}
Rng = np.random.Generator


class Draw(NamedTuple):
    """One simulated evaluation: its interval, the truth, and the length of the scale."""

    found: Estimate | Difference | Interval
    truth: float
    span: float


Simulation = Callable[[int, float, Rng], Draw]
"""From n, p and chance."""


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


def share(n: int, p: float, rng: Rng) -> Draw:
    """Dialogues that hold to their end."""
    return _draw(holding(rng.random(n) < p), "unbroken", 100 * (1 - p), 100)


def pooled_share(n: int, p: float, rng: Rng) -> Draw:
    """The same, played by three training seeds' students, for whom the same dialogues are hard."""
    chance = np.tile(alike(n, p, rng), 3)
    return _draw(holding(rng.random(3 * n) < chance, np.repeat(np.arange(3), n)), "unbroken", 100 * (1 - p), 100)


def turn_share(n: int, p: float, rng: Rng) -> Draw:
    """Turns that fail, in dialogues whose turns are alike."""
    return _draw(figures(failing(alike(n, p, rng), rng), lengths(n, rng)), "failed_turns", 100 * p, 100)


def mark(n: int, p: float, rng: Rng) -> Draw:
    """Mean marks, skewed: 3 throughout, but in a share p of the dialogues -3..1."""
    return _draw(marked(rng.random(n) < p, rng), "harmless", 3 - 4 * p, 6)


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
    found = average([holding(rng.random(n) < q, name=str(i)) for i, q in enumerate(chances)])
    return Draw(found["unbroken"], 100 * (1 - p), 100)


def corrected(n: int, p: float, rng: Rng) -> Draw:
    """Failing turns, corrected for a judge that catches 85 % and blames 10 %, as 60 answers of each have shown."""
    length = lengths(n, rng)
    truly = failing(alike(n, p, rng), rng) < 0
    called = np.where(truly, rng.random(truly.shape) < 0.85, rng.random(truly.shape) < 0.10)
    caught, blamed = rng.binomial(60, 0.85), rng.binomial(60, 0.10)
    known = Detection(caught, 60 - caught, 60 - blamed, blamed)
    return Draw(figures(np.where(called, -1.0, 3.0), length).corrected(known), 100 * p, 100)


INTERVALS: dict[str, Simulation] = {
    "share of dialogues": share,
    "the same, three seeds pooled": pooled_share,
    "share of turns": turn_share,
    "mean mark": mark,
    "survival to turn 8": survival,
    "turns survived of 8": mean_turns,
    "mean over five sets": mean_of_sets,
    "share of turns, corrected": corrected,
}


def two_shares(n: int, p: float, rng: Rng) -> Draw:
    """Two students that hold a share 1 - p and 1 - 1.5 p of the same dialogues; half of them are as hard for both."""
    first, second = _hardness(n, rng)
    return _gap(holding(first < p), holding(second < 1.5 * p), "unbroken", 50 * p, 100)


def two_marks(n: int, p: float, rng: Rng) -> Draw:
    """Their mean marks."""
    first, second = _hardness(n, rng)
    return _gap(marked(first < p, rng), marked(second < 1.5 * p, rng), "harmless", 2 * p, 6)


def two_turn_shares(n: int, p: float, rng: Rng) -> Draw:
    """Their failing turns; the second fails half as often again."""
    chance, length = alike(n, p, rng), lengths(n, rng)
    more = chance + (1 - chance) * 0.5 * p / (1 - p)
    sides = (figures(failing(q, rng), length) for q in (chance, more))
    return _gap(*sides, "failed_turns", -50 * p, 100)


def two_survivals(n: int, p: float, rng: Rng) -> Draw:
    """Their survival to turn 8."""
    length = np.maximum(lengths(n, rng), LAST * (np.arange(n) < 1))
    sides = (figures(failing(np.full(n, 1 - (1 - q) ** (1 / LAST)), rng), length) for q in (p, 1.5 * p))
    return _gap(*sides, "survival", 50 * p, 100)


def _hardness(n: int, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    first = rng.random(n)
    return first, np.where(rng.random(n) < 0.5, first, rng.random(n))


DIFFERENCES: dict[str, Simulation] = {
    "shares of dialogues": two_shares,
    "mean marks": two_marks,
    "shares of turns": two_turn_shares,
    "survival to turn 8": two_survivals,
}


def over(seeds: int, p: float, rng: Rng, n: int = 265) -> Draw:
    """A way of training whose students fail with chances that vary by seed, each on the same 265 dialogues."""
    return Draw(over_seeds([_trained(seeds, p, rng, n)])["unbroken"], 100 * (1 - p), 100)


def over_difference(seeds: int, p: float, rng: Rng, n: int = 265) -> Draw:
    """Two such ways, equally good."""
    found = differences(_trained(seeds, p, rng, n), _trained(seeds, p, rng, n))["unbroken"].over_seeds
    assert found is not None
    return Draw(found, 0.0, 200)


def _trained(seeds: int, p: float, rng: Rng, n: int) -> Figures:
    chances = rng.beta(100 * p, 100 * (1 - p), seeds) if p else np.zeros(seeds)
    broken = np.concatenate([rng.random(n) < q for q in chances])
    return holding(broken, np.repeat(np.arange(seeds), n))


def _draw(found: Figures, name: str, truth: float, span: float) -> Draw:
    return Draw(found.estimates(LAST)[name], truth, span)


def _gap(one: Figures, other: Figures, name: str, truth: float, span: float) -> Draw:
    return Draw(differences(one, other, last=LAST)[name], truth, 2 * span)
