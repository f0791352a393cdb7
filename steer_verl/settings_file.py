"""A YAML file of settings, with ``key=value`` overrides, read into one strict class."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from steer_verl.errors import ConfigError
from steer_verl.settings_error import plain_name, refusal

S = TypeVar("S", bound=BaseModel)


def load_settings(
    cls: type[S],
    path: Path | None,
    overrides: Sequence[str] = (),
    *,
    only: Collection[str] | None = None,
    **given: Any,
) -> S:
    """Read a file; ``a.b=value`` sets a key as if it stood there. Relative paths begin where the command runs.

    Args:
        cls: what the file holds.
        path: YAML; ``None``: the overrides are all there is.
        overrides: of the command line.
        only: what is taken of the file, which may say more; unset, all of it.
        given: further keys, which win.

    Raises:
        ConfigError: the file cannot be read, a key is unknown or a value cannot work.
    """
    values = read_yaml(path) if path else {}
    values = {name: value for name, value in values.items() if only is None or name in only}
    for override in overrides:
        set_override(values, override)
    return parse_settings(cls, {**values, **given}, str(path) if path else "settings")


def parse_settings(cls: type[S], values: Mapping[str, Any], where: str) -> S:
    """Settings out of plain values.

    Raises:
        ConfigError: as :func:`load_settings`; ``where`` begins the message.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        key, what = refusal(error, lambda section: f"{cls.__module__.replace('.', '/')}.py has them all")
        raise ConfigError(f"{where}: {key}: {what}" if key else f"{where}: {what}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ConfigError: the file cannot be read, holds something else, or a key twice, of which one would be lost.
    """
    try:
        values = _parsed(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({' '.join(str(error).split())}); give a YAML file") from None
    except Exception as error:  # a date that is none, a tag that its value does not fit, and more
        raise ConfigError(f"{path}: {fault_in_yaml(error)}; mend it, or give a YAML file") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a mapping; see recipes/ for examples")
    return values


def fault_in_yaml(error: Exception) -> str:
    """What is wrong with YAML, and where. What stands there is not repeated: it may be a key."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or ""
    what = "a key stands twice" if problem.startswith(_TWICE) else "is no YAML"
    return what + (f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "")


_TWICE = "found duplicate key"
"""Hydra's words too."""


def _parsed(text: str) -> Any:
    """What YAML holds; what is raised for text that is none has many types."""
    import yaml

    return yaml.load(text, _loader())  # a SafeLoader


@cache
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node, names = super().compose_mapping_node(anchor), set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if (key.tag, key.value) in names:
                    raise yaml.MarkedYAMLError(problem=_TWICE, problem_mark=key.start_mark)
                names.add((key.tag, key.value))
            return node

    return Loader


def set_override(values: dict[str, Any], override: str) -> None:
    """Set what ``a.b=value`` says, in place. A section that is missing or empty is made.

    Raises:
        ConfigError: not of that form, or the way to the key is not there.
    """
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{_named(key)}: not of the form key=value, such as work.in_flight=64")
    try:
        value = _parsed(text)
    except Exception:  # as of a file
        raise ConfigError(f"{_named(key)}: the value is no YAML; put it into quotes") from None
    _put(values, key, value)


def _named(key: str) -> str:
    """What an override sets. Its value is never repeated, nor what is no key: it may be a secret."""
    return repr(key) if plain_name(key) else "an override"


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a key; an element of a list goes by its number.

    Raises:
        ConfigError: the way to it is not there.
    """
    *path, last = key.split(".")
    place: Any = values
    try:
        for part in path:
            if isinstance(place, dict) and place.get(part) is None:
                place[part] = {}
            place = place[int(part) if isinstance(place, list) else part]
        place[int(last) if isinstance(place, list) else last] = value
    except (AttributeError, IndexError, TypeError, ValueError):
        raise ConfigError(
            f"{_named(key)}: no such place; give the names of the file's keys, and numbers in lists"
        ) from None
