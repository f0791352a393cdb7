"""The manifest's counts of the steps behind a set, as a card needs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steer_verl.errors import DataError
from steer_verl.types import Usage


class StepCounts(BaseModel):
    """One step: what went in, what became of it, who worked and what it cost. Further keys are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    given: int = Field(alias="in", ge=0)
    kept: int = Field(ge=0)
    rejected: dict[str, int] = Field(default_factory=dict)
    """By reason."""
    undone: int = Field(default=0, ge=0)
    usage: Usage = Usage()
    agents: dict[str, str] = Field(default_factory=dict)
    """Role -> model and version of its prompt, or its rules."""

    @property
    def refused(self) -> int:
        """Rejected for whatever reason."""
        return sum(self.rejected.values())


def read_account(account: Mapping[str, Any]) -> dict[str, StepCounts]:
    """The steps by name, in the order of work; values are plain dictionaries or the manifest's own records.

    Raises:
        DataError: a step has not the manifest's form.
    """
    return {name: _step(name, value) for name, value in account.items()}


def total_usage(steps: Mapping[str, StepCounts]) -> Usage:
    """Of all the steps."""
    return sum((step.usage for step in steps.values()), Usage())


def _step(name: str, value: Any) -> StepCounts:
    try:
        return StepCounts.model_validate(value.model_dump(by_alias=True) if isinstance(value, BaseModel) else value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "value"
        cure = "give in, kept, rejected {reason: count}, undone, usage and agents, as the manifest has them"
        raise DataError(f"account of step {name!r}: {field}: {first['msg']}; {cure}") from None
