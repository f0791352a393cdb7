"""Adapter: verl's own validation and dataclasses, run before verl would, each failure as one line.

What is converted here is what the workers convert after minutes of start-up: workers/engine_workers.py:535-660 and
experimental/agent_loop/agent_loop.py:504.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import warnings
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from steer_verl.preflight.compose import compose
from steer_verl.preflight.inert import has_custom_sampler
from steer_verl.settings_error import shown

PACKAGES = ("clearml", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")
"""Loggers of verl's that need a package of their name."""


def verl_accepts(config: Any) -> Iterator[str]:
    """Lines for whatever verl's ``validate_config`` or its dataclasses refuse."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    config, worker = config.copy(), config.actor_rollout_ref
    reference = need_reference_policy(config)
    yield from _line("config", lambda: validate_config(config, reference, need_critic(config)))
    yield from _line("actor_rollout_ref.rollout", lambda: omega_conf_to_dataclass(worker.rollout))
    if reference:
        yield from _line("actor_rollout_ref.ref", lambda: omega_conf_to_dataclass(_as_actor(worker)))
    yield from model_keys(worker.model, "actor_rollout_ref.model")
    yield from correction(config.algorithm.get("rollout_correction"))
    yield from named(config)


def verl_trains(config: Any) -> Iterator[str]:
    """The same of ``sft_trainer``: what its dataclasses refuse, and what is looked for by name."""
    from verl.utils.config import omega_conf_to_dataclass

    for section in ("engine", "optim", "checkpoint", "profiler"):
        yield from _line(section, partial(omega_conf_to_dataclass, config[section]))
    yield from model_keys(config.model, "model")
    yield from installed(config.model, "model", config.trainer)


def correction(given: Any) -> Iterator[str]:
    """What verl would say of ``rollout_is`` and ``rollout_rs`` after the first rollout, said of one token now."""
    import torch
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_rejection_mask

    keys = ("rollout_is", "rollout_is_threshold", "rollout_rs", "rollout_rs_threshold")
    if given and (given.get("rollout_is") or given.get("rollout_rs")):
        one, options = torch.zeros(1, 1), {key: given.get(key) for key in keys}
        yield from _line(
            "algorithm.rollout_correction",
            lambda: compute_rollout_correction_and_rejection_mask(one, one, one + 1, **options),
        )


def named(config: Any) -> Iterator[str]:
    """What verl looks for by a name or a path once models are loaded: it is there."""
    from hydra.utils import get_class
    from omegaconf import OmegaConf
    from verl.experimental.agent_loop.utils import resolve_config_path
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.utils.import_utils import load_extern_object

    def loops(path: str) -> None:
        listed: Any = OmegaConf.load(resolve_config_path(path))
        for loop in listed:
            get_class(loop._target_)

    custom, rollout = config.trainer.v1.sampler.get("custom_sampler"), config.actor_rollout_ref.rollout
    yield from _line("reward.custom_reward_function", lambda: get_custom_reward_fn(config))
    if has_custom_sampler(config.trainer.v1):
        yield from _line(
            "trainer.v1.sampler.custom_sampler", lambda: load_extern_object(str(custom.path), str(custom.name))
        )
    if path := rollout.agent.get("agent_loop_config_path"):
        yield from _line("actor_rollout_ref.rollout.agent.agent_loop_config_path", lambda: loops(path))
    yield from installed(config.actor_rollout_ref.model, "actor_rollout_ref.model", config.trainer)


def installed(model: Any, section: str, trainer: Any) -> Iterator[str]:
    """Modules of ``<section>.external_lib`` and loggers that are not here."""
    from verl.utils.tracking import Tracking

    def module(name: str) -> None:
        if find_spec(name) is None:
            raise ImportError(f"no module {name} in this environment")

    for library in _listed(model.get("external_lib")):
        yield from _line(f"{section}.external_lib", partial(module, library))
    for logger in _listed(trainer.logger):
        if logger not in (*Tracking.supported_backend, "tracking"):
            yield f"trainer.logger: verl has no {shown(logger)}; choose of {', '.join(Tracking.supported_backend)}"
        elif logger in PACKAGES and find_spec(logger) is None:
            yield f"trainer.logger: {logger} is not installed; pip install {logger}, or drop it"


def _listed(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def model_keys(model: Any, section: str) -> Iterator[str]:
    """Unknown keys of the model section; building the dataclass itself would load a tokenizer."""
    from verl.workers.config import HFModelConfig

    known = {field.name for field in dataclasses.fields(HFModelConfig)}
    for key in model:
        if key not in known:
            yield f"{section}.{key}: unknown to verl; remove it (known: {', '.join(sorted(known))})"


def misspelt(config: Any) -> Iterator[str]:
    """Keys that are almost one of verl's own: of a yaml it takes any key, and reads this one nowhere."""
    import verl
    from omegaconf import OmegaConf

    trainer = "ppo_trainer" if "actor_rollout_ref" in config else "sft_trainer_engine"
    own = compose(Path(verl.__file__).parent / "trainer" / "config", trainer)
    yield from _almost(OmegaConf.to_container(config, resolve=False), OmegaConf.to_container(own, resolve=False))


def _almost(given: Any, own: Any, path: str = "") -> Iterator[str]:
    for key, value in given.items():
        meant = [] if key in own else get_close_matches(str(key), own, 1, 0.8)
        if meant:
            yield f"{path}{key} is no key of verl's, but {path}{meant[0]} is; correct it if that is meant"
        elif isinstance(value, dict) and isinstance(own.get(key), dict) and key != "ray_kwargs":  # these are Ray's own
            yield from _almost(value, own[key], f"{path}{key}.")


def _as_actor(worker: Any) -> Any:
    """The reference section under the names that its worker gives it (workers/engine_workers.py:545-552)."""
    from omegaconf import OmegaConf, open_dict

    ref: Any = OmegaConf.create(OmegaConf.to_container(worker.ref, resolve=True))
    with open_dict(ref):
        ref.ppo_mini_batch_size = worker.actor.ppo_mini_batch_size
        ref.ppo_micro_batch_size = ref.pop("log_prob_micro_batch_size", None)
        ref.ppo_micro_batch_size_per_gpu = ref.pop("log_prob_micro_batch_size_per_gpu", None)
        ref.use_dynamic_bsz = ref.pop("log_prob_use_dynamic_bsz", False)
        ref.ppo_max_token_len_per_gpu = ref.pop("log_prob_max_token_len_per_gpu", None)
    return ref


def _line(section: str, action: Callable[[], Any]) -> Iterator[str]:
    """Run ``action`` quietly; what it raises becomes one line with the innermost reason and Hydra's key."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            action()
    except Exception as error:  # assertions, ValueErrors and Hydra's wrappers of TypeErrors: all are verl saying no
        place = getattr(error, "full_key", None) or section
        reason = error.__cause__ or error
        yield f"{place}: verl refuses it: {' '.join(str(reason).split()) or type(reason).__name__}; change that key"
