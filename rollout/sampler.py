"""Our metrics in verl's own logger, through verl's own hook: ``trainer.v1.sampler.custom_sampler``.

``ReplayBuffer.sample`` returns the step's batch and a dictionary that the trainer merges into the metrics it logs
(trainer/ppo/v1/trainer_base.py:562-572). These subclasses add what the trajectories of that batch say; sampling itself
is verl's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from steer_verl.metrics import trajectory_metrics
from steer_verl.types import Trajectory

if TYPE_CHECKING:
    from transfer_queue import KVBatchMeta


class TrajectoryMetrics:
    """Mixin before a replay buffer class; ``sampler_kwargs.poll_interval`` (seconds) reaches verl's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**(kwargs.get("sampler_kwargs") or {}), **kwargs})

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, Any]]:
        """verl's batch and verl's metrics, with ours added."""
        batch, metrics = super().sample(global_steps, partition_id, batch_size)  # type: ignore[misc]
        return batch, {**metrics, **trajectory_metrics(*_records(batch))}


class SteerReplayBuffer(TrajectoryMetrics, ReplayBuffer):
    """For ``trainer.v1.trainer_mode: sync``."""


class SteerReplayBufferAsync(TrajectoryMetrics, ReplayBufferAsync):
    """For ``colocate_async`` and ``separate_async``."""


def _records(batch: KVBatchMeta) -> tuple[list[Trajectory], list[bool]]:
    """The trajectories that the agent loop left in ``extra_fields`` and whether each is valid; others leave none."""
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
    ours = [fields for fields in data["extra_fields"] if "trajectory" in fields]
    return [Trajectory.model_validate_json(f["trajectory"]) for f in ours], [f["valid"] for f in ours]
