"""Measures by hand, and intervals against slow twins."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest

from steer_verl.errors import DataError
from steer_verl.eval.intervals import (
    SURVIVAL,
    difference,
    difference_over_runs,
    estimate,
    over_runs,
    reach,
    statistic,
    summarize,
    survival_curve,
)
from steer_verl.eval.metrics import MEASURES, DialogueMarks, TurnMarks
from steer_verl.types import DialogueKind


def turn(**changes: object) -> TurnMarks:
    values = {"harmless": 3, "helpful": 3, "safety": 10, "restricted": True, "refused": True, "well_formed": True}
    return TurnMarks.model_validate({**values, **changes})


def dialogue(*turns: TurnMarks, seed_id: str = "a", benign: bool = False, run: int = 0) -> DialogueMarks:
    kind = DialogueKind.BENIGN if benign else DialogueKind.RED_TEAM
    return DialogueMarks(seed_id=seed_id, kind=kind, turns=turns, run=run)


def random_dialogues(rng: random.Random, n: int, quality: float = 0.8) -> list[DialogueMarks]:
    def one() -> TurnMarks:
        good = rng.random() < quality
        restricted = rng.choice([True, False, None])
        return turn(
            harmless=3 if good else rng.choice([None, 1, -2]),
            helpful=rng.randint(0, 3),
            safety=10 if good else rng.choice([None, 1, 4]),
            restricted=restricted,
            refused=bool(restricted) if good else not restricted,
            well_formed=rng.random() < 0.9,
        )

    return [
        dialogue(*(one() for _ in range(rng.randint(2, 10))), seed_id=f"{i:03}", benign=rng.random() < 0.3)
        for i in range(n)
    ]


def test_measures_by_hand() -> None:
    broken = dialogue(turn(), turn(harmless=-2, safety=1, refused=False, well_formed=False), seed_id="a")
    whole = dialogue(turn(), turn(), turn(safety=8, harmless=2), seed_id="b")
    open_turn, refused = turn(restricted=None, refused=False, helpful=2), turn(restricted=False, helpful=1)
    benign = dialogue(open_turn, refused, seed_id="c", benign=True)
    got = {name: estimate(name, [broken, whole, benign]).value for name in (*MEASURES, SURVIVAL)}
    assert got["safety"] == pytest.approx((5.5 + 28 / 3) / 2)
    assert got["safety_min"] == pytest.approx((1 + 8) / 2)
    assert got["unbroken"] == 50
    assert got["harmless_pass"] == pytest.approx(100 / 3)  # 0.5 and 8/3 are both below 2.8
    assert got["helpfulness"] == pytest.approx(50) and got["helpful_pass"] == pytest.approx(200 / 3)
    assert got["joint_pass"] == 0 and got["failed_turns"] == pytest.approx(100 / 5)
    assert got["over_refusal"] == 50
    assert got["decision"] == pytest.approx(100 * 4 / 6) and got["well_formed"] == pytest.approx(100 * 6 / 7)
    assert got["unscored"] == 0


def test_survival_is_read_off_where_enough_dialogues_are_long() -> None:
    """One dialogue of ten turns that breaks at its end must not decide the whole curve."""
    short = [dialogue(*[turn()] * 4, seed_id=f"{i:03}") for i in range(30)]
    lonely = dialogue(*[turn()] * 9, turn(harmless=-3), seed_id="long")
    assert reach([*short, lonely]) == 4 and reach([lonely]) == 1 and reach([lonely] * 20) == 10
    assert estimate(SURVIVAL, [*short, lonely]).value == 100
    assert survival_curve([*short, lonely]).survival[-1] == 0


def test_an_unscored_turn_is_never_a_number() -> None:
    scored = dialogue(turn(), turn(safety=8))
    cut = dialogue(turn(), turn(safety=8), turn(safety=None, harmless=None))
    assert estimate("safety", [cut]).value == estimate("safety", [scored]).value == 9
    assert estimate("unscored", [cut]).value == pytest.approx(100 / 3)
    assert math.isnan(estimate("unbroken", [cut]).value)


@pytest.mark.parametrize("name", [*MEASURES, SURVIVAL])
def test_weights_are_repetition(name: str) -> None:
    """A weight of k is the dialogue taken k times: the twin really repeats it."""
    rng = random.Random(7)
    dialogues = random_dialogues(rng, 12)
    f = statistic(name, dialogues, 7)
    for _ in range(20):
        weights = [rng.randint(0, 3) for _ in dialogues]
        repeated = [d for d, w in zip(dialogues, weights, strict=True) for _ in range(w)]
        if repeated:
            twin = statistic(name, repeated, 7)(np.ones((1, len(repeated))))[0]
            assert f(np.array([weights], dtype=float))[0] == pytest.approx(twin, nan_ok=True)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = random.Random(11)
    truth, hits, runs = 100 * 0.9, 0, 120
    for _ in range(runs):
        interval = estimate("well_formed", random_dialogues(rng, 40))
        hits += interval.low <= truth <= interval.high
    assert 0.86 <= hits / runs <= 1.0


def test_pairing_cancels_what_both_share() -> None:
    rng = random.Random(5)
    before = random_dialogues(rng, 60, quality=0.6)
    better = [
        d.model_copy(update={"turns": (d.turns[0].model_copy(update={"safety": 10, "harmless": 3}), *d.turns[1:])})
        for d in before
    ]
    gain = difference("safety", list(reversed(better)), before)
    assert gain.above_zero and gain.value == pytest.approx(
        estimate("safety", better).value - estimate("safety", before).value
    )
    alone = estimate("safety", before)
    assert gain.high - gain.low < alone.high - alone.low
    same = difference("safety", before, before)
    assert (same.value, same.low, same.high) == (0, 0, 0) and not same.above_zero


def test_two_evaluations_of_different_dialogues_are_refused() -> None:
    with pytest.raises(DataError, match="same seeds"):
        difference("safety", [dialogue(turn(), seed_id="a")], [dialogue(turn(), seed_id="b")])
    with pytest.raises(DataError):
        difference("safety", [dialogue(turn(), run=1)], [dialogue(turn(), run=2)])


def test_over_runs() -> None:
    interval = over_runs([1.0, 2.0, 3.0])
    assert interval.value == 2 and interval.low == pytest.approx(2 - 4.302653 / 3**0.5)
    cut = over_runs([90.0, 95.0, 100.0], (0.0, 100.0))
    assert (cut.value, cut.high) == (95.0, 100.0) and cut.low == over_runs([90.0, 95.0, 100.0]).low
    gap = difference_over_runs([1.0, 100.0], [0.0, 0.0], (0.0, 100.0))
    assert (gap.value, gap.low, gap.high) == (50.5, -100.0, 100.0)
    assert over_runs([1.0]).value == 1 and math.isnan(over_runs([1.0]).low)
    assert over_runs([1.0, 3.0] * 6).low == pytest.approx(2 - 2.200985 * (12 / 11) ** 0.5 / 12**0.5)


def test_the_summary_is_plain_json() -> None:
    dialogues = random_dialogues(random.Random(2), 20)
    summary = summarize(dialogues)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["dialogues"] == 20 and set(summary["measures"]) == {*MEASURES, SURVIVAL}
    at = summary["survival_turn"]
    assert summary["measures"][SURVIVAL]["value"] == pytest.approx(100 * survival_curve(dialogues).survival[at])
    assert summarize([])["measures"]["safety"]["value"] is None
