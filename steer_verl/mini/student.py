"""A student outside verl: batched generation with Hugging Face transformers, for evaluation on a machine without vLLM.

Left padding, a KV cache, sampling or greedy decoding that depends on the seed alone, and no sampled vision placeholder:
one such token in the history and the next forward pass would miss its picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steer_verl.images import image_version, seen_image
from steer_verl.mini.model import END_OF_TEXT, IMAGE_PAD, TURN_END, VIDEO_PAD, VISION_END, VISION_PAD, VISION_START

if TYPE_CHECKING:
    from PIL.Image import Image

Conversation = Sequence[Mapping[str, Any]]
"""Chat messages; a content is a string or a list of ``{"type": "image", "image": path}`` and text parts."""

BANNED = (VISION_START, VISION_END, VISION_PAD, IMAGE_PAD, VIDEO_PAD)
"""Tokens that are never sampled."""


@dataclass(frozen=True)
class Generated:
    """An answer: its text, its tokens with the end token, and whether it was cut at their cap."""

    text: str = ""
    tokens: int = 0
    truncated: bool = False


class MiniStudent:
    """A Qwen2.5-VL from a Hugging Face folder that answers many conversations at once.

    Args:
        model: The model, in evaluation mode.
        processor: Its processor.
        temperature: 0 is greedy decoding.
        top_p: Nucleus of the sampling.
        max_tokens: Cap of one answer.
        batch_size: Conversations that are generated together.
        seed: Seed of the sampling; the same calls in the same order give the same answers.
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
        import torch

        self.model, self.processor, self.batch_size = model, processor, batch_size
        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"
        self._ends = frozenset(tokenizer.convert_tokens_to_ids([TURN_END, END_OF_TEXT]))
        self._sampling: dict[str, Any] = {"do_sample": temperature > 0, "max_new_tokens": max_tokens}
        if temperature > 0:
            self._sampling |= {"temperature": temperature, "top_p": top_p, "top_k": 0}
        self._sampling["suppress_tokens"] = tokenizer.convert_tokens_to_ids(list(BANNED))
        self._state = torch.Generator().manual_seed(seed).get_state()

    @classmethod
    def load(cls, folder: Path | str, **settings: Any) -> MiniStudent:
        """Open a folder of ``steer_verl.mini.model.build`` or verl's ``huggingface`` checkpoint folder."""
        import torch
        from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        model.generation_config.update(temperature=None, top_p=None, top_k=None, do_sample=False)
        return cls(model.eval(), AutoProcessor.from_pretrained(folder), **settings)

    def answer(self, batch: Sequence[Conversation]) -> list[str]:
        """One answer for each conversation, in order; each conversation ends with a user message."""
        return [answer.text for answer in self.generate(batch)]

    def generate(self, batch: Sequence[Conversation]) -> list[Generated]:
        """As :meth:`answer`, with what was generated."""
        order = sorted(range(len(batch)), key=lambda i: sum(len(str(m["content"])) for m in batch[i]))
        answers = [Generated()] * len(batch)
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]  # of similar length: little padding
            for row, generated in zip(rows, self._generate([batch[i] for i in rows]), strict=True):
                answers[row] = generated
        return answers

    def _generate(self, batch: Sequence[Conversation]) -> list[Generated]:
        import torch

        inputs = self._inputs(batch)
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._state)
            tokens = self.model.generate(**inputs, **self._sampling)
            self._state = torch.get_rng_state()
        return [self._read(row) for row in tokens[:, inputs["input_ids"].shape[1] :].tolist()]

    def _read(self, tokens: list[int]) -> Generated:
        length = next((at + 1 for at, token in enumerate(tokens) if token in self._ends), len(tokens))
        text = self.processor.tokenizer.decode(tokens[:length], skip_special_tokens=True)
        return Generated(text.strip(), length, tokens[length - 1] not in self._ends)

    def _inputs(self, batch: Sequence[Conversation]) -> Any:
        render = self.processor.apply_chat_template
        texts = [render(list(messages), add_generation_prompt=True, tokenize=False) for messages in batch]
        images = [picture for messages in batch for picture in _pictures(messages)]
        return self.processor(text=texts, images=images or None, padding=True, return_tensors="pt")


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
