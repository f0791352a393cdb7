"""What is measured on a run: the records of ``summary.json`` (:func:`steer_verl.eval.summary.summarize`).

Percentages are 0..100, survival is a probability 0..1, turns count from 1.
"""

from __future__ import annotations

from typing import Any

from steer_verl.eval.estimate import Estimate
from steer_verl.types import Record


class MeasureAbout(Record):
    """How a measure is called, and read."""

    title: str
    """Such as ``harmless pass``."""
    unit: str
    """``%``, ``-3..3``, ``0..3`` or ``1..10``."""
    decimals: int
    per: str
    """``dialogue`` or ``turn``: what ``n`` and ``of`` of an estimate count."""
    better: str
    """``high`` or ``low``."""


class Span(Record):
    """A number of turns with its 95 % interval; ``null`` where the event does not come within ``reach`` turns."""

    value: int | None
    low: int | None
    high: int | None


class Survival(Record):
    """The attacked dialogues by turn. Lists over turns 0..horizon begin with the start: S(0) = 1."""

    dialogues: int
    horizon: int
    reach: int
    """The last turn that at least 20 attacked dialogues have (of fewer than 40, half of them): beyond it a single
    failure decides."""
    survival: list[float]
    """Kaplan-Meier S(t), t = 0..horizon. Where it is unknown, for all who may still be at risk were lost, it stays what
    it was, and ``low`` is 0."""
    low: list[float]
    high: list[float]
    worst: list[float]
    """The least S(t) that the unrated and unplayed turns could have led to, and (``best``) the greatest; S(t) lies
    between them."""
    best: list[float]
    at_risk: list[int]
    """Dialogues that entered turn t; ``at_risk[0]`` is all of them."""
    failures: list[int]
    """First failures at turn t = 0..horizon (0 at t = 0)."""
    censored_unrated: list[int]
    """Dialogues lost to view after turn t because the next one is unrated or was not played."""
    never: int
    """Dialogues that were rated to their end (or the horizon) without a failure."""
    hazard: list[Estimate]
    """For turns 1..horizon: share of those at risk that fail at this turn, in percent."""
    mean_turns: Estimate
    """Restricted mean survival: turns survived of the first ``reach``; ``n`` and ``of`` count dialogues."""
    at: Estimate
    """S at turn ``reach``, in percent."""
    risk_zone: Span
    """The first turn with S(t) < 0.5: the median survival."""


class Heat(Record):
    """How many answers got which mark at which turn."""

    turns: list[int]
    """The rows: 1, 2, ... up to the longest dialogue."""
    harmless_marks: list[str]
    """The columns: "3" .. "-3", "unrated" (no rating), "unplayed" (planned, but never asked)."""
    harmless: list[list[int]]
    """``harmless[row][column]``."""
    helpful_marks: list[str]
    helpful: list[list[int]]


class Strategy(Record):
    """Turns of attacked dialogues that were asked in one way."""

    asked: int
    rated: int
    failed: int
    success: Estimate
    """Share of them that failed, in percent (attack success)."""
    by_turn: list[list[int]]
    """``[rated, failed]`` at turn 1, 2, ..."""


class Refusals(Record):
    """Answers by refusal level, counts."""

    full: int
    partial: int
    none: int
    unsaid: int
    """Rated, but the judge does not say."""
    unrated: int
    unplayed: int


class Subset(Record):
    """One benchmark, or all dialogues together."""

    single_turn: bool
    """Every item has one turn: a pass is then the mark 3 itself instead of a mean."""
    dialogues: int
    attacked: int
    benign: int
    whole: int
    """Played to the end, every turn rated."""
    planned_turns: int
    played_turns: int
    rated_turns: int
    ends: dict[str, int]
    """``completed``, ``student_failed``, ``unplayable`` -> dialogues."""
    end_details: dict[str, int]
    """Why dialogues ended early: text -> dialogues (the 20 commonest)."""
    unrated: dict[str, int]
    """Reason -> planned turns without a rating; ``unplayed`` for those that were never asked."""
    oddities: dict[str, int]
    """What is unusual about rows -> dialogues."""
    measures: dict[str, Estimate]
    """Measure -> figure; a measure that does not apply here is absent."""
    corrected: dict[str, Estimate]
    """``failed_turns``, corrected for the judge's errors; empty without a calibration."""
    survival: Survival | None
    """``None`` without attacked dialogues of several turns."""
    heat: Heat
    strategies: dict[str, Strategy]
    """How the question came about -> figures: the tutor's strategy, or ``seed`` (the opening), ``static`` (the
    benchmark's own next question), ``fallback`` (the same, because the tutor gave none)."""
    by_turn: list[Estimate]
    """Share of attacked turns 1, 2, ... that failed, in percent."""
    refusals: dict[str, Refusals]
    """``benign`` and ``attacked`` -> counts."""


class Average(Record):
    """Unweighted mean over subsets."""

    benchmarks: list[str]
    measures: dict[str, Estimate]
    """``n`` and ``of`` are summed over the subsets. Only measures that every one of ``benchmarks`` has."""


class Summary(Record):
    """The whole file."""

    version: int
    """1."""
    name: str
    student: str
    judge: str
    tutor: str
    attack: str
    date: str
    marks: dict[str, float]
    """Thresholds (steer_verl/eval/config.py, MarkSettings)."""
    runs: list[int]
    """Training seeds whose dialogues are in here."""
    about: dict[str, MeasureAbout]
    """Every measure that occurs below, in the order of tables."""
    benchmarks: dict[str, Subset]
    """In the order of the configuration."""
    averages: dict[str, Average]
    """``multi_turn`` and ``single_turn``, each where there is a subset of its sort with attacked dialogues."""
    all: Subset
    usage: dict[str, Any]
    """``total`` (Usage of all paid calls), ``tutor`` (Usage), ``answer_tokens``, ``student_seconds``,
    ``tutor_seconds``, ``seconds``."""
