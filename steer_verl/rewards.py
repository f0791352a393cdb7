"""From verdicts to rewards: of a turn, of a dialogue's turns, and what verl is told of a dialogue; all in [0, 1]."""

from __future__ import annotations

import re
from typing import Any

from steer_verl.answer import parse_answer
from steer_verl.config import RewardConfig, ScoreWeights, TcsrConfig
from steer_verl.errors import UnscoredError
from steer_verl.metrics import dialogue_figures
from steer_verl.rubric import locked
from steer_verl.types import Scores, Status, Trajectory, TurnVerdict, Unscored

TURN_REWARDS = "turn_rewards"
"""Key of the per-turn rewards in the reward manager's ``reward_extra_info``; the agent loop takes it out again."""

_UNSPACED = "\u3005\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


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
    """Share of the word trigrams that occurred before: 0 if all differ or there are none, towards 1 for a loop.

    Chinese and Japanese put no space between words: each of their characters is one.
    """
    words = _WORD.findall(text.lower())
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def turn_reward(verdict: TurnVerdict, answer_text: str, config: RewardConfig) -> float:
    """r_t = Norm(w . s_t) in [0, 1] (paper, Stage III), with the options of :class:`RewardConfig`.

    Raises:
        UnscoredError: the turn has no scores; it has no reward either.
    """
    if isinstance(verdict, Unscored):
        raise UnscoredError(f"a turn that could not be scored ({verdict.reason.value}) has no reward; leave it out")
    score = weighted_score(locked(verdict.scores), config.weights)  # a tutor of one's own may not keep the lock
    reward = (score - 1) / 9 if config.normalization == "unit" else score / 10
    if config.format != "off":
        well_formed = parse_answer(answer_text).well_formed
        reward = reward * well_formed if config.format == "gate" else (reward + well_formed) / 2
    if config.repetition_penalty:
        reward -= config.repetition_penalty * repeated_trigram_share(answer_text)
    return min(max(reward, 0.0), 1.0)


def trajectory_rewards(trajectory: Trajectory, config: RewardConfig) -> list[float]:
    """The reward of every turn, in order; none of a lost dialogue, whatever was scored of it."""
    if trajectory.status is Status.LOST:
        return []
    return [turn_reward(turn.verdict, turn.answer, config) for turn in trajectory.turns]


def dialogue_reward(trajectory: Trajectory, reward: RewardConfig, tcsr: TcsrConfig) -> dict[str, Any]:
    """What verl's reward loop wants to be told of a played dialogue.

    Returns:
        ``reward_score``: the mean shaped reward in [0, 1]. For a lost dialogue 0.0, because verl needs a number: its
        mask is all 0, so that it moves no advantage, and its ``tcsr_return`` is ``None``.
        ``reward_extra_info``: :func:`steer_verl.metrics.dialogue_figures`, and ``turn_rewards``, one for each turn
        (none if lost), for the agent loop's ``as_dict``.
    """
    from steer_verl.tcsr import trajectory_return  # torch: a reward function for verl's own loops does without it

    rewards = trajectory_rewards(trajectory, reward)
    total = trajectory_return(rewards, tcsr) if rewards else None
    info: dict[str, Any] = dict(dialogue_figures(trajectory, total))
    return {"reward_score": total or 0.0, "reward_extra_info": {**info, TURN_REWARDS: rewards}}
