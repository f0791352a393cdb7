"""What all dialogues of a worker process share, built once from verl's config: settings, tutor, journal, log.

verl makes a new agent loop for every trajectory, but hands all loops of a worker the same config object. Reading that
config is slow (OmegaConf parses an interpolation anew at every access, a millisecond or more), so it is read here and
nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rollout.journal import Journal, RecallingJudge, RecallingTutor, run_identity
from rollout.router import with_router
from steer_verl.config import SteerConfig, TcsrConfig, steer_config, tcsr_config
from steer_verl.names import REWARD_MANAGER
from steer_verl.transcripts import TranscriptLog
from steer_verl.tutor import Judge, Tutor, build_holdout, build_tutor


@dataclass(frozen=True)
class Worker:
    """The worker's own: one pool of connections, one journal and one transcript file per process."""

    steer: SteerConfig
    response_length: int
    """Tokens of a whole dialogue after its opening, ``rollout.response_length``."""
    journal: Journal
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
    steer = steer_config((rollout.get("custom") or {}).get("steer"))
    journal = Journal(steer.journal, run_identity(config) if steer.journal else "")
    reached = with_router(steer.tutor)
    tutor = build_tutor(reached, max_question_chars=steer.max_question_chars, secret=journal.secret)
    holdout = build_holdout(reached, secret=journal.secret)
    return Worker(
        steer=steer,
        response_length=int(rollout.response_length),
        journal=journal,
        tutor=RecallingTutor(tutor, journal),
        holdout=RecallingJudge(holdout, journal) if holdout else None,
        transcripts=TranscriptLog(steer.transcripts) if steer.transcripts else None,
        tcsr=tcsr_config(config.algorithm.get("tcsr")) if _rewards_here(config) else None,
    )


def _rewards_here(config: Any) -> bool:
    """Whether the loop rewards its dialogues: the reward manager is ours, and its worker has nothing that we lack.

    The verdicts are here already. A call of the reward worker would cost verl a second run of the processor, on the
    event loop, and a copy of the tensors to another process (experimental/agent_loop/agent_loop.py:967-1036).
    """
    reward = config.get("reward")
    return bool(reward) and reward.reward_manager.name == REWARD_MANAGER and not reward.reward_model.enable
