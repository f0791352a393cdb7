"""What all dialogues of a worker process share, built once from verl's config: settings, tutor, cache, log.

verl makes a new agent loop for every trajectory, but hands all loops of a worker the same config object. Reading that
config is slow (OmegaConf parses an interpolation anew at every access, a millisecond or more), so it is read here and
nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rollout.resume import cache_of
from rollout.router import with_router
from steer_verl.config import SteerConfig, TcsrConfig, section_of, verl_settings
from steer_verl.models.cache import Cache
from steer_verl.names import REWARD_MANAGER
from steer_verl.seeds import place_seed
from steer_verl.transcripts import TranscriptLog
from steer_verl.tutor import build_holdout, build_tutor
from steer_verl.types import Judge, Tutor

SEED_KEYS = {"vllm": "seed", "sglang": "sampling_seed", "trtllm": "seed"}
"""What ``rollout.name``'s engine calls a request's seed; verl hands sampling parameters on by their names. SGLang reads
its own only with ``rollout.engine_kwargs.sglang.enable_deterministic_inference``."""


@dataclass(frozen=True)
class Dice:
    """The seed of every request of the student.

    verl's ``rollout.full_determinism`` gives all requests one seed, by which the rollouts of a prompt would be the same
    answer n times; here each turn's place has its own (:func:`steer_verl.seeds.place_seed`).
    """

    seed: int
    """verl's ``actor_rollout_ref.rollout.seed``."""
    key: str | None
    """``None``: requests carry no seed."""

    @classmethod
    def of(cls, config: Any) -> Dice:
        """Those of verl's config. The asynchronous trainers have none: verl breaks a request off to change the weights
        and goes on with the same parameters (workers/rollout/llm_server.py:262-294), so that the rest of the answer
        would be drawn with the random numbers of its beginning.
        """
        rollout = config.actor_rollout_ref.rollout
        sync = (section_of(config, "trainer.v1.trainer_mode") or "sync") == "sync"
        return cls(int(rollout.get("seed") or 0), SEED_KEYS.get(rollout.get("name", "vllm")) if sync else None)

    def params(self, turn_key: str) -> dict[str, int]:
        """The sampling parameters of one turn that come of its place."""
        return {self.key: place_seed(self.seed, turn_key)} if self.key else {}


@dataclass(frozen=True)
class Worker:
    """The worker's own: one pool of connections, one view of the cache and one transcript file per process."""

    steer: SteerConfig
    response_length: int
    """Tokens of a whole dialogue after its opening, ``rollout.response_length``."""
    cache: Cache
    tutor: Tutor
    holdout: Judge | None
    transcripts: TranscriptLog | None
    dice: Dice
    tcsr: TcsrConfig | None
    """For the dialogue's reward; ``None`` leaves that to verl's reward workers."""


def worker_of(config: Any) -> Worker:
    """What loops with this config object share.

    Raises:
        ConfigError: ``actor_rollout_ref.rollout.custom.steer`` cannot work.
    """
    if not _LAST or _LAST[0][0] is not config:
        _LAST[:] = [(config, _build(config))]
    return _LAST[0][1]


_LAST: list[tuple[Any, Worker]] = []
"""The config is kept with what was built from it, so that its identity cannot come back."""


def _build(config: Any) -> Worker:
    rollout = config.actor_rollout_ref.rollout
    steer, tcsr = verl_settings(config)
    cache, reached = cache_of(steer, config), with_router(steer.tutor)
    return Worker(
        steer=steer,
        response_length=int(rollout.response_length),
        cache=cache,
        tutor=build_tutor(reached, max_question_chars=steer.max_question_chars, cache=cache),
        holdout=build_holdout(reached, cache=cache),
        transcripts=TranscriptLog(steer.transcripts) if steer.transcripts else None,
        dice=Dice.of(config),
        tcsr=tcsr if _rewards_here(config) else None,
    )


def _rewards_here(config: Any) -> bool:
    """Whether the loop rewards its dialogues: the reward manager is ours, and its worker has nothing that we lack.

    The verdicts are here already. A call of the reward worker would cost verl a second run of the processor, on the
    event loop, and a copy of the tensors to another process (experimental/agent_loop/agent_loop.py:967-1036).
    """
    reward = config.get("reward")
    return bool(reward) and reward.reward_manager.name == REWARD_MANAGER and not reward.reward_model.enable
