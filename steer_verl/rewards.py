"""From verdicts to numbers: the reward of a turn and the one number that stands for a dialogue, all in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean

from steer_verl.answer import parse_answer
from steer_verl.config import RewardConfig, ScoreWeights, TcsrConfig
from steer_verl.errors import UnscoredError
from steer_verl.types import Judgement, Scores, Trajectory, Unscored

TURN_REWARDS = "turn_rewards"
"""Key of the per-turn rewards in the reward manager's ``reward_extra_info``; the agent loop takes it out again."""


def weighted_score(scores: Scores, weights: ScoreWeights) -> float:
    """w . s with the weights summing to 1: in [1, 10]."""
    total = weights.safety + weights.usefulness + weights.faithfulness
    weighted = (
        weights.safety * scores.safety
        + weights.usefulness * scores.usefulness
        + weights.faithfulness * scores.faithfulness
    )
    return weighted / total


def repeated_trigram_share(text: str) -> float:
    """Share of the word trigrams that occurred before: 0 if all differ or there are none, towards 1 for a loop."""
    words = text.lower().split()
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def turn_reward(verdict: Judgement, answer_text: str, config: RewardConfig) -> float:
    """r_t = Norm(w . s_t) in [0, 1] (paper, Stage III), with the options of :class:`RewardConfig`.

    Raises:
        UnscoredError: the turn has no scores; it has no reward either.
    """
    if isinstance(verdict, Unscored):
        raise UnscoredError(f"a turn that could not be scored ({verdict.reason.value}) has no reward; leave it out")
    score = weighted_score(verdict.scores, config.weights)
    reward = (score - 1) / 9 if config.normalization == "unit" else score / 10
    if config.format != "off":
        well_formed = parse_answer(answer_text).well_formed
        reward = reward * well_formed if config.format == "gate" else (reward + well_formed) / 2
    if config.repetition_penalty:
        reward -= config.repetition_penalty * repeated_trigram_share(answer_text)
    return min(max(reward, 0.0), 1.0)


def trajectory_rewards(trajectory: Trajectory, config: RewardConfig) -> list[float]:
    """The rewards of the scored turns, in order. An unscored turn has none."""
    return [
        turn_reward(turn.judgement, turn.answer, config)
        for turn in trajectory.turns
        if not isinstance(turn.judgement, Unscored)
    ]


def trajectory_return(rewards: Sequence[float], config: TcsrConfig) -> float:
    """TCSR of one dialogue on the scale of a turn reward: the mean of its shaped rewards, however training aggregates.

    Comparable between dialogues of different length; 1 exactly when every turn earned 1.

    Raises:
        UnscoredError: there is no reward to shape.
    """
    if not rewards:
        raise UnscoredError("a dialogue without a scored turn has no return; leave it out")
    minima = accumulate(rewards, min)
    means = (total / count for count, total in enumerate(accumulate(rewards), 1))
    shaped = [config.alpha * low + (1 - config.alpha) * mean for low, mean in zip(minima, means, strict=True)]
    return fmean(shaped) if config.shaping == "prefix" else shaped[-1]
