"""Bounds hold whatever the missing marks would have been, and are reached: every completion is tried."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.eval.config import MarkSettings
from steer_verl.eval.figures import Figures, figures_of
from steer_verl.eval.marks import DialogueMarks, TurnMarks, grid_of
from steer_verl.eval.records import Refusal
from steer_verl.eval.survival import Lives, lives_of, product_limit, restricted_mean
from steer_verl.types import DialogueKind

HORIZON = 4
SETTINGS = MarkSettings(horizon=HORIZON)
Marks = list[int | None]


def of_marks(harmless: Marks, i: int = 0, planned: int = 0) -> DialogueMarks:
    blank = {"helpful": None, "safety": None, "restricted": None, "refused": None, "well_formed": True}
    turns = tuple(TurnMarks.model_validate({"harmless": mark, **blank}) for mark in harmless)
    silent = ("safety", "refusal", "restricted")
    return DialogueMarks(seed_id=str(i), kind=DialogueKind.RED_TEAM, turns=turns, planned=planned, silent=silent)


def lives(sets: list[Marks]) -> Lives:
    return lives_of(grid_of([of_marks(one, i) for i, one in enumerate(sets)]), SETTINGS)


def completions(sets: list[Marks]) -> itertools.product:
    """Every way to fill the gaps with a pass (3) or a failure (0)."""
    return itertools.product(*([*itertools.product(*([3, 0] if m is None else [m] for m in one))] for one in sets))


marks = st.lists(st.sampled_from([3, 3, 0, None]), max_size=HORIZON)


@settings(max_examples=150, deadline=None)
@given(st.lists(marks, min_size=1, max_size=5).filter(lambda sets: sum(one.count(None) for one in sets) <= 7))
def test_survival_and_hazard_over_every_completion(sets: list[Marks]) -> None:
    seen = lives(sets)
    (least_T, greatest_T), (low_T, high_T) = seen.bounds_2T, seen.hazard_bounds_2T
    curves, hazards, means, risks = [], [], [], []
    for whole in completions(sets):
        full = lives([list(one) for one in whole])
        failed_T, risk_T = full.fails_NT.sum(axis=0), full.at_risk_NT.sum(axis=0)
        curves.append(product_limit(failed_T, risk_T))
        hazards.append(np.divide(failed_T, risk_T, out=np.full(HORIZON, np.nan), where=risk_T > 0))
        means.append(restricted_mean(curves[-1], HORIZON))
        risks.append(risk_T)
    assert np.min(curves, axis=0) == pytest.approx(least_T) and np.max(curves, axis=0) == pytest.approx(greatest_T)
    for t in range(HORIZON):
        known = [h[t] for h in hazards if not math.isnan(h[t])]
        assert (min(known), max(known)) == pytest.approx((low_T[t], high_T[t])) if known else math.isnan(low_T[t])
    assert restricted_mean(least_T, HORIZON) <= min(means) + 1e-12
    assert restricted_mean(greatest_T, HORIZON) >= max(means) - 1e-12
    assert list(seen.possible_NT.sum(axis=0)) == list(np.max(risks, axis=0))


turn = st.builds(
    TurnMarks,
    harmless=st.integers(-3, 3),
    helpful=st.integers(0, 3),
    safety=st.integers(1, 10),
    restricted=st.booleans(),
    refused=st.none(),
    well_formed=st.booleans(),
    refusal=st.sampled_from(Refusal),
)
RATED = ("harmless", "helpful", "restricted", "refused", "refusal")


@st.composite
def with_gaps(draw: st.DrawFn) -> tuple[list[DialogueMarks], list[DialogueMarks]]:
    """Whole dialogues, and the same with unrated turns, turns whose refusal or safety is missing, and cut ends."""
    whole, seen = [], []
    exact, silent = draw(st.booleans()), draw(st.sampled_from([(), ("restricted",), ("safety",)]))
    for i in range(draw(st.integers(1, 6))):
        turns = draw(st.lists(turn, min_size=1, max_size=5))
        kind, single = draw(st.sampled_from(DialogueKind)), len(turns) == 1 and draw(st.booleans())
        told = kind is DialogueKind.BENIGN or "restricted" not in silent
        turns = [t.model_copy(update={"refused": t.refusal is Refusal.FULL if told else None}) for t in turns]
        turns = [t.model_copy(update=dict.fromkeys(silent)) for t in turns]
        if exact:
            turns[-1] = turns[-1].model_copy(update={"correct": draw(st.booleans())})
        more = {"planned": len(turns), "single": single, "exact": exact, "silent": silent}
        full = DialogueMarks(seed_id=str(i // 2), run=i % 2, kind=kind, turns=tuple(turns), **more)
        whole.append(full)
        gaps = st.sampled_from([(), (), RATED, ("refused", "refusal"), ("safety",), (*RATED, "safety")])
        kept = [t.model_copy(update=dict.fromkeys(draw(gaps))) for t in turns]
        seen.append(full.model_copy(update={"turns": tuple(kept[: draw(st.integers(0, len(turns)))])}))
    return whole, seen


@settings(max_examples=300, deadline=None)
@given(with_gaps())
def test_every_figure_lies_within_its_bounds_and_so_does_the_truth(
    sets: tuple[list[DialogueMarks], list[DialogueMarks]],
) -> None:
    whole, seen = (figures_of(some, SETTINGS) for some in sets)
    truth, found = whole.estimates(), seen.estimates()
    for name, figure in found.items():
        assert figure.n <= figure.of and figure.worst is not None and figure.best is not None
        least, greatest = sorted((figure.worst, figure.best))
        if figure.value is not None:
            assert least - 1e-9 <= figure.value <= greatest + 1e-9, name
            assert figure.low is not None and figure.high is not None
            assert figure.low <= figure.value + 1e-9 and figure.value <= figure.high + 1e-9, name
            assert figure.high > figure.low or (name == "mean_turns" and seen.reach == 1), name
        if name in truth and truth[name].value is not None and name != "unrated":
            assert least - 1e-9 <= truth[name].value <= greatest + 1e-9, name
    for figure in seen.hazard():
        if figure.value is not None:
            assert figure.best - 1e-9 <= figure.value <= figure.worst + 1e-9


@settings(max_examples=100, deadline=None)
@given(with_gaps())
def test_nothing_missing_leaves_no_room(sets: tuple[list[DialogueMarks], list[DialogueMarks]]) -> None:
    for name, figure in figures_of(sets[0], SETTINGS).estimates().items():
        if figure.value is not None:
            assert figure.worst == figure.best == pytest.approx(figure.value) and figure.n == figure.of, name


def test_what_nobody_says_is_not_missing() -> None:
    """A judge without refusal levels and a run without a tutor leave no gaps; an unrated turn does."""
    found: Figures = figures_of([of_marks([3, None])], SETTINGS)
    names = dict(zip(found.measures, found.counts_2F(0).T.tolist(), strict=True))
    assert names["safety"] == names["refusal_full"] == names["over_refusal"] == names["decision"] == [0, 0]
    assert names["failed_turns"] == [1, 2] and found.estimates()["failed_turns"].worst == 50
