"""Bounds hold whatever the missing marks would have been, and are reached: every completion is tried."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.eval.bounds import hazard_bounds, possible_at_risk, survival_bounds, turns_of
from steer_verl.eval.contributions import contributions
from steer_verl.eval.marks import FILLS, DialogueMarks, TurnMarks, filled
from steer_verl.eval.metrics import MEASURES
from steer_verl.eval.records import Refusal
from steer_verl.eval.survival import counts, kaplan_meier, lifetime, restricted_mean
from steer_verl.types import DialogueKind

HORIZON = 4
Marks = list[int | None]


def of_marks(harmless: Marks, i: int = 0) -> DialogueMarks:
    blank = {"helpful": None, "safety": None, "restricted": None, "refused": None, "well_formed": True}
    turns = tuple(TurnMarks.model_validate({"harmless": mark, **blank}) for mark in harmless)
    return DialogueMarks(seed_id=str(i), kind=DialogueKind.RED_TEAM, turns=turns)


def completions(sets: list[Marks]) -> itertools.product:
    """Every way to fill the gaps with a pass (3) or a failure (0)."""
    return itertools.product(*([*itertools.product(*([3, 0] if m is None else [m] for m in one))] for one in sets))


marks = st.lists(st.sampled_from([3, 3, 0, None]), max_size=HORIZON)


@settings(max_examples=150, deadline=None)
@given(st.lists(marks, min_size=1, max_size=5).filter(lambda sets: sum(one.count(None) for one in sets) <= 7))
def test_survival_and_hazard_over_every_completion(sets: list[Marks]) -> None:
    turns = turns_of([of_marks(one) for one in sets], HORIZON)
    least_T, greatest_T = survival_bounds(turns)
    low_T, high_T = hazard_bounds(turns)
    curves, hazards, means, risks = [], [], [], []
    for whole in completions(sets):
        lives = [lifetime(one, HORIZON) for one in whole]
        failed_T, risk_T = (array.sum(axis=0) for array in counts(lives, HORIZON))
        curves.append(kaplan_meier(lives, HORIZON).survival[1:])
        hazards.append(np.divide(failed_T, risk_T, out=np.full(HORIZON, np.nan), where=risk_T > 0))
        means.append(restricted_mean(np.array(curves[-1]), HORIZON))
        risks.append(risk_T)
    assert np.min(curves, axis=0) == pytest.approx(least_T) and np.max(curves, axis=0) == pytest.approx(greatest_T)
    for t in range(HORIZON):
        known = [h[t] for h in hazards if not math.isnan(h[t])]
        assert (min(known), max(known)) == pytest.approx((low_T[t], high_T[t])) if known else math.isnan(low_T[t])
    assert restricted_mean(least_T, HORIZON) <= min(means) + 1e-12
    assert restricted_mean(greatest_T, HORIZON) >= max(means) - 1e-12
    assert list(possible_at_risk(turns)) == list(np.max(risks, axis=0))


turn = st.builds(
    TurnMarks,
    harmless=st.integers(-3, 3),
    helpful=st.integers(0, 3),
    safety=st.integers(1, 10),
    restricted=st.booleans(),
    refused=st.booleans(),
    well_formed=st.booleans(),
    refusal=st.sampled_from(Refusal),
)


@st.composite
def with_gaps(draw: st.DrawFn) -> tuple[list[DialogueMarks], list[DialogueMarks]]:
    """Whole dialogues, and the same with unrated turns and cut ends."""
    whole, seen = [], []
    for i in range(draw(st.integers(1, 5))):
        turns = draw(st.lists(turn, min_size=1, max_size=4))
        exact = draw(st.booleans())
        if exact:
            turns[-1] = turns[-1].model_copy(update={"correct": draw(st.booleans())})
        kind, single = draw(st.sampled_from(DialogueKind)), len(turns) == 1 and draw(st.booleans())
        full = DialogueMarks(
            seed_id=str(i), kind=kind, turns=tuple(turns), planned=len(turns), single=single, exact=exact
        )
        whole.append(full)
        gone = dict.fromkeys(("harmless", "helpful", "safety", "restricted", "refused", "refusal"))
        rated = [t.model_copy(update=gone) if draw(st.booleans()) else t for t in turns]
        seen.append(full.model_copy(update={"turns": tuple(rated[: draw(st.integers(0, len(turns)))])}))
    return whole, seen


@settings(max_examples=200, deadline=None)
@given(with_gaps())
def test_every_measure_lies_within_its_bounds_whatever_was_missing(
    sets: tuple[list[DialogueMarks], list[DialogueMarks]],
) -> None:
    whole, seen = sets
    measures = {name: measure for name, measure in MEASURES.items() if not measure.missing}
    truth_K = contributions(whole, measures).values_K
    found = contributions(seen, measures)
    for name, value, (least, greatest) in zip(measures, truth_K, found.bounds_2K.T, strict=True):
        if not math.isnan(value):
            assert least - 1e-9 <= value <= greatest + 1e-9, name
    for name, value, (least, greatest) in zip(measures, found.values_K, found.bounds_2K.T, strict=True):
        if not math.isnan(value) and name != "unbroken":  # which leaves half-judged dialogues out, broken ones too
            assert least - 1e-9 <= value <= greatest + 1e-9, name


def test_nothing_missing_leaves_no_room() -> None:
    d = DialogueMarks(
        seed_id="a", kind=DialogueKind.RED_TEAM, turns=(FILLS[0], FILLS[1].model_copy(update={"correct": None}))
    )
    assert all(filled(d, fill) is d for fill in FILLS)
    found = contributions([d], MEASURES)
    known = ~np.isnan(found.values_K)
    assert (found.bounds_2K[:, known] == found.values_K[known]).all()


def test_what_nobody_says_is_not_missing() -> None:
    """A judge without refusal levels and a run without a tutor leave no gaps; an unrated turn does."""
    plain = of_marks([3, None]).model_copy(update={"silent": ("safety", "refusal", "restricted")})
    worst = filled(plain, FILLS[0])
    assert worst.turns[1].harmless == -3 and worst.turns[1].helpful == 0
    assert all((t.safety, t.refusal, t.refused) == (None, None, None) for t in worst.turns)
