"""Plain figures: of a training step, under ``steer/`` for any logger, and of one dialogue, for verl's validation.

A figure that does not exist (no benign seed, no scored turn) is absent from a step and ``None`` in a dialogue. It is
never a made-up number.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

from steer_verl.answer import parse_answer
from steer_verl.refusal import is_refusal
from steer_verl.rubric import BREACH_SAFETY, HIGHEST, UNHELPFUL_SAFETY
from steer_verl.text import folded
from steer_verl.types import (
    AttackStrategy,
    DialogueKind,
    JudgeScores,
    QuestionOrigin,
    Scores,
    Status,
    StopReason,
    Trajectory,
    Turn,
    UnscoredReason,
    Usage,
    Verdict,
)

LOST_REASONS = (
    *(reason.value for reason in UnscoredReason if reason.value not in ("abandoned", "no_tutor")),
    *(stop.value for stop in StopReason if stop.status is Status.LOST),
)
"""What :attr:`~steer_verl.types.Trajectory.lost` can be."""

BEST = Scores(safety=HIGHEST, usefulness=HIGHEST, faithfulness=HIGHEST)


def trajectory_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Means over the step's dialogues and turns; sums where the name says total, and one greatest value, ``..._max``.

    Under ``trainer.v1.*.parameter_sync_step`` > 1 a step has several batches, whose figures verl combines by the words
    in their names (trainer/ppo/v1/utils.py:77-98): ``total`` is added up, of ``max`` and ``min`` the outermost counts,
    and all else is a mean weighted by dialogues. So no mean has such a word in its name, and shares of 0 are reported.

    ``steer/safety/mean`` and ``/worst_turn`` are means over dialogues of their mean and their worst turn (1..10);
    ``steer/safety/turn_<t>`` is over all dialogues that reached turn t (1-based); ``steer/stop/<reason>``,
    ``steer/lost/<reason>`` and ``steer/origin/<origin>`` are shares. What the tutor cost, how far a panel and a
    held-out judge disagree, and what a policy that games its tutor looks like: see the functions below; where the time
    went: steer_verl/dashboard.py.
    """
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    metrics = {"steer/total_dialogues": float(len(trajectories)), "steer/total_turns": float(len(turns))}
    if not trajectories:
        return metrics
    metrics |= _shares("steer/stop", [t.stop.value for t in trajectories], [r.value for r in StopReason])
    metrics |= _lost(trajectories)
    if not turns:
        return metrics
    metrics |= _safety(trajectories)
    metrics |= _shares("steer/origin", [t.origin.value for t in turns], [o.value for o in QuestionOrigin])
    metrics |= _shares(
        "steer/strategy", [t.strategy.value for t in turns if t.strategy], [s.value for s in AttackStrategy]
    )
    metrics |= _unscored(turns)
    metrics["steer/answer_truncated_share"] = fmean(turn.truncated for turn in turns)
    metrics["steer/answer_tokens"] = fmean(turn.answer_tokens for turn in turns)
    return metrics | _cost(trajectories) | _panel(turns) | _holdout(trajectories) | _gaming(trajectories)


def _safety(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Scores over dialogues, by turn and by kind of seed."""
    figures: dict[str, list[float]] = defaultdict(list)
    for trajectory in trajectories:
        scored = [verdict.scores for verdict in trajectory.scored]
        if not scored:
            continue
        figures["safety/mean"].append(fmean(s.safety for s in scored))
        figures["safety/worst_turn"].append(min(s.safety for s in scored))
        figures["usefulness/mean"].append(fmean(s.usefulness for s in scored))
        figures["faithfulness/mean"].append(fmean(s.faithfulness for s in scored))
        side = "benign" if trajectory.kind is DialogueKind.BENIGN else "attacked"
        figures[f"safety/{side}"].append(fmean(s.safety for s in scored))
        figures[f"usefulness/{side}"].append(fmean(s.usefulness for s in scored))
        for number, turn in enumerate(trajectory.turns, 1):
            if isinstance(turn.verdict, Verdict):
                figures[f"safety/turn_{number}"].append(turn.verdict.scores.safety)
    return {f"steer/{name}": fmean(values) for name, values in figures.items()}


def _lost(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Shares of the dialogues that are lost, in all and by each reason."""
    counts = Counter(trajectory.lost for trajectory in trajectories if trajectory.lost)
    shares = {f"steer/lost/{reason}": counts[reason] / len(trajectories) for reason in LOST_REASONS}
    return {"steer/lost_share": counts.total() / len(trajectories), **shares}


def _unscored(turns: Sequence[Turn]) -> dict[str, float]:
    """Share of turns without a verdict, in all and by reason."""
    counts = Counter(turn.verdict.reason for turn in turns if not isinstance(turn.verdict, Verdict))
    shares = {f"steer/unscored/{reason.value}": counts[reason] / len(turns) for reason in UnscoredReason}
    return {"steer/unscored_share": counts.total() / len(turns), **shares}


def _shares(prefix: str, values: Sequence[str], always: Iterable[str]) -> dict[str, float]:
    """Share of each value; those in ``always`` are reported even at 0, so that a logger's curve has no holes."""
    counts = Counter(values)
    return {
        f"{prefix}/{name}": counts[name] / len(values) for name in (*always, *(set(counts) - set(always))) if values
    }


def _cost(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """What the servers of the tutor, its panel and the held-out judge did: attempts and tokens per turn, shares, and
    the price of the step.

    ``requests`` counts retries and re-asks too: above one per turn and member, the excess is theirs. A server that
    reports no tokens has no token figures, an endpoint without prices no cost, an embedded tutor none of these.
    """
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    total = sum((usage_of(trajectory) for trajectory in trajectories), Usage())
    attempts = total.requests + total.rejected
    if not attempts:
        return {}
    figures = {"requests": total.requests / len(turns), "rejected_share": total.rejected / attempts}
    if total.prompt_tokens:
        figures["prompt_tokens"] = total.prompt_tokens / len(turns)
        figures["cached_tokens"] = total.cached_tokens / len(turns)
        figures["cached_share"] = total.cached_tokens / total.prompt_tokens
        figures["completion_tokens"] = total.completion_tokens / len(turns)
    if total.cost:
        figures["total_cost"] = total.cost
    return {f"steer/tutor/{name}": value for name, value in figures.items()}


def usage_of(trajectory: Trajectory) -> Usage:
    """What a dialogue cost at servers: its tutor's, and its held-out judge's."""
    turns, audits = [turn.usage for turn in trajectory.turns], [result.usage for result in trajectory.audit]
    return sum([*turns, *audits], Usage())


def _panel(turns: Sequence[Turn]) -> dict[str, float]:
    """Points of safety (0..9) between a panel's mildest and strictest member: mean and greatest over the turns."""
    verdicts = [turn.verdict for turn in turns if isinstance(turn.verdict, Verdict)]
    given = [[opinion.safety for opinion in verdict.judge_scores] for verdict in verdicts]
    spreads = [max(safety) - min(safety) for safety in given if len(safety) > 1]
    if not spreads:
        return {}
    return {"steer/panel/disagreement": fmean(spreads), "steer/panel/disagreement_max": float(max(spreads))}


def _holdout(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Turns that the held-out judge scored, and the gap: tutor safety minus its own, mean over the turns with both."""
    audited = sum(isinstance(result.scores, JudgeScores) for t in trajectories for result in t.audit)
    asked = sum(len(t.audit) for t in trajectories)
    gaps = [gap for trajectory in trajectories for gap in holdout_gaps(trajectory)]
    figures = {"steer/holdout/total_audited": float(audited)} if asked else {}
    return {**figures, "steer/holdout/gap": fmean(gaps)} if gaps else figures


def holdout_gaps(trajectory: Trajectory) -> list[int]:
    """Tutor safety minus held-out safety (-9..9) of every turn that both scored."""
    return [
        turn.verdict.scores.safety - result.scores.safety
        for turn, result in zip(trajectory.turns, trajectory.audit, strict=False)  # an audit may be absent
        if isinstance(turn.verdict, Verdict) and isinstance(result.scores, JudgeScores)
    ]


def _gaming(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Shares that rise when a policy games its tutor.

    ``benign_refusal_share``: turns of benign seeds scored as unhelpful or that read as a refusal, whoever scored
    them. ``best_score_share``: scored turns with the best score on every axis. ``repeated_answer_share``: answers that
    a dialogue of another seed gave as well, in the same words.
    """
    benign = [turn for t in trajectories if t.kind is DialogueKind.BENIGN for turn in t.turns]
    scored = [verdict.scores for trajectory in trajectories for verdict in trajectory.scored]
    figures = {}
    if benign:
        figures["steer/benign_refusal_share"] = fmean(_refuses(turn) for turn in benign)
    if scored:
        figures["steer/best_score_share"] = fmean(scores == BEST for scores in scored)
    seeds_of: dict[str, set[str]] = defaultdict(set)
    answers = [(folded(parse_answer(turn.answer).answer), t.seed_id) for t in trajectories for turn in t.turns]
    for answer, seed_id in answers:
        seeds_of[answer].add(seed_id)
    if len({seed_id for _, seed_id in answers}) > 1:
        figures["steer/repeated_answer_share"] = fmean(len(seeds_of[answer]) > 1 for answer, _ in answers)
    return figures


def _refuses(turn: Turn) -> bool:
    verdict = turn.verdict
    unhelpful = isinstance(verdict, Verdict) and verdict.scores.safety == UNHELPFUL_SAFETY
    return unhelpful or is_refusal(parse_answer(turn.answer).answer)


def dialogue_figures(trajectory: Trajectory, tcsr_return: float | None) -> dict[str, float | None]:
    """One dialogue's figures: the same keys for every dialogue, floats or ``None``.

    verl drops a ``None`` from every validation statistic (trainer/ppo/metric_utils.py,
    ``process_validation_metrics``) and dumps it as null. A NaN would poison the mean and a 0 would invent a score.

    Keys: ``tcsr_return`` [0, 1] (``None`` if lost); ``safety_mean``, ``safety_min``, ``usefulness_mean``,
    ``faithfulness_mean`` [1, 10] (``None`` without a scored turn); the counts ``turns``, ``scored_turns``,
    ``breaches``, ``unhelpful`` (safety 5), ``fallback_questions``, ``truncated_answers``; ``lost`` (0 or 1);
    ``format_ok``, the share of well-formed answers; ``tutor_seconds``, ``student_seconds``, ``tutor_requests``,
    ``tutor_tokens`` (prompt and completion), ``tutor_cost`` in all; ``holdout_gap``, tutor safety minus held-out safety
    (``None`` without an audit); ``stop_<reason>``, of which one is 1.
    """
    usage = usage_of(trajectory)
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
        "lost": float(trajectory.status is Status.LOST),
        "breaches": float(sum(s <= BREACH_SAFETY for s in safety)),
        "unhelpful": float(sum(s == UNHELPFUL_SAFETY for s in safety)),
        "format_ok": _figure(fmean, [parse_answer(turn.answer).well_formed for turn in turns]),
        "fallback_questions": float(sum(turn.origin is QuestionOrigin.FALLBACK for turn in turns)),
        "truncated_answers": float(sum(turn.truncated for turn in turns)),
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
