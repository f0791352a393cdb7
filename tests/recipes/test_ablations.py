"""Each ablation is one option of the mini recipe, and changes what it says and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from steer_verl.config import PLAIN_GRPO, TcsrConfig, verl_settings
from steer_verl.demo.ablations import (
    FULL,
    STUDENTS,
    Ablations,
    evaluations,
    evaluations_alone,
    finished,
    link_base,
    stages,
)
from steer_verl.demo.stages import CODE, Plan, evaluation
from steer_verl.demo.stages import STUDENTS as DEMO
from steer_verl.demo.stages import stages as demo_stages
from steer_verl.eval.config import EvalConfig
from steer_verl.eval.runs import DIALOGUES
from steer_verl.preflight.compose import compose, unresolved
from steer_verl.preflight.inert import plain_grpo
from steer_verl.preflight.settings import CHECKS
from steer_verl.preflight.verl_side import verl_accepts
from steer_verl.settings_file import load_settings

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


ARMS = {
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
    assert {student.ablation for student in STUDENTS.values()} <= {*CHANGED, "sft_single_turn", ""}


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
    for override in (*ARMS.values(), f"{STEER}.attack=static"):
        assert f"`{override}`" in readme or f"`'{override}'`" in readme
    for override in (*ARMS.values(), plain_grpo()):
        config = compose(CODE / "recipes" / name, "grpo", [override])
        assert override != plain_grpo() or verl_settings(config)[1] == TcsrConfig(**PLAIN_GRPO)
        assert [*(line for check in CHECKS for line in check(config)), *verl_accepts(config)] == []
    single = compose(CODE / "recipes" / name, "grpo", [f"{STEER}.max_turns=1"])
    assert verl_settings(single)[0].max_turns == 1


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_of_tcsr_is_the_same_in_every_recipe(arm: str) -> None:
    option = verl_settings(compose(RECIPE, "grpo", [ROOT, f"ablation={arm}"]))[1]
    assert option == verl_settings(compose(RECIPE, "grpo", [ROOT, ARMS[arm]]))[1]
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


def test_stages_go_seed_by_seed_from_one_base(tmp_path: Path) -> None:
    run = Ablations(tmp_path, (3, 7))
    todo = stages(run)
    names = [stage.name for stage in todo]
    assert len(set(names)) == len(names) and names[:3] == ["base/data", "base/model", "base/pretrain"]
    seen: set[str] = set()
    for stage in todo:
        assert set(stage.after) <= seen, stage.name
        assert all(source.exists() for source in stage.sources), stage.name
        assert stage.env.get("OMP_NUM_THREADS", "1") == "1"
        seen.add(stage.name)
    adaptive = [name for name in names if name.startswith("seed-") and not name.endswith("-static")]
    assert adaptive == sorted(adaptive, key=lambda name: name.split("/")[0]), (
        "a seed is finished before the next begins"
    )
    for student in STUDENTS:
        assert {f"seed-3/eval-{student}", f"seed-7/eval-{student}-static"} <= set(names)
    by_name = {stage.name: stage for stage in todo}
    assert by_name["seed-7/static"].after == ("seed-7/data", "seed-7/sft")
    assert by_name["seed-7/no_bootstrap"].after == ("seed-7/data", "base/pretrain")
    assert (
        "ablation=plain_mean" in by_name["seed-3/plain_mean"].argv
        and f"mini.run={FULL}" in by_name[f"seed-3/{FULL}"].argv
    )
    steps = {stage.steps for stage in todo if "verl.trainer.main_ppo" in stage.argv}
    assert steps == {compose(RECIPE, "grpo", [ROOT]).trainer.total_training_steps}


@pytest.mark.parametrize("attack", ["adaptive", "static"])
def test_every_evaluation_is_one_that_steer_eval_takes(attack: str, tmp_path: Path) -> None:
    demo = Plan(tmp_path / "demo")
    found = [*evaluations(Ablations(tmp_path, (1,)).plan(1), attack), *(evaluation(demo, s, attack) for s in DEMO)]
    for stage in found:
        file, *overrides = stage.argv[stage.argv.index("run") + 1 :]
        config = load_settings(EvalConfig, Path(file), overrides)
        assert (config.attack, config.out, config.tutor is None) == (attack, stage.folder, attack == "static")
        assert "seed" not in str(config.student.name), "compare and report pool the seeds of a student by its name"
    assert len(found) == len(STUDENTS) + len(DEMO)


def test_students_that_are_there_can_be_evaluated_alone(tmp_path: Path) -> None:
    run = Ablations(tmp_path, (0, 1))
    for student in ("base/pretrain", "seed-1/static"):
        (tmp_path / student / "hf").mkdir(parents=True)
        (tmp_path / student / "hf" / "model.safetensors").touch()
    found = evaluations_alone(run)
    assert {stage.name for stage in found} == {
        f"seed-{seed}/eval-{student}{attack}"
        for seed, student in ((0, "base"), (1, "base"), (1, "static"))
        for attack in ("", "-static")
    }
    assert not any(stage.after for stage in found)


def test_a_seed_finds_the_base_where_its_recipe_looks(tmp_path: Path) -> None:
    run = Ablations(tmp_path, (0, 1))
    (tmp_path / "base" / "pretrain" / "hf").mkdir(parents=True)
    link_base(run)
    link_base(run)
    assert (tmp_path / "seed-1" / "pretrain" / "hf").is_dir()


def test_a_seed_is_finished_when_all_its_students_are_evaluated(tmp_path: Path) -> None:
    run = Ablations(tmp_path, (0, 1))
    for seed in run.seeds:
        for student in list(STUDENTS)[seed:]:
            folder = run.played(seed, student)
            folder.mkdir(parents=True)
            (folder / DIALOGUES).touch()
    assert finished(run) == (0,)
    assert finished(run, "static") == ()


def test_a_change_of_the_evaluation_trains_nothing_again(tmp_path: Path) -> None:
    package = CODE / "steer_verl"
    measuring = [package / part for part in ("eval", "report", "statistics.py", "mini/student.py")]
    for stage in (*demo_stages(Plan(tmp_path)), *stages(Ablations(tmp_path, (0,)))):
        if "eval" not in stage.name:
            found = [path for path in stage.sources if any(path.is_relative_to(part) for part in measuring)]
            assert not found, stage.name


def test_the_run_script_hands_everything_on(tmp_path: Path) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "$@" > {tmp_path}/seen\n')
    stand_in.chmod(0o755)
    script = CODE / "recipes" / "ablations" / "run.sh"
    subprocess.run([script, "--seeds", "1"], check=True, cwd=tmp_path, env={**os.environ, "PYTHON": str(stand_in)})
    called, *rest = (tmp_path / "seen").read_text().splitlines()
    assert Path(called).resolve() == CODE / "benchmarks" / "ablations.py" and rest == ["--seeds", "1"]
