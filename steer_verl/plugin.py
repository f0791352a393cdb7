"""Everything that registers into verl. Loaded by the entry point ``verl.plugins`` (verl 0.9.1, __init__.py:55-79).

verl imports this module at the end of ``import verl``, in every process, each Ray actor included. So it must be light:
it registers nothing but *hooks that wait* until verl itself imports a registry, and each hook uses the registry's own
public ``register`` function. A process that never computes an advantage never loads our estimator.

Why hooks: the agent loop could also be named by a YAML (``rollout.agent.agent_loop_config_path``) and the reward
manager by ``reward.reward_manager.source: importlib``, both official; but both want absolute paths in every command
line, and the advantage estimator has no such door. With the hooks a user writes three plain names:

===================  ===================================================================  =================
what                 where a user names it                                                name
===================  ===================================================================  =================
agent loop           ``actor_rollout_ref.rollout.agent.default_agent_loop``               ``steer_dialogue``
reward manager       ``reward.reward_manager.name``                                       ``steer_tutor``
advantage estimator  ``algorithm.adv_estimator``                                          ``tcsr``
===================  ===================================================================  =================

An exception in here is logged by verl at DEBUG and otherwise lost; ``steer doctor`` shows it. An exception in a hook is
raised at the import that triggered it, by verl, in full.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from wrapt import register_post_import_hook

from steer_verl import cpu, verl_fixes
from steer_verl.names import ADV_ESTIMATOR, AGENT_LOOP

AGENT_LOOP_CLASS = "rollout.agent_loop.SteerAgentLoop"
REWARD_MANAGER_MODULE = "reward_fns.manager"


def register_agent_loop(agent_loop: ModuleType) -> None:
    """Register ``steer_dialogue``; ``agent_loop`` is ``verl.experimental.agent_loop.agent_loop``.

    verl's ``register`` keeps the dotted name of the class and nothing else (agent_loop.py:473-476); Hydra imports it
    when the first trajectory starts. A stand-in of that name therefore registers the loop without importing it here.
    """
    module, _, name = AGENT_LOOP_CLASS.rpartition(".")
    agent_loop.register(AGENT_LOOP)(type(name, (), {"__module__": module}))


def register_reward_manager(reward_manager: ModuleType) -> None:
    """Let ``steer_tutor`` register itself; ``reward_manager`` is ``verl.experimental.reward_loop.reward_manager``.

    verl's registry keeps the class itself, so its module is imported here; by verl's own decorator it registers. That
    module may be what asked for verl's: it is then half imported, and comes to its decorator by itself.
    """
    import_module(REWARD_MANAGER_MODULE)


def register_adv_estimator(core_algos: ModuleType) -> None:
    """Register ``tcsr``; ``core_algos`` is ``verl.trainer.ppo.core_algos``."""
    from steer_verl.tcsr import compute_tcsr_advantage

    core_algos.register_adv_est(ADV_ESTIMATOR)(compute_tcsr_advantage)


HOOKS = {
    "verl.experimental.agent_loop.agent_loop": register_agent_loop,
    "verl.experimental.reward_loop.reward_manager": register_reward_manager,
    "verl.trainer.ppo.core_algos": register_adv_estimator,
}
"""verl module -> what is registered once verl has imported it."""


def register() -> None:
    """Wait for verl's registries and faults; bring up the CPU runtime where it is asked for and no GPU is there."""
    for module, hook in HOOKS.items():
        register_post_import_hook(hook, module)
    verl_fixes.activate()
    if cpu.active():
        from steer_verl.cpu import verl_gaps

        verl_gaps.activate()


register()
