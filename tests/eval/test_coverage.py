"""Intervals hold the truth about as often as they say, in simulations; one that forgets the dialogues does not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from steer_verl.eval.config import MarkSettings
from steer_verl.eval.contributions import Contributions, at_the_edge, contributions
from steer_verl.eval.life_table import LifeTable, life_table, mean_turns
from steer_verl.eval.marks import DialogueMarks, TurnMarks
from steer_verl.eval.metrics import MEASURES
from steer_verl.eval.survival import Lifetime, kaplan_meier
from steer_verl.statistics import Detection, corrected
from steer_verl.types import DialogueKind

RUNS = 250
"""Simulations: the standard error of a coverage of 95 % is 1.4 points."""

BLANK = {"helpful": 3, "safety": None, "restricted": None, "refused": None, "well_formed": True}
SILENT = ("safety", "refusal", "restricted")
GOOD, BAD = (TurnMarks.model_validate({"harmless": mark, **BLANK}) for mark in (3, -1))


def played(failed_NT: np.ndarray, run: int = 0) -> list[DialogueMarks]:
    return [
        DialogueMarks(
            seed_id=f"{i:03}",
            kind=DialogueKind.RED_TEAM,
            turns=tuple(BAD if failed else GOOD for failed in row),
            run=run,
            silent=SILENT,
        )
        for i, row in enumerate(failed_NT)
    ]


def failing(dialogues: list[DialogueMarks]) -> Contributions:
    return contributions(dialogues, {"failed_turns": MEASURES["failed_turns"]})


def test_dialogues_are_the_unit_not_turns() -> None:
    """Turns of a dialogue are alike: a fifth fail overall, nearly all of some dialogues and nearly none of others."""
    rng, clustered, naive = np.random.default_rng(1), 0, 0
    for _ in range(RUNS):
        chance_N = rng.beta(0.5, 2.0, 60)
        failed_NT = rng.random((60, 10)) < chance_N[:, None]
        found = failing(played(failed_NT)).estimates()["failed_turns"]
        clustered += found.low <= 20 <= found.high
        interval = binomtest(int(failed_NT.sum()), failed_NT.size).proportion_ci(method="wilson")
        naive += interval.low <= 0.2 <= interval.high
    assert 0.91 <= clustered / RUNS <= 0.98
    assert naive / RUNS < 0.75


@pytest.mark.slow
def test_seeds_of_one_dialogue_are_drawn_together() -> None:
    """Three training seeds play the same 60 hard and easy dialogues: that is not 180 dialogues."""
    rng, together, apart = np.random.default_rng(2), 0, 0
    for _ in range(RUNS):
        chance_N = rng.beta(0.5, 2.0, 60)
        runs = [played(rng.random((60, 4)) < chance_N[:, None], run) for run in range(3)]
        pooled = [d for run in runs for d in run]
        found = failing(pooled).estimates()["failed_turns"]
        together += found.low <= 20 <= found.high
        split = failing([d.model_copy(update={"seed_id": f"{d.run}/{d.seed_id}"}) for d in pooled])
        wrong = split.estimates()["failed_turns"]
        apart += wrong.low <= 20 <= wrong.high
    assert 0.91 <= together / RUNS <= 0.98
    assert apart / RUNS < 0.85


@pytest.mark.slow
def test_bands_and_mean_of_survival() -> None:
    """Failure at each turn with chance 0.15; dialogues have 3 to 10 turns and a tenth lose a mark somewhere."""
    rng = np.random.default_rng(3)
    truth_T = 0.85 ** np.arange(11)
    hits_T, means = np.zeros(11), 0
    for _ in range(RUNS):
        fails_N, ends_N = rng.geometric(0.15, 100), rng.integers(3, 11, 100)
        lost_N = np.where(rng.random(100) < 0.1, rng.integers(0, 10, 100), 99)
        seen_N = np.minimum(np.minimum(ends_N, lost_N), 10)
        lives = [Lifetime(int(min(f, s)), bool(f <= s)) for f, s in zip(fails_N, seen_N, strict=True)]
        curve = kaplan_meier(lives)
        hits_T += (np.array(curve.low) <= truth_T) & (truth_T <= np.array(curve.high))
        table = table_of(lives)
        found = mean_turns(table, 6)
        means += found.low <= truth_T[:6].sum() <= found.high
    assert (hits_T[1:9] / RUNS >= 0.91).all() and (hits_T[1:9] / RUNS <= 0.985).all()
    assert 0.91 <= means / RUNS <= 0.98


def table_of(lives: list[Lifetime]) -> LifeTable:
    turns = [(GOOD,) * (life.turns - life.failed) + (BAD,) * life.failed for life in lives]
    rows = [DialogueMarks(seed_id=f"{i:03}", kind=DialogueKind.RED_TEAM, turns=t) for i, t in enumerate(turns)]
    return life_table(rows, MarkSettings())


def test_bands_where_hardly_anything_fails() -> None:
    """One failure in 200 turns, 30 dialogues: most samples have none, and their bands still hold the truth."""
    rng, hits = np.random.default_rng(4), 0
    for _ in range(RUNS):
        lives = [Lifetime(int(min(t, 6)), bool(t <= 6)) for t in rng.geometric(0.005, 30)]
        curve = kaplan_meier(lives)
        hits += curve.low[6] <= 0.995**6 <= curve.high[6]
    assert hits / RUNS >= 0.93


def test_a_rate_corrected_for_the_judge() -> None:
    """30 % fail; the judge catches 85 % of them and blames 10 % of the others; 60 answers of each calibrate it."""
    rng, hits, naive = np.random.default_rng(5), 0, 0
    for seed in range(RUNS):
        chance_N = rng.beta(1.5, 3.5, 150)  # mean 0.3
        truly_NT = rng.random((150, 8)) < chance_N[:, None]
        called_NT = np.where(truly_NT, rng.random((150, 8)) < 0.85, rng.random((150, 8)) < 0.10)
        caught, blamed = rng.binomial(60, 0.85), rng.binomial(60, 0.10)
        found = failing(played(called_NT))
        known = Detection(caught, 60 - caught, 60 - blamed, blamed)
        fixed = corrected(called_NT.mean(), found.draws_BK(0)[:, 0] / 100, known, seed)
        hits += fixed.low <= 0.3 <= fixed.high
        plain = found.estimates()["failed_turns"]
        naive += plain.low <= 30 <= plain.high
    assert 0.91 <= hits / RUNS <= 0.985
    assert naive / RUNS < 0.75


@pytest.mark.parametrize("n", [5, 40])
def test_at_the_edge_it_is_the_binomial_law(n: int) -> None:
    for value, hits in ((0.0, 0), (100.0, n)):
        interval = binomtest(hits, n).proportion_ci(method="exact")
        assert at_the_edge(value, n) == pytest.approx((100 * interval.low, 100 * interval.high))
    found = failing(played(np.zeros((n, 3), dtype=bool))).estimates()["failed_turns"]
    assert found.value == found.low == 0 and found.high == pytest.approx(at_the_edge(0.0, n)[1])
