"""The parts of verl that our adapters stand on. A failure names the symbol that changed and what of ours falls with it.

To add one, extend the list it belongs to:

* ``CALLS``      verl's functions that we call, with the arguments that we give
* ``OVERRIDES``  verl's methods that we override: verl calls ours with the parameters of its own
* ``CALLED``     our functions that verl calls with arguments known from its source
* ``FIELDS``     fields that we read from or write into verl's records and configuration classes
* ``SETTINGS``   keys of verl's ``ppo_trainer.yaml`` that our recipes set or our adapters read
"""

import dataclasses
import importlib
import inspect
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("verl")

LOOP = "verl.experimental.agent_loop.agent_loop"
MANAGERS = "verl.experimental.reward_loop.reward_manager"
BUFFER = "verl.trainer.ppo.v1.replay_buffer"
ENGINE = "verl.checkpoint_engine.base"
OURS = "steer_verl.cpu.host_engine:HostCheckpointEngine"


class Call(NamedTuple):
    """``symbol`` is called with ``positional`` unnamed arguments (``self`` counts) and the ``named`` ones."""

    symbol: str
    positional: int
    named: tuple[str, ...]
    stands: str


LOOP_INIT = (
    "trainer_config",
    "server_manager",
    "tokenizer",
    "processor",
    "dataset_cls",
    "data_config",
    "hf_model_type",
)
BUILDER = "verl.utils.tokenizer.continuous_token:ContinuousTokenBuilder"
MERGE = "rollout/context.py: the token side of a dialogue"
PICTURES = "rollout/images.py: what the rollouts of a prompt share"

CALLS = [
    Call(f"{LOOP}:register", 1, (), "steer_verl/plugin.py: agent loop steer_dialogue"),
    Call(f"{LOOP}:AgentLoopBase.__init__", 1, LOOP_INIT, "rollout/agent_loop.py: SteerAgentLoop.__init__"),
    Call(f"{LOOP}:AgentLoopBase.process_multi_modal_info", 2, (), PICTURES),
    Call(f"{LOOP}:AgentLoopBase._assert_mm_supported", 2, (), PICTURES),
    Call(f"{LOOP}:AgentLoopBase.ct_build_initial_tokens", 2, ("images",), MERGE),
    Call(f"{BUILDER}.merge_assistant_tokens", 3, (), MERGE),
    Call("verl.utils.tokenizer:get_processor_token_id", 2, (), MERGE),
    Call(f"{BUILDER}.align_response_metadata", 4, ("assistant_logprobs",), MERGE),
    Call(f"{LOOP}:AgentLoopBase._get_mm_processor_kwargs", 1, (), PICTURES),
    Call(
        "verl.utils.tokenizer:build_multimodal_processor_inputs",
        1,
        ("text", "images", "mm_processor_kwargs"),
        PICTURES,
    ),
    Call(
        "verl.workers.rollout.llm_server:LLMServerClient.generate",
        1,
        ("request_id", "prompt_ids", "sampling_params", "image_data"),
        "rollout/agent_loop.py: SteerAgentLoop.answer",
    ),
    Call(
        "verl.workers.rollout.replica:TokenOutput",
        0,
        ("token_ids", "log_probs", "extra_fields"),
        "rollout/resume.py: an answer out of the cache",
    ),
    Call(f"{MANAGERS}:register", 1, (), "reward_fns/manager.py: reward manager steer_tutor"),
    Call(f"{MANAGERS}:get_reward_manager_cls", 1, (), "steer_verl/doctor: the look-up of steer_tutor"),
    Call(
        f"{MANAGERS}.base:RewardManagerBase.__init__", 4, (), "reward_fns/manager.py: SteerTutorRewardManager.__init__"
    ),
    Call("verl.trainer.ppo.core_algos:register_adv_est", 1, (), "steer_verl/plugin.py: advantage estimator tcsr"),
    Call("verl.trainer.ppo.core_algos:get_adv_estimator_fn", 1, (), "steer_verl/doctor: the look-up of tcsr"),
    Call(
        "verl.plugin.platform:PlatformRegistry.register", 0, ("platform",), "steer_verl/cpu/verl_gaps.py: cpu_platform"
    ),
    Call("verl.plugin.platform:set_platform", 1, (), "steer_verl/cpu/verl_gaps.py: cpu_platform"),
    Call("verl.plugin.platform:get_platform", 0, (), "steer_verl/doctor: verl's platform"),
    Call("verl.utils.fsdp_utils:CPUOffloadPolicy", 0, ("pin_memory",), "steer_verl/cpu: offload_without_pinning"),
    Call("verl.utils.fsdp_utils:fsdp2_sharded_save_to_cpu", 1, (), "steer_verl/verl_fixes.py: saved_weights_stay"),
    Call(f"{LOOP}:AgentLoopWorker._compute_multi_modal_inputs", 3, (), "verl_fixes.py: spelled_marks_are_words"),
    Call(f"{ENGINE}:CheckpointEngineRegistry.register", 1, (), "steer_verl/cpu/host_engine.py: backend host"),
    Call(f"{ENGINE}:TensorMeta", 5, ("offset",), "steer_verl/cpu/host_engine.py: a chunk's header"),
    Call(f"{ENGINE}:split_weight_chunks", 2, (), "steer_verl/cpu/host_engine.py: send_weights"),
    Call(f"{ENGINE}:merge_weight_chunks", 2, (), "steer_verl/cpu/host_engine.py: receive_weights"),
    Call("verl.utils.config:validate_config", 3, (), "steer_verl/preflight/verl_side.py"),
    Call("verl.utils.config:omega_conf_to_dataclass", 1, (), "steer_verl/preflight/verl_side.py"),
    Call(
        "verl.trainer.ppo.rollout_corr_helper:compute_rollout_correction_and_rejection_mask",
        3,
        ("rollout_is", "rollout_is_threshold", "rollout_rs", "rollout_rs_threshold"),
        "steer_verl/preflight/verl_side.py",
    ),
    Call("verl.trainer.ppo.utils:need_critic", 1, (), "steer_verl/preflight/verl_side.py"),
    Call("verl.trainer.ppo.reward:get_custom_reward_fn", 1, (), "steer_verl/preflight/verl_side.py"),
    Call("verl.utils.import_utils:load_extern_object", 2, (), "steer_verl/preflight/verl_side.py"),
    Call("verl.experimental.agent_loop.utils:resolve_config_path", 1, (), "steer_verl/preflight/verl_side.py"),
    Call("verl.trainer.ppo.utils:need_reference_policy", 1, (), "steer_verl/preflight/verl_side.py"),
]

OVERRIDES = [
    (f"{LOOP}:AgentLoopBase.run", "rollout.agent_loop:SteerAgentLoop.run"),
    (f"{LOOP}:AgentLoopOutput.as_dict", "rollout.agent_loop:DialogueOutput.as_dict"),
    (f"{MANAGERS}.base:RewardManagerBase.run_single", "reward_fns.manager:SteerTutorRewardManager.run_single"),
    (f"{BUFFER}:ReplayBuffer.sample", "rollout.sampler:SteerReplayBuffer.sample"),
    (f"{BUFFER}:ReplayBufferAsync.sample", "rollout.sampler:SteerReplayBufferAsync.sample"),
    (f"{ENGINE}:CheckpointEngine.prepare", f"{OURS}.prepare"),
    (f"{ENGINE}:CheckpointEngine.build_topology", f"{OURS}.build_topology"),
    (f"{ENGINE}:CheckpointEngine.send_weights", f"{OURS}.send_weights"),
    (f"{ENGINE}:CheckpointEngine.finalize", f"{OURS}.finalize"),
]

SAMPLER_INIT = (
    "trainer_mode",
    "trainer_config",
    "max_off_policy_threshold",
    "max_off_policy_strategy",
    "sampler_kwargs",
    "refill_fn",
)
CALLED = [
    Call("rollout.agent_loop:SteerAgentLoop.__init__", 1, (*LOOP_INIT, "tools"), f"{LOOP}:683 instantiates it so"),
    Call(
        "reward_fns.manager:SteerTutorRewardManager.__init__",
        1,
        ("config", "tokenizer", "compute_score", "reward_router_address", "reward_model_tokenizer"),
        "verl/trainer/ppo/reward.py:161 and reward_loop.py:131 instantiate it so",
    ),
    Call("rollout.sampler:SteerReplayBuffer.__init__", 1, SAMPLER_INIT, "verl/.../v1/trainer_base.py:156-163"),
    Call("verl.trainer.ppo.v1.replay_buffer:ReplayBuffer.__init__", 1, SAMPLER_INIT, "the same, passed on by ours"),
    Call("rollout.sampler:SteerReplayBufferAsync.__init__", 1, SAMPLER_INIT, "the same, in an asynchronous mode"),
    Call(OURS, 0, ("is_master", "bucket_size"), "verl/workers/engine_workers.py:686-688: in an actor"),
    Call(OURS, 0, ("bucket_size",), "verl/checkpoint_engine/base.py:337-339: in a rollout worker"),
    Call(f"{OURS}.receive_weights", 1, ("global_steps",), "verl/checkpoint_engine/base.py:355"),
    Call(
        "steer_verl.tcsr:compute_tcsr_advantage",
        0,
        ("token_level_rewards", "response_mask", "config", "index"),
        "verl/trainer/ppo/ray_trainer.py:250-279",
    ),
]

FIELDS = [
    (
        f"{LOOP}:AgentLoopOutput",
        "prompt_ids response_ids response_mask response_logprobs multi_modal_data num_turns metrics extra_fields",
        "rollout/agent_loop.py: SteerAgentLoop.output",
    ),
    (f"{LOOP}:AgentLoopMetrics", "generate_sequences tool_calls compute_score", "rollout/agent_loop.py: output"),
    (
        "verl.workers.rollout.replica:TokenOutput",
        "token_ids log_probs stop_reason extra_fields",
        "rollout/agent_loop.py",
    ),
    (
        "verl.workers.config:RolloutConfig",
        "custom prompt_length response_length calculate_log_probs enable_sleep_mode agent",
        "rollout, and recipes/mini/cpu.yaml",
    ),
    ("verl.workers.config.rollout:AgentLoopConfig", "default_agent_loop num_workers", "recipes"),
    (
        "verl.workers.config:FSDPEngineConfig",
        "mixed_precision model_dtype strategy use_torch_compile",
        "recipes/mini/cpu.yaml",
    ),
    ("verl.workers.config:HFModelConfig", "override_config use_remove_padding external_lib", "recipes"),
    (
        "verl.workers.config:CheckpointEngineConfig",
        "backend custom_backend_module engine_kwargs update_weights_bucket_megabytes",
        "recipes/mini/mode/separate_async.yaml",
    ),
    ("verl.workers.config.reward:RewardManagerConfig", "name source", "recipes: reward.reward_manager.name"),
]

SETTINGS = [
    "actor_rollout_ref.rollout.agent.default_agent_loop",
    "actor_rollout_ref.rollout.calculate_log_probs",
    "actor_rollout_ref.hybrid_engine",
    "actor_rollout_ref.rollout.checkpoint_engine.backend",
    "actor_rollout_ref.rollout.checkpoint_engine.custom_backend_module",
    "actor_rollout_ref.rollout.checkpoint_engine.engine_kwargs",
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes",
    "actor_rollout_ref.rollout.n_gpus_per_node",
    "actor_rollout_ref.rollout.nnodes",
    "actor_rollout_ref.actor.fsdp_config.strategy",
    "actor_rollout_ref.ref.fsdp_config.strategy",
    "algorithm.adv_estimator",
    "algorithm.filter_groups",
    "algorithm.rollout_correction.bypass_mode",
    "algorithm.rollout_correction.loss_type",
    "algorithm.rollout_correction.rollout_is",
    "algorithm.rollout_correction.rollout_rs",
    "actor_rollout_ref.actor.policy_loss.loss_mode",
    "reward.num_workers",
    "reward.reward_manager.name",
    "reward.custom_reward_function.path",
    "trainer.device",
    "trainer.use_v1",
    "trainer.v1.trainer_mode",
    "trainer.v1.separate_async.parameter_sync_step",
    "trainer.v1.sampler.custom_sampler.path",
    "trainer.v1.sampler.custom_sampler.name",
    "trainer.v1.sampler.sampler_kwargs",
    "trainer.v1.sampler.sync_refill_failed_groups",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units",
    "ray_kwargs.ray_init.num_cpus",
]


def find(symbol: str, stands: str = "the project's own code") -> Any:
    """The object at ``module:dotted.name``; a failure that names the symbol if verl has it no more."""
    module, _, name = symbol.partition(":")
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{symbol} is gone ({error}); on it stands: {stands}", pytrace=False)
    return found


def check_call(call: Call) -> None:
    """Bind the call to the signature as Python would."""
    signature = inspect.signature(find(call.symbol, call.stands))
    try:
        signature.bind(*[None] * call.positional, **dict.fromkeys(call.named))
    except TypeError as error:
        pytest.fail(f"{call.symbol}{signature}: {error}; on it stands: {call.stands}", pytrace=False)


def names_of(symbol: str) -> list[str]:
    """Parameter names of a method, without self."""
    return [name for name in inspect.signature(find(symbol)).parameters if name != "self"]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.symbol)
def test_verl_takes_what_we_give(call: Call) -> None:
    check_call(call)


def test_verl_appends_a_question_under_a_name_that_we_know() -> None:
    """rollout/context.py: ``merge_context_tokens`` in verl 0.9, ``merge_non_assistant_tokens`` in verl 0.10."""
    from rollout.context import MERGE_NAMES, merge_name

    builder = find(BUILDER, MERGE)
    known = [name for name in MERGE_NAMES if hasattr(builder, name)]
    assert known, f"{BUILDER} has none of {', '.join(MERGE_NAMES)}; on it stands: {MERGE}"
    check_call(Call(f"{BUILDER}.{merge_name(builder)}", 4, (), MERGE))


@pytest.mark.parametrize("call", CALLED, ids=lambda call: call.symbol)
def test_we_take_what_verl_gives(call: Call) -> None:
    check_call(call)


@pytest.mark.parametrize(("base", "ours"), OVERRIDES, ids=lambda symbol: symbol)
def test_an_override_has_the_parameters_of_its_base(base: str, ours: str) -> None:
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(find(base, ours)).parameters.values()):
        assert names_of(base)[:-1] == names_of(ours)[:-1], f"{base} changed; {ours} overrides it"
        assert inspect.signature(find(ours)).parameters[names_of(ours)[-1]].kind is inspect.Parameter.VAR_KEYWORD
    else:
        assert names_of(base) == names_of(ours), f"{base} changed; {ours} overrides it"
    assert inspect.iscoroutinefunction(find(base)) == inspect.iscoroutinefunction(find(ours)), f"{base}: async changed"


@pytest.mark.parametrize(("symbol", "fields", "stands"), FIELDS, ids=lambda value: value)
def test_a_record_has_the_fields(symbol: str, fields: str, stands: str) -> None:
    record = find(symbol, stands)
    known = set(getattr(record, "model_fields", None) or {field.name for field in dataclasses.fields(record)})
    missing = set(fields.split()) - known
    assert not missing, f"{symbol} has no {', '.join(sorted(missing))} any more; on it stands: {stands}"


@pytest.fixture(scope="module")
def ppo_trainer() -> Any:
    """verl's own configuration, composed."""
    from hydra import compose, initialize_config_module

    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer")


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_exists(ppo_trainer: Any, key: str) -> None:
    node = ppo_trainer
    for part in key.split("."):
        assert part in node, f"verl's ppo_trainer.yaml has no {key} any more (missing: {part}); recipes/ set it"
        node = node[part]


def test_registering_an_agent_loop_keeps_the_dotted_name_and_nothing_else() -> None:
    """steer_verl/plugin.py registers a stand-in by that name, so that the loop is imported when it is first played."""
    loop = importlib.import_module(LOOP)
    loop.register("contract")(type("Name", (), {"__module__": "some.module"}))
    assert loop._agent_loop_registry.pop("contract") == {"_target_": "some.module.Name"}


def test_an_output_becomes_tensors_under_the_names_that_we_fill() -> None:
    """rollout/agent_loop.py: DialogueOutput.as_dict replaces ``rm_scores`` and reads ``extra_fields``."""
    output = find(f"{LOOP}:AgentLoopOutput")(
        prompt_ids=[1, 2],
        response_ids=[3, 4, 5],
        response_mask=[1, 0, 1],
        reward_score=0.5,
        metrics={},
        extra_fields={"reward_extra_info": {"k": 1}},
    ).as_dict()
    assert output["response_mask"].tolist() == [1, 0, 1]
    assert output["rm_scores"].tolist() == [0, 0, 0.5], "verl puts the scalar on the last token; ours goes on turn ends"
    assert output["extra_fields"]["reward_extra_info"] == {"k": 1}


def test_an_estimator_receives_rewards_mask_config_and_uids() -> None:
    """steer_verl/tcsr.py stands on these four, and on ``config`` being the algorithm section with its extra keys."""
    import numpy as np
    import torch
    from verl import DataProto
    from verl.trainer.ppo import core_algos
    from verl.trainer.ppo.ray_trainer import compute_advantage

    seen: dict[str, Any] = {}

    def estimator(**given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        seen.update(given)
        return given["token_level_rewards"], given["token_level_rewards"]

    core_algos.register_adv_est("contract")(estimator)
    try:
        tensors = {"token_level_rewards": torch.ones(2, 3), "response_mask": torch.ones(2, 3)}
        data = DataProto.from_dict(tensors=tensors, non_tensors={"uid": np.array(["a", "a"], dtype=object)})
        config = {"tcsr": {"alpha": 0.5}}
        result = compute_advantage(data, adv_estimator="contract", config=config)
    finally:
        core_algos.ADV_ESTIMATOR_REGISTRY.pop("contract")
    assert set(seen) == {"token_level_rewards", "response_mask", "config", "index"}
    assert seen["config"] is config and list(seen["index"]) == ["a", "a"]
    assert result.batch["advantages"].shape == (2, 3)


def test_the_reward_manager_gets_the_extra_fields_of_the_agent_loop() -> None:
    """reward_fns/manager.py reads the trajectory from ``tool_extra_fields`` (agent_loop.py:1016)."""
    worker = find(f"{LOOP}:AgentLoopWorker")
    assert '"tool_extra_fields": np.array([o.extra_fields for o in outputs]' in inspect.getsource(worker)


def test_verl_names_its_reward_workers_and_they_know_the_router() -> None:
    """rollout/router.py asks the worker of this name for this attribute."""
    from rollout.router import REWARD_WORKER

    module = importlib.import_module("verl.experimental.reward_loop.reward_loop")
    stem = REWARD_WORKER.removesuffix("0")
    assert f'name=f"{stem}{{i}}"' in inspect.getsource(module.RewardLoopManager), f"{REWARD_WORKER} is named otherwise"
    assert "self.reward_router_address = reward_router_address" in inspect.getsource(module.RewardLoopWorker)
    router = importlib.import_module("verl.experimental.reward_loop.router.naive_router").NaiveRouter
    assert "/{endpoint:path}" in inspect.getsource(router), "the router no longer forwards any path"


def test_verl_writes_down_which_step_its_checkpoint_holds() -> None:
    """rollout/resume.py deletes the steps up to that one."""
    from rollout.resume import CHECKPOINTED

    module = importlib.import_module("verl.trainer.ppo.v1.trainer_base")
    assert CHECKPOINTED in inspect.getsource(module), f"{CHECKPOINTED} is written no more"


def test_verl_lays_out_a_checkpoint_as_we_look_for_it() -> None:
    """steer_verl/eval/students/checkpoint.py."""
    from steer_verl.eval.students.checkpoint import LORA_MARKS, TRACKER

    manager = inspect.getsource(find("verl.utils.checkpoint.fsdp_checkpoint_manager:FSDPCheckpointManager"))
    shard = "model_world_size_{self.world_size}_rank_{self.rank}.pt"
    for name in (shard, '"huggingface"', '"fsdp_config.json"', "lora_train_meta.json"):
        assert name in manager, f"verl saves no {name} any more"
    assert "lora_train_meta.json" in LORA_MARKS
    assert "world_size" in find("verl.utils.checkpoint.fsdp_checkpoint_manager:FSDPConfig").__dataclass_fields__
    tracker = find("verl.utils.checkpoint.checkpoint_manager:get_checkpoint_tracker_filename")
    assert tracker("/run").endswith(TRACKER)
    trainer = inspect.getsource(importlib.import_module("verl.trainer.ppo.v1.trainer_base"))
    handler = inspect.getsource(importlib.import_module("verl.utils.checkpoint.checkpoint_handler"))
    assert "global_step_{" in trainer and '"actor")' in trainer, "an RL step's actor lies elsewhere"
    assert "global_step_{" in handler, "an SFT step lies elsewhere"


def test_verls_merger_takes_our_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """steer_verl/eval/students/checkpoint.py."""
    from steer_verl.eval.students.checkpoint import merger_arguments
    from steer_verl.eval.students.shards import SAFE_LOAD

    merger = importlib.import_module("verl.model_merger.base_model_merger")
    monkeypatch.setattr("sys.argv", ["merger", *merger_arguments(tmp_path / "shards", tmp_path / "hf")])
    config = merger.generate_config_from_args(merger.parse_args())
    assert (config.operation, config.backend, config.target_dir) == ("merge", "fsdp", str(tmp_path / "hf"))
    assert (config.local_dir, config.hf_model_config_path) == (
        str(tmp_path / "shards"),
        str(tmp_path / "shards" / "huggingface"),
    )
    assert not config.hf_upload
    fsdp = inspect.getsource(importlib.import_module("verl.model_merger.fsdp_model_merger"))
    assert "torch.load(" in fsdp and "pickle.load" not in fsdp, "shards are opened past torch's restricted unpickler"
    load = inspect.getsource(importlib.import_module("torch.serialization"))
    assert all(f'"{name}"' in load for name in SAFE_LOAD), "torch.load is restricted in another way"


def test_the_sft_trainer_cuts_batches_and_saves_as_preflight_says() -> None:
    """steer_verl/preflight/supervised.py"""
    trainer = importlib.import_module("verl.trainer.sft_trainer").SFTTrainer
    loaders, fit = inspect.getsource(trainer._build_dataloader), inspect.getsource(trainer.fit)
    assert loaders.count("drop_last=True") == 4 and "self.global_batch_size // dp_size" in loaders
    assert "global_step % self.test_freq" in fit and "global_step % self.save_freq" in fit
    assert "if is_last_step or (self.save_freq > 0 and is_save_step):" in fit
    assert fit.rstrip().endswith("return"), "nothing is saved where epochs end before the last step"
    micro = inspect.getsource(importlib.import_module("verl.workers.engine.utils").prepare_micro_batches)
    assert "total_data_size % (force_group_size * micro_batch_size_per_gpu) == 0" in micro
    balance = inspect.getsource(importlib.import_module("verl.utils.seqlen_balancing").rearrange_micro_batches)
    assert "assert max_token_len >= max_seq_len" in balance


def test_verl_synchronises_weights_in_the_order_that_our_engine_expects() -> None:
    """steer_verl/cpu/host_engine.py; ``is_master`` goes to actors alone, by which a rollout worker knows itself."""
    workers = importlib.import_module("verl.workers.engine_workers")
    assert "is_master=(torch.distributed.get_rank() == 0)" in inspect.getsource(workers.ActorRolloutRefWorker)
    base = importlib.import_module(ENGINE)
    assert "is_master" not in inspect.getsource(base.CheckpointEngineWorker)
    manager = base.CheckpointEngineManager
    text = inspect.getsource(manager.build_process_group) + inspect.getsource(manager.update_weights)
    order = ['["prepare"]', "build_topology(", '["init_process_group"]', "actor_wg.update_weights(", '["finalize"]']
    at = [text.index(part) for part in order[:3]], [text.rindex(part) for part in order[3:]]
    assert all(places == sorted(places) for places in at)
    assert text.index("self.build_process_group(") < text.rindex("actor_wg.update_weights(")
    missing = find(OURS).__abstractmethods__
    assert not missing, f"{ENGINE}.CheckpointEngine asks for {', '.join(sorted(missing))}: add to HostCheckpointEngine"


def test_our_platform_answers_everything_that_verl_asks() -> None:
    """steer_verl/cpu/platform.py: an abstract method added upstream makes the class impossible to instantiate."""
    from steer_verl.cpu.platform import PlatformCPU

    missing = PlatformCPU.__abstractmethods__
    assert not missing, f"verl.plugin.platform.PlatformBase asks for {', '.join(sorted(missing))}: add to PlatformCPU"
