"""recipes/mini/cpu.yaml says to verl what a CPU run needs, in keys that verl reads."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("verl")
OVERLAY = Path(__file__).parents[2] / "recipes" / "mini" / "cpu.yaml"
BEYOND_THE_YAML = {  # keys that verl reads though its yaml does not list them
    "ray_kwargs.ray_init.num_gpus",  # these two go to ray.init as they are
    "ray_kwargs.ray_init.include_dashboard",
    "actor_rollout_ref.model.override_config.attn_implementation",  # goes to the model's configuration
    "actor_rollout_ref.rollout.enable_sleep_mode",
    "actor_rollout_ref.rollout.engine_kwargs.vllm.distributed_executor_backend",  # goes to vLLM as it is
    *(f"actor_rollout_ref.{role}.fsdp_config.mixed_precision" for role in ("actor", "ref")),
}


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, dict) and where not in BEYOND_THE_YAML:
            yield from leaves(value, where)
        else:
            yield where, value


@pytest.fixture(scope="module")
def overlay() -> dict[str, Any]:
    return dict(leaves(yaml.safe_load(OVERLAY.read_text())))


def test_every_key_is_verls(overlay: dict[str, Any]) -> None:
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    with initialize_config_module("verl.trainer.config", version_base=None):
        base = compose("ppo_trainer")
    missing = object()
    unknown = [key for key in overlay if OmegaConf.select(base, key, default=missing) is missing]
    assert set(unknown) <= BEYOND_THE_YAML, "verl's ppo_trainer.yaml has these no more"


def test_keys_beyond_the_yaml_are_fields_of_verls_classes() -> None:
    from verl.workers.config import FSDPEngineConfig, RolloutConfig

    assert "mixed_precision" in {field.name for field in dataclasses.fields(FSDPEngineConfig)}
    assert {"enable_sleep_mode", "engine_kwargs"} <= {field.name for field in dataclasses.fields(RolloutConfig)}


def test_vllm_takes_the_executor_by_its_name(overlay: dict[str, Any]) -> None:
    """Named ``uni``, vLLM's CPU platform would put ``mp`` in its place (platforms/cpu.py:176)."""
    pytest.importorskip("vllm")
    from types import SimpleNamespace

    from vllm.v1.executor.abstract import Executor, UniProcExecutor

    name = overlay["actor_rollout_ref.rollout.engine_kwargs.vllm.distributed_executor_backend"]
    parallel = SimpleNamespace(distributed_executor_backend=name)
    assert Executor.get_class(SimpleNamespace(parallel_config=parallel)) is UniProcExecutor


def test_both_roles_train_in_float32(overlay: dict[str, Any]) -> None:
    for role in ("actor", "ref"):
        precision = overlay[f"actor_rollout_ref.{role}.fsdp_config.mixed_precision"]
        assert set(precision) == {"param_dtype", "reduce_dtype", "buffer_dtype"} and set(precision.values()) == {"fp32"}
