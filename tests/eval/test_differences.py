"""Differences of two students: paired by hand, exact p, and what they must obey."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings

from steer_verl.eval.config import MarkSettings
from steer_verl.eval.differences import PRIMARY, Difference, average_differences, differences
from steer_verl.eval.figures import Figures, figures_of
from steer_verl.eval.marks import DialogueMarks, marks_of_run
from steer_verl.statistics.intervals import Interval

from .synthetic import make_run
from .test_bounds import with_gaps


def marks(n: int = 40, seed: int = 0, name: str = "set", **how: object) -> list[DialogueMarks]:
    return marks_of_run(make_run(sizes={name: n}, seed=seed, **how).dialogues)


def of(rows: list[DialogueMarks]) -> Figures:
    return figures_of(rows, MarkSettings())


def test_pairs_by_hand() -> None:
    """The twin pairs by hand: the dialogues that both have, of them those that count in both."""
    one, other = marks(seed=1, quality=0.9, gaps=0.1), marks(50, seed=2, quality=0.7, gaps=0.1)
    each = [{d.key: of([d]).estimates().get("harmless_pass") for d in rows} for rows in (one, other)]
    both = [key for key in each[0] if key in each[1] and all(side[key].value is not None for side in each)]
    found = differences(of(one), of(other))["harmless_pass"]
    assert found.value == pytest.approx(np.mean([each[0][k].value - each[1][k].value for k in both]))
    assert (found.pairs, found.left_out) == (len(both), 50 - len(both)) and found.low < found.value < found.high


def every_swap(
    one: list[DialogueMarks], other: list[DialogueMarks], value: Callable[[list[DialogueMarks]], float]
) -> float:
    """The exact p of a figure by going through every way to swap who made which record."""
    seen = abs(value(one) - value(other))
    extreme = []
    for coins in itertools.product([False, True], repeat=len(one)):
        swapped = [(b, a) if coin else (a, b) for a, b, coin in zip(one, other, coins, strict=True)]
        extreme.append(abs(value([a for a, _ in swapped]) - value([b for _, b in swapped])) >= seen - 1e-9)
    return float(np.mean(extreme))


@pytest.mark.parametrize("name", ["harmless", "failed_turns", "survival", "survival:3", "mean_turns"])
def test_every_p_is_that_of_swapping_records(name: str) -> None:
    """Survival too: dialogues are swapped whole, with all that was seen of them."""
    one, other = (marks(7, seed=seed, quality=q, gaps=0, turns=(4, 8)) for seed, q in ((3, 0.9), (4, 0.6)))
    last = min(of(one).reach, of(other).reach)
    exact = every_swap(one, other, lambda rows: of(rows).estimates(last)[name].value)
    assert differences(of(one), of(other))[name].p == pytest.approx(exact)


def held_to(d: DialogueMarks, turn: int) -> DialogueMarks:
    """The dialogue, had it been held to this turn and lost after it."""
    turns = [t.model_copy(update={"harmless": 3 if i <= turn else -3}) for i, t in enumerate(d.turns, start=1)]
    return d.model_copy(update={"turns": tuple(turns)})


def test_a_p_belongs_to_its_own_figure() -> None:
    """Both hold every dialogue to turn 3; what happens later is no evidence of a difference there."""
    one = [held_to(d, 9) for d in marks(80, gaps=0, turns=(8, 8))]
    broken = [held_to(d, 4) for d in marks(80, gaps=0, turns=(8, 8))]
    found = differences(of(one), of(broken))
    assert found["survival:3"].value == 0 and found["survival:3"].p == 1
    assert found["survival:3"].low < 0 < found["survival:3"].high
    assert found["survival"].value == 100 and found["survival"].p == pytest.approx(1e-4)


@settings(max_examples=40, deadline=None)
@given(with_gaps())
def test_the_same_student_twice_differs_in_nothing(sets: tuple[list[DialogueMarks], list[DialogueMarks]]) -> None:
    whole = figures_of(sets[1], MarkSettings(horizon=4))
    for name, found in differences(whole, whole).items():
        if found.value is not None:
            assert found.value == 0 and found.p == 1 and not found.clear
            assert found.low < 0 < found.high or (name == "mean_turns" and whole.reach == 1), name
        else:
            assert found.p is None and (found.pairs == 0 or name.startswith(("survival", "mean_turns"))), name


def test_swapping_the_models_negates_every_difference() -> None:
    one, other = of(marks(seed=1, gaps=0.1)), of(marks(seed=2, gaps=0.1, quality=0.8))
    there, back = differences(one, other), differences(other, one)
    for name, found in there.items():
        turned = back[name]
        assert (-turned.value, -turned.high, -turned.low) == pytest.approx((found.value, found.low, found.high)), name
        assert turned.p == pytest.approx(found.p, abs=0.02) and turned.pairs == found.pairs


def test_what_was_lost_on_the_way_is_no_pair_and_no_difference() -> None:
    """Of one student only the first turn was rated, and in every second dialogue the third, too."""

    def lost_after(d: DialogueMarks, turn: int) -> DialogueMarks:
        turns = [t.model_copy(update={"harmless": t.harmless if i <= turn else None}) for i, t in enumerate(d.turns, 1)]
        return d.model_copy(update={"turns": tuple(turns)})

    whole = [held_to(d, 5) for d in marks(40, gaps=0, turns=(8, 8))]
    found = differences(of([lost_after(d, 1) for d in whole]), of(whole))
    assert (found["survival:1"].value, found["survival:1"].pairs) == (0, 40)
    for name in ("survival:2", "survival", "mean_turns"):
        gap = found[name]
        assert (gap.value, gap.low, gap.p, gap.pairs, gap.left_out) == (None, None, None, 0, 40), name
    half = differences(of([lost_after(d, 1 + 2 * (i % 2)) for i, d in enumerate(whole)]), of(whole))
    assert [half[f"survival:{t}"].pairs for t in (1, 2, 3, 4)] == [40, 20, 20, 0]
    assert half["survival:3"].value == 0 and half["survival:4"].value is None


def test_pairing_cancels_what_both_share() -> None:
    before = marks(60, gaps=0, quality=0.6)
    better = [
        d.model_copy(update={"turns": (d.turns[0].model_copy(update={"harmless": 3}), *d.turns[1:])}) for d in before
    ]
    found = differences(of(better[::-1]), of(before))["failed_turns"]
    alone = of(before).estimates()["failed_turns"]
    assert found.high < 0 and found.high - found.low < alone.high - alone.low


def test_averages_are_means_of_differences_with_a_p_of_their_own() -> None:
    pairs = [(of(marks(30, s, n, quality=0.9)), of(marks(30, s + 9, n, quality=0.7))) for s, n in ((1, "a"), (2, "b"))]
    last = min(side.reach for pair in pairs for side in pair)
    found, each = average_differences(pairs), [differences(*pair, last=last) for pair in pairs]
    for name in PRIMARY[:3]:
        assert found[name].value == pytest.approx(np.mean([one[name].value for one in each]))
        assert found[name].pairs == sum(one[name].pairs for one in each)
        assert (
            found[name].p <= max(one[name].p for one in each) and found[name].low < found[name].value < found[name].high
        )
    same = average_differences([(one, one) for one, _ in pairs])
    assert all(d.value == 0 and d.p == 1 for d in same.values() if d.value is not None)


def test_no_common_dialogue_is_no_difference() -> None:
    one = marks(10)
    strange = [d.model_copy(update={"digest": f"{d.digest}x"}) for d in one]
    found = differences(of(one), of(strange))["harmless"]
    assert (found.value, found.low, found.p, found.pairs, found.left_out) == (None, None, None, 0, 20)


def test_seeds_are_paired() -> None:
    """Three seeds in which the second way is better by 30, 30 and 0 of the same dialogues: the seeds disagree."""
    before = [d for run in range(3) for d in marks(60, seed=run, run=run, gaps=0, quality=0.5)]
    after = [d for run, q in enumerate((0.9, 0.9, 0.5)) for d in marks(60, seed=run, run=run, gaps=0, quality=q)]
    found = differences(of(after), of(before))["harmless"]
    each = [
        of([d for d in after if d.run == run]).estimates()["harmless"].value
        - of([d for d in before if d.run == run]).estimates()["harmless"].value
        for run in range(3)
    ]
    assert found.over_seeds.value == pytest.approx(np.mean(each)) and found.over_seeds.low < 0 < found.low
    assert found.p < 0.001 and not found.model_copy(update={"adjusted": found.p}).clear
    assert differences(of(after), of([d for d in before if d.run == 0]))["harmless"].over_seeds is None


def test_what_is_clear() -> None:
    plain = Difference(value=1.0, low=0.5, high=1.5, pairs=9, left_out=0, p=0.001)
    assert not plain.clear, "only what was corrected is starred"
    assert plain.model_copy(update={"adjusted": 0.01}).clear
    between = {"adjusted": 0.01, "over_seeds": Interval(1.0, -1.0, 3.0)}
    assert not plain.model_copy(update=between).clear
