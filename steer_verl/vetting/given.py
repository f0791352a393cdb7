"""The configuration that a ``steer tutor`` command was given: a recipe's yaml, a small yaml of one's own, or two words.

Every form takes overrides in Hydra's spelling. Those of the plugin's section may be written whole, as a training takes
them (``++actor_rollout_ref.rollout.custom.steer.tutor.endpoint.timeout=60``), or short (``tutor.endpoint.timeout=60``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from steer_verl.config import STEER_KEY, SteerConfig, TcsrConfig, steer_config, tcsr_config
from steer_verl.errors import ConfigError


@dataclass(frozen=True)
class Given:
    """What the commands need of a configuration."""

    steer: SteerConfig
    tcsr: TcsrConfig


def given(
    config: Path | None = None, base_url: str | None = None, model: str | None = None, overrides: Sequence[str] = ()
) -> Given:
    """The configuration of a command line.

    Args:
        config: a recipe's yaml (read as a training reads it, which needs hydra) or one with a ``tutor`` section.
        base_url: of a single endpoint, in place of ``config``.
        model: its model.
        overrides: ``key=value`` each.

    Raises:
        ConfigError: neither or both are given, the file cannot be read, or a setting cannot work.
    """
    if config is not None and base_url is None and model is None:
        return _from_file(config, overrides)
    if config is not None or base_url is None or model is None:
        raise ConfigError("give either --config FILE or both --base-url URL and --model NAME")
    return _plain({"tutor": {"endpoint": {"base_url": base_url, "model": model}}}, overrides)


def _from_file(path: Path, overrides: Sequence[str]) -> Given:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: cannot be read ({error}); give a yaml file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"--config {path}: not yaml ({' '.join(str(error).split())}); mend it") from None
    if not isinstance(values, dict):
        raise ConfigError(f"--config {path}: holds no section; give a recipe's yaml, or one with a tutor section")
    if "actor_rollout_ref" in values or "defaults" in values:
        return _from_recipe(path, overrides)
    return _plain(values, overrides)


def _from_recipe(path: Path, overrides: Sequence[str]) -> Given:
    """As ``main_ppo`` sees it. Only our sections need be whole: data and model may still be missing."""
    try:
        from omegaconf import open_dict
        from omegaconf.errors import OmegaConfBaseException

        from steer_verl.preflight.compose import compose
    except ImportError:
        raise ConfigError(
            f"--config {path} is a recipe, which needs hydra-core and verl; install them, or give a yaml that holds "
            "the tutor section alone"
        ) from None
    composed = compose(path.parent, path.name, [_whole(override) for override in overrides])
    try:
        section = (composed.actor_rollout_ref.rollout.get("custom") or {}).get("steer")
        if section is not None:
            with open_dict(section):  # a training's folders, which may be named by what is still missing
                section.transcripts = section.journal = None
                if section.get("tutor") is not None:
                    section.tutor.log = None
        return Given(steer_config(section), tcsr_config(composed.algorithm.get("tcsr")))
    except OmegaConfBaseException as error:
        what = str(error).splitlines()[0]
        raise ConfigError(f"--config {path}: {STEER_KEY}: {what}; set it, or override the key") from None


def _plain(values: dict[str, Any], overrides: Sequence[str]) -> Given:
    values = dict(values)
    for override in overrides:
        _set(values, override)
    tcsr = values.pop("tcsr", None)
    return Given(steer_config(values), tcsr_config(tcsr))


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = key.lstrip("+").removeprefix(f"{STEER_KEY}.").split(".")
    if not equals or not all(path):
        raise ConfigError(f"{override!r} is no override; write key=value, such as tutor.endpoint.timeout=60")
    for part in path[:-1]:
        inner = values[part] = dict(values[part]) if isinstance(values.get(part), dict) else {}
        values = inner
    try:
        values[path[-1]] = yaml.safe_load(text)
    except yaml.YAMLError:
        values[path[-1]] = text


def _whole(override: str) -> str:
    """The short spelling of an override as Hydra takes it: one that may be new to the yaml is added."""
    short = override.lstrip("+~").partition("=")[0].split(".")[0] in SteerConfig.model_fields
    return f"++{STEER_KEY}.{override.lstrip('+')}" if short else override
