"""A student outside verl: batched generation with Hugging Face transformers, for evaluation on a machine without vLLM.

An answer depends on its conversation, the seed and its place, to the last digit: not on who else is in its batch, nor
on what was asked before. For that

- a conversation is padded to a length of its own, a multiple of ``BLOCK``, and meets only those of the same length;
- a batch has at least ``MIN_ROWS`` rows, for fewer go through another kernel, which adds in another order;
- one thread computes, for several cut tensors where it suits their number;
- each row is sampled with a generator of its own.

No vision placeholder is sampled: one such token in the history and the next forward pass would miss its picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_verl.images import image_version, seen_image
from steer_verl.mini.model import END_OF_TEXT, IMAGE_PAD, TURN_END, VIDEO_PAD, VISION_END, VISION_PAD, VISION_START
from steer_verl.seeds import place_seed

if TYPE_CHECKING:
    from PIL.Image import Image

Conversation = Sequence[Mapping[str, Any]]
"""Chat messages; a content is a string or a list of ``{"type": "image", "image": path}`` and text parts."""

BANNED = (VISION_START, VISION_END, VISION_PAD, IMAGE_PAD, VIDEO_PAD)
"""Tokens that are never sampled."""

BLOCK = 64
"""Padded lengths are multiples of it, in tokens."""
MIN_ROWS = 16


@dataclass(frozen=True)
class Generated:
    """An answer: its text, its tokens with the end token, and whether it was cut at their cap."""

    text: str = ""
    tokens: int = 0
    truncated: bool = False


class MiniStudent:
    """A student of the laboratory from a Hugging Face folder that answers many conversations at once.

    Args:
        model: The model, in evaluation mode.
        processor: Its processor.
        temperature: 0 is greedy decoding.
        top_p: Nucleus of the sampling.
        max_tokens: Cap of one answer.
        batch_size: Conversations that are generated together.
        seed: Seed of the sampling.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 48,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        self.model, self.processor, self.batch_size, self.seed = model, processor, batch_size, seed
        self.temperature, self.top_p = temperature, top_p
        tokenizer = processor.tokenizer
        self._ends = frozenset(tokenizer.convert_tokens_to_ids([TURN_END, END_OF_TEXT]))
        self._pad = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
        banned = tokenizer.convert_tokens_to_ids(list(BANNED))
        self._decoding = {"do_sample": False, "max_new_tokens": max_tokens, "suppress_tokens": banned}

    @classmethod
    def load(cls, folder: Path | str, **settings: Any) -> MiniStudent:
        """Open a folder of ``steer_verl.mini.model.build`` or verl's ``huggingface`` checkpoint folder."""
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        model.generation_config.update(temperature=None, top_p=None, top_k=None, do_sample=False)
        return cls(model.eval(), AutoProcessor.from_pretrained(folder), **settings)

    def answer(self, batch: Sequence[Conversation], places: Sequence[str] = ()) -> list[str]:
        """The text of :meth:`generate`'s answers; without places a conversation's is its number."""
        return [answer.text for answer in self.generate(batch, places or [str(i) for i in range(len(batch))])]

    def generate(self, batch: Sequence[Conversation], places: Sequence[str]) -> list[Generated]:
        """One answer for each conversation, in order; each conversation ends with a user message.

        Args:
            batch: Conversations.
            places: Of each, what gives its answer random numbers of its own (:func:`steer_verl.seeds.place_seed`).
        """
        rows = [self._row(messages) for messages in batch]
        answers = [Generated()] * len(rows)
        with _one_thread():
            for together in self._batches([row["input_ids"].shape[1] for row in rows]):
                generated = self._generate([rows[i] for i in together], [places[i] for i in together])
                for row, answer in zip(together, generated, strict=True):
                    answers[row] = answer
        return answers

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Numbers of the conversations that are generated together."""
        for blocks in sorted({length // BLOCK for length in lengths}):
            same = [i for i, length in enumerate(lengths) if length // BLOCK == blocks]
            yield from (same[start : start + self.batch_size] for start in range(0, len(same), self.batch_size))

    def _generate(self, rows: list[Any], places: Sequence[str]) -> list[Generated]:
        import torch

        filled = rows + rows[-1:] * (MIN_ROWS - len(rows))
        inputs, choose = self._collated(filled), self._sampler(places)
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, **self._decoding, logits_processor=choose)
        return [self._read(row) for row in tokens[: len(rows), inputs["input_ids"].shape[1] :].tolist()]

    def _sampler(self, places: Sequence[str]) -> list[Any]:
        """What makes greedy decoding a sampling: noise on each row's scores, of the row's own generator (Gumbel)."""
        import torch
        from transformers import TemperatureLogitsWarper, TopPLogitsWarper

        if self.temperature <= 0:
            return []
        dice = [torch.Generator().manual_seed(place_seed(self.seed, place)) for place in places]

        def noise(_: Any, scores: Any) -> Any:
            for row, generator in zip(scores, dice, strict=False):  # rows that fill the batch have none
                row -= torch.empty_like(row).exponential_(generator=generator).log()
            return scores

        narrow = [TopPLogitsWarper(self.top_p)] if self.top_p < 1 else []
        return [TemperatureLogitsWarper(self.temperature), *narrow, noise]

    def _read(self, tokens: list[int]) -> Generated:
        length = next((at + 1 for at, token in enumerate(tokens) if token in self._ends), len(tokens))
        text = self.processor.tokenizer.decode(tokens[:length], skip_special_tokens=True)
        return Generated(text.strip(), length, tokens[length - 1] not in self._ends)

    def _row(self, messages: Conversation) -> Any:
        """What the model takes of one conversation, not padded."""
        text = self.processor.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        return self.processor(text=[text], images=_pictures(messages) or None, return_tensors="pt")

    def _collated(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Rows as one batch, padded on the left by at least one token: without any, attention would go unmasked."""
        import torch

        length = (max(row["input_ids"].shape[1] for row in rows) // BLOCK + 1) * BLOCK
        batch: dict[str, Any] = {}
        for name in {name: None for row in rows for name in row}:
            parts = [row[name] for row in rows if name in row]
            if name in ("pixel_values", "image_grid_thw"):
                batch[name] = torch.cat(parts)
            else:
                filler = self._pad if name == "input_ids" else 0
                pad = torch.nn.functional.pad
                batch[name] = torch.cat([pad(part, (length - part.shape[1], 0), value=filler) for part in parts])
        return batch


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _pictures(messages: Conversation) -> list[Image]:
    blocks = [b for m in messages if not isinstance(m["content"], str) for b in m["content"] if b["type"] == "image"]
    return [open_image(str(block["image"])) for block in blocks]


def open_image(path: str) -> Image:
    """What the student sees of a file; kept for the next turns while the file stays the same.

    Raises:
        DataError: see :func:`~steer_verl.images.seen_image`.
    """
    return _opened(*image_version(path))


@lru_cache(maxsize=4096)
def _opened(real: Path, _mtime: int, _size: int) -> Image:
    return seen_image(real)
