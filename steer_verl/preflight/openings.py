"""How many tokens the opening turn of every row takes, its images included: a dialogue that does not fit is lost.

An image's tokens follow from its size, which the head of its file tells. So no image is decoded, and thousands of rows
take seconds. Where the size alone does not tell (another processor, other options), verl's own measure is taken.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from steer_verl.images import seen_image, seen_size

PATIENCE = 4.0
"""Seconds between two lines of progress."""

BATCH = 256
"""Rows read at once."""

T = TypeVar("T")


def measure_of(processor: Any, data: Any) -> Callable[[dict[str, Any]], int]:
    """The fast measure where it is exact, else verl's.

    Args:
        processor: the student's.
        data: verl's ``data`` section.
    """
    from rollout.processors import LayoutOnly, layout_of

    images = layout_of(processor, dict(data.get("mm_processor_kwargs") or {})).image_processor
    if not isinstance(images, LayoutOnly):
        return partial(opening_tokens, processor, data)
    return partial(sized_tokens, processor, data, lru_cache(maxsize=None)(partial(image_tokens, images, data)))


def prompts(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, row) of a file, without rows whose images are not there: preflight/rows.py tells of those."""
    import pyarrow.parquet as pq

    columns = [name for name in ("prompt", "images") if name in pq.read_schema(path).names]
    with pq.ParquetFile(path) as file:
        rows = (row for batch in file.iter_batches(BATCH, columns=columns) for row in batch.to_pylist())
        for number, row in enumerate(rows, start=1):
            if all(Path(image).is_file() for image in row.get("images") or [] if isinstance(image, str)):
                yield number, row


def row_count(path: Path) -> int:
    """Rows of a file."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def told(rows: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The rows, with a line on stderr now and then of how many are done and how long the rest will take."""
    began = last = time.monotonic()
    for done, row in enumerate(rows):
        now = time.monotonic()
        if now - last > PATIENCE:
            left = (now - began) / max(done, 1) * (total - done)
            line = f"preflight: {done:,} of {total:,} {what} measured, about {left:.0f} s left"
            print(line, file=sys.stderr)
            last = now
        yield row


def sized_tokens(processor: Any, data: Any, tokens_of: Callable[[str], int], row: dict[str, Any]) -> int:
    """Tokens of a row's opening turn: those of the text, where each image has one, and the images' others.

    Raises:
        DataError: an image must not be opened.
    """
    messages, text = rendered(processor, data, row)
    images = [block["image"] for block in image_blocks(messages)]
    return len(processor.tokenizer(text)["input_ids"]) + sum(tokens_of(image) - 1 for image in images)


def image_tokens(images: Any, data: Any, path: str) -> int:
    """Tokens of one image: its size as the rollout opens it, as verl's dataset class resizes it, in merged patches.

    Args:
        images: the image processor, of the Qwen-VL family.
        data: verl's ``data`` section.
        path: of the file.

    Raises:
        DataError: the image must not be opened.
    """
    from qwen_vl_utils.vision_process import IMAGE_MAX_TOKEN_NUM, IMAGE_MIN_TOKEN_NUM, smart_resize

    width, height = seen_size(path)
    factor = images.patch_size * images.merge_size
    limits = IMAGE_MIN_TOKEN_NUM * factor**2, IMAGE_MAX_TOKEN_NUM * factor**2
    height, width = smart_resize(height, width, factor, *limits)
    options = dict(data.get("mm_processor_kwargs") or {})
    patches: int = images.get_number_of_image_patches(height, width, options)
    return patches // images.merge_size**2


def opening_tokens(processor: Any, data: Any, row: dict[str, Any]) -> int:
    """Tokens of a row's opening turn, by verl's own steps (utils/dataset/rl_dataset.py, doc2len), its images as the
    rollout opens them.

    Raises:
        DataError: an image must not be opened.
    """
    from verl.utils.dataset.rl_dataset import RLHFDataset, build_multimodal_processor_inputs

    messages, text = rendered(processor, data, row)
    patch = getattr(processor.image_processor, "patch_size", 14)
    for block in image_blocks(messages):
        if isinstance(block["image"], str):
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


def rendered(processor: Any, data: Any, row: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """A row's opening messages by verl's dataset class, and their text by the chat template."""
    from verl.utils.dataset.rl_dataset import RLHFDataset

    dataset = RLHFDataset.__new__(RLHFDataset)  # for its methods alone: the constructor reads and copies whole files
    dataset.processor, dataset.image_key, dataset.video_key, dataset.audio_key = processor, "images", "videos", "audios"
    messages: list[dict[str, Any]] = dataset._build_messages(row, key="prompt")
    options = dict(data.get("apply_chat_template_kwargs") or {})
    return messages, processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **options)


def image_blocks(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The blocks that hold an image, in their order."""
    for message in messages:
        if isinstance(message["content"], list):
            yield from (block for block in message["content"] if block["type"] == "image")
