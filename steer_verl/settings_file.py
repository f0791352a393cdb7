"""A YAML file of settings, with ``key=value`` overrides, read into one strict class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from steer_verl.errors import ConfigError

S = TypeVar("S", bound=BaseModel)


def load_settings(cls: type[S], path: Path | None, overrides: Sequence[str] = ()) -> S:
    """Read a file; ``a.b=value`` sets a key as if it stood there. Relative paths begin where the command runs.

    Args:
        cls: what the file holds.
        path: YAML; ``None``: the overrides are all there is.
        overrides: of the command line.

    Raises:
        ConfigError: the file cannot be read, a key is unknown or a value cannot work.
    """
    values = _read(path) if path else {}
    for override in overrides:
        _override(values, override)
    return parse_settings(cls, values, str(path) if path else "settings")


def parse_settings(cls: type[S], values: Mapping[str, Any], where: str) -> S:
    """Settings out of plain values.

    Raises:
        ConfigError: as :func:`load_settings`; ``where`` begins the message.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        told = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            told = f"unknown key; {cls.__module__.replace('.', '/')}.py has them all"
        raise ConfigError(f"{where}: {key}: {told}" if key else f"{where}: {told}") from None


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read ({' '.join(str(error).split())}); give a YAML file") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a mapping; see recipes/ for examples")
    return values


def _override(values: dict[str, Any], override: str) -> None:
    import yaml

    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r}: not of the form key=value, such as work.in_flight=64")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{override!r}: the value is no YAML; put it into quotes") from None
    _put(values, key, value)


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a key; an element of a list goes by its number.

    Raises:
        ConfigError: the way to it is not there.
    """
    *path, last = key.split(".")
    place: Any = values
    try:
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        place[int(last) if isinstance(place, list) else last] = value
    except (AttributeError, IndexError, TypeError, ValueError):
        raise ConfigError(f"{key}: no such place; give the names of the file's keys, and numbers in lists") from None
