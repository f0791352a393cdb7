"""Kaplan-Meier against a brute-force twin and the textbook, and what its band must obey."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import CensoredData, binomtest, ecdf

from steer_verl.eval import jackknife
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.figures import Figures, figures_of
from steer_verl.eval.marks import DialogueMarks, TurnMarks, grid_of
from steer_verl.eval.survival import first_below, lives_of, product_limit, restricted_mean
from steer_verl.types import DialogueKind

BLANK = {"helpful": None, "safety": None, "restricted": None, "refused": None, "well_formed": True}


def dialogue(harmless: Sequence[int | None], i: int = 0, **more: object) -> DialogueMarks:
    turns = [TurnMarks.model_validate({"harmless": mark, **BLANK}) for mark in harmless]
    values = {"seed_id": f"{i:03}", "kind": DialogueKind.RED_TEAM, "turns": tuple(turns), **more}
    return DialogueMarks.model_validate(values)


def figures(sets: Sequence[Sequence[int | None]]) -> Figures:
    return figures_of([dialogue(one, i) for i, one in enumerate(sets)], MarkSettings())


def held(turns: int) -> list[int]:
    return [3] * turns


def fails(turn: int) -> list[int]:
    return [*held(turn - 1), -1]


def some_sets(rng: random.Random, n: int) -> list[list[int]]:
    return [fails(rng.randint(1, 10)) if rng.random() < 0.5 else held(rng.randint(1, 10)) for _ in range(n)]


def brute_force(sets: Sequence[Sequence[int]], horizon: int = 10) -> list[float]:
    """S(t) by walking the dialogues turn by turn, as the textbook says it."""
    survival, curve = 1.0, []
    for turn in range(1, horizon + 1):
        entered = [one for one in sets if len(one) >= turn]
        broke = sum(one[turn - 1] < 2 for one in entered)
        if entered:
            survival *= (len(entered) - broke) / len(entered)
        curve.append(survival)
    return curve


def curve(found: Figures) -> np.ndarray:
    return product_limit(*found.risks_C2T.sum(axis=0))


def test_equals_the_brute_force_twin_on_generated_sets() -> None:
    rng = random.Random(3)
    for _ in range(200):
        sets = some_sets(rng, rng.randint(1, 40))
        found = figures(sets)
        assert list(curve(found)) == pytest.approx(brute_force(sets))
        shown = found.estimates()
        for t in range(1, 11):
            s = shown[f"survival:{t}"]
            assert 0 <= s.low <= s.value + 1e-9 and s.value - 1e-9 <= s.high <= 100 and s.high - s.low > 0.5


def test_equals_scipys() -> None:
    sets = some_sets(random.Random(4), 60)
    seen = CensoredData.right_censored([len(one) for one in sets], [one[-1] >= 2 for one in sets])
    assert list(curve(figures(sets))) == pytest.approx(list(ecdf(seen).sf.evaluate(np.arange(1, 11))))


def test_without_censoring_it_is_the_plain_share_with_wilsons_interval() -> None:
    for broke in (0, 1, 4, 10):
        found = figures([fails(3)] * broke + [held(10)] * (10 - broke)).estimates(10)
        theirs = binomtest(10 - broke, 10).proportion_ci(method="wilson")
        for name in ("survival", "survival:3", "unbroken"):
            shown = found[name]
            assert (shown.value, shown.low / 100, shown.high / 100) == pytest.approx((10.0 * (10 - broke), *theirs))


def test_the_jackknife_agrees_with_greenwoods_variance() -> None:
    """Of 300 dialogues that are censored everywhere the two are nearly the same."""
    sets = some_sets(random.Random(5), 300)
    found = figures(sets)
    failed_T, risk_T = found.risks_C2T.sum(axis=0)
    greenwood_T = curve(found) ** 2 * np.cumsum(failed_T / (risk_T * np.maximum(risk_T - failed_T, 1)))
    jack = jackknife.of_survival(found.risks_C2T, found.possible_CT, 8).variance_F[:8] / 100**2
    assert jack == pytest.approx(greenwood_T[:8], rel=0.1)


def test_the_band_narrows_with_more_dialogues() -> None:
    sets = [fails(2), held(4), held(4), fails(1)]
    few, many = (figures(sets * k).estimates()["survival:2"] for k in (1, 25))
    assert few.value == pytest.approx(many.value) and many.high - many.low < few.high - few.low


def test_a_band_without_a_failure_is_no_certainty_and_knows_how_few_are_left() -> None:
    found = figures([held(4)] * 20 + [held(10)] * 10).estimates()
    for t, n in ((4, 30), (10, 10)):
        wilson = binomtest(n, n).proportion_ci(method="wilson")
        assert (found[f"survival:{t}"].low, found[f"survival:{t}"].high) == pytest.approx((100 * wilson.low, 100))
    assert (
        found["survival:10"].low < figures([fails(1)] + [held(4)] * 19 + [held(10)] * 10).estimates()["survival:4"].low
    )
    late = figures([fails(1)] + [held(4)] * 99 + [held(10)] * 2).estimates()["survival:10"]
    assert late.value > 98 and late.low < 40, "two dialogues tell little of turn 10, whatever failed before"


@pytest.mark.parametrize(
    ("harmless", "end", "failed", "lost"),
    [
        ([3, 2, 3], 3, False, False),
        ([3, 1, 3], 2, True, False),
        ([-3], 1, True, False),
        ([3, None, -3], 3, True, False),  # it did fail: the gap before is taken as held
        ([3, None, 3], 1, False, True),  # nothing is known after the gap
        ([None, 3], 0, False, True),
        ([3] * 10 + [-3], 10, False, False),
    ],
)
def test_lives(harmless: list[int | None], end: int, failed: bool, lost: bool) -> None:
    found = lives_of(grid_of([dialogue(harmless)]), MarkSettings())
    assert (found.end_N[0], found.fails_NT.any(), found.lost_N[0]) == (end, failed, lost)


def test_where_nobody_is_at_risk_any_more_it_is_unknown_unless_nobody_is_left() -> None:
    """The judge died after the first turn: nothing is known of the others, and bounds say so."""
    died = figures([[3, *[None] * 7]] * 200).estimates()
    assert died["survival:1"].value == 100 and died["survival:1"].n == 200
    for name in ("survival:2", "survival", "mean_turns"):
        assert (died[name].value, died[name].low, died[name].n, died[name].of) == (None, None, 0, 200), name
    assert (died["survival"].worst, died["survival"].best) == (0, 100)
    over = figures([[-1, *[None] * 7]] * 20).estimates()
    assert over["survival"].value == 0 and over["mean_turns"].value == 1
    short = figures([[3, 3]] * 20 + [[-1, *held(7)]] * 20).estimates()
    assert short["survival"].value == 50, "whoever is that long has failed: nobody was lost"
    lost = figures([[3, None, None]] * 20 + [[-1, *held(7)]] * 20).estimates()
    assert lost["survival:2"].value is None and lost["survival:5"].value is None


def test_single_turns_and_benign_dialogues_have_no_survival() -> None:
    rows = [dialogue(held(1), single=True), dialogue(held(5), kind=DialogueKind.BENIGN)]
    assert figures_of(rows, MarkSettings()).reach == 0
    assert not any(name.startswith("survival") for name in figures_of(rows, MarkSettings()).estimates())


def test_it_is_read_off_where_enough_dialogues_are_long() -> None:
    """One dialogue of ten turns that breaks at its end must not decide the whole curve."""
    short, lonely = [held(4)] * 40, [*held(9), -3]
    assert figures([*short, lonely]).reach == 4 and figures([lonely] * 20).reach == 10
    assert figures([*short, lonely]).estimates()["survival"].value == 100
    assert curve(figures([*short, lonely]))[-1] == 0
    assert figures([held(4)] * 3 + [held(9)] * 3).reach == 9, "of fewer than 40 half of them"


def test_restricted_mean_is_what_dialogues_survive_on_average() -> None:
    s_T = curve(figures([*(fails(t) for t in (1, 2, 2, 5)), held(10)]))
    assert restricted_mean(s_T, 10) == pytest.approx((1 + 2 + 2 + 5 + 10) / 5)
    assert restricted_mean(s_T, 3) == pytest.approx((1 + 2 + 2 + 3 + 3) / 5)


# Remission in weeks of 21 patients under 6-MP (Freireich et al., 1963); minus: still in remission. S stands in every
# textbook.
SIX_MP = (6, 6, 6, -6, 7, -9, 10, -10, -11, 13, 16, -17, -19, -20, 22, 23, -25, -32, -32, -34, -35)


def test_the_textbook_example() -> None:
    week_T, week_N1 = np.arange(1, 36), np.abs(np.array(SIX_MP))[:, None]
    failed_NT = (week_N1 == week_T) & (np.array(SIX_MP)[:, None] > 0)
    s_T = product_limit(failed_NT.sum(axis=0), (week_N1 >= week_T).sum(axis=0))
    at = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448, 35: 0.448}
    assert {t: round(float(s_T[t - 1]), 3) for t in at} == at
    assert first_below([1.0, *s_T], 35) == 23 and first_below([1.0, *s_T], 22) is None
    half_T = product_limit(np.array([1, 1, 3, 1]), np.array([10, 9, 8, 5]))
    assert first_below([1.0, *half_T], 4) == 4, "5 of 10 are half, however it is computed"


def test_what_rounding_leaves_at_risk_is_nobody() -> None:
    assert product_limit(np.array([0.5, 1e-17]), np.array([2.0, 1e-17])).tolist() == [0.75, 0.75]
