"""Settings that the pages name exist: in verl's own defaults, or in a settings class of ours."""

from __future__ import annotations

import importlib.util
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from steer_verl.config import EndpointConfig, SteerConfig, TcsrConfig, TutorConfig
from steer_verl.data.config import BuildConfig
from steer_verl.eval.config import EvalConfig
from tests.docs.pages import PAGES, SPAN, command_lines, name, prose, words


def verl_defaults() -> Any:
    """verl's own resolved defaults, read from its file: importing verl takes seconds."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("verl is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "trainer" / "config"
    return yaml.safe_load((folder / "_generated_ppo_trainer.yaml").read_text())


def in_class(cls: type[BaseModel], path: list[str]) -> bool:
    """Whether a settings class has this path; list places and free names are passed over."""
    types: list[Any] = [cls]
    for part in path:
        models = [t for t in types if isinstance(t, type) and issubclass(t, BaseModel)]
        fields = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        if not fields and not any(t is Any or typing.get_origin(t) is dict for t in types):
            return False
        types = [leaf for annotation in fields for leaf in leaves(annotation)] or types
    return True


def leaves(annotation: Any) -> Iterator[Any]:
    """What an annotation is made of, containers opened; a dict stays beside what it holds."""
    inner = [arg for arg in typing.get_args(annotation) if arg is not Ellipsis]
    if not inner or typing.get_origin(annotation) is typing.Literal:
        yield annotation
        return
    if typing.get_origin(annotation) is dict:
        yield annotation
    for arg in inner:
        yield from leaves(arg)


def in_verl(defaults: Any, path: list[str]) -> bool:
    """Whether verl's defaults, with our two sections, have this path; what verl leaves empty takes anything."""
    for section, cls in (
        (["actor_rollout_ref", "rollout", "custom", "steer"], SteerConfig),
        (["algorithm", "tcsr"], TcsrConfig),
    ):
        if path[: len(section)] == section:
            rest = path[len(section) :]
            return rest[-1:] == ["preset"] or in_class(cls, rest)
    node = defaults
    for part in path:
        if not node and not isinstance(node, bool | int | float):
            return True
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


STEER = ["actor_rollout_ref", "rollout", "custom", "steer"]
VERL = {"actor_rollout_ref", "algorithm", "data", "reward", "trainer"}
PLACES: dict[str, list[type[BaseModel]]] = {
    "tutor": [SteerConfig, EvalConfig],
    "alarms": [SteerConfig],
    "reward": [SteerConfig],
    "endpoint": [TutorConfig],
    "breaker": [EndpointConfig],
    **{root: [EvalConfig] for root in ("student", "judge", "marks", "benchmarks")},
    **{root: [BuildConfig] for root in BuildConfig.model_fields if root not in ("work", "sources")},
    "work": [BuildConfig, EvalConfig],
}
"""First name of a setting -> the classes that may have it; verl's own are looked up in its file."""


def settings_in(page: Path) -> Iterator[str]:
    """Dotted names between backticks and in shell blocks that begin like a setting."""
    lines = [word for line in command_lines(page) for word in words(line)]
    for span in (*SPAN.findall(prose(page)), *lines):
        key = span.partition("=")[0]
        if key[:1] == "+" and not key.startswith(("+algorithm.tcsr", "+" + ".".join(STEER))):
            key = key.rpartition(".")[0]  # verl's file need not hold what is added to it
        key = key.lstrip("+~")
        if re.fullmatch(r"[a-z_]+(\.[a-z_0-9{},*<>]+)+", key) and key.split(".")[0] in {*VERL, *PLACES, "custom"}:
            yield from spread(key)


def spread(key: str) -> Iterator[str]:
    """``a.{b,c}`` is two names; ``a.*`` and ``a.<name>`` are their beginning."""
    if braces := re.search(r"\{([^}]*)\}", key):
        for part in braces[1].split(","):
            yield from spread(key.replace(braces[0], part))
        return
    yield re.sub(r"\.[*<].*$", "", key)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_exist(page: Path) -> None:
    defaults = verl_defaults()
    for key in settings_in(page):
        path = key.split(".")
        if path[-1] in ("md", "py", "yaml", "json", "jsonl", "parquet", "csv", "log") and len(path) == 2:
            continue  # a file
        if path[:2] == ["custom", "steer"]:
            path = [*STEER, *path[2:]]
        if path == ["reward", "preset"]:
            path = [*STEER, *path]
        found = path[0] in VERL and in_verl(defaults, path)
        assert found or any(in_class(cls, path) for cls in PLACES.get(path[0], [])), f"{name(page)}: {key}"


def test_a_wrong_setting_is_seen() -> None:
    defaults = verl_defaults()
    assert in_verl(defaults, ["actor_rollout_ref", "rollout", "n"])
    assert not in_verl(defaults, ["actor_rollout_ref", "rollout", "m"])
    assert in_verl(defaults, [*STEER, "tutor", "endpoint", "prices", "cached"])
    assert not in_verl(defaults, [*STEER, "tutor", "endpoint", "price"])
    assert in_class(EvalConfig, ["benchmarks", "mine", "limit"]) and not in_class(EvalConfig, ["judge", "rubrik"])
