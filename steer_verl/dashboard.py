"""Where the time of a step went: a turn's seconds by whose they were, the engine's cache hits, and its idle share.

The engine is busy while at least one of the step's dialogues waits for an answer. Where dialogues of several steps are
played at once (``colocate_async``, ``separate_async``), those of other steps are not counted, so that the idle share is
an upper bound there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from steer_verl.types import Trajectory


def time_metrics(trajectories: Sequence[Trajectory], since: float | None, until: float) -> dict[str, float]:
    """Figures under ``steer/``; a figure that does not exist is absent.

    Args:
        trajectories: of the step.
        since: when the step before was handed to the trainer, in seconds since the epoch; ``None`` in the first.
        until: when this one was.

    Returns:
        ``student_seconds``, ``tutor_seconds``, ``own_seconds``: means per turn; the tutor's as it measured itself.
        ``question_seconds``: of the tutor's, those that a dialogue waited for its next question, mean per turn.
        ``student/cached_share``: prompt tokens that the student's engine had in its prefix cache, of all.
        ``engine_idle_share``: of the time since the step before, its update included.
        ``engine_idle_share_rollout``: of the time between the step's first question to the engine and its last answer.
    """
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    if not turns:
        return {}
    metrics = {
        "steer/student_seconds": fmean(turn.student_seconds for turn in turns),
        "steer/tutor_seconds": fmean(turn.tutor_seconds for turn in turns),
        "steer/question_seconds": fmean(turn.question_seconds for turn in turns),
        "steer/own_seconds": fmean(turn.own_seconds for turn in turns),
    }
    prompts = sum(turn.prompt_tokens for turn in turns)
    if prompts:
        metrics["steer/student/cached_share"] = sum(turn.cached_tokens for turn in turns) / prompts
    spans = [(turn.asked_at, turn.asked_at + turn.student_seconds) for turn in turns if turn.asked_at]
    if spans:
        first, last = min(start for start, _ in spans), max(end for _, end in spans)
        metrics["steer/engine_idle_share_rollout"] = 1 - busy(spans, first, last)
        metrics["steer/engine_idle_share"] = 1 - busy(spans, first if since is None else since, until)
    return metrics


def busy(spans: Iterable[tuple[float, float]], since: float, until: float) -> float:
    """Share of ``since``..``until`` that the union of ``spans`` covers, in [0, 1]; 1 of no time at all."""
    covered, reached = 0.0, since
    for start, end in sorted(spans):
        covered += max(0.0, min(end, until) - max(start, reached))
        reached = max(reached, end)
    return covered / (until - since) if until > since else 1.0


def line(step: int, metrics: dict[str, float]) -> str:
    """The step in one line, for the console."""

    def share(name: str) -> str:
        value = metrics.get(name)
        return "n/a" if value is None else f"{100 * value:.0f} %"

    def seconds(name: str) -> str:
        return f"{metrics[name]:.3g} s" if name in metrics else "n/a"

    return (
        f"steer step {step}: {metrics['steer/total_dialogues']:.0f} dialogues, {metrics['steer/total_turns']:.0f} "
        f"turns | a turn: student {seconds('steer/student_seconds')}, question {seconds('steer/question_seconds')}, "
        f"verdict {seconds('steer/tutor_seconds')}, own {seconds('steer/own_seconds')} | prefix cache "
        f"{share('steer/student/cached_share')} | engine idle {share('steer/engine_idle_share_rollout')} of the "
        f"rollout, {share('steer/engine_idle_share')} of the step"
    )
