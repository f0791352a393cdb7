"""The red team's strategies, read from data: every framing with every escalation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field

from steer_verl.config import Settings
from steer_verl.data.drawn import drawn
from steer_verl.data.stages.agents import Strategy
from steer_verl.errors import ConfigError
from steer_verl.settings_file import load_settings

BUILT_IN = Path(__file__).with_name("strategies.yaml")

T = TypeVar("T")
Word = Annotated[str, Field(pattern=r"^\w+$")]
Text = Annotated[str, Field(min_length=1, max_length=1000)]


class Part(Settings):
    """A framing or an escalation."""

    name: Word
    text: Text


class StrategyFile(Settings):
    """What a file holds."""

    framings: tuple[Part, ...] = ()
    escalations: tuple[Part, ...] = ()


def load_strategies(path: str | Path | None = None) -> tuple[Strategy, ...]:
    """The built-in strategies, with those that the file at ``path`` adds.

    Raises:
        ConfigError: the file cannot be read, has an unknown key, or names a framing or an escalation twice.
    """
    given = [load_settings(StrategyFile, Path(file)) for file in (BUILT_IN, path) if file is not None]
    where = str(path or BUILT_IN)
    framings = _named(where, "framing", [part for file in given for part in file.framings])
    escalations = _named(where, "escalation", [part for file in given for part in file.escalations])
    return tuple(
        Strategy(name=f"{framing.name}+{escalation.name}", framing=framing.text, escalation=escalation.text)
        for framing in framings
        for escalation in escalations
    )


def shuffled(items: Sequence[T], name: str) -> list[T]:
    """The items in an order that depends on ``name`` and on their number alone."""
    return [item for _, item in sorted(enumerate(items), key=lambda pair: drawn("order", name, str(pair[0])))]


def _named(where: str, what: str, parts: list[Part]) -> list[Part]:
    names = [part.name for part in parts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"strategies {where}: the {what} {twice!r} stands twice; give it another name")
    return parts
