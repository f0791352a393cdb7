"""What a stage's key covers: nothing that the stage imports is left out of it."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.lab.runs import single_turn_data
from steer_verl.demo import sources
from steer_verl.demo.runner import stage_key
from steer_verl.demo.stage import Stage
from steer_verl.demo.stages import Plan, stages

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = {
    "data": ["steer_verl.demo.data"],
    "data_single_turn": ["steer_verl.mini.single_turn"],
    "model": ["steer_verl.mini.model"],
    "grpo": [
        "rollout.agent_loop",
        "rollout.sampler",
        "reward_fns.manager",
        "steer_verl.plugin",
        "steer_verl.frozen_vision",
    ],
    "eval-base": ["steer_verl.eval.commands"],
}
"""Stage -> what its command, its recipe and the plugin load. A function's own imports count."""

UNREACHED = {name: {ROOT / "steer_verl/mini/judge.py"} for name in ("data", "data_single_turn", "model")}
UNREACHED["eval-base"] = {ROOT / "steer_verl/transcripts.py"}
"""Stage -> files whose import it does not come to: data is made without a held-out judge, and an evaluation exports no
transcripts."""

LOADED = ["steer_verl.plugin", "steer_verl.cpu.verl_gaps", "steer_verl.cpu.vllm_gaps", "steer_verl.cpu.boot"]
"""What a trainer that uses none of our hooks loads; a hook's own imports do not count."""


def todo(out: Path) -> dict[str, Stage]:
    """Every kind of stage."""
    plan = Plan(out)
    return {stage.name: stage for stage in (*stages(plan), single_turn_data(plan))}


def closure(entries: list[str], *, lazy: bool = True) -> set[Path]:
    """Files of ours that these modules import, and those in turn."""
    waiting, found = list(entries), set[Path]()
    while waiting:
        parts = waiting.pop().split(".")
        for count in range(1, len(parts) + 1):
            base = ROOT.joinpath(*parts[:count])
            for path in (base.with_suffix(".py"), base / "__init__.py"):
                if path.is_file() and path not in found:
                    found.add(path)
                    waiting += imported(path, lazy)
    return found


def imported(path: Path, lazy: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", ENTRIES)
def test_what_a_stage_imports_is_in_its_key(tmp_path: Path, name: str) -> None:
    missing = closure(ENTRIES[name]) - set(todo(tmp_path)[name].sources)
    told = sorted(str(path.relative_to(ROOT)) for path in missing - UNREACHED.get(name, set()))
    assert not told, f"{name} imports them: take them off the lists in steer_verl/demo/sources.py"


@pytest.mark.parametrize("name", ["pretrain", "sft"])
def test_what_the_supervised_trainer_loads_is_in_its_key(tmp_path: Path, name: str) -> None:
    missing = closure(LOADED, lazy=False) - set(todo(tmp_path)[name].sources)
    assert {path.name for path in missing} == {"__init__.py"}, "of steer_verl, which holds the version alone"


def test_recipes_and_the_plugin_load_what_is_listed_here() -> None:
    """Names that stand in yaml and in strings, where no import tells of them."""
    from steer_verl import plugin

    grpo = ENTRIES["grpo"]
    assert plugin.AGENT_LOOP_CLASS.rpartition(".")[0] in grpo and plugin.REWARD_MANAGER_MODULE in grpo
    recipe = (ROOT / "recipes" / "mini" / "grpo.yaml").read_text()
    assert "pkg://rollout.sampler" in recipe and "external_lib: steer_verl.frozen_vision" in recipe


CHANGES = {
    # changed file -> stages that are not done any more by themselves
    "rollout/worker.py": {"grpo"},
    "rollout/images.py": {"grpo"},
    "rollout/anything_new.py": {"grpo"},
    "reward_fns/manager.py": {"grpo"},
    "steer_verl/tcsr.py": {"grpo"},
    "steer_verl/plugin.py": {"pretrain", "sft", "grpo"},
    "steer_verl/tutor/rubric.md": {"data", "data_single_turn", "model", "grpo", "eval-base"},
    "steer_verl/text.py": {"data", "data_single_turn", "model", "grpo", "eval-base"},
    "steer_verl/eval/measures.py": {"eval-base"},
    "steer_verl/mini/judge.py": {"grpo", "eval-base"},
    "steer_verl/mini/student.py": {"eval-base"},
    "steer_verl/report/page.py": set(),
    "steer_verl/cli/__init__.py": set(),
    "recipes/mini/supervised.yaml": {"pretrain", "sft"},
    "recipes/mini/grpo.yaml": {"grpo"},
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our packages and recipes, to be changed."""
    root = tmp_path_factory.mktemp("clone")
    for name in ("steer_verl", "rollout", "reward_fns", "recipes"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    return root


@pytest.mark.parametrize("changed", CHANGES)
def test_a_change_starts_over_what_depends_on_it(
    changed: str, clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "CODE", clone)
    monkeypatch.setattr("steer_verl.demo.stages.RECIPE", clone / "recipes" / "mini")

    def keys() -> dict[str, str]:
        found = todo(tmp_path)
        return {name: stage_key(found[name], [], tmp_path) for name in (*ENTRIES, "pretrain", "sft")}

    before, path = keys(), clone / changed
    with path.open("a") as file:
        file.write("\n# changed\n")
    after = keys()
    assert {name for name in before if before[name] != after[name]} == CHANGES[changed]
