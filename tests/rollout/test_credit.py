"""Turn spans on verl's own way from the agent loop to the advantage: queue, padding, rejection, balance, estimator.

``PPOTrainer._compute_advantage`` is called as it is. The queue is verl's TransferQueue in the slow case, else a
dictionary whose tensors are nested and padded by verl's own functions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from steer_verl.config import TCSR_PRESETS, tcsr_config
from steer_verl.tcsr import lay_out_rewards, tcsr_advantage
from tests.tcsr_twin import Batch, random_batch

pytest.importorskip("verl")

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size
from verl.trainer.ppo.v1 import trainer_base
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

import steer_verl.plugin  # noqa: F401  registers the estimator
from rollout.agent_loop import DialogueOutput


class Memory:
    """The calls of the queue that the trainer makes, in a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def kv_batch_get(self, keys: Sequence[str], partition_id: str, select_fields: Any = None) -> Any:
        names = select_fields or list(self.rows[keys[0]])
        present = [name for name in names if name in self.rows[keys[0]]]
        return list_of_dict_to_tensordict([{name: self.rows[key][name] for name in present} for key in keys])

    def kv_batch_put(self, keys: Sequence[str], partition_id: str, fields: Any, tags: Any = None) -> Any:
        for number, key in enumerate(keys):
            row = fields[number]
            self.rows.setdefault(key, {}).update({name: row[name] for name in list(fields.keys())})
        return KVBatchMeta(keys=list(keys), tags=tags or [{} for _ in keys], partition_id=partition_id)


@pytest.fixture(scope="module", params=["memory", pytest.param("transfer_queue", marks=pytest.mark.slow)])
def queue(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "memory":
        yield Memory()
        return
    import logging

    import ray
    import transfer_queue as tq
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", ["transfer_queue.backend.SimpleStorage.num_data_storage_units=1"])
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        tq.init(config.transfer_queue)
        yield tq
        tq.close()
    finally:
        ray.shutdown()


def outputs(batch: Batch) -> list[dict[str, Any]]:
    """The fields that verl's worker puts into the queue for each dialogue; lengths differ."""
    fields = []
    for uid, rewards, spans in zip(batch.uids, batch.rewards, batch.spans, strict=True):
        length = max([2, *(stop for _, stop in spans)])
        mask = [int(any(start <= t < stop for start, stop in spans)) for t in range(length)]
        output = DialogueOutput(
            prompt_ids=[1, 2],
            response_ids=[3] * length,
            response_mask=mask,
            response_logprobs=[-1.0 * m for m in mask],
            reward_score=0.5,
            num_turns=2,
            metrics={},
            extra_fields={"reward_extra_info": {"turn_rewards": rewards}},
            turn_spans=spans,
        )
        field = {**output.as_dict(), "uid": uid, "session_id": 0}
        field["input_ids"] = torch.cat([field["prompts"], field["responses"]])
        field["position_ids"] = torch.arange(len(field["input_ids"]))
        field["multi_modal_inputs"] = {}
        field["loss_mask"] = field["response_mask"]
        del field["extra_fields"], field["metrics"]
        field["old_log_probs"] = field["rollout_log_probs"].clone()
        fields.append(field)
    return fields


def through_verl(
    queue: Any,
    monkeypatch: pytest.MonkeyPatch,
    fields: list[dict[str, Any]],
    preset: str,
    order: list[int],
    **rejection: Any,
) -> list[dict[str, torch.Tensor]]:
    """What stands in the queue after verl's advantage step, in the dialogues' own order."""
    monkeypatch.setattr(trainer_base, "tq", queue)
    monkeypatch.setattr("verl.trainer.ppo.padding_utils.tq", queue)
    keys = [f"u{number}_{random.getrandbits(40)}_0" for number in range(len(fields))]
    tags = [{"seq_len": len(field["input_ids"]), "global_steps": 1} for field in fields]
    queue.kv_batch_put(keys=keys, partition_id="train", fields=list_of_dict_to_tensordict(fields), tags=tags)
    batch = KVBatchMeta(keys=keys, tags=tags, partition_id="train")
    batch = upsample_batch_to_divisible_size(batch, len(keys) + 3, 0)
    batch.reorder([*order, *range(len(keys), len(batch.keys))])
    algorithm = {
        "adv_estimator": "tcsr",
        "tcsr": {"preset": preset},
        "use_kl_in_reward": False,
        "gamma": 1.0,
        "lam": 1.0,
        "rollout_correction": {"rollout_is": None, "rollout_rs": None, "bypass_mode": False, **rejection},
    }
    config = OmegaConf.create({"algorithm": algorithm, "actor_rollout_ref": {"rollout": {"n": 5}}})
    trainer_base.PPOTrainer._compute_advantage(SimpleNamespace(config=config), batch, {})
    names = ["advantages", "returns", "response_mask", "rm_scores"]
    got = queue.kv_batch_get(keys=keys, partition_id="train", select_fields=names)
    return [{name: got[name][number] for name in names} for number in range(len(keys))]


REJECTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "tokens": {"rollout_rs": "token_k1", "rollout_rs_threshold": "0.5_2.0"},
    "dialogues": {"rollout_rs": "seq_mean_k1", "rollout_rs_threshold": "0.9_1.1"},
    "tokens, with weights": {
        "rollout_rs": "token_k2",
        "rollout_rs_threshold": 0.2,
        "rollout_is": "token",
        "rollout_is_threshold": 2.0,
    },
}


@pytest.mark.parametrize("rejection", REJECTIONS.values(), ids=REJECTIONS.keys())
@pytest.mark.parametrize("preset", sorted(TCSR_PRESETS))
def test_kept_tokens_have_the_advantages_of_the_whole_group(
    queue: Any, monkeypatch: pytest.MonkeyPatch, preset: str, rejection: dict[str, Any]
) -> None:
    rng = random.Random(5)
    batch = random_batch(rng, groups=6)
    fields = outputs(batch)
    generator = torch.Generator().manual_seed(1)
    for field in fields:  # the actor's probabilities are off by a factor of up to e^2, in a third of the dialogues
        off = 4 * torch.rand(len(field["response_mask"]), generator=generator) - 2
        field["old_log_probs"] += off * field["response_mask"] * (rng.random() < 0.33)
    order = rng.sample(range(len(fields)), len(fields))
    found = through_verl(queue, monkeypatch, fields, preset, order, **rejection)

    width = batch.tokens
    _, mask, index = batch.tensors()
    rows = zip(batch.rewards, batch.spans, strict=True)
    laid = torch.stack([lay_out_rewards(values, spans, width) for values, spans in rows])
    clean = tcsr_advantage(laid, mask, index, tcsr_config({"preset": preset}))
    rejected = 0
    for row, got in enumerate(found):
        length = len(got["response_mask"])
        kept = got["response_mask"] == 1
        rejected += int(mask[row].sum() - kept.sum())
        assert torch.equal(got["rm_scores"].view(torch.int32), laid[row, :length].view(torch.int32)), "-0.0 is kept"
        for name, whole in zip(("advantages", "returns"), clean, strict=True):
            assert torch.equal(got[name][kept], whole[row, :length][kept])
            assert not got[name][~kept].any()
    assert (rejected > 0) == bool(rejection)
