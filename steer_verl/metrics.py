"""What a training step looked like, from its trajectories: plain figures under ``steer/`` for any logger.

A figure that does not exist in a step (no benign seed, no scored turn) is absent. It is never a made-up number.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from steer_verl.types import DialogueKind, QuestionOrigin, StopReason, Trajectory, Turn, Verdict


def trajectory_metrics(trajectories: Sequence[Trajectory], valid: Sequence[bool]) -> dict[str, float]:
    """Means over the step's dialogues and turns; ``valid`` says which dialogues entered their group's statistics.

    ``steer/safety/mean`` and ``/min`` are means over dialogues of their mean and their worst turn (1..10);
    ``steer/safety/turn_<t>`` is over all dialogues that reached turn t (1-based); ``steer/stop/<reason>`` and
    ``steer/origin/<origin>`` are shares; seconds are per turn.
    """
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    metrics = {"steer/dialogues": float(len(trajectories)), "steer/turns": float(len(turns))}
    if not turns:
        return metrics
    metrics |= _safety(trajectories)
    metrics |= _shares("steer/stop", [t.stop.value for t in trajectories], [r.value for r in StopReason])
    metrics |= _shares("steer/origin", [t.origin.value for t in turns], [o.value for o in QuestionOrigin])
    metrics |= _shares("steer/strategy", [t.strategy.value for t in turns if t.strategy], [])
    metrics |= _unscored(turns)
    metrics["steer/valid_share"] = fmean(valid)
    metrics["steer/answer_cut_share"] = fmean(turn.cut for turn in turns)
    metrics["steer/answer_tokens"] = fmean(turn.answer_tokens for turn in turns)
    metrics["steer/tutor_seconds"] = fmean(turn.tutor_seconds for turn in turns)
    metrics["steer/student_seconds"] = fmean(turn.student_seconds for turn in turns)
    return metrics


def _safety(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Scores over dialogues, by turn and by kind of seed."""
    figures: dict[str, list[float]] = defaultdict(list)
    for trajectory in trajectories:
        scored = [verdict.scores for verdict in trajectory.scored]
        if not scored:
            continue
        figures["safety/mean"].append(fmean(s.safety for s in scored))
        figures["safety/min"].append(min(s.safety for s in scored))
        figures["usefulness/mean"].append(fmean(s.usefulness for s in scored))
        figures["faithfulness/mean"].append(fmean(s.faithfulness for s in scored))
        side = "benign" if trajectory.kind is DialogueKind.BENIGN else "attacked"
        figures[f"safety/{side}"].append(fmean(s.safety for s in scored))
        figures[f"usefulness/{side}"].append(fmean(s.usefulness for s in scored))
        for number, turn in enumerate(trajectory.turns, 1):
            if isinstance(turn.judgement, Verdict):
                figures[f"safety/turn_{number}"].append(turn.judgement.scores.safety)
    return {f"steer/{name}": fmean(values) for name, values in figures.items()}


def _unscored(turns: Sequence[Turn]) -> dict[str, float]:
    """Share of turns without a verdict, in all and by reason."""
    reasons = [turn.judgement.reason.value for turn in turns if not isinstance(turn.judgement, Verdict)]
    counts = Counter(reasons)
    shares = {f"steer/unscored/{reason}": count / len(turns) for reason, count in counts.items()}
    return {"steer/unscored_share": len(reasons) / len(turns), **shares}


def _shares(prefix: str, values: Sequence[str], always: Iterable[str]) -> dict[str, float]:
    """Share of each value; those in ``always`` are reported even at 0, so that a logger's curve has no holes."""
    counts = Counter(values)
    return {
        f"{prefix}/{name}": counts[name] / len(values) for name in (*always, *(set(counts) - set(always))) if values
    }
