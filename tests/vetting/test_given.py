"""The configuration that a ``steer tutor`` command is given: a recipe, a small yaml, or an address and a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer_verl.errors import ConfigError
from steer_verl.vetting.given import given

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
    found = given(plain(tmp_path), overrides=[whole, "tutor.endpoint.model=n", "tutor.log=x=y", "reward.format=gate"])
    endpoint = found.steer.tutor.endpoint
    assert endpoint is not None and (endpoint.model, endpoint.max_tokens, endpoint.timeout) == ("n", 64, 50)
    assert found.steer.tutor.log == "x=y" and found.steer.reward.format == "gate"
    assert found.steer.reward.normalization == "tenth" and found.tcsr.alpha == 0.5


def test_an_address_and_a_model() -> None:
    endpoint = given(base_url="http://a/v1", model="m", overrides=["tutor.endpoint.images=false"]).steer.tutor.endpoint
    assert endpoint is not None and (endpoint.base_url, endpoint.model, endpoint.images) == ("http://a/v1", "m", False)


def test_a_recipe_is_read_as_a_training_reads_it() -> None:
    pytest.importorskip("hydra")
    pytest.importorskip("verl")
    path = RECIPES / "qwen2_5_vl_3b" / "grpo.yaml"
    short = ["tutor.endpoint.base_url=http://b/v1", "tutor.endpoint.model=m", "tutor.endpoint.max_concurrency=3"]
    endpoint = given(path, overrides=[*short, "+algorithm.tcsr.aggregation=sum"]).steer.tutor.endpoint
    assert endpoint is not None and (endpoint.base_url, endpoint.max_concurrency) == ("http://b/v1", 3)
    assert given(path, overrides=[*short, "algorithm.tcsr.preset=paper"]).tcsr.aggregation == "sum"


def test_a_recipe_may_still_lack_what_only_a_training_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra")
    pytest.importorskip("verl")
    assert given(RECIPES / "mini" / "grpo.yaml").steer.tutor.kind == "mini"  # mini.root has no value
    monkeypatch.delenv("STEER_TUTOR_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match="'STEER_TUTOR_BASE_URL' not found") as error:
        given(RECIPES / "qwen2_5_vl_3b" / "grpo.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "overrides", "told"),
    [
        ("- a\n", [], "holds no section"),
        ("tutor: [\n", [], "not yaml"),
        ("reward: {}\n", [], "tutor"),
        (PLAIN, ["tutor.endpoint"], "is no override"),
        (PLAIN, ["tutor..x=1"], "is no override"),
        (PLAIN, ["tutor.endpoint.timeout=-1"], "timeout"),
        (PLAIN.replace("timeout", "tmeout"), [], "unknown key"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, text: str, overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        given(plain(tmp_path, text), overrides=overrides)
    assert "\n" not in str(error.value)


def test_one_form_at_a_time(tmp_path: Path) -> None:
    for words in ({}, {"base_url": "x"}, {"model": "m"}, {"config": plain(tmp_path), "model": "m"}):
        with pytest.raises(ConfigError, match="give either"):
            given(**words)  # type: ignore[arg-type]
