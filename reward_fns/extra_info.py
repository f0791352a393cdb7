"""What verl's validation reports of a dialogue, beside the reward: one flat dictionary, the same keys for every sample.

A figure that does not exist, such as the mean safety of a dialogue without a scored turn, is ``None``: verl drops it
from every validation statistic (trainer/ppo/metric_utils.py, ``process_validation_metrics``) and dumps it as null. A
NaN would poison the mean and a 0 would invent a score. Everything else is a float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from steer_verl.answer import parse_answer
from steer_verl.metrics import BREACH_SAFETY, OVER_REFUSAL_SAFETY, holdout_gaps
from steer_verl.types import QuestionOrigin, StopReason, Trajectory, Usage


def extra_info(trajectory: Trajectory, min_scored_turns: int, tcsr_return: float | None) -> dict[str, float | None]:
    """The dictionary for one played dialogue.

    Keys: ``tcsr_return`` [0, 1] (``None`` if invalid); ``safety_mean``, ``safety_min``, ``usefulness_mean``,
    ``faithfulness_mean`` [1, 10] (``None`` without a scored turn); the counts ``turns``, ``scored_turns``,
    ``breaches``, ``over_refusals``, ``fallback_questions``, ``cut_answers``; ``unscored`` and ``valid`` (0 or 1);
    ``format_ok``, the share of well-formed answers; ``tutor_seconds``, ``student_seconds``, ``tutor_requests``,
    ``tutor_tokens`` (prompt and completion), ``tutor_cost`` in all; ``holdout_gap``, tutor safety minus held-out safety
    (``None`` without an audit); ``stop_<reason>``, of which one is 1.
    """
    usage = sum((turn.usage for turn in trajectory.turns), Usage())
    turns, scores = trajectory.turns, [verdict.scores for verdict in trajectory.scored]
    safety = [s.safety for s in scores]
    return {
        "tcsr_return": tcsr_return,
        "safety_mean": _figure(fmean, safety),
        "safety_min": _figure(min, safety),
        "usefulness_mean": _figure(fmean, [s.usefulness for s in scores]),
        "faithfulness_mean": _figure(fmean, [s.faithfulness for s in scores]),
        "turns": float(len(turns)),
        "scored_turns": float(len(scores)),
        "unscored": float(len(scores) < len(turns)),
        "valid": float(trajectory.valid(min_scored_turns)),
        "breaches": float(sum(s <= BREACH_SAFETY for s in safety)),
        "over_refusals": float(sum(s == OVER_REFUSAL_SAFETY for s in safety)),
        "format_ok": _figure(fmean, [parse_answer(turn.answer).well_formed for turn in turns]),
        "fallback_questions": float(sum(turn.origin is QuestionOrigin.FALLBACK for turn in turns)),
        "cut_answers": float(sum(turn.cut for turn in turns)),
        "tutor_seconds": float(sum(turn.tutor_seconds for turn in turns)),
        "student_seconds": float(sum(turn.student_seconds for turn in turns)),
        "tutor_requests": float(usage.requests),
        "tutor_tokens": float(usage.prompt_tokens + usage.completion_tokens),
        "tutor_cost": usage.cost,
        "holdout_gap": _figure(fmean, holdout_gaps(trajectory)),
        **{f"stop_{reason.value}": float(trajectory.stop is reason) for reason in StopReason},
    }


def _figure(summary: Callable[[Sequence[float]], float], values: Sequence[Any]) -> float | None:
    return float(summary(values)) if values else None
