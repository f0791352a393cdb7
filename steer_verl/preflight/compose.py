"""The configuration exactly as verl's ``main_ppo`` would see it, or one line that says why there is none.

A plugin's keys merge freely inside a yaml; on the command line a key that no yaml holds needs a ``+``
(``+algorithm.tcsr.alpha=0.3``). The recipes' yamls hold the sections, not every key in them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from steer_verl.errors import ConfigError, disk_error
from steer_verl.settings_error import plain_name
from steer_verl.settings_file import fault_in_yaml

_ENV = re.compile(r"\$\{oc\.env:([A-Za-z_][A-Za-z0-9_]*)\}")  # without a default


def compose(config_path: str | Path, config_name: str, overrides: Sequence[str] = ()) -> Any:
    """The composed ``DictConfig``, unresolved.

    Args:
        config_path: folder of the yaml.
        config_name: its name, with or without ``.yaml``.
        overrides: Hydra overrides, in ``main_ppo``'s own syntax.

    Raises:
        ConfigError: no such file, or an override that Hydra refuses.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    folder, name = Path(config_path).resolve(), config_name.removesuffix(".yaml")
    if not (folder / f"{name}.yaml").is_file():
        raise ConfigError(f"{folder / name}.yaml: no such file; give a recipe's folder and the name of a yaml in it")
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(folder), version_base=None, job_name="main_ppo"):
            return _as_launched(hydra_compose(name, overrides=list(overrides), return_hydra_config=True))
    except OverrideParseException as error:
        key = error.override.partition("=")[0]
        told = f"the override of {key}" if plain_name(key.lstrip("+~")) else "an override"
        raise ConfigError(
            f"{name}.yaml does not compose: {told} is none in Hydra's grammar; correct the override: key=value, the "
            "value in quotes if it holds more than letters and digits"
        ) from None
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:  # of this yaml, or of another that it names
        file = getattr(getattr(error, "problem_mark", None), "name", f"{folder / name}.yaml")
        raise ConfigError(f"{file}: {fault_in_yaml(error)}; mend it, in UTF-8") from None
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: a number for a whole section
        told = _without_values(_one_line(error), overrides)
        told = told or f"it holds what OmegaConf cannot read ({type(error.__cause__).__name__})"
        raise ConfigError(f"{name}.yaml does not compose: {told}; correct the override or the yaml") from None
    except OSError as error:  # last: a missing option of a group is Hydra's and an OSError too
        raise ConfigError(str(disk_error(error, error.filename or folder / f"{name}.yaml", "read"))) from None


def _as_launched(config: Any) -> Any:
    """The configuration without Hydra's own section, which is known to ``${hydra:...}`` from now on."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict, read_write

    with read_write(config), open_dict(config):
        config.hydra.runtime.output_dir = "${hydra:run.dir}"  # its launcher sets it
        HydraConfig.instance().set_config(config)
        del config.hydra
    return config


def _without_values(text: str, overrides: Sequence[str]) -> str:
    """Hydra's words without what the overrides set, which may be a key in a wrong place."""
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and value and key.startswith("~"):  # Hydra tells it apart from the key, the config's own beside it
            text = re.sub(rf"The value of '{re.escape(key[1:])}' is .*", f"{key[1:]} has another value", text)
        elif equals and value:
            text = text.replace(f"{key.lstrip('+')}={value}", f"{key.lstrip('+')}=...")
    return text


def unresolved(config: Any) -> Iterator[str]:
    """A line for each environment variable and each mandatory value that is missing.

    An interpolation that fails for another reason is told once. The checks that follow need a configuration without
    any.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    missing = False
    for key, text in _leaves(OmegaConf.to_container(config, resolve=False)):
        if text == "???" and not key.startswith(("reward.reward_model.", "critic.", "distillation.")):
            missing = True
            yield f"{key}: has no value; give it on the command line: {key}=..."
        for name in _ENV.findall(text):
            if name not in os.environ:
                missing = True
                yield f"{key}: the environment variable {name} is not set; export it, or override {key}"
    if missing:
        return
    try:
        OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        yield f"{error.full_key}: {_one_line(error)}; override it"


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of every string in a plain container."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    if isinstance(node, str):
        yield path, node
    for key, value in items:
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _one_line(error: Exception) -> str:
    """What Hydra says on its first lines: the reason and its hint, without search paths and object types."""
    lines = [line.strip() for line in str(error).partition("Config search path")[0].splitlines()]
    told = [
        line for line in lines if line and not line.startswith(("full_key", "object_type", "reference_type", "See "))
    ]
    return " ".join(dict.fromkeys(told))
