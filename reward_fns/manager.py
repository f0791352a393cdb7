"""verl's reward manager ``steer_tutor``: the verdicts of a played dialogue -> turn rewards, one scalar, and figures.

An adapter to verl 0.9.1's reward loop (experimental/reward_loop/reward_manager/base.py). The tutor has already spoken:
its verdicts come with the trajectory record of the agent loop, so nothing is asked twice and nothing decoded again.
Where verl's reward workers serve no model, the agent loop computes the same reward itself (rollout/worker.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import register
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from steer_verl.config import verl_settings
from steer_verl.errors import DataError
from steer_verl.names import REWARD_MANAGER
from steer_verl.rewards import dialogue_reward
from steer_verl.types import Trajectory


@register(REWARD_MANAGER)
class SteerTutorRewardManager(RewardManagerBase):
    """Named by ``reward.reward_manager.name=steer_tutor``; settings come from the same sections as the rollout's.

    Raises:
        ConfigError: ``actor_rollout_ref.rollout.custom.steer`` or ``algorithm.tcsr`` cannot work.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any = None,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        self.steer, self.tcsr = verl_settings(config)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """Reward one session; of several outputs the last holds the whole dialogue, as verl's own managers have it.

        Returns:
            :func:`steer_verl.rewards.dialogue_reward`.

        Raises:
            DataError: the sample carries no trajectory record.
        """
        return dialogue_reward(read_trajectory(data[-1:].non_tensor_batch), self.steer.reward, self.tcsr)


def read_trajectory(fields: Mapping[str, Any]) -> Trajectory:
    """The record that the agent loop ``steer_dialogue`` left in its extra fields: JSON text, or its parsed form.

    Raises:
        DataError: there is none, or it is not one of ours.
    """
    extra_fields = fields.get("tool_extra_fields", [None])[0]
    record = extra_fields.get("trajectory") if isinstance(extra_fields, Mapping) else None
    if record is None:
        raise DataError(
            "reward manager steer_tutor: no trajectory record in the sample, so another agent loop played it; give the "
            "row agent_name: steer_dialogue or set actor_rollout_ref.rollout.agent.default_agent_loop=steer_dialogue"
        )
    try:
        return Trajectory.model_validate_json(record if isinstance(record, str) else json.dumps(record))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"reward manager steer_tutor: trajectory record, {where}: {first['msg']}") from None
