"""Intervals: bootstrap over whole dialogues, paired differences, spread over training seeds.

Turns of one dialogue are not independent, so a resample draws dialogues, never turns. Every statistic is a function of
dialogue weights, which makes two thousand resamples a few matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from steer_verl.errors import DataError
from steer_verl.eval.library import scipy_stats
from steer_verl.eval.metrics import MEASURES, DialogueMarks
from steer_verl.eval.survival import HORIZON, Curve, counts, curve_dict, kaplan_meier, lifetime, product_limit
from steer_verl.statistics import Interval, interval_dict, interval_of, weights

SURVIVAL = "survival"
"""Name of the statistic S(t): Kaplan-Meier survival of attacked dialogues at turn :func:`reach`, in percent."""

REACHED_BY = 20
"""Attacked dialogues that must be that long for a turn to be spoken of: beyond, a single failure decides."""


def reach(dialogues: Sequence[DialogueMarks], least: int = REACHED_BY, horizon: int = HORIZON) -> int:
    """The last turn that at least ``least`` attacked dialogues have; turn 1 if there are fewer dialogues.

    Dialogues go on after a failure, so this depends on the seeds, not on the student.
    """
    lengths = sorted((d.length for d in dialogues if d.attacked), reverse=True)
    return max(1, min(lengths[least - 1], horizon)) if len(lengths) >= least else 1


def survival_curve(dialogues: Sequence[DialogueMarks], horizon: int = HORIZON) -> Curve:
    """Survival of the attacked dialogues."""
    return kaplan_meier([lifetime(d.harmless, horizon) for d in dialogues if d.attacked], horizon)


Statistic = Callable[[np.ndarray], np.ndarray]
"""From weights of the dialogues (B, N) to the value under each of the B weightings; NaN where it is undefined."""


def statistic(name: str, dialogues: Sequence[DialogueMarks], turn: int | None = None) -> Statistic:
    """The measure ``name`` (a key of :data:`MEASURES`, or :data:`SURVIVAL`) as a function of dialogue weights.

    ``turn`` says where survival is read off; :func:`reach` unless given.
    """
    if name == SURVIVAL:
        lives = [lifetime(d.harmless if d.attacked else ()) for d in dialogues]
        failed_NT, risk_NT = counts(lives, turn or reach(dialogues))
        return lambda w_BN: 100.0 * product_limit(w_BN @ failed_NT.astype(float), w_BN @ risk_NT.astype(float))[:, -1]
    ratios_N2 = np.array([MEASURES[name](d) for d in dialogues], dtype=float).reshape(-1, 2)

    def ratio(w_BN: np.ndarray) -> np.ndarray:
        above_B, below_B = w_BN @ ratios_N2[:, 0], w_BN @ ratios_N2[:, 1]
        return np.divide(above_B, below_B, out=np.full(len(w_BN), np.nan), where=below_B > 0)

    return ratio


def estimate(name: str, dialogues: Sequence[DialogueMarks], seed: int = 0) -> Interval:
    """``name`` over ``dialogues`` with its bootstrap interval; NaN throughout when no dialogue concerns it."""
    if not dialogues:
        return Interval(np.nan, np.nan, np.nan)
    f = statistic(name, dialogues)
    return interval_of(f(np.ones((1, len(dialogues))))[0], f(weights(len(dialogues), seed)))


def difference(name: str, after: Sequence[DialogueMarks], before: Sequence[DialogueMarks], seed: int = 0) -> Interval:
    """``name`` of ``after`` minus that of ``before``, paired by dialogue: both are resampled alike.

    Raises:
        DataError: the two did not play the same dialogues.
    """
    second, first = _sorted(after), _sorted(before)
    if [_key(d) for d in second] != [_key(d) for d in first]:
        raise DataError("the two evaluations played different dialogues; evaluate both on the same seeds")
    if not first:
        return Interval(np.nan, np.nan, np.nan)
    turn = min(reach(second), reach(first))
    f, g, ones = statistic(name, second, turn), statistic(name, first, turn), np.ones((1, len(first)))
    w_BN = weights(len(first), seed)
    return interval_of((f(ones) - g(ones))[0], f(w_BN) - g(w_BN))


def over_runs(values: Sequence[float], scale: tuple[float, float] = (-np.inf, np.inf)) -> Interval:
    """Mean over training seeds, each one observation, with Student's t interval; for a single seed none (NaN).

    Args:
        values: one for each seed.
        scale: the least and the greatest possible value, where the interval is cut: Student's t knows of no scale.
    """
    mean, freedom = float(np.mean(values)), len(values) - 1
    if freedom < 1:
        return Interval(mean, np.nan, np.nan)
    half = float(scipy_stats().t.ppf(0.975, freedom)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Interval(mean, max(mean - half, scale[0]), min(mean + half, scale[1]))


def difference_over_runs(after: Sequence[float], before: Sequence[float], scale: tuple[float, float]) -> Interval:
    """The same of ``after`` minus ``before``, paired by seed; ``scale`` is that of the two."""
    return over_runs([a - b for a, b in zip(after, before, strict=True)], gap_scale(scale))


def gap_scale(scale: tuple[float, float]) -> tuple[float, float]:
    """The scale of the difference of two values on ``scale``."""
    gap = scale[1] - scale[0]
    return -gap, gap


def summarize(dialogues: Sequence[DialogueMarks], seed: int = 0) -> dict[str, Any]:
    """Every measure with its interval, the survival curve and the counts, as plain JSON values."""
    intervals = {name: estimate(name, dialogues, seed) for name in (*MEASURES, SURVIVAL)}
    return {
        "dialogues": len(dialogues),
        "attacked": sum(d.attacked for d in dialogues),
        "turns": sum(len(d.turns) for d in dialogues),
        "survival_turn": reach(dialogues),
        "measures": {name: interval_dict(interval) for name, interval in intervals.items()},
        "curve": curve_dict(survival_curve(dialogues)),
    }


def _key(d: DialogueMarks) -> tuple[int, str]:
    return d.run, d.seed_id


def _sorted(dialogues: Sequence[DialogueMarks]) -> list[DialogueMarks]:
    return sorted(dialogues, key=_key)
