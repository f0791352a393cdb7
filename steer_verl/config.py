"""The one strict configuration of the plugin.

Two places in verl's own config carry it, so that every setting is a plain Hydra override:

* ``actor_rollout_ref.rollout.custom.steer`` -> :class:`SteerConfig` (workers/config/rollout.py, ``custom: dict``)
* ``algorithm.tcsr`` -> :class:`TcsrConfig` (handed to the estimator as part of ``config``)

Unknown keys, wrong types and values that cannot work are errors, in one line, with the cure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from steer_verl.errors import ConfigError

STEER_KEY = "actor_rollout_ref.rollout.custom.steer"
TCSR_KEY = "algorithm.tcsr"


class Settings(BaseModel):
    """Base of every settings class: unknown keys are errors, numbers must be finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ScoreWeights(Settings):
    """Weights of the three scores in a turn reward, normalised to sum to 1; the defaults are the authors' code's."""

    safety: Annotated[float, Field(ge=0)] = 0.4
    usefulness: Annotated[float, Field(ge=0)] = 0.4
    faithfulness: Annotated[float, Field(ge=0)] = 0.2

    @model_validator(mode="after")
    def _some_weight(self) -> ScoreWeights:
        if self.safety + self.usefulness + self.faithfulness <= 0:
            raise ValueError("the weights sum to 0; give at least one score a positive weight")
        return self


class RewardConfig(Settings):
    """How a verdict becomes a turn reward in [0, 1] (see steer_verl/rewards.py)."""

    weights: ScoreWeights = ScoreWeights()
    normalization: Literal["unit", "tenth"] = "unit"
    """``unit``: (w.s - 1) / 9, so that the scale 1..10 fills [0, 1]. ``tenth``: w.s / 10, the released code's."""
    format: Literal["off", "gate", "bonus"] = "off"
    """``gate``: a malformed answer earns 0. ``bonus``: half of the reward is the format, as released."""
    repetition_penalty: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Subtracted times the share of repeated word trigrams within the answer; the result is floored at 0."""


class EndpointConfig(Settings):
    """One OpenAI-compatible endpoint. The key comes from the variable ``api_key_env``; it is never logged."""

    base_url: str
    model: str
    api_key_env: str = "STEER_TUTOR_API_KEY"
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_tokens: Annotated[int, Field(ge=16)] = 512
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Total seconds for one ruling, retries included."""
    connect_timeout: Annotated[float, Field(gt=0)] = 30.0
    max_retries: Annotated[int, Field(ge=0, le=20)] = 4
    max_concurrency: Annotated[int, Field(ge=1)] = 64
    images: bool = True
    """Send pictures. Off for a text-only model: it then judges blind, which the preflight says loudly."""
    json_schema: Literal["auto", "on", "off"] = "auto"
    """Ask for structured output. ``auto``: try, and fall back to text when the server refuses the parameter."""


class TutorConfig(Settings):
    """Who judges and who attacks."""

    kind: Literal["openai", "mini"] = "openai"
    """``openai``: a model at ``endpoint``. ``mini``: the laboratory's rule tutor, which knows the truth."""
    endpoint: EndpointConfig | None = None
    """Adjudicates, and attacks too unless ``attacker`` is given (the paper uses one model for both)."""
    attacker: EndpointConfig | None = None
    rubric: str | None = None
    """Path of a rubric file that replaces the built-in one."""

    @model_validator(mode="after")
    def _endpoint_present(self) -> TutorConfig:
        if self.kind == "openai" and self.endpoint is None:
            raise ValueError("kind is openai but there is no endpoint; set tutor.endpoint.base_url and .model")
        if self.kind != "openai" and (self.endpoint or self.attacker):
            raise ValueError(f"kind {self.kind} takes no endpoint; drop it or set kind: openai")
        return self


class SteerConfig(Settings):
    """Everything of the rollout and the reward."""

    tutor: TutorConfig
    attack: Literal["adaptive", "static"] = "adaptive"
    """``static`` asks the seed's own questions (ablation without feedback dynamics); answers are still scored."""
    max_turns: Annotated[int, Field(ge=1, le=10)] = 10
    max_answer_tokens: Annotated[int, Field(ge=1)] = 1024
    """Cap of one answer; ``data.max_response_length`` is the budget of the whole dialogue."""
    min_scored_turns: Annotated[int, Field(ge=1, le=10)] = 2
    """A trajectory with fewer scored turns is invalid: mask 0, advantage 0, out of its group's statistics."""
    max_question_chars: Annotated[int, Field(ge=1)] = 4000
    """A longer tutor question is replaced by the static one."""
    reward: RewardConfig = RewardConfig()
    transcripts: str | None = None
    """Folder for the transcript log (JSONL, one line per dialogue); none is kept when unset."""


class TcsrConfig(Settings):
    """Shaping, aggregation, credit and normalisation of TCSR (see steer_verl/tcsr.py)."""

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Weight of the historical minimum against the mean; 0.3 is the authors' code's, the paper gives none."""
    shaping: Literal["prefix", "trajectory"] = "prefix"
    aggregation: Literal["sum", "mean", "last"] = "mean"
    credit: Literal["trajectory", "turn"] = "turn"
    normalize_std: bool = True


TCSR_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"shaping": "prefix", "aggregation": "sum", "credit": "trajectory", "normalize_std": False},
    "released": {"shaping": "trajectory", "aggregation": "last", "credit": "trajectory", "normalize_std": True},
    "steer": {"shaping": "prefix", "aggregation": "mean", "credit": "turn", "normalize_std": True},
}
REWARD_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"normalization": "unit", "format": "off", "repetition_penalty": 0.0},
    "released": {"normalization": "tenth", "format": "bonus", "repetition_penalty": 0.1},
    "steer": {"normalization": "unit", "format": "gate", "repetition_penalty": 0.0},
}
DEFAULT_PRESET = "steer"

S = TypeVar("S", bound=Settings)


def _plain(section: Any) -> dict[str, Any]:
    """A resolved plain dict of a mapping or an OmegaConf node, which this module need not import."""
    if section is None:
        return {}
    if hasattr(section, "_metadata"):  # an OmegaConf container
        from omegaconf import OmegaConf

        section = OmegaConf.to_container(section, resolve=True)
    if not isinstance(section, Mapping):
        raise TypeError(f"a mapping is needed, not {type(section).__name__}")
    return dict(section)


def _parse(cls: type[S], values: Mapping[str, Any], where: str) -> S:
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join([where, *(str(p) for p in first["loc"])])
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(_fields_at(cls, first["loc"][:-1])))
            raise ConfigError(f"{path}: unknown key; the known ones are: {known}") from None
        raise ConfigError(f"{path}: {first['msg']} (given: {first['input']!r})") from None


def _fields_at(cls: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Field names of the settings class that ``path`` leads to."""
    import typing

    for part in path:
        annotation = cls.model_fields[part].annotation
        types = (annotation, *typing.get_args(annotation))
        cls = next(t for t in types if isinstance(t, type) and issubclass(t, BaseModel))
    return list(cls.model_fields)


def _preset(values: dict[str, Any], presets: Mapping[str, dict[str, Any]], where: str) -> dict[str, Any]:
    name = values.pop("preset", DEFAULT_PRESET)
    if name not in presets:
        raise ConfigError(f"{where}.preset: {name!r} is no preset; choose one of {', '.join(presets)}")
    return {**presets[name], **values}


def steer_config(section: Any) -> SteerConfig:
    """Parse ``actor_rollout_ref.rollout.custom.steer``; ``reward.preset`` fills what ``reward`` leaves open.

    Raises:
        ConfigError: the section is missing, a key is unknown or a value cannot work.
    """
    if section is None:
        raise ConfigError(f"{STEER_KEY} is missing; start from a recipe's yaml or set at least {STEER_KEY}.tutor")
    values = _plain(section)
    where = f"{STEER_KEY}.reward"
    values["reward"] = _preset(_plain(values.get("reward")), REWARD_PRESETS, where)
    return _parse(SteerConfig, values, STEER_KEY)


def tcsr_config(section: Any) -> TcsrConfig:
    """Parse ``algorithm.tcsr``; an absent section is the ``steer`` preset.

    Raises:
        ConfigError: a key is unknown or a value cannot work.
    """
    return _parse(TcsrConfig, _preset(_plain(section), TCSR_PRESETS, TCSR_KEY), TCSR_KEY)
