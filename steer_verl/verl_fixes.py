"""Faults of verl 0.9.1 on every machine: one function for each, with the upstream line and a test of its own.

Each waits until verl itself imports the module that has the fault. A test in tests/test_verl_fixes.py fails when
upstream mends it; then its function goes. What verl lacks for the CPU alone is in steer_verl/cpu/verl_gaps.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from wrapt import register_post_import_hook


def saved_weights_stay() -> None:
    """verl saves a model "to the CPU" by ``.cpu()`` (utils/fsdp_utils.py:1180), which copies nothing from the CPU.

    There the weights are without a GPU, and with ``param_offload``: verl's own note asks callers to load them first
    (experimental/separation/engine_workers.py:80). The trainer ``separate_async`` keeps the weights of a step's start
    so, to take the old log-probabilities from them (trainer_separate_async.py:202-211): without a copy they would
    follow every update, in silence. verl 0.9.x, FSDP2.
    """
    register_post_import_hook(_copy_what_is_saved, "verl.utils.fsdp_utils")


def _copy_what_is_saved(fsdp_utils: Any) -> None:
    original = fsdp_utils.fsdp2_sharded_save_to_cpu

    @wraps(original, assigned=("__doc__", "__name__", "__qualname__"))
    def fsdp2_sharded_save_to_cpu(model: Any) -> tuple[dict[str, tuple[Any, Any]], Any]:
        state, spec = original(model)
        live = {getattr(weight, "_local_tensor", weight).data_ptr() for weight in model.parameters()}
        copied = {
            name: (shard.clone() if shard.data_ptr() in live else shard, placed)
            for name, (shard, placed) in state.items()
        }
        return copied, spec

    fsdp_utils.fsdp2_sharded_save_to_cpu = fsdp2_sharded_save_to_cpu


def trainer_that_logs_like_print() -> None:
    """verl hands a logger ``flush=True`` (trainer_separate_async.py:181-185), a TypeError that ends the run.

    Met with ``actor_rollout_ref.hybrid_engine=false`` and a logging level of INFO, verl's own. verl 0.9.1.
    """
    register_post_import_hook(_drop_flush, "verl.trainer.ppo.v1.trainer_separate_async")


def _drop_flush(trainer: Any) -> None:
    class Unflushed(logging.LoggerAdapter):
        """A logger that takes ``flush`` and lets it go."""

        def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
            kwargs.pop("flush", None)
            return msg, kwargs

    trainer.logger = Unflushed(trainer.logger, {})


def weights_by_sockets_of_its_own() -> None:
    """verl names the socket that hands over weights by Ray's job id, to keep runs on one machine apart
    (vllm_rollout.py:140, vllm_async_server.py:143); but that id is 01000000 in every Ray that one driver has started.

    Of two such runs one could load the other's weights, in silence. Here the name holds Ray's session too. verl 0.9.1.
    """
    folder = "verl.workers.rollout.vllm_rollout"
    register_post_import_hook(_name_sender_by_session, f"{folder}.vllm_rollout")
    register_post_import_hook(_name_receiver_by_session, f"{folder}.vllm_async_server")


def _name_sender_by_session(vllm_rollout: Any) -> None:
    def rename(adapter: Any) -> None:
        job, session = _job_and_session()
        adapter.zmq_handle = adapter.zmq_handle.replace(f"-{job}-", f"-{job}-{session}-")

    _after_init(vllm_rollout.ServerAdapter, rename)


def _name_receiver_by_session(vllm_async_server: Any) -> None:
    def rename(server: Any) -> None:  # what verl hands to the processes that it starts later
        os.environ["VERL_RAY_JOB_ID"] = "-".join(_job_and_session())

    _after_init(vllm_async_server.vLLMHttpServer, rename)


def text_alone_is_embedded() -> None:
    """Where a micro-batch has no image, verl sends a blank one through the vision tower and takes the mean of what
    comes back (models/transformers/qwen2_vl.py:394). Since transformers 5 that is no tensor, and the training ends.

    A micro-batch without an image is one of text-only seeds, or of lost dialogues. verl 0.9.1 and 0.10.0.dev.
    """
    register_post_import_hook(_unpack_the_blank_image, "verl.models.transformers.qwen2_vl")


def _unpack_the_blank_image(qwen2_vl: Any) -> None:
    original = qwen2_vl._get_input_embeds

    class PlainTower:
        """A model whose vision tower gives the features alone."""

        def __init__(self, model: Any) -> None:
            self._model = model

        def __getattr__(self, name: str) -> Any:
            return getattr(self._model, name)

        def visual(self, *args: Any, **kwargs: Any) -> Any:
            return qwen2_vl.unpack_visual_output(self._model.visual(*args, **kwargs))[0]

    @wraps(original)
    def _get_input_embeds(
        model: Any,
        input_ids: Any,
        attention_mask: Any = None,
        pixel_values: Any = None,
        pixel_values_videos: Any = None,
        *grids: Any,
        **named_grids: Any,
    ) -> Any:
        blank = pixel_values is None and pixel_values_videos is None
        seen = PlainTower(model) if blank else model
        return original(seen, input_ids, attention_mask, pixel_values, pixel_values_videos, *grids, **named_grids)

    qwen2_vl._get_input_embeds = _get_input_embeds


def spelled_marks_are_words() -> None:
    """verl has a dialogue's images encoded beside its text (experimental/agent_loop/agent_loop.py:896), out of which
    decoding has left the images' tokens. A mark that a student spells letter by letter stays in it: with more of them
    than images the processor ends in a StopIteration, and with it the session, outside of its agent loop. verl 0.9.1.
    """
    register_post_import_hook(_drop_spelled_marks, "verl.experimental.agent_loop.agent_loop")


def _drop_spelled_marks(agent_loop: Any) -> None:
    original = agent_loop.AgentLoopWorker._compute_multi_modal_inputs

    class Reader:
        """A worker that decodes by itself."""

        def __init__(self, worker: Any) -> None:
            self._worker, self.tokenizer = worker, self

        def __getattr__(self, name: str) -> Any:
            return getattr(self._worker, name)

        def decode(self, ids: Any, **options: Any) -> str:
            """The text, without marks where decoding leaves out the tokens of that name."""
            plain = self._worker.tokenizer
            text: str = plain.decode(ids, **options)
            for mark in (getattr(self.processor, kind, None) for kind in ("image_token", "video_token")):
                if mark and mark in text and not plain.decode([plain.convert_tokens_to_ids(mark)], **options):
                    text = text.replace(mark, " ")
            return text

    @wraps(original)
    def _compute_multi_modal_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        return original(Reader(self), *args, **kwargs)

    agent_loop.AgentLoopWorker._compute_multi_modal_inputs = _compute_multi_modal_inputs


def _job_and_session() -> tuple[str, str]:
    import ray

    context = ray.get_runtime_context()
    return context.get_job_id(), context.get_session_name()


def _after_init(cls: Any, then: Callable[[Any], None]) -> None:
    original = cls.__init__

    @wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        then(self)

    cls.__init__ = __init__


FIXES = (
    saved_weights_stay,
    trainer_that_logs_like_print,
    weights_by_sockets_of_its_own,
    text_alone_is_embedded,
    spelled_marks_are_words,
)


def activate() -> None:
    """Wait for the modules that have a fault; nothing of verl is imported now."""
    for fix in FIXES:
        fix()
