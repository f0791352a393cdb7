"""What the settings alone can tell: contradictions, values that cannot work, and keys that verl ignores in silence.

Each check is a small function ``config -> lines``; :data:`CHECKS` is all of them. Line numbers are verl 0.9.1's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from steer_verl.config import STEER_KEY, TCSR_KEY, SteerConfig, section_of, steer_config, tcsr_config
from steer_verl.errors import ConfigError
from steer_verl.names import ADV_ESTIMATOR, REWARD_MANAGER, REWARD_MODEL_URL
from steer_verl.preflight import inert
from steer_verl.preflight.unread import set_for_the_sampler, unread_settings
from steer_verl.text import one_line

Check = Callable[[Any], Iterator[str]]


def own_sections(config: Any) -> Iterator[str]:
    """Unknown keys and values out of range in the two sections of this plugin."""
    for parse, key in ((steer_config, STEER_KEY), (tcsr_config, TCSR_KEY)):  # both, so that each fault is told
        try:
            parse(section_of(config, key))
        except ConfigError as error:
            yield str(error)


def estimator(config: Any) -> Iterator[str]:
    """``algorithm.tcsr`` and the estimator that reads it belong together."""
    if config.algorithm.adv_estimator != ADV_ESTIMATOR:
        yield from inert.other_estimator(config)
        return
    yield from inert.other_estimators_keys(config)
    if config.algorithm.get("tcsr") is None:
        missing = f"{TCSR_KEY} is missing though algorithm.adv_estimator is {ADV_ESTIMATOR}"
        yield f"{missing}; add +{TCSR_KEY}.preset=released"
    if config.algorithm.use_kl_in_reward:
        yield (
            "algorithm.use_kl_in_reward is on: the penalty would count as the tutor's reward of each turn; "
            "set it to false and use actor_rollout_ref.actor.use_kl_loss=true"
        )
    if config.actor_rollout_ref.rollout.n < 2:
        yield (
            f"actor_rollout_ref.rollout.n is {config.actor_rollout_ref.rollout.n}: a group needs at least 2 rollouts, "
            "or every advantage is 0; set it to 5 (the paper's)"
        )


def sampling(config: Any) -> Iterator[str]:
    """Rollouts of a prompt that differ: where all are one answer, every advantage is 0."""
    rollout, mode = config.actor_rollout_ref.rollout, config.trainer.v1.trainer_mode
    if rollout.temperature <= 0:
        yield (
            f"actor_rollout_ref.rollout.temperature is {rollout.temperature:g}: the rollouts of a prompt would be one "
            "answer, and every advantage 0; set it to 1.0"
        )
    if rollout.full_determinism and mode != "sync":  # otherwise each turn has a seed of its own (rollout/worker.py)
        yield (
            f"actor_rollout_ref.rollout.full_determinism is on: under trainer.v1.trainer_mode={mode} verl gives all "
            "requests one seed (vllm_async_server.py:626), and the rollouts of a prompt would be one answer; set it to "
            "false"
        )
    if not isinstance(rollout.seed, int | None):
        yield f"actor_rollout_ref.rollout.seed is {one_line(str(rollout.seed))}: give a whole number"


def hooks(config: Any) -> Iterator[str]:
    """The reward manager and the sampler that verl is told to load (trainer/ppo/reward.py, v1/trainer_base.py:142)."""
    manager = config.reward.reward_manager
    if manager.source != "register" or manager.name != REWARD_MANAGER:
        yield (
            f"reward.reward_manager.name is {manager.name}: the verdicts would not become rewards; "
            f"set reward.reward_manager.name={REWARD_MANAGER} and reward.reward_manager.source=register"
        )
    if config.reward.reward_model.enable and config.reward.custom_reward_function.path is None:
        yield (
            "reward.reward_model.enable is on without a custom reward function: verl then bypasses the reward manager "
            "(experimental/reward_loop/reward_loop.py:150); set it to false, or, where the tutor is that model, set "
            "reward.custom_reward_function.path=pkg://reward_fns.compute_score"
        )
    yield from inert.sampler(config)


def unread(config: Any) -> Iterator[str]:
    """Settings of ours that nothing reads beside the others."""
    steer = parsed(config)
    if steer is not None:
        yield from unread_settings(steer)
        yield from inert.without_sampler(config, set_for_the_sampler(steer))


def reward_model(config: Any) -> Iterator[str]:
    """What ``base_url: verl://reward_model`` needs (rollout/router.py), and what no other reward model may do."""
    steer, served = parsed(config), config.reward.reward_model
    if steer is None or REWARD_MODEL_URL not in steer.tutor.model_dump_json():
        yield from inert.colocated_reward_model(config)
    elif not (served.enable and served.enable_resource_pool):
        yield (
            f"{STEER_KEY}.tutor: {REWARD_MODEL_URL} is a model on GPUs of its own that answers during the rollout; "
            "set reward.reward_model.enable=true and reward.reward_model.enable_resource_pool=true"
        )


def ignored_keys(config: Any) -> Iterator[str]:
    """Keys that verl's schema accepts and ``main_ppo`` never reads."""
    if not config.trainer.use_v1:
        yield "trainer.use_v1 is false: the agent loop's turn rewards need the V1 trainer; set trainer.use_v1=true"
    for section in ("custom_reward_function", "reward_model", "sandbox_fusion"):
        for key in _set_leaves(config.get(section), section):
            yield f"{key}: main_ppo ignores this old key in silence; the new one begins with reward."
    if config.actor_rollout_ref.actor.get("freeze_vision_tower"):
        yield (
            "actor_rollout_ref.actor.freeze_vision_tower: nothing in verl 0.9.1 reads it; "
            "set actor_rollout_ref.model.external_lib=steer_verl.frozen_vision, or train LoRA adapters"
        )


def lengths(config: Any) -> Iterator[str]:
    """Budgets that hold at least one full answer, and an engine that holds the whole dialogue."""
    rollout, steer = config.actor_rollout_ref.rollout, parsed(config)
    whole = rollout.prompt_length + rollout.response_length
    if rollout.max_model_len is not None and rollout.max_model_len < whole:
        yield (
            f"actor_rollout_ref.rollout.max_model_len is {rollout.max_model_len}, less than data.max_prompt_length + "
            f"data.max_response_length = {whole}: the engine would cut dialogues short; set it to at least {whole}"
        )
    if steer is None:
        return
    if steer.max_answer_tokens >= rollout.response_length:
        yield (
            f"{STEER_KEY}.max_answer_tokens is {steer.max_answer_tokens}, but data.max_response_length, the budget "
            f"of the whole dialogue, is {rollout.response_length}: no answer fits; lower the one or raise the other"
        )


def whole_prompts(config: Any) -> Iterator[str]:
    """On a CPU vLLM dies of a prompt that it cuts in two while requests carry a seed (rollout/worker.py, ``Dice``).

    It draws a token for the first part too and then turns the request's generator back, which torch can do on a GPU
    alone (vllm 0.28, v1/worker/gpu_model_runner.py:3825). Where every sequence fits into a batch, none is cut.
    """
    rollout = config.actor_rollout_ref.rollout
    if config.trainer.device != "cpu" or config.trainer.v1.trainer_mode != "sync" or rollout.max_model_len is None:
        return
    needed = rollout.max_num_seqs * rollout.max_model_len
    if rollout.max_num_batched_tokens < needed:
        yield (
            f"actor_rollout_ref.rollout.max_num_batched_tokens is {rollout.max_num_batched_tokens}: on a CPU vLLM "
            f"would crash once a prompt does not fit into a batch; set it to max_num_seqs x max_model_len = {needed}"
        )


def pixels(config: Any) -> Iterator[str]:
    """transformers 5 takes both limits or ignores them (image_processing_qwen2_vl.py:132); vLLM takes either."""
    given = config.data.get("mm_processor_kwargs") or {}
    if ("min_pixels" in given) != ("max_pixels" in given):
        yield (
            "data.mm_processor_kwargs has one of min_pixels and max_pixels: the processor ignores it in silence while "
            "the engine obeys, and their image tokens differ; give both, say ++data.mm_processor_kwargs.min_pixels=3136"
        )


def layout(config: Any) -> Iterator[str]:
    """Devices that divide into rollout replicas (workers/engine_workers.py:651)."""
    rollout = config.actor_rollout_ref.rollout
    devices = config.trainer.n_gpus_per_node * config.trainer.nnodes
    size = rollout.tensor_model_parallel_size * rollout.data_parallel_size * rollout.pipeline_model_parallel_size
    if devices % size:
        yield (
            f"{devices} devices do not divide into rollout replicas of {size}; change trainer.n_gpus_per_node or "
            "actor_rollout_ref.rollout.tensor_model_parallel_size"
        )


def batches(config: Any) -> Iterator[str]:
    """verl fetches a batch in whole pieces of ``gen_batch_size`` (v1/trainer_base.py:1485)."""
    batch, piece = config.data.train_batch_size, config.data.get("gen_batch_size")
    whole = isinstance(batch, int) and isinstance(piece, int | None) and (piece is None or piece >= 0)
    if not whole or (piece and batch % piece):
        yield (
            f"data.gen_batch_size is {one_line(str(piece))}: data.train_batch_size={one_line(str(batch))} is no "
            "multiple of it; set it to null"
        )


def resuming(config: Any) -> Iterator[str]:
    """Where the training goes on: verl looks there once models are loaded (v1/trainer_base.py:854)."""
    mode, path = config.trainer.resume_mode, config.trainer.get("resume_from_path")
    if mode not in ("auto", "disable", "resume_path"):
        yield f"trainer.resume_mode is {one_line(str(mode))}; choose of auto, disable, resume_path"
    elif mode == "resume_path":
        if not isinstance(path, str) or not re.search(r"global_step_\d+$", path):
            yield (
                f"trainer.resume_from_path is {one_line(str(path))}: trainer.resume_mode=resume_path wants the path of "
                "a folder global_step_<number>, without a slash at its end"
            )
        elif not (Path(path) / "actor").is_dir():
            yield f"trainer.resume_from_path: {one_line(path)} holds no checkpoint: no folder actor is in it"


CHECKS: tuple[Check, ...] = (
    own_sections,
    estimator,
    inert.correction,
    sampling,
    hooks,
    unread,
    reward_model,
    ignored_keys,
    lengths,
    whole_prompts,
    pixels,
    layout,
    batches,
    resuming,
)


def notices(config: Any) -> Iterator[str]:
    """What works, but perhaps not as meant: told, never an error."""
    steer, model = parsed(config), config.actor_rollout_ref.model
    for role in ("endpoint", "attacker"):
        endpoint = getattr(steer.tutor, role) if steer else None
        if endpoint is not None and not endpoint.images:
            yield f"{STEER_KEY}.tutor.{role}.images is off: {endpoint.model} works BLIND, without the images"
    if model.get("lora_rank", 0) > 0 and not model.get("exclude_modules"):
        yield (
            "LoRA adapters would sit in the vision tower too, which vLLM may refuse; "
            "consider actor_rollout_ref.model.exclude_modules='.*visual.*'"
        )
    if steer and not steer.transcripts:
        yield f"{STEER_KEY}.transcripts is not set: no dialogue will be kept"
    room = config.actor_rollout_ref.rollout.response_length
    if steer and steer.max_answer_tokens < room < steer.max_turns * steer.max_answer_tokens:
        yield (
            f"data.max_response_length {room} holds {room // steer.max_answer_tokens} answers of "
            f"{STEER_KEY}.max_answer_tokens {steer.max_answer_tokens}, of max_turns {steer.max_turns}: dialogues of "
            "long answers end early"
        )
    if not inert.has_our_sampler(config.trainer.v1):
        yield (
            f"no sampler of ours: no steer/* metric, no alarm, and a step whose dialogues were lost is trained on; "
            f"{inert.use_sampler(config)}"
        )


def parsed(config: Any) -> SteerConfig | None:
    """Our section, when it can be read; :func:`own_sections` tells why it cannot."""
    try:
        return steer_config(section_of(config, STEER_KEY))
    except ConfigError:
        return None


def _set_leaves(node: Any, path: str) -> Iterator[str]:
    """Dotted keys of everything that is not null."""
    if hasattr(node, "items"):
        for key, value in node.items():
            yield from _set_leaves(value, f"{path}.{key}")
    elif node is not None:
        yield path
