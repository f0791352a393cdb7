"""The student's small files: it has a processor and enough context, and opening turns fit. No weight is read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from steer_verl.errors import MAX_MESSAGE, ConfigError, DataError
from steer_verl.families import VISION
from steer_verl.preflight.openings import measure_of, prompts, row_count, told
from steer_verl.preflight.rows import data_files
from steer_verl.text import one_line

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
MODEL = "actor_rollout_ref.model"
FROZEN = "steer_verl.frozen_vision"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def student(config: Any) -> Iterator[str]:
    """Lines for a model that is not there, cannot see, or cannot hold a dialogue."""
    model = config.actor_rollout_ref.model
    try:
        told = seeing(model, MODEL)
    except ConfigError as error:
        yield str(error)
        return
    yield from trained_tower(model, MODEL, told)
    yield from _context(config, told)
    yield from _openings(config, source_of(model))


def seeing(model: Any, section: str) -> dict[str, Any]:
    """The ``config.json`` of a model that has a processor.

    Args:
        model: verl's section, which names it.
        section: the section's key.

    Raises:
        ConfigError: it is not there, or cannot see.
    """
    key, source = f"{section}.path", source_of(model)
    settings = small_file(model.path, "config.json", key)
    if settings is None:
        raise ConfigError(f"{key}: {model.path} has no config.json; give the folder that holds the model's weights")
    if all(small_file(source, name, key) is None for name in PROCESSOR_FILES):
        raise ConfigError(
            f"{key}: {source} has no processor ({' or '.join(PROCESSOR_FILES)}): a student without one sees "
            "no image; use a vision-language model, or copy those files next to the weights"
        )
    try:
        return dict(json.loads(settings.read_bytes()))
    except (OSError, TypeError, ValueError):
        raise ConfigError(f"{key}: {settings} is no JSON object; fetch or copy the model again") from None


def source_of(model: Any) -> str:
    """Where the tokenizer and the processor come from."""
    return str(model.get("tokenizer_path") or model.path)


def trained_tower(model: Any, section: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """A vision tower that is meant to be frozen, of a family that steer_verl/frozen_vision.py does not know."""
    if model.get("external_lib") == FROZEN and settings.get("model_type") not in VISION:
        yield (
            f"{section}.external_lib={FROZEN} knows {', '.join(VISION)}, and {model.path} is "
            f"{settings.get('model_type')}: its vision tower would be trained; set external_lib=null, or train LoRA "
            f"adapters with {section}.exclude_modules='.*visual.*'"
        )


def context_of(settings: Mapping[str, Any]) -> int | None:
    """Tokens that the model can hold, where it says so."""
    return {**settings, **settings.get("text_config", {})}.get("max_position_embeddings")


def small_file(model: str, name: str, key: str) -> Path | None:
    """A small file of a model: a folder's, or a hub id's from the cache or the hub; ``None`` when the model has none.

    Raises:
        ConfigError: there is no such folder, or the hub id cannot be looked up; ``key`` is where it is named.
    """
    if os.path.isdir(model):
        path = Path(model, name)
        return path if path.is_file() else None
    if model.startswith(("/", ".", "~")) or not _HUB_ID.fullmatch(model):
        raise ConfigError(f"{key}: no folder {model}; train or download the model first, or set {key}")
    return _hub_file(model, name, key)


def _hub_file(model: str, name: str, key: str) -> Path | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cached = try_to_load_from_cache(model, name)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(hf_hub_download(model, name))
    except EntryNotFoundError as error:
        if not isinstance(error, LocalEntryNotFoundError):  # the hub knows the model, and it has no such file
            return None
        reason = "no connection, and not in the cache"
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
    raise ConfigError(
        f"{key}: {model} is neither a folder nor to be had from the hub ({reason}); "
        "check the name, the network, your token and HF_HUB_OFFLINE"
    )


def _context(config: Any, settings: Mapping[str, Any]) -> Iterator[str]:
    """vLLM refuses a max_model_len above the model's own (workers/rollout/vllm_rollout/vllm_async_server.py:1107)."""
    limit, rollout = context_of(settings), config.actor_rollout_ref.rollout
    wanted = rollout.max_model_len or rollout.prompt_length + rollout.response_length
    if limit is not None and wanted > limit:
        yield (
            f"{MODEL}.path: the model's context is {limit} tokens but a dialogue may take {wanted}; "
            "lower data.max_prompt_length, data.max_response_length and actor_rollout_ref.rollout.max_model_len"
        )


def _openings(config: Any, source: str) -> Iterator[str]:
    """Opening turns beyond max_prompt_length, every row of every file: each would be a lost dialogue."""
    files = [(key, path) for key, path in data_files(config) if path.is_file()]
    if not files:
        return
    from pyarrow.lib import ArrowException
    from verl.utils import hf_processor

    processor = hf_processor(source, trust_remote_code=config.actor_rollout_ref.model.get("trust_remote_code", False))
    if processor is None:
        yield f"{MODEL}.path: the processor of {source} cannot be loaded; transformers may be too old for this model"
        return
    measure = measure_of(processor, config.data)
    for key, path in files:
        try:
            yield from _overlong(key, path, measure, config.actor_rollout_ref.rollout.prompt_length)
        except DataError as error:
            yield one_line(f"{key}: {path}: {error}", MAX_MESSAGE)
        except (ArrowException, OSError):  # of a file that is no parquet preflight/rows.py tells too
            yield f"{key}: {path} cannot be read as parquet; write it with `steer data convert`"


def _measured(measure: Callable[[dict[str, Any]], int], number: int, row: dict[str, Any]) -> int:
    """Tokens of a row's opening turn; raises DataError where verl or the chat template can make none of it."""
    try:
        return measure(row)
    except DataError as error:
        raise DataError(f"row {number}: {error}") from None
    except Exception as error:  # verl's own, of a prompt in another form or with more marks than images
        raise DataError(
            f"row {number}: no opening turn can be made of its prompt and images ({type(error).__name__}: {error}); "
            "`steer data check` tells what is wrong with each row, `steer data convert` writes rows that are right"
        ) from None


def _overlong(key: str, path: Path, measure: Callable[[dict[str, Any]], int], limit: int) -> Iterator[str]:
    """One line: how many rows are too long, and the longest."""
    total = row_count(path)
    rows = told(prompts(path), total, f"opening turns of {key}")
    lengths = [(_measured(measure, number, row), number) for number, row in rows]
    beyond = [pair for pair in lengths if pair[0] > limit]
    if beyond:
        tokens, number = max(beyond)
        yield (
            f"{key}: {len(beyond)} of {total} opening turns of {path} do not fit; row {number} has {tokens} tokens, "
            f"images included, more than data.max_prompt_length={limit} (rollout.prompt_length): each would be a lost "
            "dialogue; raise it, or lower data.mm_processor_kwargs.max_pixels"
        )
