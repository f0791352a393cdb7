"""Our own settings that nothing reads under the other settings given: a user who sets one is told, not left to hope.

:data:`RULES` is the whole knowledge, a row a key. tests/test_settings_read.py plays dialogues and holds that every key
is either read or in this table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from steer_verl.config import STEER_KEY, EndpointConfig, JudgeConfig, Settings, SteerConfig, TutorConfig

STOP_KEY = "max_lost_share"
"""Our section's share of lost dialogues above which a step is refused; the sampler's."""

SAMPLER_KEYS = (STOP_KEY, "alarms")
"""What the custom sampler alone reads."""


class Rule(NamedTuple):
    """A key that nothing reads when ``when`` holds of the section ``of`` that it stands in."""

    of: type[Settings]
    key: str
    when: Callable[[Any], bool]
    why: str


def _mini(tutor: TutorConfig) -> bool:
    return tutor.kind == "mini"


def _whole(tutor: TutorConfig) -> bool:
    return tutor.attacker is not None or tutor.order == "scores_first"


def _no_endpoint(tutor: TutorConfig) -> bool:
    asked = isinstance(tutor.holdout.judge, JudgeConfig) if tutor.holdout else False
    return tutor.endpoint is None and tutor.panel is None and not asked


def _guard(judge: JudgeConfig) -> bool:
    return judge.format != "verdict"


def _static(steer: SteerConfig) -> bool:
    return steer.attack == "static"


RULES: tuple[Rule, ...] = (
    Rule(SteerConfig, "tutor.attacker", _static, "attack: static asks the seed's own questions; set attack: adaptive"),
    Rule(SteerConfig, "max_question_chars", _static, "attack: static asks no question of the tutor"),
    Rule(SteerConfig, "alarms.holdout_gap", lambda s: s.tutor.holdout is None, "tutor.holdout is not set"),
    Rule(
        SteerConfig,
        "alarms.rejected_share",
        lambda s: s.tutor.endpoint is None and s.tutor.panel is None,
        "no request leaves this process (kind: mini, no panel)",
    ),
    Rule(SteerConfig, "tutor.endpoint.stream", _static, "attack: static asks no question of the tutor"),
    Rule(TutorConfig, "endpoint.stream", _whole, "its reply is waited for (an attacker, or order: scores_first)"),
    Rule(TutorConfig, "attacker.stream", lambda t: True, "a reply that is a question alone comes whole"),
    Rule(TutorConfig, "order", _mini, "kind: mini asks no model"),
    Rule(TutorConfig, "rubric", _mini, "kind: mini judges by its own rules"),
    Rule(TutorConfig, "log", _no_endpoint, "no request leaves this process (kind: mini, no judge at an endpoint)"),
    Rule(JudgeConfig, "endpoint.stream", lambda j: True, "a judge's reply holds no question"),
    Rule(JudgeConfig, "rubric", _guard, "a guard model judges by its own policy; set format: verdict"),
    Rule(JudgeConfig, "endpoint.images", _guard, "a guard model reads text alone"),
    Rule(JudgeConfig, "endpoint.json_schema", _guard, "a guard model replies in its own form"),
    Rule(JudgeConfig, "endpoint.reasks", _guard, "a guard model is asked once"),
    Rule(EndpointConfig, "weight", lambda e: not e.mirrors, "there is one server; give it mirrors"),
)


def unread_keys(steer: SteerConfig) -> dict[str, str]:
    """Keys below our section that nothing reads under these settings, set or not, and why; each with all in it."""
    return {
        f"{path}.{rule.key}".removeprefix("."): rule.why
        for path, section in sections(steer)
        for rule in RULES
        if isinstance(section, rule.of) and rule.when(section)
    }


def set_keys(settings: Settings) -> list[str]:
    """Leaf keys that were given a value; ``null`` is none."""
    return [
        f"{path}.{name}".removeprefix(".")
        for path, section in sections(settings)
        for name in sorted(section.model_fields_set)
        if getattr(section, name) is not None and not list(_inner(getattr(section, name), ""))
    ]


def unread_settings(steer: SteerConfig) -> Iterator[str]:
    """A line for each key that was given a value and has no reader."""
    given = set_keys(steer)
    for key, why in unread_keys(steer).items():
        if any(one == key or one.startswith(f"{key}.") for one in given):
            yield f"{STEER_KEY}.{key} is set, and nothing reads it: {why}; or drop the key"


def set_for_the_sampler(steer: SteerConfig) -> list[str]:
    """Of the keys that were given a value, those that the custom sampler alone reads."""
    return [key for key in set_keys(steer) if key in SAMPLER_KEYS or key.startswith("alarms.")]


def sections(settings: Any, path: str = "") -> Iterator[tuple[str, Settings]]:
    """(dotted path, section) of a settings object and all within it; elements of a list by number."""
    yield path, settings
    for name in type(settings).model_fields:
        for below, inner in _inner(getattr(settings, name), f"{path}.{name}".removeprefix(".")):
            yield from sections(inner, below)


def _inner(value: Any, path: str) -> Iterator[tuple[str, Settings]]:
    """The settings objects right below a value."""
    if isinstance(value, Settings):
        yield path, value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, item in enumerate(value):
            yield from _inner(item, f"{path}[{number}]")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _inner(item, f"{path}.{key}")
