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
from steer_verl.config import SteerConfig, TcsrConfig, verl_settings
from steer_verl.models.cache import Cache
from steer_verl.names import REWARD_MANAGER
from steer_verl.transcripts import TranscriptLog
from steer_verl.tutor import build_holdout, build_tutor
from steer_verl.types import Judge, Tutor


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
        tcsr=tcsr if _rewards_here(config) else None,
    )


def _rewards_here(config: Any) -> bool:
    """Whether the loop rewards its dialogues: the reward manager is ours, and its worker has nothing that we lack.

    The verdicts are here already. A call of the reward worker would cost verl a second run of the processor, on the
    event loop, and a copy of the tensors to another process (experimental/agent_loop/agent_loop.py:967-1036).
    """
    reward = config.get("reward")
    return bool(reward) and reward.reward_manager.name == REWARD_MANAGER and not reward.reward_model.enable
