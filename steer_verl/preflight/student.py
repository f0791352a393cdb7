"""The student's small files: it has a processor and enough context, and opening turns fit. No weight is read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from steer_verl.errors import ConfigError, DataError
from steer_verl.images import seen_image
from steer_verl.preflight.rows import data_files

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
MODEL_KEY = "actor_rollout_ref.model.path"
FROZEN, FROZEN_TYPE = "steer_verl.frozen_vision", "qwen2_5_vl"
SAMPLE = 8
"""Opening turns, of each file, that are tokenised with their images."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def student(config: Any) -> Iterator[str]:
    """Lines for a model that is not there, cannot see, or cannot hold a dialogue."""
    model = config.actor_rollout_ref.model
    try:
        settings = small_file(model.path, "config.json")
        if settings is None:
            yield f"{MODEL_KEY}: {model.path} has no config.json; give the folder that holds the model's weights"
            return
        source = model.get("tokenizer_path") or model.path
        if all(small_file(source, name) is None for name in PROCESSOR_FILES):
            yield (
                f"{MODEL_KEY}: {source} has no processor ({' or '.join(PROCESSOR_FILES)}): a student without one sees "
                "no image; use a vision-language model, or copy those files next to the weights"
            )
            return
    except ConfigError as error:
        yield str(error)
        return
    told = json.loads(settings.read_text())
    if model.get("external_lib") == FROZEN and told.get("model_type") != FROZEN_TYPE:
        yield (
            f"actor_rollout_ref.model.external_lib={FROZEN} knows {FROZEN_TYPE} alone, and {model.path} is "
            f"{told.get('model_type')}: its vision tower would be trained; set external_lib=null, or train LoRA "
            "adapters with actor_rollout_ref.model.exclude_modules='.*visual.*'"
        )
    yield from _context(config, told)
    yield from _openings(config, source)


def small_file(model: str, name: str) -> Path | None:
    """A small file of a model: a folder's, or a hub id's from the cache or the hub; ``None`` when the model has none.

    Raises:
        ConfigError: there is no such folder, or the hub id cannot be looked up.
    """
    if os.path.isdir(model):
        path = Path(model, name)
        return path if path.is_file() else None
    if model.startswith(("/", ".", "~")) or not _HUB_ID.fullmatch(model):
        raise ConfigError(f"{MODEL_KEY}: no folder {model}; train or download the model first, or set {MODEL_KEY}")
    return _hub_file(model, name)


def _hub_file(model: str, name: str) -> Path | None:
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
        f"{MODEL_KEY}: {model} is neither a folder nor to be had from the hub ({reason}); "
        "check the name, the network, your token and HF_HUB_OFFLINE"
    )


def _context(config: Any, settings: dict[str, Any]) -> Iterator[str]:
    """vLLM refuses a max_model_len above the model's own (workers/rollout/vllm_rollout/vllm_async_server.py:1107)."""
    limit = {**settings, **settings.get("text_config", {})}.get("max_position_embeddings")
    rollout = config.actor_rollout_ref.rollout
    wanted = rollout.max_model_len or rollout.prompt_length + rollout.response_length
    if limit is not None and wanted > limit:
        yield (
            f"{MODEL_KEY}: the model's context is {limit} tokens but a dialogue may take {wanted}; "
            "lower data.max_prompt_length, data.max_response_length and actor_rollout_ref.rollout.max_model_len"
        )


def _openings(config: Any, source: str) -> Iterator[str]:
    """The sampled opening turn of each file that is longest beyond max_prompt_length: verl aborts on it."""
    limit, files = config.data.max_prompt_length, [(key, path) for key, path in data_files(config) if path.is_file()]
    if not files:
        return
    from verl.utils import hf_processor

    processor = hf_processor(source, trust_remote_code=config.actor_rollout_ref.model.get("trust_remote_code", False))
    if processor is None:
        yield f"{MODEL_KEY}: the processor of {source} cannot be loaded; transformers may be too old for this model"
        return
    length = partial(opening_tokens, processor, config.data)
    for key, path in files:
        try:
            number, tokens = max(
                enumerate(map(length, _prompts(path)), start=1), key=lambda pair: pair[1], default=(0, 0)
            )
        except DataError as error:
            yield f"{key}: {path}: {error}"
            continue
        if tokens > limit:
            yield (
                f"{key}: row {number} of {path} opens with {tokens} tokens, images included, more than "
                f"data.max_prompt_length={limit}; raise it, or lower data.mm_processor_kwargs.max_pixels"
            )


def _prompts(path: Path) -> Iterator[dict[str, Any]]:
    """The first rows of a file whose images are all there; :mod:`steer_verl.preflight.rows` tells of the others."""
    import pyarrow.parquet as pq

    columns = [name for name in ("prompt", "images") if name in pq.read_schema(path).names]
    with pq.ParquetFile(path) as file:
        for row in islice((r for b in file.iter_batches(SAMPLE, columns=columns) for r in b.to_pylist()), SAMPLE):
            if all(os.path.isfile(image) for image in row.get("images") or [] if isinstance(image, str)):
                yield row


def opening_tokens(processor: Any, data: Any, row: dict[str, Any]) -> int:
    """Tokens of a row's opening turn, by verl's own steps (utils/dataset/rl_dataset.py, doc2len), its images as the
    rollout opens them.

    Raises:
        DataError: an image must not be opened.
    """
    from verl.utils.dataset.rl_dataset import RLHFDataset, build_multimodal_processor_inputs

    dataset = RLHFDataset.__new__(RLHFDataset)  # for its methods alone: the constructor reads and copies whole files
    dataset.processor, dataset.image_key, dataset.video_key, dataset.audio_key = processor, "images", "videos", "audios"
    messages = dataset._build_messages(row, key="prompt")
    options = dict(data.get("apply_chat_template_kwargs") or {})
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **options)
    patch = getattr(processor.image_processor, "patch_size", 14)
    for block in (b for m in messages if isinstance(m["content"], list) for b in m["content"]):
        if isinstance(block.get("image"), str):
            block["image"] = seen_image(block["image"])
    images, videos, audios = RLHFDataset._process_multi_modal_info(messages, patch, data)
    inputs = build_multimodal_processor_inputs(
        processor,
        text=[text],
        images=images,
        videos=videos,
        audio=audios,
        mm_processor_kwargs=dict(data.get("mm_processor_kwargs") or {}),
    )
    return len(inputs["input_ids"][0])
