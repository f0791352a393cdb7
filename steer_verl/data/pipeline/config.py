"""What a build is told: one YAML file, every key of it known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from steer_verl.config import EndpointConfig, Settings
from steer_verl.data.sources.settings import DuplicateSettings, ShareSettings, SourceSettings
from steer_verl.data.stage1.settings import ExpandSettings, PerturbSettings, RedTeamSettings
from steer_verl.data.stage2.settings import BootstrapSettings, HistorySettings, SetSettings, SplitSettings
from steer_verl.settings_error import refusal
from steer_verl.settings_file import load_settings
from steer_verl.work.settings import WorkSettings

Role = Literal["generator", "red_team", "target", "breach_judge", "red_user", "blue_expert", "evaluator", "risk_judge"]
ROLES: tuple[Role, ...] = get_args(Role)


class AgentSettings(Settings):
    """Who takes part (steer_verl/data/agents.py)."""

    kind: Literal["endpoint", "mini"] = "endpoint"
    """``mini``: the laboratory's rules, for the laboratory's seeds."""
    seed: int = 0
    """Of the rules' dice."""
    endpoint: dict[str, Any] = Field(default_factory=dict)
    """Keys of ``steer_verl.config.EndpointConfig`` for every role."""
    roles: dict[Role, dict[str, Any]] = Field(default_factory=dict)
    """Role -> the keys that differ for it."""
    guidelines: Path | None = None
    """The blue expert's, in place of steer_verl/data/stage2/guidelines.md."""
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
            return EndpointConfig.model_validate({**self.endpoint, **self.roles.get(role, {})})
        except ValidationError as error:
            key, what = refusal(error, lambda section: "steer_verl/config.py has them all (EndpointConfig)")
            raise ValueError(f"{role}: {key}: {what}") from None


class BuildConfig(Settings):
    """A build: from sources to sets."""

    out: Path
    """Everything is written here; the same command goes on with what is there."""
    sources: tuple[SourceSettings, ...] = ()
    agents: AgentSettings
    duplicates: DuplicateSettings = DuplicateSettings()
    kinds: ShareSettings = ShareSettings()
    perturb: PerturbSettings = PerturbSettings()
    expand: ExpandSettings = ExpandSettings()
    red_team: RedTeamSettings = RedTeamSettings()
    bootstrap: BootstrapSettings = BootstrapSettings()
    history: HistorySettings = HistorySettings()
    splits: SplitSettings = SplitSettings()
    sets: SetSettings = SetSettings()
    student_format: bool = True
    """The system prompt that tells a student its format stands before every dialogue of the training sets."""
    work: WorkSettings = WorkSettings()

    @field_validator("out")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @property
    def pictures(self) -> Path:
        """Folder that the paths of pictures in seeds lie below."""
        return self.out / "pictures"

    def step(self, name: str) -> Path:
        """Folder of a step's outcomes."""
        return self.out / "steps" / name


def load_config(path: Path, overrides: Sequence[str] = ()) -> BuildConfig:
    """Read a build's file; see :func:`steer_verl.settings_file.load_settings`.

    Raises:
        ConfigError: the file cannot be read, a key is unknown or a value cannot work.
    """
    return load_settings(BuildConfig, path, overrides)
