"""The recipes load, and name benchmarks and sets that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from steer_verl.data.sources.registry import SETS
from steer_verl.eval.benchmarks.paper import MULTI_TURN, OVER_REFUSAL, SINGLE_TURN
from steer_verl.eval.config import EvalConfig
from steer_verl.settings_file import load_settings

FOLDER = Path(__file__).resolve().parents[3] / "recipes" / "eval"
RECIPES = sorted(FOLDER.glob("*.yaml"))


def recipe(name: str) -> EvalConfig:
    return load_settings(EvalConfig, FOLDER / f"{name}.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_loads_and_the_readme_tells_of_it(path: Path) -> None:
    config = load_settings(EvalConfig, path, ["student.name=x", "benchmarks.mini={file: a.jsonl}"])
    assert config.student.name == "x"
    assert f"({path.name})" in (FOLDER / "README.md").read_text()


def test_the_readme_names_no_file_that_is_not_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", (FOLDER / "README.md").read_text()):
        assert (FOLDER / link).exists(), link


def test_subsets_have_the_papers_names_and_order() -> None:
    assert tuple(recipe("multi_turn").benchmarks) == tuple(one.name for one in MULTI_TURN)
    assert tuple(recipe("single_turn").benchmarks) == tuple(one.name for one in SINGLE_TURN)
    assert {one.name for one in OVER_REFUSAL} < set(recipe("over_refusal").benchmarks)


def test_sets_are_the_registrys_own() -> None:
    named = {one.name: one.set for one in (*MULTI_TURN, *SINGLE_TURN, *OVER_REFUSAL)}
    assert {name for name in named.values() if name} <= set(SETS)
    for config in map(recipe, ("single_turn", "over_refusal")):
        for name, settings in config.benchmarks.items():
            assert settings.source is not None
            assert name not in named or settings.source.set == named[name]
            dataset = settings.source.dataset
            assert dataset is None or dataset == SETS[settings.source.set].title


def test_what_each_is_for() -> None:
    assert recipe("multi_turn").attack == "static" and recipe("adaptive").attack == "adaptive"
    mini = recipe("mini")
    assert (mini.student.kind, mini.judge.kind, mini.tutor and mini.tutor.kind) == ("mini", "mini", "mini")
    assert {name for name, one in recipe("over_refusal").benchmarks.items() if one.exact_match} == {
        "scienceqa",
        "geometry3k",
    }
