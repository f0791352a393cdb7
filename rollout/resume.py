"""What lets a killed training go on: which run a cache belongs to, the student's kept answers, and what is old.

A run that is started again plays the dialogues since its last checkpoint anew. The cache (steer_verl/models/cache.py)
gives it every answer and every reply that it holds; the first turn that it lacks is played for real. An answer counts
only after the very same prompt, its images pixel by pixel, and with the same sampling settings. A run with other
settings has a folder of its own (:func:`run_identity`), and steps that a checkpoint holds are deleted (:func:`prune`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from verl.workers.rollout.replica import TokenOutput

from steer_verl.config import SteerConfig
from steer_verl.models.cache import Cache
from steer_verl.types import Record

CHECKPOINTED = "latest_checkpointed_iteration.txt"
"""verl writes the last checkpoint's step into it (trainer/ppo/v1/trainer_base.py:1013)."""

PLAYED = ("attack", "max_turns", "max_answer_tokens", "max_question_chars", "reward")
"""Settings of ours that decide what is played and what is learned from it."""

VERSIONS = ("min_global_steps", "max_global_steps")
"""Of verl's ``TokenOutput.extra_fields``: which weights gave an answer."""


class KeptAnswer(Record):
    """An answer of the student: token ids (int32) and log-probabilities (float32) as base64, and who gave it."""

    ids: str
    log_probs: str
    versions: dict[str, int]

    @classmethod
    def of(cls, output: TokenOutput) -> KeptAnswer:
        """The engine's output as it is kept."""
        return cls(
            ids=_packed(np.asarray(output.token_ids, np.int32)),
            log_probs=_packed(np.asarray(output.log_probs or [], np.float32)),
            versions={name: output.extra_fields[name] for name in VERSIONS},
        )

    def output(self) -> TokenOutput:
        """The engine's output again."""
        return TokenOutput(
            token_ids=np.frombuffer(base64.b64decode(self.ids), dtype=np.int32).tolist(),
            log_probs=np.frombuffer(base64.b64decode(self.log_probs), dtype=np.float32).tolist() or None,
            extra_fields=dict(self.versions),
        )


def answer_digest(prompt_ids: Sequence[int], images: Sequence[str], sampling_params: Mapping[str, Any]) -> str:
    """What an answer depends on beside the weights: the whole prompt and the sampling settings.

    Args:
        prompt_ids: all tokens before the answer; those of an image tell its size alone.
        images: digest of each one's pixels (:func:`rollout.images.pixel_digest`).
        sampling_params: the turn's own.
    """
    digest = hashlib.sha256(np.asarray(prompt_ids, np.int32).tobytes())
    digest.update(json.dumps([*images, dict(sampling_params)], sort_keys=True, default=str).encode())
    return digest.hexdigest()[:32]


def cache_of(steer: SteerConfig, config: Any) -> Cache:
    """The run's cache in ``steer.cache``; one that keeps nothing where that is not set.

    Args:
        steer: our settings.
        config: verl's whole composed config.
    """
    return Cache(Path(steer.cache) / run_identity(config) if steer.cache else None)


def prune(folder: str | Path) -> None:
    """Delete the steps that verl's last checkpoint holds; the cache is in the same ``trainer.default_local_dir``."""
    written = Path(folder).parent / CHECKPOINTED
    if not written.is_file():
        return
    last = int(written.read_text().strip() or 0)
    for step in Path(folder).glob("*/*/*"):  # run, split, step
        if step.name.isdigit() and int(step.name) <= last:
            shutil.rmtree(step, ignore_errors=True)


def run_identity(config: Any) -> str:
    """Short digest of what decides a student's weights, answers and questions: verl's composed config, and its student.

    Left out: where things are written, and how the tutor is reached, which may be mended between two starts.
    """
    from omegaconf import OmegaConf

    roles = config.actor_rollout_ref
    parts = (config.data, config.algorithm, roles.model, roles.actor, roles.rollout)
    plain: list[Any] = [OmegaConf.to_container(part, resolve=True) for part in parts]
    steer = (plain[-1].pop("custom", None) or {}).get("steer") or {}
    played = {name: steer.get(name) for name in PLAYED}
    text = json.dumps([*plain, played, _weights(roles.model.path)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _weights(path: str) -> list[tuple[str, int, int]]:
    """Name, size and time of the student's files, where they are local: the same path may hold another student."""
    return sorted(
        (file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in Path(path).glob("*.safetensors")
    )


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()
