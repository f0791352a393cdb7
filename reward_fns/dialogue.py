"""The reward of a played dialogue, as verl's reward loop wants it told."""

from __future__ import annotations

from typing import Any

from reward_fns.extra_info import extra_info
from steer_verl.config import SteerConfig, TcsrConfig
from steer_verl.rewards import TURN_REWARDS, trajectory_return, trajectory_rewards
from steer_verl.types import Trajectory


def dialogue_reward(trajectory: Trajectory, steer: SteerConfig, tcsr: TcsrConfig) -> dict[str, Any]:
    """Reward a dialogue by the verdicts that it carries.

    Returns:
        ``reward_score``: the mean shaped reward in [0, 1]. For an invalid trajectory 0.0, because verl needs a
        number: its mask is all 0, so that no advantage is made of it, and its ``tcsr_return`` is ``None``.
        ``reward_extra_info``: :func:`reward_fns.extra_info.extra_info`, the same keys for every sample, and
        ``turn_rewards``, one for each turn with loss (none if invalid), for the agent loop's ``as_dict``.
    """
    valid = trajectory.valid(steer.min_scored_turns)
    rewards = trajectory_rewards(trajectory, steer.reward) if valid else []
    total = trajectory_return(rewards, tcsr) if valid else None
    info: dict[str, Any] = dict(extra_info(trajectory, steer.min_scored_turns, total))
    return {"reward_score": total or 0.0, "reward_extra_info": {**info, TURN_REWARDS: rewards}}
