"""Keys of verl's that have no effect, or a wrong one, beside ours. Lines are verl 0.9.1's; each was read in its source.

verl accepts all of these, most of them without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from steer_verl.config import PLAIN_GRPO, STEER_KEY, TCSR_KEY, section_of, tcsr_config
from steer_verl.errors import ConfigError
from steer_verl.names import ADV_ESTIMATOR

OURS = {
    "sync": "SteerReplayBuffer",
    "colocate_async": "SteerReplayBufferAsync",
    "separate_async": "SteerReplayBufferAsync",
}
"""Our sampler for each trainer mode."""

LOG_PROBS = "actor_rollout_ref.rollout.calculate_log_probs"
CORRECTION = "algorithm.rollout_correction"


def plain_grpo() -> str:
    """The overrides that make tcsr plain GRPO."""
    keys = ",".join(f"{key}:{str(value).lower()}" for key, value in PLAIN_GRPO.items())
    return f"++{TCSR_KEY}={{{keys}}}"


def other_estimator(config: Any) -> Iterator[str]:
    """Another advantage estimator than ours takes a lost dialogue for one that earned 0 (core_algos.py:304)."""
    name = config.algorithm.adv_estimator
    if name != ADV_ESTIMATOR:
        yield (
            f"algorithm.adv_estimator is {name}: it sums rewards whatever the mask says, so that a dialogue lost to a "
            f"failing tutor would pull its group down as a reward of 0; set algorithm.adv_estimator={ADV_ESTIMATOR}, "
            f"for plain GRPO with '{plain_grpo()}'"
        )


def other_estimators_keys(config: Any) -> Iterator[str]:
    """What verl hands to every estimator and ours does not take (core_algos.py: GAE's and GRPO's)."""
    for key in ("gamma", "lam"):
        if config.algorithm.get(key, 1.0) != 1.0:
            yield f"algorithm.{key} is {config.algorithm[key]}, but {ADV_ESTIMATOR} discounts nothing; drop it"
    try:
        divides = tcsr_config(section_of(config, TCSR_KEY)).normalize_std
    except ConfigError:  # told by the check of our sections
        return
    if divides and not config.algorithm.get("norm_adv_by_std_in_grpo", True):
        yield (
            f"algorithm.norm_adv_by_std_in_grpo is false, but {ADV_ESTIMATOR} goes by its own key; set "
            f"++{TCSR_KEY}.normalize_std=false"
        )


def has_custom_sampler(v1: Any) -> bool:
    """As verl decides it (trainer/ppo/v1/trainer_base.py:146)."""
    custom = v1.sampler.get("custom_sampler")
    return bool(custom and custom.get("path") and custom.get("name"))


def has_our_sampler(v1: Any) -> bool:
    """Ours, or a subclass that is handed our section."""
    named = has_custom_sampler(v1) and v1.sampler.custom_sampler.name in OURS.values()
    return named or (has_custom_sampler(v1) and "steer" in (v1.sampler.get("sampler_kwargs") or {}))


def sampler(config: Any) -> Iterator[str]:
    """The custom sampler: the one that fits, with our section, and nothing set that verl gives only to its own."""
    v1 = config.trainer.v1
    custom: Any = v1.sampler.get("custom_sampler") or {}
    if custom.get("name") and not custom.get("path"):
        yield (
            f"trainer.v1.sampler.custom_sampler.name is {custom.name} without a path: verl silently takes its own; "
            "set trainer.v1.sampler.custom_sampler.path=pkg://rollout.sampler"
        )
    if not has_our_sampler(v1):
        return
    hint = "drop it, or drop trainer.v1.sampler.custom_sampler and with it our metrics, alarms and the stop on loss"
    if section_of(config, "algorithm.filter_groups.enable"):
        yield f"algorithm.filter_groups.enable is on, but verl filters groups in its own sampler alone; {hint}"
    if v1.sampler.get("sync_refill_failed_groups"):
        yield f"trainer.v1.sampler.sync_refill_failed_groups is on, but verl refills in its own sampler alone; {hint}"
    if custom.name not in OURS.values():
        return
    given = section_of(config, "trainer.v1.sampler.sampler_kwargs.steer")
    if given != section_of(config, STEER_KEY):
        what = "missing" if given is None else f"another section than {STEER_KEY}"
        yield (
            f"trainer.v1.sampler.sampler_kwargs.steer is {what}: the sampler would not know the thresholds; set "
            f"++trainer.v1.sampler.sampler_kwargs.steer='${{{STEER_KEY}}}'"
        )
    fitting = OURS.get(v1.trainer_mode)
    if fitting is None:
        yield f"trainer.v1.trainer_mode is {v1.trainer_mode}, unknown to our sampler; set one of {', '.join(OURS)}"
    elif custom.name != fitting:
        yield (
            f"trainer.v1.sampler.custom_sampler.name is {custom.name} but trainer.v1.trainer_mode is "
            f"{v1.trainer_mode}; set trainer.v1.sampler.custom_sampler.name={fitting}"
        )


def without_sampler(config: Any, set_keys: list[str]) -> Iterator[str]:
    """Alarms and the stop on loss that were set, and no sampler of ours to watch them."""
    if set_keys and not has_our_sampler(config.trainer.v1):
        yield (
            f"{STEER_KEY}.{set_keys[0]} is set, but only our sampler reads it; {use_sampler(config)}, or drop the key"
        )


def use_sampler(config: Any) -> str:
    """The overrides that bring our sampler."""
    name = OURS.get(config.trainer.v1.trainer_mode, OURS["separate_async"])
    return (
        "set trainer.v1.sampler.custom_sampler.path=pkg://rollout.sampler, "
        f"trainer.v1.sampler.custom_sampler.name={name} and "
        f"+trainer.v1.sampler.sampler_kwargs.steer='${{{STEER_KEY}}}'"
    )


def colocated_reward_model(config: Any) -> Iterator[str]:
    """A reward model on the trainer's GPUs scores after the rollout (trainer_base.py:577, 1529)."""
    served = config.reward.reward_model
    if served.enable and not served.enable_resource_pool:
        yield (
            "reward.reward_model.enable is on without a pool of its own: verl would write that model's score over the "
            "turn rewards after the rollout; set reward.reward_model.enable_resource_pool=true, or enable=false"
        )


def correction(config: Any) -> Iterator[str]:
    """Switches of ``algorithm.rollout_correction`` that the V1 trainer does not follow (trainer_base.py:1640, 1765)."""
    given = section_of(config, CORRECTION)
    if not given:
        return
    weights = [key for key in ("rollout_is", "rollout_rs") if given.get(key)]
    if not config.actor_rollout_ref.rollout.calculate_log_probs:
        if given.get("bypass_mode"):
            yield (
                f"{CORRECTION}.bypass_mode takes the engine's log-probabilities for the old ones, but {LOG_PROBS} is "
                f"false; set {LOG_PROBS}=true"
            )
        elif weights:
            yield (
                f"{CORRECTION}.{weights[0]} is set, but {LOG_PROBS} is false: verl would skip the correction in "
                f"silence; set {LOG_PROBS}=true"
            )
    in_loss = config.actor_rollout_ref.actor.policy_loss.loss_mode == "bypass_mode"
    if given.get("bypass_mode") and not in_loss and (weights or given.get("loss_type", "ppo_clip") != "ppo_clip"):
        yield (
            f"{CORRECTION}.{(weights or ['loss_type'])[0]} is set with bypass_mode, where the V1 trainer reads none of "
            f"it: set {CORRECTION}.bypass_mode=false, or put it under actor_rollout_ref.actor.policy_loss."
            "rollout_correction with actor_rollout_ref.actor.policy_loss.loss_mode=bypass_mode"
        )
    elif not given.get("bypass_mode") and given.get("loss_type", "ppo_clip") != "ppo_clip":
        yield f"{CORRECTION}.loss_type is read with bypass_mode alone; drop it"
    for key, without in (("rollout_rs_threshold", "rollout_rs"), ("rollout_is_batch_normalize", "rollout_is")):
        if given.get(key) and not given.get(without):
            yield f"{CORRECTION}.{key} is set, but {without} is not; set it or drop {key}"
