"""Preflight: a run that can work passes; each bad input gives its own line, with the hint, before a model is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from omegaconf import OmegaConf, open_dict

from steer_verl.data.rows.parquet import convert
from steer_verl.errors import ConfigError
from steer_verl.mini import data as mini_data
from steer_verl.mini import model as mini_model
from steer_verl.preflight import check, preflight, run, tutor
from steer_verl.preflight.compose import compose
from steer_verl.preflight.rows import SAMPLE, folders, rows, shared_ids
from steer_verl.preflight.settings import CHECKS, notices, resuming
from steer_verl.preflight.student import student
from steer_verl.preflight.unread import STOP_KEY
from steer_verl.preflight.verl_side import named
from tests.models.fault_server import FaultServer, good

MINI = Path(__file__).resolve().parents[1] / "recipes" / "mini"
STEER = "actor_rollout_ref.rollout.custom.steer"


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small but whole ``mini.root``: data as parquet, and an untrained student."""
    root = tmp_path_factory.mktemp("laboratory")
    sizes = mini_data.Sizes(
        pretrain=1,
        sft=1,
        rl_train=8,
        rl_validation=3,
        rl_test=3,
        long_attacked=1,
        long_benign=1,
        rl_train_risky=1,
        rl_test_risky=1,
    )
    mini_data.build(root / "data", sizes=sizes)
    for source in (root / "data").glob("rl_*.jsonl"):
        name = "rl_val" if "val" in source.stem else source.stem
        split = "val" if "val" in source.stem else "train"
        assert convert(source, root / "data" / f"{name}.parquet", split=split).bad_rows == 0
    mini_model.build(root / "sft" / "hf")
    return root


@pytest.fixture
def own_copy(laboratory: Path, tmp_path: Path) -> Path:
    """A laboratory that a test may spoil; pictures stay where they are."""
    for name in ("rl_train.parquet", "rl_val.parquet"):
        (tmp_path / "data").mkdir(exist_ok=True)
        shutil.copy(laboratory / "data" / name, tmp_path / "data" / name)
    shutil.copytree(laboratory / "sft", tmp_path / "sft")
    return tmp_path


@lru_cache(maxsize=1)
def composed() -> Any:
    return compose(MINI, "grpo")


def mini(root: Path, *overrides: str) -> Any:
    """The mini recipe with simple overrides; composing it anew for each would take a second."""
    config = composed().copy()
    for override in (f"mini.root={root}", *overrides):
        key, _, value = override.lstrip("+").partition("=")
        if key.startswith("~"):
            parent, _, name = key[1:].rpartition(".")
            with open_dict(config):
                OmegaConf.select(config, parent).pop(name)
        else:
            OmegaConf.update(config, key, yaml.safe_load(value), force_add=True)
    return config


def settings_lines(*overrides: str) -> list[str]:
    """What the settings alone give away; nothing is on disk."""
    return [line for part in CHECKS for line in part(mini(Path("/nowhere"), *overrides))]


def only(lines: Iterator[str] | list[str], *wanted: str) -> str:
    """The one line, which is one line and holds every wanted word."""
    found = list(lines)
    assert len(found) == 1, found
    assert "\n" not in found[0]
    for word in wanted:
        assert word in found[0]
    return found[0]


def test_a_run_that_can_work_passes(laboratory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config-path", str(MINI), "--config-name", "grpo"]
    assert preflight(MINI, "grpo", [f"mini.root={laboratory}"]) == []
    assert run([*arguments, "--", f"mini.root={laboratory}", "trainer.total_training_steps=2"]) == 0
    assert "all clear" in capsys.readouterr().err


ROUTER_TUTOR = f"{STEER}.tutor={{kind: openai, endpoint: {{base_url: 'verl://reward_model', model: judge}}}}"

REWARD_MODEL, REWARD_POOL = "reward.reward_model.enable=true", "reward.reward_model.enable_resource_pool=true"
NO_SAMPLER = "trainer.v1.sampler.custom_sampler.name=null"
NO_LOG_PROBS = "actor_rollout_ref.rollout.calculate_log_probs=false"
CORRECTION = "algorithm.rollout_correction"

SETTINGS: dict[str, tuple[list[str], list[str]]] = {
    "unknown key": ([f"+{STEER}.max_turn=3"], ["max_turn", "unknown key", "max_turns"]),
    "unknown tutor key": ([f"+{STEER}.tutor.modell=x"], ["tutor.modell", "unknown key"]),
    "unknown estimator key": (["+algorithm.tcsr.beta=1"], ["algorithm.tcsr.beta", "alpha"]),
    "unknown preset": (["algorithm.tcsr.preset=best"], ["best", "paper"]),
    "alpha above 1": (["+algorithm.tcsr.alpha=1.5"], ["algorithm.tcsr.alpha", "1.5"]),
    "alpha below 0": (["+algorithm.tcsr.alpha=-0.1"], ["algorithm.tcsr.alpha", "-0.1"]),
    "alpha is not a number": (["+algorithm.tcsr.alpha=.nan"], ["algorithm.tcsr.alpha"]),
    "weights sum to 0": (
        [f"+{STEER}.reward.weights={{safety: 0, usefulness: 0, faithfulness: 0}}"],
        ["reward.weights", "sum to 0", "positive weight"],
    ),
    "an alarm turned off by false": (
        [f"++{STEER}.alarms.lost_share=false"],
        [f"{STEER}.alarms.lost_share: false is no number, null is none"],
    ),
    "weights beyond all numbers": ([f"+{STEER}.reward.weights.safety=1.0e308"], ["weights.safety", "1000"]),
    "max_turns 0": ([f"{STEER}.max_turns=0"], [f"{STEER}.max_turns", "greater than or equal to 1"]),
    "another estimator": (
        ["algorithm.adv_estimator=grpo"],
        ["a reward of 0", "algorithm.adv_estimator=tcsr", "++algorithm.tcsr={shaping:none,aggregation:sum"],
    ),
    "GRPO's own switch": (
        ["algorithm.norm_adv_by_std_in_grpo=false"],
        ["norm_adv_by_std_in_grpo is false", "algorithm.tcsr.normalize_std=false"],
    ),
    "a discount": (["algorithm.gamma=0.99"], ["algorithm.gamma is 0.99", "discounts nothing"]),
    "no estimator section": (["~algorithm.tcsr"], ["algorithm.tcsr is missing", "+algorithm.tcsr.preset"]),
    "KL in the reward": (["algorithm.use_kl_in_reward=true"], ["use_kl_in_reward", "use_kl_loss"]),
    "a group of one": (["actor_rollout_ref.rollout.n=1"], ["rollout.n", "at least 2"]),
    "rollouts that are one answer": (["actor_rollout_ref.rollout.temperature=0"], ["temperature is 0", "one answer"]),
    "one seed for all requests": (
        [
            "actor_rollout_ref.rollout.full_determinism=true",
            "trainer.v1.trainer_mode=separate_async",
            "trainer.v1.sampler.custom_sampler.name=SteerReplayBufferAsync",
        ],
        ["full_determinism", "one seed"],
    ),
    "a seed in words": (["actor_rollout_ref.rollout.seed=abc"], ["rollout.seed is abc", "a whole number"]),
    "a batch that is no multiple of its pieces": (["++data.gen_batch_size=3"], ["gen_batch_size is 3", "no multiple"]),
    "pieces below nothing": (["++data.gen_batch_size=-1"], ["gen_batch_size is -1"]),
    "an unknown way to resume": (["trainer.resume_mode=always"], ["resume_mode is always", "auto, disable"]),
    "resuming from nowhere": (
        ["trainer.resume_mode=resume_path"],
        ["resume_from_path is None", "global_step_<number>"],
    ),
    "resuming from a slash": (
        ["trainer.resume_mode=resume_path", "trainer.resume_from_path=out/global_step_8/"],
        ["without a slash"],
    ),
    "resuming from what is not there": (
        ["trainer.resume_mode=resume_path", "trainer.resume_from_path=out/global_step_8"],
        ["out/global_step_8", "no checkpoint"],
    ),
    "old reward function key": (["custom_reward_function.path=x.py"], ["custom_reward_function.path", "reward."]),
    "old reward model key": (["reward_model.reward_manager=dapo"], ["reward_model.reward_manager", "ignores"]),
    "another reward manager": (
        ["reward.reward_manager.name=naive"],
        ["naive", "reward.reward_manager.name=steer_tutor"],
    ),
    "reward model bypass": ([REWARD_MODEL, REWARD_POOL], ["bypasses the reward manager"]),
    "reward model beside the trainer": (
        [REWARD_MODEL, "reward.custom_reward_function.path=pkg://reward_fns.compute_score"],
        ["over the turn rewards", "enable_resource_pool=true"],
    ),
    "group filter": (["algorithm.filter_groups.enable=true"], ["filter_groups.enable", "its own sampler alone"]),
    "refill": (["trainer.v1.sampler.sync_refill_failed_groups=true"], ["refill", "its own sampler alone"]),
    "alarms without a sampler": (
        [NO_SAMPLER, f"+{STEER}.alarms.lost_share=0.1"],
        [f"{STEER}.alarms.lost_share is set", "custom_sampler.name=SteerReplayBuffer"],
    ),
    "stop without a sampler": ([NO_SAMPLER, f"+{STEER}.{STOP_KEY}=0.1"], [f"{STEER}.{STOP_KEY} is set"]),
    "sampler without a path": (
        ["trainer.v1.sampler.custom_sampler.path=null"],
        ["without a path", "path=pkg://rollout.sampler"],
    ),
    "bypass without log-probabilities": ([f"{CORRECTION}.bypass_mode=true", NO_LOG_PROBS], ["bypass_mode takes"]),
    "rejection without log-probabilities": (
        [f"{CORRECTION}.rollout_rs=token_k1", f"{CORRECTION}.rollout_rs_threshold=2.0", NO_LOG_PROBS],
        ["rollout_rs is set", "skip the correction in silence", "calculate_log_probs=true"],
    ),
    "weights without log-probabilities": ([f"{CORRECTION}.rollout_is=token", NO_LOG_PROBS], ["rollout_is is set"]),
    "rejection that bypass mode drops": (
        [
            f"{CORRECTION}.rollout_rs=token_k1",
            f"{CORRECTION}.rollout_rs_threshold=2.0",
            f"{CORRECTION}.bypass_mode=true",
        ],
        ["the V1 trainer reads none of it", "policy_loss.loss_mode=bypass_mode"],
    ),
    "loss of bypass mode": ([f"{CORRECTION}.loss_type=reinforce"], ["loss_type is read with bypass_mode alone"]),
    "threshold of nothing": ([f"{CORRECTION}.rollout_rs_threshold=2.0"], ["rollout_rs is not", "drop"]),
    "rubric of the laboratory": ([f"+{STEER}.tutor.rubric=mine.md"], [f"{STEER}.tutor.rubric is set", "kind: mini"]),
    "question length without questions": (
        [f"{STEER}.attack=static", f"+{STEER}.max_question_chars=9"],
        ["max_question_chars is set", "attack: static"],
    ),
    "answers longer than the budget": ([f"{STEER}.max_answer_tokens=9999"], ["max_answer_tokens", "no answer fits"]),
    "a prompt that is cut": (
        ["actor_rollout_ref.rollout.max_num_batched_tokens=20479"],
        ["max_num_batched_tokens", "crash", "max_num_seqs x max_model_len = 20480"],
    ),
    "engine too short": (["actor_rollout_ref.rollout.max_model_len=100"], ["max_model_len", "set it to at least"]),
    "half a pixel budget": (["+data.mm_processor_kwargs.max_pixels=3136"], ["min_pixels and max_pixels", "give both"]),
    "old trainer": (["trainer.use_v1=false"], ["trainer.use_v1=true"]),
    "sampler of another mode": (
        ["trainer.v1.trainer_mode=colocate_async"],
        ["custom_sampler.name=SteerReplayBufferAsync"],
    ),
    "a mode that nobody knows": (
        ["trainer.v1.trainer_mode=async"],
        ["trainer.v1.trainer_mode is async", "sync, colocate_async, separate_async"],
    ),
    "sampler without its section": (["~trainer.v1.sampler.sampler_kwargs.steer"], ["sampler_kwargs.steer is missing"]),
    "sampler without any": (["trainer.v1.sampler.sampler_kwargs=null"], ["sampler_kwargs.steer is missing"]),
    "sampler with a section of its own": (
        ["++trainer.v1.sampler.sampler_kwargs.steer={max_lost_share: 1}"],
        ["sampler_kwargs.steer is another section than"],
    ),
    "tutor on a reward model that is not served": (
        [ROUTER_TUTOR, "reward.custom_reward_function.path=pkg://reward_fns.compute_score"],
        ["verl://reward_model", "reward.reward_model.enable=true"],
    ),
    "dead key": (["actor_rollout_ref.actor.freeze_vision_tower=true"], ["freeze_vision_tower", "frozen_vision"]),
    "devices do not divide": (["actor_rollout_ref.rollout.tensor_model_parallel_size=3"], ["do not divide"]),
}


@pytest.mark.parametrize(("overrides", "wanted"), SETTINGS.values(), ids=SETTINGS.keys())
def test_each_bad_setting_gives_one_line(overrides: list[str], wanted: list[str]) -> None:
    only(settings_lines(*overrides), *wanted)


REWARD_FUNCTION = "reward.custom_reward_function.path=pkg://reward_fns.compute_score"
LIBRARY, LOOPS = "actor_rollout_ref.model.external_lib", "actor_rollout_ref.rollout.agent.agent_loop_config_path"
NAMES = {
    "a reward function": ([REWARD_FUNCTION, "reward.custom_reward_function.name=tutor_scor"], "tutor_scor"),
    "a reward module": (["reward.custom_reward_function.path=pkg://reward_fns.nope"], "reward_fns.nope"),
    "a sampler": (["trainer.v1.sampler.custom_sampler.path=pkg://rollout.samplr"], "rollout.samplr"),
    "a library": ([f"{LIBRARY}=steer_verl.frozen_visoin"], "no module steer_verl.frozen_visoin"),
    "a file of loops": ([f"{LOOPS}=/nowhere/loops.yaml"], "/nowhere/loops.yaml"),
    "a logger": (["trainer.logger=[console, consol]"], "verl has no 'consol'; choose of"),
}


@pytest.mark.parametrize(("overrides", "wanted"), NAMES.values(), ids=NAMES.keys())
def test_what_verl_would_look_for_in_vain_is_told(overrides: list[str], wanted: str) -> None:
    only(named(mini(Path("/nowhere"), *overrides)), overrides[-1].partition("=")[0].rpartition(".")[0], wanted)


def test_what_verl_finds_gives_no_line(tmp_path: Path) -> None:
    (tmp_path / "loops.yaml").write_text("- {name: steer_dialogue, _target_: rollout.agent_loop.SteerAgentLoop}\n")
    overrides = [REWARD_FUNCTION, f"{LOOPS}={tmp_path}/loops.yaml", f"{LIBRARY}=[steer_verl.frozen_vision]"]
    assert not list(named(mini(Path("/nowhere"), *overrides, "trainer.logger=console")))


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = mini(tmp_path, f"trainer.default_local_dir={tmp_path}/file/run", f"{STEER}.cache=null")
    only(folders(config), "trainer.default_local_dir", f"{tmp_path}/file is a file")
    assert not list(folders(mini(tmp_path, f"trainer.default_local_dir={tmp_path}/a/b", f"{STEER}.transcripts=null")))


def test_a_tilde_is_told_where_verl_would_make_a_folder_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache would be in the home folder, and the checkpoints by which it is emptied in one named ~."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for key in ("default_local_dir", "rollout_data_dir"):
        only(folders(mini(tmp_path, f"trainer.{key}=~/run")), f"trainer.{key}: ~/run", "$HOME")
    (tmp_path / "file").touch()
    only(folders(mini(tmp_path, f"{STEER}.transcripts=~/file/here")), f"{tmp_path}/file is a file")


def test_good_settings_give_no_line() -> None:
    assert settings_lines() == []


UNCOMPOSED: dict[str, tuple[list[str], list[str]]] = {
    "typing error in a key": (["data.train_batchsize=4"], ["train_batchsize", "+data.train_batchsize"]),
    "no override at all": (["a b c"], ["correct the override"]),
    "a number for a section": (["data=5"], ["must be a string or a list", "correct the override"]),
    "a section deleted": (["mini.root=/x", "~trainer"], ["no section trainer:"]),
    "mandatory value": ([], ["mini.root", "mini.root=..."]),
    "broken reference": (["mini.root=/x", "mini.student=${mini.nothing}"], ["mini.nothing", "override it"]),
}


@pytest.mark.parametrize(("overrides", "wanted"), UNCOMPOSED.values(), ids=UNCOMPOSED.keys())
def test_what_does_not_compose_gives_one_line(overrides: list[str], wanted: list[str]) -> None:
    only(preflight(MINI, "grpo", overrides), *wanted)


KEYS_IN_WRONG_PLACES = {
    "in the address": ([f"{STEER}.tutor.endpoint.base_url='http://h/v1?api_key=Key123'"], "base_url: holds a query"),
    "as the user": ([f"{STEER}.tutor.endpoint.base_url='http:u:Key123@h'"], "base_url: holds a user or a password"),
    "as a name": ([f"+{STEER}.tutor.endpoint.api_key_env=sk-Key123"], "api_key_env: is no name"),
    "under a key of its own": ([f"+{STEER}.tutor.endpoint.api_key=Key123"], "set api_key_env"),
    "in braces": ([f"+{STEER}.tutor.endpoint={{base_url: 'http://h', api_key: Key123}}"], "set api_key_env"),
    "without a plus": ([f"{STEER}.tutor.endpoint.api_key=Key123"], "+" + f"{STEER}.tutor.endpoint.api_key=..."),
    "without quotes": ([f"{STEER}.tutor.endpoint.base_url=http://u:p@h/v1?api_key=Key123"], "in Hydra's grammar"),
    "that no grammar knows": (["trainer.nnodes=[Key123"], "the override of trainer.nnodes is none"),
    "alone": (["sk-Key123"], "an override is none in Hydra's grammar"),
    "to delete a key": ([f"~{STEER}.reward.preset=Key123"], f"{STEER}.reward.preset has another value"),
    "in an old section": (["+custom_reward_function.reward_kwargs.api_key=Key123"], "main_ppo ignores this old key"),
}


@pytest.mark.parametrize(("overrides", "wanted"), KEYS_IN_WRONG_PLACES.values(), ids=KEYS_IN_WRONG_PLACES.keys())
def test_a_key_in_a_wrong_place_is_refused_and_not_repeated(
    overrides: list[str], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEER_TUTOR_BASE_URL", "http://h/v1")
    monkeypatch.setenv("STEER_TUTOR_MODEL", "m")
    try:
        config = compose(MINI.parent / "own_data", "grpo", ["trainer.default_local_dir=/nowhere", *overrides])
        lines = [line for part in CHECKS for line in part(config)]
    except ConfigError as error:
        lines = [str(error)]
    assert wanted in " | ".join(lines)
    assert not any("Key123" in line or "\n" in line for line in lines)


def test_the_yaml_of_another_trainer() -> None:
    lines = preflight(MINI, "sft", ["mini.root=/x"])
    assert len(lines) == 2 and all("/x/" in line for line in lines), "Stage II has checks of its own"
    config = mini(Path("/x"))
    with open_dict(config):
        del config.actor_rollout_ref, config.algorithm
    only(check(config), "no section actor_rollout_ref, algorithm:", "grpo")


def test_missing_yaml() -> None:
    only(preflight(MINI, "gpro"), "gpro.yaml", "no such file")


NO_YAML = {
    "a tab": (b"a:\n\tb: Key123\n", "line 2, column 1"),
    "a key twice": (b"a: 1\na: Key123\n", "line 2, column 1"),
    "Latin 1": (b"a: \xe9Key123\n", "UTF-8"),
}


@pytest.mark.parametrize("named", [False, True], ids=["the recipe's own", "one that it names"])
@pytest.mark.parametrize(("text", "wanted"), NO_YAML.values(), ids=NO_YAML.keys())
def test_a_slip_in_a_yaml_gives_one_line(tmp_path: Path, text: bytes, wanted: str, named: bool) -> None:
    (tmp_path / "recipe.yaml").write_text("defaults:\n  - other\n  - _self_\n")
    (tmp_path / ("other.yaml" if named else "recipe.yaml")).write_bytes(text)
    (line,) = preflight(tmp_path, "recipe")
    assert wanted in line and "Key123" not in line and "\n" not in line


ODD_YAML = {
    "an interpolation without an end": ("a: ${Key123\n", "recipe.yaml does not compose: it holds what", "GrammarParse"),
    "a key that is null": ("~: Key123\n", "recipe.yaml does not compose: it holds what", "KeyValidation"),
    "brackets without end": (f"a: {'[' * 3000}Key123{']' * 3000}\n", "recipe.yaml: is no YAML", "mend it"),
    "a number": ("5\n", "recipe.yaml: cannot be read", "int"),
}


@pytest.mark.parametrize(("text", "place", "what"), ODD_YAML.values(), ids=ODD_YAML.keys())
def test_what_hydra_has_no_words_for_is_told(tmp_path: Path, text: str, place: str, what: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    assert "Key123" not in only(preflight(tmp_path, "recipe"), place, what)


def test_what_hydra_knows_of_the_run_is_known_here_too() -> None:
    name, place = "trainer.project_name='${hydra:job.name}'", f"{STEER}.transcripts='${{hydra:runtime.output_dir}}/t'"
    config = compose(MINI, "grpo", ["mini.root=/x", "hydra.run.dir=/y", name, place])
    assert config.trainer.project_name == "main_ppo" and "hydra" not in config
    assert config.actor_rollout_ref.rollout.custom.steer.transcripts == "/y/t"


def test_a_key_that_is_almost_verls_is_told(laboratory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config-path", str(MINI), "--config-name", "grpo", "--", f"mini.root={laboratory}"]
    slips = ["+trainer.total_trainning_steps=5", "+dataa.shuffle=true", "+trainer.of_mine=1"]
    assert run([*words, *slips]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("notice: ")]
    assert len(told) == 2 and "trainer.total_training_steps is;" in told[0] and "but data is;" in told[1]


def test_missing_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEER_TUTOR_BASE_URL", raising=False)
    monkeypatch.setenv("STEER_TUTOR_MODEL", "m")
    only(preflight(MINI.parent / "qwen2_5_vl_3b", "grpo"), "STEER_TUTOR_BASE_URL", "is not set", "base_url")


@pytest.mark.parametrize("ours", ["algorithm.tcsr.preset=paper", "+algorithm.tcsr.normalize_std=false"])
def test_a_run_without_division_may_say_so_to_grpo_too(ours: str) -> None:
    assert settings_lines("algorithm.norm_adv_by_std_in_grpo=false", ours) == []


@pytest.mark.parametrize("none", [NO_SAMPLER, "trainer.v1.sampler.custom_sampler=null"])
def test_a_run_may_do_without_a_custom_sampler(none: str) -> None:
    assert settings_lines(none) == []


def test_without_our_sampler_a_notice_says_what_is_missing() -> None:
    config = mini(Path("/nowhere"), NO_SAMPLER)
    assert [line for part in CHECKS for line in part(config)] == []
    assert any("no sampler of ours" in line and "SteerReplayBuffer" in line for line in notices(config))


def test_verl_says_no_in_one_line() -> None:
    from steer_verl.preflight.verl_side import verl_accepts

    root = Path("/nowhere")
    batch = mini(root, "data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=8")
    only(verl_accepts(batch), "train_batch_size (4)", "ppo_mini_batch_size (8)")
    only(verl_accepts(mini(root, f"{CORRECTION}.rollout_rs=token_k1")), CORRECTION, "rollout_rs_threshold must be")
    only(verl_accepts(mini(root, f"{CORRECTION}.rollout_is=word")), CORRECTION, "Invalid rollout_is: word")
    only(verl_accepts(mini(root, "+actor_rollout_ref.rollout.temprature=1")), "temprature", "actor_rollout_ref.rollout")
    only(verl_accepts(mini(root, "+actor_rollout_ref.ref.momentum=1")), "momentum", "actor_rollout_ref.ref")
    only(verl_accepts(mini(root, "+actor_rollout_ref.model.lora_rnk=1")), "model.lora_rnk", "lora_rank")


def edit(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Rewrite a parquet file with its rows changed."""
    import pyarrow as pa

    table = pq.read_table(path)
    values = table.to_pylist()
    change(values)
    schema = table.schema if values[0].keys() == set(table.schema.names) else None
    pq.write_table(pa.Table.from_pylist(values, schema), path)


def drop_agent_name(values: list[dict[str, Any]]) -> None:
    for row in values:
        del row["agent_name"]


DEFAULT_LOOP = "actor_rollout_ref.rollout.agent.default_agent_loop"


def test_rows_without_agent_name(own_copy: Path) -> None:
    path = own_copy / "data" / "rl_train.parquet"
    edit(path, drop_agent_name)
    assert list(rows(mini(own_copy))) == []  # the recipe's default loop is ours
    spoiled = mini(own_copy, f"{DEFAULT_LOOP}=single_turn_agent")
    only(rows(spoiled), str(path), "row 1", "silently run single_turn_agent", f"{DEFAULT_LOOP}=steer_dialogue")


def test_one_row_without_agent_name_among_many(own_copy: Path) -> None:
    def empty(values: list[dict[str, Any]]) -> None:
        values[4]["agent_name"] = None

    edit(own_copy / "data" / "rl_train.parquet", empty)
    only(rows(mini(own_copy)), "row 5", "agent_name is empty", "set it to steer_dialogue")


def test_rows_for_another_loop_are_counted(own_copy: Path) -> None:
    def rename(values: list[dict[str, Any]]) -> None:
        for row in values[2:]:
            row["agent_name"] = "tool_agent"

    edit(own_copy / "data" / "rl_train.parquet", rename)
    only(rows(mini(own_copy)), "row 3", "'tool_agent'", "(5 more like it)")


def test_lost_picture(own_copy: Path) -> None:
    def lose(values: list[dict[str, Any]]) -> None:
        values[1]["images"] = ["/nowhere/\x1b[31ma.png"]

    edit(own_copy / "data" / "rl_train.parquet", lose)
    only(rows(mini(own_copy)), "row 2", "/nowhere/a.png", "does not exist")


def test_a_lost_picture_of_a_later_turn_in_any_row(own_copy: Path) -> None:
    def lose(values: list[dict[str, Any]]) -> None:
        last = values[-1]["extra_info"]
        seed = json.loads(last["seed"])
        seed["turns"][1] = {"text": f"<image>{seed['turns'][1]['text']}", "images": ["/nowhere/b.png"]}
        last["seed"] = json.dumps(seed)
        values += [values[0]] * SAMPLE  # the last row is behind those whose images are opened
        values.append(values.pop(7))

    edit(own_copy / "data" / "rl_train.parquet", lose)
    only(rows(mini(own_copy)), f"row {8 + SAMPLE}", "/nowhere/b.png", "does not exist")


def test_seed_ids_that_two_rows_have_are_told(own_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, again = own_copy / "data" / "rl_train.parquet", own_copy / "data" / "again.parquet"
    assert list(shared_ids(mini(own_copy))) == []
    shutil.copy(train, again)
    both = mini(own_copy, f"data.train_files=[{train}, {again}]")
    assert list(rows(both)) == []
    only(shared_ids(both), str(again), "row 1", f"row 1 of {train}", "(7 more like it)")
    validation = mini(own_copy, f"data.val_files={again}")
    assert list(shared_ids(validation)) == [], "the recipe never validates"
    played = mini(own_copy, f"data.val_files={again}", "trainer.test_freq=5")
    only(shared_ids(played), "data.val_files", f"row 1 of {train}", "what is trained on")
    overrides = [f"mini.root={own_copy}", f"data.train_files=[{train},{again}]"]
    assert run(["--config-path", str(MINI), "--config-name", "grpo", "--", *overrides]) == 0
    assert "notice: data.train_files" in capsys.readouterr().err


def test_fewer_rows_than_a_batch(own_copy: Path) -> None:
    path = own_copy / "data" / "rl_train.parquet"
    only(rows(mini(own_copy, "data.train_batch_size=16")), "data.train_files", "8 rows", "data.train_batch_size=16")
    only(rows(mini(own_copy, "data.train_max_samples=7")), "7 rows", "data.train_batch_size=8")
    assert list(rows(mini(own_copy, f"data.train_files=[{path}, {path}]", "data.train_batch_size=16"))) == []
    empty = own_copy / "data" / "empty.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), empty)
    only(rows(mini(own_copy, f"data.train_files={empty}")), "0 rows")
    only(rows(mini(own_copy, f"data.val_files={empty}")), "data.val_files", "no rows")


def test_a_broken_picture_is_a_line_of_the_measuring_too(own_copy: Path) -> None:
    (own_copy / "torn.png").write_bytes(b"no image")

    def tear(values: list[dict[str, Any]]) -> None:
        values[1]["images"] = [str(own_copy / "torn.png")]

    edit(own_copy / "data" / "rl_train.parquet", tear)
    only(student(mini(own_copy)), "data.train_files", "torn.png: not a PNG, JPEG or WEBP file")


def test_row_without_a_seed(own_copy: Path) -> None:
    def spoil(values: list[dict[str, Any]]) -> None:
        values[0]["extra_info"] = {**values[0]["extra_info"], "seed": "{}"}

    edit(own_copy / "data" / "rl_train.parquet", spoil)
    only(rows(mini(own_copy)), "row 1", "seed", "steer data convert")


def test_missing_and_broken_files(own_copy: Path) -> None:
    (own_copy / "data" / "rl_val.parquet").unlink()
    only(rows(mini(own_copy)), "data.val_files", "does not exist")
    (own_copy / "data" / "rl_val.parquet").write_text("no parquet")
    only(rows(mini(own_copy)), "rl_val.parquet", "not a readable parquet file")
    train = own_copy / "data" / "rl_train.parquet"
    only(rows(mini(own_copy, "data.train_files=null", f"data.val_files={train}")), "not set")
    for nothing in ("null", "[]", "''"):
        only(rows(mini(own_copy, f"data.val_files={nothing}")), "data.val_files is not set", "validates nothing")
    only(rows(mini(own_copy, f"data.val_files={own_copy}")), str(own_copy), "is a folder")
    shutil.copy(train, own_copy / "train.pq")
    misnamed = mini(own_copy, f"data.train_files={own_copy}/train.pq", f"data.val_files={train}")
    only(rows(misnamed), "train.pq: no .parquet file")


def test_a_path_that_verl_takes_for_a_pattern(own_copy: Path) -> None:
    path = own_copy / "data" / "train [v1].parquet"
    (own_copy / "data" / "rl_train.parquet").rename(path)
    only(rows(mini(own_copy, f"data.train_files={path}")), "train [v1].parquet", "as a pattern", "rename")


def test_an_opening_that_cannot_be_made_names_its_row(own_copy: Path) -> None:
    def spoil(values: list[dict[str, Any]]) -> None:
        values[1]["prompt"][0]["content"] += "<image>"

    edit(own_copy / "data" / "rl_train.parquet", spoil)
    only(student(mini(own_copy)), "data.train_files", "row 2", "no opening turn", "steer data check")


def test_a_prompt_column_that_is_not_there_names_its_row(own_copy: Path) -> None:
    def spoil(values: list[dict[str, Any]]) -> None:
        for row in values:
            del row["prompt"]

    edit(own_copy / "data" / "rl_train.parquet", spoil)
    only(student(mini(own_copy)), "data.train_files", "row 1", "no opening turn", "prompt")


def test_what_one_check_trips_over_costs_no_line_of_another(
    own_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_copy / "data" / "rl_train.parquet").write_text("no parquet")
    (own_copy / "sft" / "hf" / "config.json").write_text('{"model_type":')
    lines = check(mini(own_copy))
    assert any("rl_train.parquet" in line and "not a readable parquet file" in line for line in lines)
    assert any("config.json is no JSON object" in line for line in lines)

    def trips(config: Any) -> Iterator[str]:
        yield "a line"
        raise LookupError("sk-Key123 stands at https://host")

    monkeypatch.setattr("steer_verl.preflight.student.student", trips)
    lines = check(mini(own_copy))
    assert "a line" in lines and any("trips: could not be checked to the end (LookupError" in line for line in lines)
    assert not any("Key123" in line for line in lines)


def test_files_labelled_as_the_other_kind(own_copy: Path) -> None:
    def label(split: str) -> Callable[[list[dict[str, Any]]], None]:
        def change(values: list[dict[str, Any]]) -> None:
            for row in values[1:]:
                row["extra_info"]["split"] = split

        return change

    edit(own_copy / "data" / "rl_val.parquet", label("train"))
    assert list(rows(mini(own_copy))) == [], "the recipe never validates"
    validated = mini(own_copy, "trainer.test_freq=5")
    only(rows(validated), "row 2", "'train' in a file for validation", "--split val", "(1 more like it)")
    edit(own_copy / "data" / "rl_val.parquet", label("test"))
    edit(own_copy / "data" / "rl_train.parquet", label("val"))
    only(rows(validated), "row 2", "'val' in a file for training", "--split train", "(6 more like it)")


def test_the_frozen_tower_is_of_known_families(own_copy: Path) -> None:
    path = own_copy / "sft" / "hf" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "idefics3"}))
    only(student(mini(own_copy)), "knows qwen2_5_vl, qwen3_vl, and", "is idefics3", "exclude_modules")


def test_embedded_tutor_on_a_foreign_world(own_copy: Path) -> None:
    def forget(values: list[dict[str, Any]]) -> None:
        for row in values:
            seed = json.loads(row["extra_info"]["seed"])
            row["extra_info"]["seed"] = json.dumps({**seed, "facts": {}})

    edit(own_copy / "data" / "rl_train.parquet", forget)
    only(rows(mini(own_copy)), "no facts", "tutor.kind=openai")


def test_model_without_a_processor(own_copy: Path) -> None:
    for name in ("preprocessor_config.json", "processor_config.json"):
        (own_copy / "sft" / "hf" / name).unlink(missing_ok=True)
    only(student(mini(own_copy)), "has no processor", "use a vision-language model")


def test_model_that_is_not_there(own_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(own_copy / "sft")
    only(student(mini(own_copy)), f"no folder {own_copy}/sft/hf", "train or download")
    (own_copy / "sft" / "hf").mkdir(parents=True)
    only(student(mini(own_copy)), "has no config.json")


def test_hub_model_without_a_hub(laboratory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = mini(laboratory, "mini.student=no-such-owner/no-such-model")
    only(student(config), "no-such-owner/no-such-model", "HF_HUB_OFFLINE")


def test_context_of_the_model(laboratory: Path) -> None:
    config = mini(laboratory, "data.max_response_length=8000", "actor_rollout_ref.rollout.max_model_len=9000")
    only(student(config), "context is 4096 tokens", "9000")


def test_opening_turn_beyond_the_prompt_length(laboratory: Path) -> None:
    lines = list(student(mini(laboratory, "data.max_prompt_length=12")))
    assert [line.split(":")[0] for line in lines] == ["data.train_files", "data.val_files"]
    assert all("data.max_prompt_length=12" in line and "tokens, images included" in line for line in lines)


ENDPOINT = (
    f"{STEER}.tutor.kind=openai",
    f"+{STEER}.tutor.endpoint={{base_url: '%s', model: judge, timeout: 5, connect_timeout: 2, max_retries: 0}}",
)


@pytest.fixture
def server() -> Iterator[str]:
    """An OpenAI endpoint that serves another model than the one asked for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"object": "list", "data": [{"id": "another", "object": "model"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.send_error(404, "no such model")

        def log_message(self, *_: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1"
    http.shutdown()
    http.server_close()


def test_unreachable_tutor(laboratory: Path) -> None:
    overrides = [line.replace("%s", "http://127.0.0.1:9/v1") for line in ENDPOINT]
    only(check(mini(laboratory, *overrides)), "judge at http://127.0.0.1:9/v1", "cannot be reached", "start the server")


def test_everyone_who_is_asked_is_tried_but_for_the_model_that_the_run_serves(laboratory: Path) -> None:
    dead = "{endpoint: {base_url: 'http://127.0.0.1:%d/v1', model: judge, connect_timeout: 2, max_retries: 0}}"
    panel = f"+{STEER}.tutor.panel={{judges: [{dead % 9}, {dead % 10}]}}"
    served = [
        ROUTER_TUTOR,
        REWARD_MODEL,
        REWARD_POOL,
        "reward.custom_reward_function.path=pkg://reward_fns.compute_score",
    ]
    lines = list(tutor(mini(laboratory, *served, panel, f"+{STEER}.tutor.holdout={{judge: {dead % 11}}}")))
    assert [line.partition("127.0.0.1:")[2].partition("/")[0] for line in lines] == ["9", "10", "11"]


def test_a_tutor_that_writes_no_question_is_asked_for_none(laboratory: Path) -> None:
    attacker = (
        f"+{STEER}.tutor.attacker={{base_url: 'http://127.0.0.1:9/v1', model: a, connect_timeout: 2, max_retries: 0}}"
    )
    with FaultServer(good()).in_thread() as server:
        config = [*(line.replace("%s", server.base_url) for line in ENDPOINT), attacker]
        only(tutor(mini(laboratory, *config)), "127.0.0.1:9")
        assert not list(tutor(mini(laboratory, *config, f"{STEER}.attack=static")))


def test_tutor_without_the_model(laboratory: Path, server: str) -> None:
    only(
        check(mini(laboratory, *(line.replace("%s", server) for line in ENDPOINT))), "is not found", "it lists another"
    )


def test_run_prints_every_error_and_fails(own_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(own_copy / "data" / "rl_train.parquet", drop_agent_name)
    bad = [f"mini.root={own_copy}", f"{DEFAULT_LOOP}=single_turn_agent", "+algorithm.tcsr.alpha=2"]
    assert run(["--config-path", str(MINI), "--config-name", "grpo", "--", *bad]) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(told) == 2
    assert run(["--config-path", str(MINI), "--config-name", "grpo"]) == 1
    assert "mini.root" in capsys.readouterr().err


def test_notices_are_no_errors() -> None:
    blind = f"{STEER}.tutor.endpoint.images=false"
    lora = "actor_rollout_ref.model.lora_rank=8"
    endpoint = [line.replace("%s", "http://127.0.0.1:1/v1") for line in ENDPOINT]
    long = f"{STEER}.max_answer_tokens=300"
    config = mini(Path("/nowhere"), *endpoint, blind, lora, f"{STEER}.transcripts=null", long)
    told = list(notices(config))
    assert len(told) == 4 and "BLIND" in told[0] and "exclude_modules" in told[1] and "transcripts" in told[2]
    assert "448 holds 1 answers" in told[3]
    assert not list(notices(mini(Path("/nowhere"))))


def test_an_option_that_a_group_does_not_have_is_told_with_those_that_it_has() -> None:
    with pytest.raises(ConfigError) as refused:
        compose(MINI, "grpo", ["ablation=nope"])
    told = str(refused.value)
    assert told.startswith("grpo.yaml does not compose: ") and "ablation/nope" in told and "plain_mean" in told
    assert "Config search path" not in told and "check the path" not in told


def test_resuming_from_a_checkpoint(tmp_path: Path) -> None:
    """That is there, of any number."""
    (tmp_path / "global_step_16" / "actor").mkdir(parents=True)
    trainer = {"resume_mode": "resume_path", "resume_from_path": str(tmp_path / "global_step_16")}
    assert list(resuming(OmegaConf.create({"trainer": trainer}))) == []
