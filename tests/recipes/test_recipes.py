"""Every recipe composes over verl's own configuration, and verl's validation and dataclasses accept it."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from steer_verl.config import STEER_KEY, section_of, tcsr_config, verl_settings
from steer_verl.preflight.compose import compose, unresolved
from steer_verl.preflight.settings import CHECKS
from steer_verl.preflight.verl_side import verl_accepts

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
GRPO = sorted(path.parent.name for path in RECIPES.glob("*/grpo.yaml"))
SFT = sorted(path for path in RECIPES.glob("*/*.yaml") if path.stem in ("sft", "pretrain"))
WHOLE = [name for name in GRPO if name.startswith("qwen")]
"""Models as they are published."""
GIVEN = {"mini": ["mini.root=/nowhere"]}
"""What a user must give on the command line."""
MODES = sorted(path.stem for path in (RECIPES / "mini" / "mode").glob("*.yaml"))
VARIANTS = [
    *((name, tuple(GIVEN.get(name, []))) for name in GRPO),
    ("own_data", ("device=gpu",)),
    *(("mini", (*GIVEN["mini"], f"mode={mode}")) for mode in MODES),
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that the recipes' READMEs ask for."""
    for name in ("STEER_TUTOR_BASE_URL", "STEER_TUTOR_MODEL", "DATA", "MODEL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/v1" if name.endswith("URL") else "/nowhere")


def test_all_recipes_are_seen() -> None:
    assert WHOLE == ["qwen2_5_vl_3b", "qwen2_5_vl_7b", "qwen3_vl_4b", "qwen3_vl_8b"]
    assert {"mini", "own_data", *WHOLE} <= set(GRPO) and set(WHOLE) <= {path.parent.name for path in SFT}
    assert MODES == ["colocate_async", "separate_async"]


@pytest.mark.parametrize(("name", "given"), VARIANTS)
def test_grpo_recipe_passes_verl(name: str, given: tuple[str, ...]) -> None:
    config = compose(RECIPES / name, "grpo", given)
    lines = [*unresolved(config), *(line for check in CHECKS for line in check(config)), *verl_accepts(config)]
    assert lines == []


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_what_verls_trainer_of_that_name_asks_for(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks in the constructors of verl's trainers, which a run would meet after a minute of starting Ray."""
    from verl.trainer.ppo.v1 import get_trainer_cls
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    monkeypatch.setattr(PPOTrainer, "__init__", lambda self, config: setattr(self, "config", config))
    config = compose(RECIPES / "mini", "grpo", [*GIVEN["mini"], f"mode={mode}"])
    assert config.trainer.v1.trainer_mode == mode
    assert get_trainer_cls(mode).__name__ == type(get_trainer_cls(mode)(config)).__name__
    folders = {config.trainer.default_local_dir, section_of(config, STEER_KEY).transcripts}
    assert all(folder.startswith(f"/nowhere/{mode}/") for folder in folders), "a mode resumes no other mode's run"


def test_separate_async_has_a_place_for_each_process() -> None:
    config = compose(RECIPES / "mini", "grpo", [*GIVEN["mini"], "mode=separate_async"])
    rollout, trainer = config.actor_rollout_ref.rollout, config.trainer
    places = trainer.nnodes * trainer.n_gpus_per_node + rollout.nnodes * rollout.n_gpus_per_node
    assert config.ray_kwargs.ray_init.num_gpus == places == 2


@pytest.mark.parametrize("name", WHOLE)
def test_paper_settings(name: str) -> None:
    """The paper's settings must survive edits of the yaml; not its objective, which pays for length."""
    config = compose(RECIPES / name, "grpo")
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    steer, tcsr = verl_settings(config)
    assert (actor.optim.lr, actor.use_kl_loss, actor.kl_loss_coef) == (1e-5, True, 0.1)
    assert (config.data.train_batch_size, rollout.n, actor.strategy) == (64, 5, "fsdp2")
    assert config.data.max_prompt_length + config.data.max_response_length == 10240 == rollout.max_model_len
    assert tcsr == tcsr_config({"preset": "released"})
    assert (steer.max_turns, steer.attack, steer.tutor.kind) == (10, "adaptive", "openai")
    assert steer.tutor.endpoint is not None and steer.tutor.endpoint.temperature == 0.0


@pytest.mark.parametrize("path", SFT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_sft_recipe_passes_verl(path: Path) -> None:
    """The conversions of verl's SFT trainer (trainer/sft_trainer.py:138-146), the model's by its field names."""
    from steer_verl.preflight.verl_side import verl_trains

    config = compose(path.parent, path.stem, GIVEN.get(path.parent.name, []))
    assert list(unresolved(config)) == [] and list(verl_trains(config)) == []
    assert config.engine.strategy == "fsdp2"


@pytest.mark.parametrize("name", WHOLE)
def test_sft_has_the_papers_numbers(name: str) -> None:
    config = compose(RECIPES / name, "sft")
    numbers = (config.optim.lr, config.optim.weight_decay, config.data.train_batch_size)
    assert numbers == (1e-5, 0.01, 16)
    assert (config.trainer.total_epochs, config.data.max_length) == (2, 32768)
    assert (config.optim.optimizer, config.engine.dtype, config.engine.model_dtype) == ("AdamW", "bfloat16", "fp32")
    assert config.model.external_lib == "steer_verl.frozen_vision"
    # a dialogue that does not fit is told, not cut in the middle of an answer or of a picture's tokens
    assert (config.data.truncation, config.data.pad_mode, config.data.messages_key) == (
        "error",
        "no_padding",
        "messages",
    )
    assert config.data.max_token_len_per_gpu >= config.data.max_length


@pytest.mark.parametrize("name", WHOLE)
def test_lora_is_an_override_of_sft_too(name: str) -> None:
    from verl.utils.config import omega_conf_to_dataclass

    from steer_verl.preflight.verl_side import verl_trains

    readme = (RECIPES / name / "README.md").read_text()
    lora = ["model.lora_rank=32", "model.lora_alpha=64", "model.exclude_modules='.*visual.*'", "optim.lr=1e-4"]
    assert all(override in readme for override in lora)
    config = compose(RECIPES / name, "sft", lora)
    assert list(unresolved(config)) == [] and list(verl_trains(config)) == []
    assert (config.model.lora_rank, config.model.lora_alpha, config.model.target_modules) == (32, 64, "all-linear")
    assert config.model.exclude_modules == ".*visual.*"
    assert omega_conf_to_dataclass(config.optim).lr == 1e-4


@pytest.mark.parametrize(
    "file", [*SFT, *(RECIPES / name / "grpo.yaml" for name in GRPO)], ids=lambda path: path.parent.name
)
def test_hydra_writes_into_the_runs_own_folder(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configuration and log lie beside the checkpoints, and nothing where the run was started from."""
    monkeypatch.chdir(tmp_path)
    app = "import hydra; hydra.main(config_path=None, version_base=None)(lambda config: None)()"
    words = ["--config-path", str(file.parent), "--config-name", file.stem, f"trainer.default_local_dir={tmp_path}/run"]
    given = GIVEN.get(file.parent.name, [])
    subprocess.run([sys.executable, "-c", app, *words, *given], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "hydra" / ".hydra" / "config.yaml").is_file()


@pytest.mark.parametrize(("name", "given"), VARIANTS)
def test_lora_is_an_override(name: str, given: tuple[str, ...]) -> None:
    model = "actor_rollout_ref.model"
    lora = [f"{model}.lora_rank=32", f"{model}.lora_alpha=64", f"{model}.exclude_modules='.*visual.*'"]
    config = compose(RECIPES / name, "grpo", [*given, *lora])
    assert list(verl_accepts(config)) == []
    assert (config.actor_rollout_ref.model.target_modules, config.actor_rollout_ref.model.lora_rank) == (
        "all-linear",
        32,
    )


@pytest.mark.parametrize("name", GRPO)
def test_recipe_folder_is_whole(name: str) -> None:
    """As verl's recipe collection lays one out: README, the pinned verl, a run script that passes overrides on."""
    folder = RECIPES / name
    assert "REQUIRED_VERL.txt" in (folder / "README.md").read_text()
    assert "verl==0.9.1" in (folder / "REQUIRED_VERL.txt").read_text()
    scripts = sorted(folder.glob("run*.sh"))
    assert scripts
    for script in scripts:
        text = script.read_text()
        assert "set -euo pipefail" in text and '"$@"' in text and os.access(script, os.X_OK)
        subprocess.run(["bash", "-n", script], check=True)


def test_run_script_checks_first_and_passes_overrides_on(tmp_path: Path) -> None:
    """From another folder, with a stand-in interpreter that notes what it is asked to run."""
    seen, stand_in = tmp_path / "seen", tmp_path / "python"
    stand_in.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "$*" >> {seen}\n')
    stand_in.chmod(0o755)
    for name, script in (("qwen2_5_vl_3b", "run_grpo.sh"), ("own_data", "run.sh"), ("mini", "run_grpo.sh")):
        seen.unlink(missing_ok=True)
        environment = {**os.environ, "PYTHON": str(stand_in)}
        run = ["bash", RECIPES / name / script, "data.seed=3", "+a.b=c d"]
        subprocess.run(run, check=True, cwd=tmp_path, env=environment)
        calls = [line for line in seen.read_text().splitlines() if line.startswith("-m")]
        modules = [[after for before, after in pairwise(call.split()) if before == "-m"] for call in calls]
        assert modules == [["steer_verl.preflight"], ["steer_verl.processes.tidy", "verl.trainer.main_ppo"]]
        assert all(f"--config-path {RECIPES / name} --config-name grpo" in call for call in calls)
        assert all(call.endswith("data.seed=3 +a.b=c d") for call in calls)


def test_run_script_stops_when_the_check_fails(tmp_path: Path) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/usr/bin/env bash\n[ "$2" = steer_verl.preflight ] && exit 1\ntouch ran\n')
    stand_in.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(stand_in)}
    done = subprocess.run(["bash", RECIPES / "qwen2_5_vl_7b/run_grpo.sh"], cwd=tmp_path, env=environment)
    assert done.returncode == 1 and not (tmp_path / "ran").exists()
