"""Each ablation is one option of the mini recipe, and changes what it says and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from benchmarks.lab.arms import ARMS
from steer_verl.config import PLAIN_GRPO, TcsrConfig, verl_settings
from steer_verl.demo.sources import CODE
from steer_verl.preflight.compose import compose, unresolved
from steer_verl.preflight.inert import plain_grpo
from steer_verl.preflight.settings import CHECKS
from steer_verl.preflight.verl_side import verl_accepts

RECIPE = CODE / "recipes" / "mini"
ROOT = "mini.root=/nowhere"
STEER = "actor_rollout_ref.rollout.custom.steer"
FOLLOWS = {
    "mini.run",
    "trainer.experiment_name",
    "trainer.default_local_dir",
    "actor_rollout_ref.rollout.trace.experiment_name",
    "actor_rollout_ref.rollout.prometheus.served_model_name",
    f"{STEER}.transcripts",
    f"{STEER}.cache",
}
"""Names and folders of a run."""

CHANGED: dict[str, set[str]] = {
    "plain_mean": {f"algorithm.tcsr.{key}" for key in PLAIN_GRPO},
    "raw_to_go": {f"algorithm.tcsr.{key}" for key in PLAIN_GRPO},
    "turn_local": {f"algorithm.tcsr.{key}" for key in PLAIN_GRPO},
    "prefix_only": {f"algorithm.tcsr.{key}" for key in (*PLAIN_GRPO, "alpha")},
    "paper": {"algorithm.tcsr.preset"},
    "released": {"algorithm.tcsr.preset"},
    "static": {f"{STEER}.attack"},
    "no_bootstrap": {"mini.student", "actor_rollout_ref.model.path", f"{STEER}.reward.format"},
    "single_turn": {
        "mini.student",
        "actor_rollout_ref.model.path",
        "data.train_files",
        f"{STEER}.max_turns",
    },
}


OVERRIDES = {
    "plain_mean": "++algorithm.tcsr={shaping:none,aggregation:mean,credit:trajectory,normalize_std:true}",
    "raw_to_go": "++algorithm.tcsr={shaping:none,aggregation:mean,credit:turn,normalize_std:true}",
    "turn_local": "++algorithm.tcsr={shaping:none,aggregation:own,credit:turn,normalize_std:true}",
    "prefix_only": "++algorithm.tcsr={shaping:prefix,aggregation:mean,credit:trajectory,normalize_std:true}",
    "paper": "algorithm.tcsr.preset=paper",
    "released": "algorithm.tcsr.preset=released",
}
"""TCSR's arms as overrides of any recipe, as recipes/ablations/README.md shows them."""


def leaves(node: Any, path: str = "") -> dict[str, Any]:
    """Every value by its dotted key."""
    if isinstance(node, dict) and node:
        return {key: value for name, part in node.items() for key, value in leaves(part, f"{path}.{name}").items()}
    return {path.removeprefix("."): node}


def changed(config: str, ablation: str) -> set[str]:
    """Keys in which the recipe with the option differs from the recipe, interpolations resolved."""
    plain, other = (
        leaves(OmegaConf.to_container(compose(RECIPE, config, [ROOT, *more]), resolve=True))
        for more in ([], [f"ablation={ablation}"])
    )
    keys = {key for key in {*plain, *other} if plain.get(key, "absent") != other.get(key, "absent")}
    alias = "trainer.v1.sampler.sampler_kwargs.steer"  # the sampler is shown the same section
    return {key.replace(alias, STEER) for key in keys}


def test_every_option_is_tested() -> None:
    assert {path.stem for path in (RECIPE / "ablation").glob("*.yaml")} == {*CHANGED, "sft_single_turn"}
    assert {arm.ablation for arm in ARMS.values()} <= {*CHANGED, "sft_single_turn", ""}


@pytest.mark.parametrize("ablation", CHANGED)
def test_an_ablation_changes_its_part_and_verl_takes_it(ablation: str) -> None:
    config = compose(RECIPE, "grpo", [ROOT, f"ablation={ablation}"])
    assert [*unresolved(config), *(line for check in CHECKS for line in check(config)), *verl_accepts(config)] == []
    assert changed("grpo", ablation) - FOLLOWS == CHANGED[ablation]
    assert config.mini.run == ablation, "an ablation resumes no other run"


def test_single_turn_sft_has_the_steps_and_the_answers_of_the_recipe() -> None:
    from steer_verl.mini.single_turn import Sizes

    keys = {"data.train_files", "data.train_batch_size", "data.micro_batch_size_per_gpu"}
    assert changed("sft", "sft_single_turn") - FOLLOWS == keys
    config = compose(RECIPE, "sft", [ROOT, "ablation=sft_single_turn"])
    assert Sizes().sft == config.data.train_batch_size * config.trainer.total_training_steps


@pytest.mark.parametrize("name", ["qwen2_5_vl_3b", "qwen2_5_vl_7b"])
def test_the_plain_overrides_work_with_the_papers_recipes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("STEER_TUTOR_BASE_URL", "STEER_TUTOR_MODEL"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9/v1")
    readme = (CODE / "recipes" / "ablations" / "README.md").read_text()
    for override in (*OVERRIDES.values(), f"{STEER}.attack=static"):
        assert f"`{override}`" in readme or f"`'{override}'`" in readme
    for override in (*OVERRIDES.values(), plain_grpo()):
        config = compose(CODE / "recipes" / name, "grpo", [override])
        assert override != plain_grpo() or verl_settings(config)[1] == TcsrConfig(**PLAIN_GRPO)
        assert [*(line for check in CHECKS for line in check(config)), *verl_accepts(config)] == []
    single = compose(CODE / "recipes" / name, "grpo", [f"{STEER}.max_turns=1"])
    assert verl_settings(single)[0].max_turns == 1


@pytest.mark.parametrize("arm", OVERRIDES)
def test_an_arm_of_tcsr_is_the_same_in_every_recipe(arm: str) -> None:
    option = verl_settings(compose(RECIPE, "grpo", [ROOT, f"ablation={arm}"]))[1]
    assert option == verl_settings(compose(RECIPE, "grpo", [ROOT, OVERRIDES[arm]]))[1]
    assert option != verl_settings(compose(RECIPE, "grpo", [ROOT]))[1]


def test_the_risky_world_goes_with_every_arm_and_shares_no_folder_with_the_other() -> None:
    plain, risky = (compose(RECIPE, "grpo", [ROOT, "ablation=paper", *more]) for more in ([], ["world=risky_offers"]))
    assert [*(line for check in CHECKS for line in check(risky)), *verl_accepts(risky)] == []
    plain, risky = (leaves(OmegaConf.to_container(config, resolve=True)) for config in (plain, risky))
    assert risky["data.train_files"] == "/nowhere/data/rl_train_risky.parquet"
    folders = {key for key, value in plain.items() if str(value).startswith("/nowhere/paper")}
    assert len(folders) >= 3 and all(risky[key].startswith("/nowhere/risky/paper") for key in folders)
    differ = {key for key in {*plain, *risky} if plain.get(key, "absent") != risky.get(key, "absent")}
    changed = {key for key in differ - folders - FOLLOWS if "sampler_kwargs" not in key}
    assert {"data.train_files", "data.max_response_length"} <= changed
    assert not [key for key in changed if "tcsr" in key or "reward" in key]


def test_without_tcsr_the_mean_turn_reward_counts() -> None:
    import torch

    from tests.tcsr_twin import advantages_of

    config = verl_settings(compose(RECIPE, "grpo", [ROOT, "ablation=plain_mean"]))[1]
    advantages = advantages_of(config, [1.0, 0.5], [0.2, 0.4], [0.9, 0.0])
    means = torch.tensor([0.75, 0.3, 0.45], dtype=torch.float64)
    expected = ((means - means.mean()) / means.std())[:, None].expand(-1, 2)
    torch.testing.assert_close(advantages, expected, atol=1e-4, rtol=1e-4)


def test_the_run_script_hands_everything_on(tmp_path: Path) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" > {tmp_path}/seen\n')
    stand_in.chmod(0o755)
    script = CODE / "recipes" / "ablations" / "run.sh"
    subprocess.run([script, "--seeds", "1"], check=True, cwd=tmp_path, env={**os.environ, "PYTHON": str(stand_in)})
    called = (tmp_path / "seen").read_text().splitlines()
    assert called == ["-m", "benchmarks.lab", "--pages", "ablations", "--seeds", "1"]
