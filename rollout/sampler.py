"""Our metrics in verl's own logger, through verl's own hook: ``trainer.v1.sampler.custom_sampler``.

``ReplayBuffer.sample`` returns the step's batch and a dictionary that the trainer merges into the metrics it logs
(trainer/ppo/v1/trainer_base.py:562-572). These subclasses add what the trajectories of that batch say, and give the
batch an order that is the same in every run; sampling itself is verl's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from rollout.resume import prune
from steer_verl.alarms import Alarms, stop_if_lost
from steer_verl.config import STEER_KEY, steer_config
from steer_verl.dashboard import line, time_metrics
from steer_verl.errors import ConfigError
from steer_verl.metrics import trajectory_metrics
from steer_verl.seeds import place_seed
from steer_verl.types import Trajectory

if TYPE_CHECKING:
    from transfer_queue import KVBatchMeta


class TrajectoryMetrics:
    """Mixin before a replay buffer class.

    Args:
        sampler_kwargs: verl's ``trainer.v1.sampler.sampler_kwargs``: ``steer``, the section
            ``actor_rollout_ref.rollout.custom.steer`` (verl hands a sampler no other part of its config), and whatever
            verl's own constructor knows, such as ``poll_interval`` (seconds).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        settings = dict(kwargs.get("sampler_kwargs") or {})
        if "steer" not in settings:
            raise ConfigError(f"trainer.v1.sampler.sampler_kwargs.steer is missing; set it to ${{{STEER_KEY}}}")
        self.steer = steer_config(settings.pop("steer"))
        self.alarms = Alarms(self.steer.alarms, tell)
        self.handed: float | None = None
        super().__init__(*args, **{**settings, **kwargs})

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, Any]]:
        """verl's batch and verl's metrics, with ours added; the batch in its order (:func:`in_order`).

        Raises:
            TutorError: too many dialogues of the step are lost; nothing has been updated yet.
        """
        batch, metrics = super().sample(global_steps, partition_id, batch_size)  # type: ignore[misc]
        trajectories = in_order(batch, _records(batch))
        ours = trajectory_metrics(trajectories)
        if partition_id == "train":
            since, self.handed = self.handed, time.time()
            ours |= time_metrics(trajectories, since, self.handed)
            if trajectories:
                tell(line(global_steps, ours))
        ours |= self.alarms.check(trajectories, ours)
        if partition_id == "train":
            stop_if_lost(trajectories, self.steer.max_lost_share)
            if self.steer.cache:
                prune(self.steer.cache)
        return batch, {**metrics, **ours}


class SteerReplayBuffer(TrajectoryMetrics, ReplayBuffer):
    """For ``trainer.v1.trainer_mode: sync``."""


class SteerReplayBufferAsync(TrajectoryMetrics, ReplayBufferAsync):
    """For ``colocate_async`` and ``separate_async``."""


def in_order(batch: KVBatchMeta, trajectories: list[Trajectory]) -> list[Trajectory]:
    """Bring the batch and its trajectories into an order that depends on what was played alone; returns the latter.

    verl has them as they arrived, under random ids, and sums of floats depend on their order. A prompt's rollouts come
    together, in their order; the prompts are shuffled by step and seed id, for ids tell kinds of dialogues apart, and
    verl cuts mini-batches from the front. Two prompts of one id are told apart by what they ask. A batch that holds
    another loop's rows stays as it is.
    """
    if len(trajectories) != len(batch.keys):
        return trajectories
    asked = {one.uid: f"{one.source}\n{one.turns[0].user.text}" for one in trajectories if one.turns}

    def place(at: int) -> tuple[int, str, str, int]:
        one = trajectories[at]
        return place_seed(one.step, one.seed_id), one.seed_id, asked.get(one.uid, ""), one.rollout

    order = sorted(range(len(trajectories)), key=place)
    batch.reorder(order)
    return [trajectories[at] for at in order]


def tell(line: str) -> None:
    """Where verl's console logger writes its steps; ``logging`` is not heard in the trainer's process."""
    print(line, flush=True)


def _records(batch: KVBatchMeta) -> list[Trajectory]:
    """The trajectories that the agent loop left in ``extra_fields``; other loops leave none."""
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
    ours = [fields["trajectory"] for fields in data["extra_fields"] if "trajectory" in fields]
    return [Trajectory.model_validate_json(record) for record in ours]
