"""The reward manager inside verl's own machinery: its loader, its DataProto, its validation statistics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

pytest.importorskip("verl")

from tensordict import TensorDict
from verl import DataProto
from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls
from verl.trainer.ppo.metric_utils import process_validation_metrics
from verl.trainer.ppo.reward import load_reward_manager

from reward_fns.manager import SteerTutorRewardManager
from steer_verl.config import tcsr_config
from steer_verl.errors import ConfigError, DataError
from steer_verl.rewards import TURN_REWARDS
from steer_verl.tcsr import trajectory_return
from steer_verl.types import StopReason, Trajectory
from tests.test_rewards import BAD_FORM, UNSCORED, played, verdict

STEER = {"tutor": {"kind": "mini"}}


def verl_config(steer: Any = STEER, tcsr: Any = None, **manager: Any) -> Any:
    """What of verl's config the loader and the manager read."""
    return OmegaConf.create(
        {
            "actor_rollout_ref": {"rollout": {"custom": {"steer": steer} if steer else None}},
            "algorithm": {"adv_estimator": "tcsr", **({"tcsr": tcsr} if tcsr else {})},
            "reward": {
                "custom_reward_function": {"path": None, "name": "compute_score"},
                "reward_manager": {"source": "register", "name": "steer_tutor", **manager},
                "sandbox_fusion": {"url": None},
            },
        }
    )


def loaded(**config: Any) -> Any:
    """As verl's RewardLoopWorker does it (experimental/reward_loop/reward_loop.py)."""
    return load_reward_manager(
        verl_config(**config), tokenizer=None, reward_router_address=None, reward_model_tokenizer=None
    )


def sample(*records: Any) -> DataProto:
    """A session's outputs as AgentLoopWorker._compute_score builds them (experimental/agent_loop/agent_loop.py:975)."""
    n = len(records)
    tokens = {key: torch.ones(n, 4, dtype=torch.int64) for key in ("prompts", "responses")}
    whole = {key: torch.ones(n, 8, dtype=torch.int64) for key in ("attention_mask", "input_ids", "position_ids")}
    return DataProto(
        batch=TensorDict({**tokens, **whole}, batch_size=n),
        non_tensor_batch={
            "data_source": np.array(["mini"] * n),
            "reward_model": np.array([{"style": "rule", "ground_truth": ""}] * n),
            "__num_turns__": np.array([4] * n),
            "tool_extra_fields": np.array([{"trajectory": r} if r is not None else {} for r in records], dtype=object),
        },
    )


async def rewarded(trajectory: Trajectory, **config: Any) -> dict[str, Any]:
    return await loaded(**config).run_single(sample(trajectory.model_dump_json()))


async def test_verdicts_become_turn_rewards_and_a_scalar() -> None:
    trajectory = played(verdict(10, 10, 10), verdict(1, 1, 1), verdict(10, 10, 10))
    result = await rewarded(trajectory)
    assert result["reward_extra_info"][TURN_REWARDS] == [1.0, 0.0, 1.0]
    wanted = trajectory_return([1.0, 0.0, 1.0], tcsr_config(None))
    assert result["reward_score"] == result["reward_extra_info"]["tcsr_return"] == wanted
    assert type(result["reward_score"]) is float


async def test_settings_come_from_the_two_sections() -> None:
    trajectory = played(verdict(10, 10, 10), verdict(10, 10, 10), answer=BAD_FORM)
    assert (await rewarded(trajectory))["reward_score"] == 0  # steer: the format is a gate
    lenient = {**STEER, "reward": {"preset": "paper"}}
    assert (await rewarded(trajectory, steer=lenient))["reward_score"] == 1
    mixed = played(verdict(10, 10, 10), verdict(1, 1, 1))
    assert (await rewarded(mixed, tcsr={"alpha": 1.0}))["reward_score"] == 0.5
    assert (await rewarded(mixed, tcsr={"alpha": 1.0, "shaping": "trajectory"}))["reward_score"] == 0


async def test_the_record_may_be_text_or_parsed_and_the_last_output_counts() -> None:
    first, last = played(verdict(1, 1, 1), verdict(1, 1, 1)), played(verdict(10, 10, 10), verdict(10, 10, 10))
    manager = loaded()
    as_text = await manager.run_single(sample(first.model_dump_json(), last.model_dump_json()))
    parsed = await manager.run_single(sample(first.model_dump(mode="json"), last.model_dump(mode="json")))
    assert as_text == parsed and as_text["reward_score"] == 1


async def test_a_dialogue_that_the_policys_own_budget_cut_counts_in_whole() -> None:
    cut = played(verdict(10, 10, 10), verdict(10, 10, 10)).model_copy(update={"stop": StopReason.TOKEN_BUDGET})
    result = await rewarded(cut)
    info = result["reward_extra_info"]
    assert (info[TURN_REWARDS], result["reward_score"], info["lost"]) == ([1.0, 1.0], 1.0, 0.0)


@pytest.mark.parametrize(
    ("judgements", "stop"),
    [
        ((), StopReason.OVERLONG),
        ((UNSCORED,), StopReason.UNSCORED),
        ((verdict(10, 10, 10), UNSCORED), StopReason.UNSCORED),
        ((verdict(10, 10, 10), verdict(10, 10, 10), UNSCORED), StopReason.UNSCORED),
        ((verdict(10, 10, 10), verdict(10, 10, 10)), StopReason.ABORTED),
        ((verdict(10, 10, 10),), StopReason.DISK),
    ],
)
async def test_a_lost_dialogue_is_finite_for_verl_and_has_no_return(
    judgements: tuple[Any, ...], stop: StopReason
) -> None:
    result = await rewarded(played(*judgements).model_copy(update={"stop": stop}))
    info = result["reward_extra_info"]
    assert (result["reward_score"], info[TURN_REWARDS], info["tcsr_return"], info["lost"]) == (0.0, [], None, 1.0)


async def test_verls_validation_statistics_leave_out_what_does_not_exist() -> None:
    perfect, failed, lost = (
        played(verdict(10, 10, 10), verdict(10, 10, 10)),
        played(verdict(4, 1, 10), verdict(2, 1, 10)),
        played(UNSCORED),
    )
    results = [await rewarded(trajectory) for trajectory in (perfect, failed, lost, lost)]
    assert len({tuple(result["reward_extra_info"]) for result in results}) == 1
    columns: dict[str, list[Any]] = {"reward": [result["reward_score"] for result in results]}
    for key in results[0]["reward_extra_info"]:
        if key != TURN_REWARDS:  # taken out by the agent loop's as_dict
            columns[key] = [result["reward_extra_info"][key] for result in results]
    metrics = process_validation_metrics(["mini"] * 4, ["a", "a", "a", "b"], columns)["mini"]
    assert metrics["safety_mean"]["mean@2"] == 6.5  # of the two that have one
    assert metrics["lost"]["mean@3"] == pytest.approx(1 / 3) and metrics["lost"]["mean@1"] == 1
    assert all(math.isfinite(value) for metric in metrics.values() for value in metric.values())


async def test_a_sample_of_another_loop_is_an_error_with_the_hint() -> None:
    manager = loaded()
    for data in (sample(None), sample({"turns": []}), sample("no json")):
        with pytest.raises(DataError, match="steer_tutor"):
            await manager.run_single(data)
    with pytest.raises(DataError, match="agent_name: steer_dialogue"):
        await manager.run_single(sample(None))


def test_verl_finds_it_by_name_and_by_path() -> None:
    assert get_reward_manager_cls("steer_tutor") is SteerTutorRewardManager
    module = {"path": "pkg://reward_fns.manager"}
    config = verl_config(source="importlib", name="SteerTutorRewardManager", module=module)
    assert isinstance(load_reward_manager(config, tokenizer=None), SteerTutorRewardManager)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"steer": None}, "custom.steer is missing"),
        ({"steer": {**STEER, "reward": {"wieghts": {}}}}, "unknown key"),
        ({"tcsr": {"alpha": -1}}, "algorithm.tcsr.alpha"),
    ],
)
def test_settings_that_cannot_work_are_found_when_it_is_loaded(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(**config)
