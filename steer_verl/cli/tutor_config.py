"""The configuration of a ``steer tutor`` command: a recipe's yaml, a yaml with the tutor section alone, or two words.

Every form takes overrides in Hydra's spelling. Those of the plugin's section may be written whole, as a training takes
them (``++actor_rollout_ref.rollout.custom.steer.tutor.endpoint.timeout=60``), or short (``tutor.endpoint.timeout=60``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steer_verl.config import STEER_KEY, SteerConfig, TcsrConfig, section_of, steer_config, tcsr_config, verl_settings
from steer_verl.errors import ConfigError
from steer_verl.settings_file import read_yaml, set_override

Config = tuple[SteerConfig, TcsrConfig]


def read_config(
    path: Path | None = None, base_url: str | None = None, model: str | None = None, overrides: Sequence[str] = ()
) -> Config:
    """The configuration of ``path`` (a recipe's yaml needs hydra), or of one endpoint: ``base_url`` and ``model``.

    Raises:
        ConfigError: neither or both are given, the file cannot be read, or a setting cannot work.
    """
    if path is not None and base_url is None and model is None:
        values = read_yaml(path)
        if "actor_rollout_ref" in values or "defaults" in values:
            return _recipe(path, overrides)
    elif path is None and base_url is not None and model is not None:
        values = {"tutor": {"endpoint": {"base_url": base_url, "model": model}}}
    else:
        raise ConfigError("give either --config FILE or both --base-url URL and --model NAME")
    for override in overrides:
        set_override(values, override.lstrip("+").removeprefix(f"{STEER_KEY}."))
    tcsr = values.pop("tcsr", None)
    return steer_config(values), tcsr_config(tcsr)


def _recipe(path: Path, overrides: Sequence[str]) -> Config:
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
        section: Any = section_of(composed, STEER_KEY)
        if section is not None:
            with open_dict(section):  # a training's folders, which may be named by what is still missing
                section.transcripts = section.cache = None
                if section.get("tutor") is not None:
                    section.tutor.log = None
        return verl_settings(composed)
    except OmegaConfBaseException as error:
        what = str(error).splitlines()[0]
        raise ConfigError(f"--config {path}: {STEER_KEY}: {what}; set it, or override the key") from None


def _whole(override: str) -> str:
    """The short spelling of an override as Hydra takes it: one that may be new to the yaml is added."""
    sign, name = "~" if override.startswith("~") else "++", override.lstrip("+~")
    short = name.partition("=")[0].split(".")[0] in SteerConfig.model_fields
    return f"{sign}{STEER_KEY}.{name}" if short else override
