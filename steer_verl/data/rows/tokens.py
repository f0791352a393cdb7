"""What a student's tokenizer makes of SFT rows: their length as verl trains on it, and the tokens that texts spell.

verl renders a row by the student's chat template and puts the tokens of its images into it (utils/dataset/
multiturn_sft_dataset.py). By ``data.truncation`` it stops at a row longer than ``data.max_length``, or cuts it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from steer_verl.data.rows.flaws import Flaw
from steer_verl.data.rows.images import Opened
from steer_verl.data.rows.played import SftRow
from steer_verl.data.rows.schema import Said
from steer_verl.errors import ConfigError
from steer_verl.text import one_line, special_tokens_of
from steer_verl.types import IMAGE_MARK

MAX_TOKENS = 32_768
"""``data.max_length`` of the recipes."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class StudentTokens:
    """Measures SFT rows for a student: a model's folder or hub name, of which tokenizer and processor alone are read.

    Raises:
        ConfigError: it has no tokenizer with a chat template.
    """

    def __init__(self, student: str, max_tokens: int = MAX_TOKENS) -> None:
        self.student, self.max_tokens = student, max_tokens
        self._tokenizer, self._processor = _load(student)
        special = special_tokens_of(self._tokenizer)
        self._control = dict(zip(self._tokenizer.convert_tokens_to_ids(special), special, strict=True))

    @property
    def sees(self) -> bool:
        """Whether images can be measured: else the text alone is."""
        return self._processor is not None

    def look(self, row: SftRow, images: Sequence[Opened]) -> tuple[int, list[Flaw]]:
        """The row's tokens, and why it cannot be learnt."""
        told = row.told
        shown = [
            image if isinstance(image, bytes) else opened.name
            for (_, image), opened in zip(told.shown, images, strict=True)
        ]
        flaws = [flaw for message in told.said for flaw in self._spelled(message)]
        try:
            tokens = self._length(told.said, shown)
        except Exception as error:  # chat templates and processors raise whatever they like
            what = f"the student's chat template or processor refuses it ({one_line(str(error), 120)})"
            return 0, [*flaws, Flaw("messages", what, "look at the row, and at the model's files")]
        if tokens > self.max_tokens:
            hint = "shorten the dialogue, or raise --max-tokens and data.max_length"
            flaws.append(Flaw("messages", f"{tokens} tokens, more than {self.max_tokens}", hint))
        return tokens, flaws

    def _spelled(self, message: Said) -> Iterator[Flaw]:
        """Words that the tokenizer reads as control tokens."""
        for part in message.text.split(IMAGE_MARK):
            for token in sorted(self._control[number] for number in self._control.keys() & set(self._ids(part))):
                yield Flaw(f"{message.field}.content", f"spells {token}, a control token of the student's", "reword it")

    def _length(self, said: Sequence[Said], shown: Sequence[str | bytes]) -> int:
        if not self.sees:
            plain = [{"role": m.role, "content": m.text.replace(IMAGE_MARK, "")} for m in said]
            return len(self._ids(self._tokenizer.apply_chat_template(plain, tokenize=False)))
        messages = [{"role": m.role, "content": _parts(m.text)} for m in said]
        text = self._processor.apply_chat_template(messages, tokenize=False)
        if shown and not hasattr(self._processor.image_processor, "get_number_of_image_patches"):
            seen = [_open(image).convert("RGB") for image in shown]
            return len(self._processor(text=[text], images=seen)["input_ids"][0])
        return len(self._ids(text)) + sum(self._image_tokens(image) - 1 for image in shown)  # the text has one for each

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _image_tokens(self, shown: str | bytes) -> int:
        """By its size alone: as verl's loader resizes it, in merged patches."""
        with _open(shown) as image:
            width, height = image.size
        processor = self._processor.image_processor
        height, width = _as_loaded(height, width, processor.patch_size * processor.merge_size)
        return int(processor.get_number_of_image_patches(height, width, {})) // int(processor.merge_size**2)


def _load(student: str) -> tuple[Any, Any]:
    """(tokenizer, processor or None). No code of the model's is run."""
    if not Path(student).is_dir() and not _HUB_NAME.fullmatch(student):
        raise ConfigError(f"--student {student}: no such folder; give a model's folder or its name on the hub")
    from transformers import AutoProcessor, AutoTokenizer

    try:
        tokenizer, reason = AutoTokenizer.from_pretrained(student, trust_remote_code=False), "no chat template"
    except Exception as error:  # whatever a foreign folder makes of it
        tokenizer, reason = None, one_line(str(error), 200)
    try:
        processor = AutoProcessor.from_pretrained(student, trust_remote_code=False)
    except Exception:  # a text model has none
        processor = None
    processor = processor if hasattr(processor, "image_processor") else None
    if tokenizer is None or not (processor or tokenizer).chat_template:
        raise ConfigError(f"--student {student}: no tokenizer to use ({reason}); give the folder of a chat model")
    return tokenizer, processor


def _as_loaded(height: int, width: int, factor: int) -> tuple[int, int]:
    """Height and width after verl's loader, which is Qwen's."""
    try:
        from qwen_vl_utils.vision_process import IMAGE_MAX_TOKEN_NUM, IMAGE_MIN_TOKEN_NUM, smart_resize
    except ImportError:  # it comes with verl
        return height, width
    limits = IMAGE_MIN_TOKEN_NUM * factor**2, IMAGE_MAX_TOKEN_NUM * factor**2
    resized: tuple[int, int] = smart_resize(height, width, factor, *limits)
    return resized


def _parts(text: str) -> list[dict[str, str]]:
    parts = [[{"type": "image"}, {"type": "text", "text": piece}] for piece in text.split(IMAGE_MARK)]
    return [part for pair in parts for part in pair if part.get("text") != ""][1:]


def _open(shown: str | bytes) -> Image.Image:
    """The head of a file that the one door has let through."""
    return Image.open(io.BytesIO(shown) if isinstance(shown, bytes) else shown)
