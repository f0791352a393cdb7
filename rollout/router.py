"""verl's own reward model as the tutor's endpoint: ``base_url: verl://reward_model``.

With ``reward.reward_model.enable`` verl serves a model on GPUs of its own behind a router that forwards any path, the
OpenAI-compatible ones included (experimental/reward_loop/router/naive_router.py:112). It tells the address to its
reward workers alone, and only once they run; so an agent loop asks one of them.
"""

from __future__ import annotations

from typing import Any

import ray

from steer_verl.config import TutorConfig
from steer_verl.errors import ConfigError
from steer_verl.names import REWARD_MODEL_URL

REWARD_WORKER = "reward_loop_worker_0"
"""Name of verl's first reward worker among Ray's actors (experimental/reward_loop/reward_loop.py:336)."""


def with_router(config: TutorConfig) -> TutorConfig:
    """``config`` with the router's address in every place that names it.

    Raises:
        ConfigError: it is named, but verl serves no reward model.
    """
    if REWARD_MODEL_URL not in config.model_dump_json():
        return config
    address = f"http://{_router_address()}/v1"
    return TutorConfig.model_validate(_replaced(config.model_dump(), address))


def _router_address() -> str:
    try:
        worker = ray.get_actor(REWARD_WORKER)
    except ValueError:
        raise ConfigError(f"{REWARD_MODEL_URL}: no reward worker of verl runs here; give a server's address") from None
    address = ray.get(worker.__ray_call__.remote(lambda self: self.reward_router_address))
    if not address:
        raise ConfigError(f"{REWARD_MODEL_URL}: verl serves no reward model; set reward.reward_model.enable=true")
    return str(address)


def _replaced(value: Any, address: str) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(inner, address) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_replaced(inner, address) for inner in value)
    return address if value == REWARD_MODEL_URL else value
