"""The held-out judge: scores a sample of finished dialogues and never enters a reward.

A policy that learns its tutor's taste earns more from the tutor and no more from a judge that it was never paid by.
The gap between the two is a metric of every step (steer_verl/metrics.py) and an alarm (steer_verl/alarms.py).
"""

from __future__ import annotations

import asyncio
import hashlib

from steer_verl.types import Judge, JudgeScores, Seed, Trajectory, TutorRequest, Unscored


def draws(share: float, step: int, seed_id: str, rollout: int) -> bool:
    """Whether this dialogue is judged: a hash of its place decides, so that a resumed step draws the same ones.

    Args:
        share: of the dialogues that are drawn, in [0, 1].
        step: the training step.
        seed_id: the seed's id.
        rollout: which of the group.
    """
    digest = hashlib.sha256(f"{step}/{rollout}/{seed_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


async def audit(judge: Judge, trajectory: Trajectory, seed: Seed) -> tuple[JudgeScores | Unscored, ...]:
    """The held-out judge's scores of every turn, all asked at once, each with the dialogue up to it.

    Args:
        judge: who is asked.
        trajectory: a finished dialogue; put the result into its ``audit``.
        seed: what it was played from.
    """
    requests = [_request(trajectory, seed, number) for number in range(len(trajectory.turns))]
    judge_results = await asyncio.gather(*(judge.judge(request) for request in requests))
    return tuple(judge_result.scores for judge_result in judge_results)


def _request(trajectory: Trajectory, seed: Seed, number: int) -> TutorRequest:
    """Turn ``number`` (from 0) as the tutor was shown it, less the hint."""
    turn = trajectory.turns[number]
    return TutorRequest(
        seed=seed,
        turns=trajectory.turns[:number],
        user=turn.user,
        answer=turn.answer,
        static_next_turn=None,
        turn_key=f"{trajectory.key}/{number + 1}",
    )
