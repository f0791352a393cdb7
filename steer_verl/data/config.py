"""What a build is told: one YAML file, every key of it known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from steer_verl.config import EndpointConfig, Settings, UserPath
from steer_verl.data.sets.settings import SetSettings
from steer_verl.data.sources.settings import DuplicateSettings, ShareSettings, SourceSettings, SplitSettings
from steer_verl.data.stages.agents import ROLES, SAMPLING, Role
from steer_verl.data.stages.settings import StageSettings
from steer_verl.settings_error import refusal
from steer_verl.settings_file import load_settings
from steer_verl.work.step import WorkSettings

MINI = "steer_verl.mini.agents:MiniAgents"
"""The laboratory stands a floor above: it is named, not imported."""
DECISIVE = ("base_url", "model", "mirrors", "temperature", "max_tokens", "reasks", "images", "json_schema")
"""Keys of an endpoint that decide what a model replies; bounds, deadlines, keys and prices do not."""


class AgentSettings(Settings):
    """Who takes part (steer_verl/data/stages/agents.py)."""

    kind: Literal["endpoint", "mini"] = "endpoint"
    """``mini``: the laboratory's rules, for the laboratory's seeds."""
    seed: int = 0
    """Of the rules' dice."""
    endpoint: dict[str, Any] = Field(default_factory=dict)
    """Keys of ``steer_verl.config.EndpointConfig`` for every role. Left out, ``temperature`` and ``max_tokens`` are the
    role's own."""
    roles: dict[Role, dict[str, Any]] = Field(default_factory=dict)
    """Role -> the keys that differ for it."""
    guidelines: UserPath | None = None
    """The blue expert's, in place of steer_verl/data/stages/stage2/guidelines.md."""
    rubric: str | None = None
    """The evaluator's, in place of the tutor's."""

    @model_validator(mode="after")
    def _endpoints_possible(self) -> AgentSettings:
        if self.kind == "endpoint":
            for role in ROLES:
                self.of(role)
        elif self.endpoint or self.roles:
            raise ValueError("kind mini takes no endpoint; drop it or set kind: endpoint")
        return self

    def of(self, role: Role) -> EndpointConfig:
        """A role's endpoint."""
        try:
            return EndpointConfig.model_validate({**SAMPLING[role], **self.endpoint, **self.roles.get(role, {})})
        except ValidationError as error:
            key, what = refusal(error, lambda section: "steer_verl/config.py has them all (EndpointConfig)")
            raise ValueError(f"{role}: {key}: {what}") from None

    @property
    def endpoints(self) -> dict[Role, EndpointConfig]:
        """Role -> its endpoint; none with the laboratory's rules."""
        return {} if self.kind == "mini" else {role: self.of(role) for role in ROLES}


class BuildConfig(StageSettings):
    """A build: from sources to sets. The stages' own sections are those of :class:`StageSettings`."""

    out: UserPath
    """Everything is written here; the same command goes on with what is there."""
    sources: tuple[SourceSettings, ...] = ()
    agents: AgentSettings
    duplicates: DuplicateSettings = DuplicateSettings()
    kinds: ShareSettings = ShareSettings()
    splits: SplitSettings = SplitSettings()
    sets: SetSettings = SetSettings()
    student_format: bool = True
    """The system prompt that tells a student its format stands before every dialogue of the training sets."""
    work: WorkSettings = WorkSettings()

    @field_validator("out")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        path = value.resolve()
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise ValueError("not UTF-8, so that no table could name the images in it; name another folder") from None
        return path

    @property
    def images(self) -> Path:
        """Folder that the paths of images in seeds lie below."""
        return self.out / "images"

    def step(self, name: str) -> Path:
        """Folder of a step's records."""
        return self.out / "steps" / name


def load_config(path: Path, overrides: Sequence[str] = ()) -> BuildConfig:
    """Read a build's file; see :func:`steer_verl.settings_file.load_settings`.

    Raises:
        ConfigError: the file cannot be read, a key is unknown or a value cannot work.
    """
    return load_settings(BuildConfig, path, overrides)
