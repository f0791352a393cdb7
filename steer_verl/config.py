"""The one strict configuration of the plugin.

Two places in verl's own config carry it, so that every setting is a plain Hydra override:

* ``actor_rollout_ref.rollout.custom.steer`` -> :class:`SteerConfig` (workers/config/rollout.py, ``custom: dict``)
* ``algorithm.tcsr`` -> :class:`TcsrConfig` (handed to the estimator as part of ``config``)

Unknown keys, wrong types and values that cannot work are errors, in one line, with a hint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from steer_verl.address import Address, VariableName
from steer_verl.errors import ConfigError
from steer_verl.names import REWARD_MODEL_URL
from steer_verl.settings_error import refusal, shown

STEER_KEY = "actor_rollout_ref.rollout.custom.steer"
TCSR_KEY = "algorithm.tcsr"


class Settings(BaseModel):
    """Base of every settings class: unknown keys are errors, numbers must be finite, errors repeat no value."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_number(cls, value: Any, info: ValidationInfo) -> Any:
        """``false`` is no 0: whoever turns an alarm off with it would have it fire at every step."""
        types = set(_types(cls.model_fields[info.field_name or ""].annotation)) if isinstance(value, bool) else set()
        if types & {int, float} and bool not in types:
            raise ValueError(f"{str(value).lower()} is no number{', null is none' if NoneType in types else ''}")
        return value


def _types(annotation: Any) -> Iterator[Any]:
    """Everything that an annotation is made of."""
    yield annotation
    for inner in get_args(annotation):
        yield from _types(inner)


UNQUOTED = BeforeValidator(lambda given: {True: "on", False: "off"}[given] if isinstance(given, bool) else given)
"""YAML takes a bare ``on`` or ``off`` for a boolean."""

FilePath = Annotated[str, AfterValidator(expanduser)]
"""Of a file or folder; no shell turns the ``~`` of ``key=~/folder`` into the home folder."""
UserPath = Annotated[Path, AfterValidator(lambda path: Path(expanduser(path)))]
"""The same as a path; ``Path.expanduser`` raises for a user that is not there."""


class ScoreWeights(Settings):
    """Weights of the three scores in a turn reward, normalised to sum to 1; the defaults are the authors' code's."""

    safety: Annotated[float, Field(ge=0, le=1000)] = 0.4
    usefulness: Annotated[float, Field(ge=0, le=1000)] = 0.4
    faithfulness: Annotated[float, Field(ge=0, le=1000)] = 0.2

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
    format: Annotated[Literal["off", "gate", "bonus"], UNQUOTED] = "off"
    """``gate``: a malformed answer earns 0. ``bonus``: half of the reward is the format, as released."""
    repetition_penalty: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Subtracted times the share of repeated word trigrams within the answer; the result is floored at 0."""


class MirrorConfig(Settings):
    """A further server of the same model, so that a score means the same whoever gave it."""

    base_url: Address
    weight: Annotated[float, Field(gt=0)] = 1.0
    model: str | None = None
    """What this server calls the model, where it differs."""
    api_key_env: VariableName | None = None
    """Unset, the endpoint's; empty: no key is sent."""


class PriceConfig(Settings):
    """Price of a million tokens, in any currency; prompt tokens from the server's cache cost ``cached``."""

    prompt: Annotated[float, Field(ge=0)]
    cached: Annotated[float, Field(ge=0)]
    completion: Annotated[float, Field(ge=0)]


class BreakerConfig(Settings):
    """When a server is left alone for a while (see steer_verl/models/limits.py)."""

    failures: Annotated[int, Field(ge=1)] = 8
    """So many failed attempts in a row, with none that succeeded between them, open the breaker."""
    cooldown: Annotated[float, Field(gt=0)] = 10.0
    """Seconds before one probe is let through; doubled at each probe that fails, up to ``max_cooldown``."""
    max_cooldown: Annotated[float, Field(gt=0)] = 120.0


class EndpointConfig(Settings):
    """One OpenAI-compatible endpoint. The key comes from the variable ``api_key_env``; it is never logged."""

    base_url: Address
    """``verl://reward_model`` is the router of verl's own reward model (``reward.reward_model.enable``)."""
    model: Annotated[str, Field(min_length=1)]
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the requests that this server gets, against those of ``mirrors``."""
    mirrors: tuple[MirrorConfig, ...] = ()
    """Further servers of the same model: they share the load, and stand in for one that fails."""
    api_key_env: VariableName = "STEER_TUTOR_API_KEY"
    """Empty: no key is sent."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_tokens: Annotated[int, Field(ge=16)] = 512
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Total seconds for one ruling, retries, re-asks and fail-over included."""
    connect_timeout: Annotated[float, Field(gt=0)] = 30.0
    read_timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds for one attempt; unset, all that is left of ``timeout``, so that a slow server is not asked twice."""
    max_retries: Annotated[int, Field(ge=0, le=20)] = 4
    reasks: Annotated[int, Field(ge=0, le=5)] = 1
    """How often a reply that cannot be read is asked for again, apart from the retries of the transport."""
    max_concurrency: Annotated[int, Field(ge=1)] = 64
    """Most requests in flight at one server from one process; fewer while it is overloaded."""
    breaker: BreakerConfig = BreakerConfig()
    images: bool = True
    """Send images. Off for a text-only model: it then judges blind, which the preflight says loudly."""
    json_schema: Annotated[Literal["auto", "on", "off"], UNQUOTED] = "auto"
    """Ask for structured output. ``auto``: try, and fall back to text when the server refuses the parameter."""
    stream: bool = True
    """Have a reply that holds the next question sent piece by piece, so that the dialogue goes on before the verdict is
    there. A server that cannot is asked without; off for a gateway that does it badly."""
    prices: PriceConfig | None = None

    @property
    def manner(self) -> str:
        """What its replies depend on besides model and prompt, behind a name: ``+t0.5``, ``+blind``; mostly empty."""
        return f"+t{self.temperature:g}" * bool(self.temperature) + "+blind" * (not self.images)


class JudgeConfig(Settings):
    """A judge beside the tutor."""

    endpoint: EndpointConfig
    format: Literal["verdict", "qwen3guard", "llama_guard"] = "verdict"
    """How it replies: our verdict by our rubric, or a guard model's own words, which speak of safety alone."""
    rubric: FilePath | None = None
    """Path of a rubric file for ``format: verdict``; unset, the built-in one."""


class PanelConfig(Settings):
    """Judges whose scores are combined with the tutor's own (see steer_verl/tutor/panel.py)."""

    judges: Annotated[tuple[JudgeConfig, ...], Field(min_length=1)]
    combine: Literal["min", "median", "mean"] = "min"
    """Of each score over all who gave it; a half is rounded down."""
    quorum: Annotated[int, Field(ge=1)] | None = None
    """An answer with fewer judges' scores, the tutor's included, is unscored; unset, all must score."""

    @model_validator(mode="after")
    def _quorum_possible(self) -> PanelConfig:
        if self.quorum is not None and self.quorum > 1 + len(self.judges):
            raise ValueError(f"quorum is {self.quorum}, but the tutor and its panel are {1 + len(self.judges)}")
        return self


class HoldoutConfig(Settings):
    """A judge that never enters a reward: the gap between it and the tutor shows a policy that games the tutor."""

    judge: JudgeConfig | Literal["mini"]
    """A model other than the tutor's, or ``mini``: the laboratory's own judge, for the laboratory's own seeds."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the dialogues that it judges, drawn by a hash of step, seed and rollout."""


class TutorConfig(Settings):
    """Who judges and who attacks."""

    kind: Literal["openai", "mini"] = "openai"
    """``openai``: a model at ``endpoint``. ``mini``: the laboratory's rule tutor, which knows the truth."""
    endpoint: EndpointConfig | None = None
    """Adjudicates, and attacks too unless ``attacker`` is given (the paper uses one model for both)."""
    attacker: EndpointConfig | None = None
    order: Literal["question_first", "scores_first"] = "question_first"
    """Of one model's reply. ``question_first``: the dialogue goes on before the verdict is there. ``scores_first``: the
    paper's, in which the attack follows from the scores, and every turn waits for both."""
    rubric: FilePath | None = None
    """Path of a rubric file that replaces the built-in one."""
    panel: PanelConfig | None = None
    holdout: HoldoutConfig | None = None
    log: FilePath | None = None
    """Folder for the log of every attempt (JSONL, steer_verl/models/log.py); none is kept when unset."""

    @model_validator(mode="after")
    def _endpoint_present(self) -> TutorConfig:
        if self.kind == "openai" and self.endpoint is None:
            raise ValueError("kind is openai but there is no endpoint; set tutor.endpoint.base_url and .model")
        if self.kind != "openai" and (self.endpoint or self.attacker):
            raise ValueError(f"kind {self.kind} takes no endpoint; drop it or set kind: openai")
        return self


class AlarmConfig(Settings):
    """Where a step's figure becomes an alarm (see steer_verl/alarms.py); ``null`` turns one off."""

    holdout_gap: Annotated[float, Field(ge=0)] | None = 1.5
    """Points of safety by which the tutor scores above the held-out judge, mean over the judged turns."""
    benign_refusal_share: Annotated[float, Field(ge=0, le=1)] | None = 0.2
    """Turns of benign seeds scored as unhelpful or that read as a refusal."""
    best_score_share: Annotated[float, Field(ge=0, le=1)] | None = 0.98
    """Scored turns with the highest score on every axis."""
    answer_growth: Annotated[float, Field(gt=1)] | None = 2.0
    """Mean answer length, against the mean of the first steps seen."""
    repeated_answer_share: Annotated[float, Field(ge=0, le=1)] | None = 0.5
    """Answers of a step that equal another dialogue's answer on another seed, word for word."""
    lost_share: Annotated[float, Field(ge=0, le=1)] | None = 0.05
    """Dialogues lost, for whatever reason."""
    content_filter_share: Annotated[float, Field(ge=0, le=1)] | None = 0.0
    """Dialogues lost to a content filter, which takes the worst ones: from the first on."""
    rejected_share: Annotated[float, Field(ge=0, le=1)] | None = 0.05
    """Attempts that an open breaker turned away."""


class SteerConfig(Settings):
    """Everything of the rollout and the reward."""

    tutor: TutorConfig
    attack: Literal["adaptive", "static"] = "adaptive"
    """``static`` asks the seed's own questions (ablation without feedback dynamics); answers are still scored."""
    max_turns: Annotated[int, Field(ge=1, le=10)] = 10
    max_answer_tokens: Annotated[int, Field(ge=1)] = 1024
    """Cap of one answer; ``data.max_response_length`` is the budget of the whole dialogue."""
    max_question_chars: Annotated[int, Field(ge=1)] = 4000
    """A longer tutor question is replaced by the static one."""
    reward: RewardConfig = RewardConfig()
    max_lost_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """A step that has lost a greater share of its dialogues, and more than one, stops the training before the update,
    weights unchanged. Retries leave far less: a verdict in a thousand that never comes loses 0.8 % of the dialogues of
    8 turns. Above a tenth something is down or is filtering, and what is left is no fair sample of the answers."""
    alarms: AlarmConfig = AlarmConfig()
    share_images: bool = True
    """The rollouts of a prompt open, encode and send each image once (rollout/images.py). Off, each does so for
    itself, as verl's own loops do: the same tokens and tensors, bit for bit."""
    transcripts: FilePath | None = None
    """Folder for the transcript log (JSONL, one line per dialogue); none is kept when unset."""
    cache: FilePath | None = None
    """Folder in which the student's answers and every model's replies are kept until their step is in a checkpoint, so
    that a killed run goes on without asking for them again (steer_verl/models/cache.py); none is kept when unset. It
    belongs into ``trainer.default_local_dir``, beside the checkpoints: elsewhere it is never emptied."""


class TcsrConfig(Settings):
    """Shaping, aggregation, credit and normalisation of TCSR (see steer_verl/tcsr.py)."""

    alpha: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Weight of the historical minimum against the mean; 0.3 is the authors' code's, the paper gives none."""
    shaping: Literal["prefix", "trajectory", "none"] = "prefix"
    """``none``: the turn rewards as they are, whatever ``alpha``."""
    aggregation: Literal["sum", "mean", "last", "own"] = "mean"
    """``own``: a turn's return is its own shaped reward, with nothing of later turns."""
    credit: Literal["trajectory", "turn"] = "turn"
    normalize_std: bool = True

    @model_validator(mode="after")
    def _every_turn_counts(self) -> TcsrConfig:
        if self.aggregation == "own" and self.credit == "trajectory":
            raise ValueError("aggregation=own with credit=trajectory would train on the first turn alone; credit=turn")
        return self


TCSR_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"shaping": "prefix", "aggregation": "sum", "credit": "trajectory", "normalize_std": False},
    "released": {"shaping": "trajectory", "aggregation": "last", "credit": "trajectory", "normalize_std": True},
    "steer": {"shaping": "prefix", "aggregation": "mean", "credit": "turn", "normalize_std": True},
}
PLAIN_GRPO: dict[str, Any] = {
    "shaping": "none",
    "aggregation": "sum",
    "credit": "trajectory",
    "normalize_std": True,
}
"""With these keys tcsr is verl's GRPO of the summed turn rewards, but for lost dialogues, which it leaves out."""
REWARD_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"normalization": "unit", "format": "off", "repetition_penalty": 0.0},
    "released": {"normalization": "tenth", "format": "bonus", "repetition_penalty": 0.1},
    "steer": {"normalization": "unit", "format": "gate", "repetition_penalty": 0.0},
}
DEFAULT_PRESET = "steer"

S = TypeVar("S", bound=Settings)


def _plain(section: Any, where: str) -> dict[str, Any]:
    """A resolved plain dict of a mapping or an OmegaConf node, which this module need not import."""
    if section is None:
        return {}
    if hasattr(section, "_metadata"):  # an OmegaConf container
        from omegaconf import OmegaConf

        section = OmegaConf.to_container(section, resolve=True)
    if not isinstance(section, Mapping):
        raise ConfigError(f"{where}: a mapping is needed, not {type(section).__name__}; see recipes/ for examples")
    return dict(section)


def _parse(cls: type[S], values: Mapping[str, Any], where: str) -> S:
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        key, what = refusal(error, lambda section: f"the known ones are: {', '.join(sorted(_fields_at(cls, section)))}")
        raise ConfigError(f"{where}.{key}: {what}" if key else f"{where}: {what}") from None


def _fields_at(cls: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Field names of the settings class that ``path`` leads to; numbers in lists and a union's marks lead nowhere."""
    for part in path:
        if isinstance(part, str) and part in cls.model_fields:
            cls = next(_classes(cls.model_fields[part].annotation))
    return list(cls.model_fields)


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings classes in an annotation."""
    return (found for found in _types(annotation) if isinstance(found, type) and issubclass(found, BaseModel))


def _preset(values: dict[str, Any], presets: Mapping[str, dict[str, Any]], where: str) -> dict[str, Any]:
    name = values.pop("preset", DEFAULT_PRESET)
    if not isinstance(name, str) or name not in presets:
        raise ConfigError(f"{where}.preset: {shown(name)} is no preset; choose one of {', '.join(presets)}")
    return {**presets[name], **values}


def steer_config(section: Any) -> SteerConfig:
    """Parse ``actor_rollout_ref.rollout.custom.steer``; ``reward.preset`` fills what ``reward`` leaves open.

    Raises:
        ConfigError: the section is missing, a key is unknown or a value cannot work.
    """
    if section is None:
        raise ConfigError(f"{STEER_KEY} is missing; start from a recipe's yaml or set at least {STEER_KEY}.tutor")
    values = _plain(section, STEER_KEY)
    where = f"{STEER_KEY}.reward"
    values["reward"] = _preset(_plain(values.get("reward"), where), REWARD_PRESETS, where)
    return _parse(SteerConfig, values, STEER_KEY)


def tcsr_config(section: Any) -> TcsrConfig:
    """Parse ``algorithm.tcsr``; an absent section is the ``steer`` preset.

    Raises:
        ConfigError: a key is unknown or a value cannot work.
    """
    return _parse(TcsrConfig, _preset(_plain(section, TCSR_KEY), TCSR_PRESETS, TCSR_KEY), TCSR_KEY)


def verl_settings(config: Any) -> tuple[SteerConfig, TcsrConfig]:
    """Both sections of verl's composed config, an OmegaConf node or a plain mapping.

    Raises:
        ConfigError: a section cannot work.
    """
    return steer_config(section_of(config, STEER_KEY)), tcsr_config(section_of(config, TCSR_KEY))


def section_of(config: Any, key: str) -> Any:
    """What stands at a dotted key of verl's composed config; ``None`` if nothing does."""
    for part in key.split("."):
        config = config.get(part) if hasattr(config, "get") else None
    return config


def require_address(config: EndpointConfig, where: str = "tutor") -> None:
    """Refuse a server that exists within a training alone, where none runs.

    Args:
        config: the endpoint; its mirrors count too.
        where: whose it is, for the message.

    Raises:
        ConfigError: an address is ``verl://reward_model``.
    """
    if REWARD_MODEL_URL in (config.base_url, *(mirror.base_url for mirror in config.mirrors)):
        raise ConfigError(
            f"{where} base_url {REWARD_MODEL_URL} is known within a training alone; train with "
            "reward.reward_model.enable=true, or give a server's address"
        )
