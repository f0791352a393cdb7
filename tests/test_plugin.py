"""What ``import verl`` brings with it once this project is installed: three names, and hardly any time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("verl")

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 0.2
"""Seconds that the plugin may add to ``import verl``."""
NOT_YET = (
    "vllm",
    "openai",
    "matplotlib",
    "rollout",
    "reward_fns",
    "steer_verl.tcsr",
    "steer_verl.tutor",
    "verl.experimental",
)
MEASURE = """
import json, sys, time
import verl
before, start = set(sys.modules), time.process_time()
import steer_verl.plugin
print(json.dumps([time.process_time() - start, sorted(set(sys.modules) - before)]))
"""


def measured(cpu: str) -> tuple[float, list[str]]:
    """Processor seconds of our part alone, after a bare ``import verl``, and the modules that it brought in."""
    env = {**os.environ, "VERL_USE_EXTERNAL_PLUGINS": "none", "STEER_CPU": cpu}
    run = subprocess.run([sys.executable, "-c", MEASURE], env=env, capture_output=True, text=True, check=True)
    seconds, modules = json.loads(run.stdout.splitlines()[-1])
    return seconds, modules


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["0", "1"])
def test_it_is_light(cpu: str) -> None:
    """Processor time, the lesser of two runs: what other programs do to the clock does not count."""
    runs = [measured(cpu) for _ in range(2)]
    assert min(seconds for seconds, _ in runs) < BUDGET
    heavy = [module for module in runs[0][1] if module.startswith(NOT_YET)]
    assert not heavy, f"the plugin imports {heavy} in every verl process"
    assert len(runs[0][1]) < 40, runs[0][1]


def test_the_agent_loop_resolves() -> None:
    from hydra.utils import get_class
    from verl.experimental.agent_loop import agent_loop

    from rollout.agent_loop import SteerAgentLoop
    from steer_verl.names import AGENT_LOOP

    assert get_class(agent_loop._agent_loop_registry[AGENT_LOOP]["_target_"]) is SteerAgentLoop


def test_the_reward_manager_resolves() -> None:
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

    from reward_fns.manager import SteerTutorRewardManager
    from steer_verl.names import REWARD_MANAGER

    assert get_reward_manager_cls(REWARD_MANAGER) is SteerTutorRewardManager


def test_the_estimator_is_reached_through_verls_own_call() -> None:
    """A group of two trajectories of one turn each: the better one is pushed up, the worse one down by as much."""
    import numpy as np
    import torch
    from verl import DataProto
    from verl.trainer.ppo.ray_trainer import compute_advantage

    from steer_verl.names import ADV_ESTIMATOR

    rewards = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.5]])
    tensors = {"token_level_rewards": rewards, "response_mask": torch.ones(2, 3)}
    data = DataProto.from_dict(tensors=tensors, non_tensors={"uid": np.array(["a", "a"], dtype=object)})
    advantages = compute_advantage(data, adv_estimator=ADV_ESTIMATOR, config={}).batch["advantages"]
    assert (advantages[0] > 0).all() and torch.allclose(advantages[0], -advantages[1])


def test_each_hook_uses_the_registrys_own_register(monkeypatch: pytest.MonkeyPatch) -> None:
    from verl.experimental.reward_loop import reward_manager

    from steer_verl import plugin

    seen: dict[str, Any] = {}

    def register(name: str) -> Any:
        return lambda target: seen.__setitem__(name, target)

    registry: Any = SimpleNamespace(register=register, register_adv_est=register)
    monkeypatch.setattr(reward_manager, "register", register)
    monkeypatch.delitem(sys.modules, "reward_fns.manager", raising=False)
    for hook in plugin.HOOKS.values():
        hook(registry)
    assert {name: f"{target.__module__}.{target.__qualname__}" for name, target in seen.items()} == {
        "steer_dialogue": "rollout.agent_loop.SteerAgentLoop",
        "steer_tutor": "reward_fns.manager.SteerTutorRewardManager",
        "tcsr": "steer_verl.tcsr.compute_tcsr_advantage",
    }


ADAPTERS = sorted(
    f"{folder}.{path.stem}"
    for folder in ("rollout", "reward_fns")
    for path in (ROOT / folder).glob("*.py")
    if path.stem != "__init__"
)
FIRST = (*ADAPTERS, *(f"steer_verl.{name}" for name in ("plugin", "preflight", "doctor", "tcsr", "frozen_vision")))


@pytest.mark.slow
@pytest.mark.parametrize("module", FIRST)
def test_each_adapter_may_be_imported_first(module: str) -> None:
    """verl's import brings the plugin, which may bring the module that is just being imported."""
    code = f"import {module}, verl.experimental.reward_loop.reward_manager as managers; " + (
        "print(managers.get_reward_manager_cls('steer_tutor').__module__)"
    )
    env = {**os.environ, "STEER_CPU": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.splitlines()[-1] == "reward_fns.manager"


def test_a_hook_that_fails_is_raised_where_verl_imports_the_registry(tmp_path: Path) -> None:
    """Unlike the plugin's own import, which verl guards: a broken adapter must not end in a run without it."""
    from wrapt import register_post_import_hook

    name = "steer_verl_test_registry"
    (tmp_path / f"{name}.py").write_text("")

    def broken(module: ModuleType) -> None:
        raise ImportError("broken adapter")

    register_post_import_hook(broken, name)
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(ImportError, match="broken adapter"):
            __import__(name)
    finally:
        sys.path.remove(str(tmp_path))
