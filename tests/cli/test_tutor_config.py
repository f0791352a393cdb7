"""The configuration that a ``steer tutor`` command is given: a recipe, a small yaml, or an address and a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer_verl.cli.tutor_config import read_config
from steer_verl.errors import ConfigError

RECIPES = Path(__file__).parents[2] / "recipes"
PLAIN = """tutor:
  endpoint: {base_url: http://a/v1, model: m, timeout: 50}
reward: {preset: released}
tcsr: {alpha: 0.5}
"""


def plain(folder: Path, text: str = PLAIN) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_small_yaml_with_overrides_in_both_spellings(tmp_path: Path) -> None:
    whole = "++actor_rollout_ref.rollout.custom.steer.tutor.endpoint.max_tokens=64"
    short = ["tutor.endpoint.model=n", "tutor.log=x=y", "reward.format=gate"]
    steer, tcsr = read_config(plain(tmp_path), overrides=[whole, *short])
    endpoint = steer.tutor.endpoint
    assert endpoint is not None and (endpoint.model, endpoint.max_tokens, endpoint.timeout) == ("n", 64, 50)
    assert steer.tutor.log == "x=y" and steer.reward.format == "gate"
    assert steer.reward.normalization == "tenth" and tcsr.alpha == 0.5


def test_an_override_fills_an_empty_section(tmp_path: Path) -> None:
    assert read_config(plain(tmp_path, "tutor:\n"), overrides=["tutor.kind=mini"])[0].tutor.kind == "mini"


def test_an_address_and_a_model() -> None:
    endpoint = read_config(base_url="http://a/v1", model="m", overrides=["tutor.endpoint.images=false"])[
        0
    ].tutor.endpoint
    assert endpoint is not None and (endpoint.base_url, endpoint.model, endpoint.images) == ("http://a/v1", "m", False)


def test_a_recipe_is_read_as_a_training_reads_it() -> None:
    pytest.importorskip("hydra")
    pytest.importorskip("verl")
    path = RECIPES / "qwen2_5_vl_3b" / "grpo.yaml"
    short = ["tutor.endpoint.base_url=http://b/v1", "tutor.endpoint.model=m", "tutor.endpoint.max_concurrency=3"]
    endpoint = read_config(path, overrides=[*short, "+algorithm.tcsr.aggregation=sum"])[0].tutor.endpoint
    assert endpoint is not None and (endpoint.base_url, endpoint.max_concurrency) == ("http://b/v1", 3)
    assert read_config(path, overrides=[*short, "algorithm.tcsr.preset=paper"])[1].aggregation == "sum"


def test_a_recipe_may_still_lack_what_only_a_training_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra")
    pytest.importorskip("verl")
    assert read_config(RECIPES / "mini" / "grpo.yaml")[0].tutor.kind == "mini"  # mini.root has no value
    assert read_config(RECIPES / "mini" / "grpo.yaml", overrides=["~tutor.holdout"])[0].tutor.holdout is None
    monkeypatch.delenv("STEER_TUTOR_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="'STEER_TUTOR_BASE_URL' not found") as error:
        read_config(RECIPES / "qwen2_5_vl_3b" / "grpo.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("- a\n", [], "not a mapping"),
        ("tutor: [\n", [], "is no YAML"),
        ("reward: {}\n", [], "tutor"),
        (PLAIN, ["tutor.endpoint"], "not of the form key=value"),
        (PLAIN, ["tutor..x=1"], "not of the form key=value"),
        (PLAIN, ["tutor.endpoint.model=["], "is no YAML"),
        (PLAIN, ["tutor.endpoint.model.x=1"], "no such place"),
        (PLAIN, ["tutor.endpoint.timeout=-1"], "timeout"),
        (PLAIN.replace("timeout", "tmeout"), [], "unknown key"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        read_config(plain(tmp_path, text), overrides=overrides)
    assert "\n" not in str(error.value)


def test_one_form_at_a_time(tmp_path: Path) -> None:
    for words in ({}, {"base_url": "x"}, {"model": "m"}, {"path": plain(tmp_path), "model": "m"}):
        with pytest.raises(ConfigError, match="give either"):
            read_config(**words)  # type: ignore[arg-type]
