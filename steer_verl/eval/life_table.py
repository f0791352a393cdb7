"""The attacked dialogues of several turns by turn: survival, hazard, mean and median, with intervals and bounds.

Arrays: C clusters (:mod:`steer_verl.eval.contributions`), T turns, B resamples.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from steer_verl.eval.bounds import Turns, hazard_bounds, possible_at_risk, survival_bounds, turns_of
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.contributions import Estimate, Key, estimate_of, key_of, ratio
from steer_verl.eval.intervals import REACHED_BY, reach
from steer_verl.eval.marks import DialogueMarks
from steer_verl.eval.metrics import Measure
from steer_verl.eval.summary_shape import SpanJson, SurvivalJson
from steer_verl.eval.survival import (
    Curve,
    Lifetime,
    counts,
    first_below,
    kaplan_meier,
    lifetime,
    product_limit,
    restricted_mean,
)
from steer_verl.statistics import interval_of, weights

HAZARD = Measure(lambda d, marks: (0.0, 0.0), "failed of those at risk", better="low")
"""How a share of those at risk is read."""


@dataclass(frozen=True)
class LifeTable:
    """Attacked dialogues of several turns and how long each held."""

    dialogues: tuple[DialogueMarks, ...]
    lives: tuple[Lifetime, ...]
    marks: MarkSettings
    keys: tuple[Key, ...]
    """The clusters, sorted."""
    failed_CT: np.ndarray
    at_risk_CT: np.ndarray

    @property
    def reach(self) -> int:
        """The last turn to speak of: that 20 dialogues have, or half of fewer than 40."""
        return reach(self.dialogues, max(1, min(REACHED_BY, (len(self.dialogues) + 1) // 2)), self.marks.horizon)

    @property
    def turns(self) -> Turns:
        """Where the dialogues fail and where they are unknown."""
        return turns_of(self.dialogues, self.marks.horizon, self.marks.fail_below)

    def rated(self, last: int) -> int:
        """Dialogues that were not lost to view before turn ``last`` for want of a mark."""
        return len(self.lives) - sum(_lost(self)[:last])

    @property
    def survival_T(self) -> np.ndarray:
        """S(t), t = 1..T."""
        return product_limit(self.failed_CT.sum(axis=0), self.at_risk_CT.sum(axis=0))

    def draws_BT(self, seed: int | tuple[int, ...]) -> np.ndarray:
        """S(t) under each resample of the clusters."""
        w_BC = weights(len(self.keys), seed)
        return product_limit(w_BC @ self.failed_CT, w_BC @ self.at_risk_CT)

    def choose(self, keys: Collection[Key]) -> LifeTable:
        """Only these clusters."""
        return life_table([d for d in self.dialogues if key_of(d) in keys], self.marks)

    def curve(self, seed: int | tuple[int, ...] = 0) -> Curve:
        """S(t) with its band: of Kaplan-Meier, or, where one dialogue was played by several training seeds' students,
        of the resamples of whole dialogues."""
        curve = kaplan_meier(self.lives, self.marks.horizon)
        if len(self.keys) == len(self.lives):
            return curve
        low_T, high_T = np.quantile(self.draws_BT(seed), [0.025, 0.975], axis=0)
        return replace(curve, low=(1.0, *map(float, low_T)), high=(1.0, *map(float, high_T)))


def life_table(dialogues: Sequence[DialogueMarks], marks: MarkSettings) -> LifeTable:
    """The attacked dialogues of several turns among ``dialogues``."""
    kept = tuple(d for d in dialogues if d.attacked and not d.single)
    lives = tuple(lifetime(d.harmless, marks.horizon, marks.fail_below) for d in kept)
    keys = tuple(sorted({key_of(d) for d in kept}))
    place = {key: i for i, key in enumerate(keys)}
    failed_NT, risk_NT = counts(lives, marks.horizon)
    failed_CT, risk_CT = np.zeros((2, len(keys), marks.horizon))
    rows = [place[key_of(d)] for d in kept]
    np.add.at(failed_CT, rows, failed_NT)
    np.add.at(risk_CT, rows, risk_NT)
    return LifeTable(kept, lives, marks, keys, failed_CT, risk_CT)


def survival_json(table: LifeTable, seed: int | tuple[int, ...] = 0) -> SurvivalJson | None:
    """The table as plain JSON; ``None`` without dialogues."""
    if not table.dialogues:
        return None
    curve, last, lost = table.curve(seed), table.reach, _lost(table)
    least_T, greatest_T = survival_bounds(table.turns)
    return SurvivalJson(
        dialogues=len(table.dialogues),
        horizon=table.marks.horizon,
        reach=last,
        survival=list(curve.survival),
        low=list(curve.low),
        high=list(curve.high),
        worst=[1.0, *map(float, least_T)],
        best=[1.0, *map(float, greatest_T)],
        at_risk=list(curve.at_risk),
        failures=[0, *(int(n) for n in table.failed_CT.sum(axis=0))],
        censored_unrated=lost,
        never=sum(not life.failed for life in table.lives) - sum(lost),
        hazard=[estimate.json() for estimate in hazard(table, seed)],
        mean_turns=mean_turns(table, last, seed).json(),
        at=survival_at(table, last, seed).json(),
        risk_zone=_risk_zone(curve, last),
    )


def hazard(table: LifeTable, seed: int | tuple[int, ...] = 0) -> list[Estimate]:
    """Share of those at risk at turn 1..T that fail there, in percent."""
    w_BC = weights(len(table.keys), seed)
    pairs_CT2 = np.stack([100 * table.failed_CT, table.at_risk_CT], axis=-1)
    draws_BT = np.stack([w_BC @ pairs_CT2[..., 0], w_BC @ pairs_CT2[..., 1]], axis=-1)
    bounds_T2 = 100 * np.stack(hazard_bounds(table.turns), axis=-1)
    counts_T2 = np.stack([table.at_risk_CT.sum(axis=0), possible_at_risk(table.turns)], axis=-1)
    clusters_T = (table.at_risk_CT > 0).sum(axis=0)
    rows = zip(ratio(pairs_CT2.sum(axis=0)), ratio(draws_BT).T, bounds_T2, counts_T2, map(int, clusters_T), strict=True)
    return [estimate_of(HAZARD, *row) for row in rows]


def survival_at(table: LifeTable, turn: int, seed: int | tuple[int, ...] = 0) -> Estimate:
    """S(``turn``) in percent, with the curve's own band."""
    curve = table.curve(seed)
    worst, best = (float(s_T[turn - 1]) for s_T in survival_bounds(table.turns))
    value, low, high, worst, best = (
        100 * s for s in (curve.survival[turn], curve.low[turn], curve.high[turn], worst, best)
    )
    return Estimate(value, low, high, table.rated(turn), len(table.lives), worst, best)


def mean_turns(table: LifeTable, last: int, seed: int | tuple[int, ...] = 0) -> Estimate:
    """Restricted mean survival up to turn ``last``. Where no resample knows a failure, the low end is that of the
    curve's band. The bounds hold, but need not be reached: each turn's extreme is another completion's."""
    value = float(restricted_mean(table.survival_T, last))
    interval = interval_of(value, restricted_mean(table.draws_BT(seed), last))
    low = interval.low
    if low == interval.high:
        low = float(restricted_mean(np.array(table.curve(seed).low[1:]), last))
    worst, best = (float(restricted_mean(s_T, last)) for s_T in survival_bounds(table.turns))
    return Estimate(value, low, interval.high, table.rated(last), len(table.lives), worst, best)


def _lost(table: LifeTable) -> list[int]:
    """Dialogues whose marks end after turn t = 0..T though they go on."""
    found = [0] * (table.marks.horizon + 1)
    for d, life in zip(table.dialogues, table.lives, strict=True):
        if not life.failed and (life.turns < min(d.length, table.marks.horizon) or not d.length):
            found[life.turns] += 1
    return found


def _risk_zone(curve: Curve, last: int) -> SpanJson:
    value, low, high = (first_below(s, last=last) for s in (curve.survival, curve.low, curve.high))
    return SpanJson(value=value, low=low, high=high)
