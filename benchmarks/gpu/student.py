"""A Qwen2.5-VL-3B of random weights in bf16: the published architecture, the laboratory's tokenizer, no download.

The vocabulary keeps its real size, 151,936, because the head's cost is the benchmark's: at 2,048 hidden units it is a
tenth of the forward pass and nearly all of the log-probs' memory. A tokenizer of 765 ids under such a head would
spoil the run: vLLM masks every id from ``len(tokenizer)`` on (verl, workers/rollout/vllm_rollout/utils.py:106) and
verl's actor does not, so that the two would normalise over different vocabularies. So the *tokenizer* is filled up:
ids that no text is ever cut into, because no merge leads to them, but that decode to a harmless word. Both sides then
see 151,936 tokens, and their log-probs agree.

Such a student writes nearly uniform noise, which the rule tutor judges like any other answer; it is time that is
measured here, not learning.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from steer_verl.errors import ConfigError
from steer_verl.mini import model as mini

VOCABULARY = 151_936
"""Rows of the published embedding."""

SHAPE = json.loads(Path(__file__).with_name("qwen2_5_vl_3b.json").read_text())
TEXT, VISION = SHAPE["text"], SHAPE["vision"]
"""Of the published config.json of Qwen2.5-VL-3B-Instruct."""

PIXELS = {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 1280}
"""Qwen2.5-VL's own limits of a picture, in pixels."""

FILLER = "Ġ~{number}"
"""How a token without a text is spelt, in byte-level BPE's alphabet: `` ~17`` when decoded."""


def build(
    folder: Path, *, text: dict[str, Any] = TEXT, vision: dict[str, Any] = VISION, vocabulary: int = VOCABULARY
) -> Path:
    """Write config, processor and weights to ``folder`` (7.5 GB for the 3B); a folder that is whole is left alone.

    ``vocabulary`` 0 takes exactly the laboratory's words: the cheapest head, for a first try.
    """
    import torch
    from transformers import AutoModelForImageTextToText, GenerationConfig

    done, made_of = folder / "built.json", json.dumps({"text": text, "vision": vision, "vocabulary": vocabulary})
    if done.exists():
        if done.read_text() == made_of:
            return folder
        shutil.rmtree(folder)  # an index of former shards would lead vLLM to them
    processor = make_processor(vocabulary)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):  # on two cores the 3B takes minutes
        config = make_config(processor.tokenizer, text, vision)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    ends = {name: getattr(config.text_config, name) for name in ("bos_token_id", "pad_token_id", "eos_token_id")}
    model.generation_config = GenerationConfig(**ends, do_sample=True)
    processor.save_pretrained(folder)
    model.save_pretrained(folder, max_shard_size="4GB")
    done.write_text(made_of)
    return folder


def make_processor(vocabulary: int = VOCABULARY) -> Any:
    """The laboratory's processor with the family's pixel limits and a tokenizer of ``vocabulary`` ids."""
    processor = mini.make_processor()
    if vocabulary:
        processor.tokenizer = filled_up(processor.tokenizer, vocabulary)
    processor.image_processor = make_image_processor()
    return processor


def make_image_processor() -> Any:
    """Qwen2.5-VL's own."""
    from transformers import Qwen2VLImageProcessor

    return Qwen2VLImageProcessor(patch_size=14, merge_size=2, temporal_patch_size=2, **PIXELS)


def filled_up(tokenizer: Any, vocabulary: int) -> Any:
    """The same tokenizer with exactly ``vocabulary`` ids, the new ones between the words and the special tokens.

    Raises:
        ConfigError: it has more already.
    """
    missing = vocabulary - len(tokenizer)
    if missing < 0:
        raise ConfigError(
            f"--vocabulary {vocabulary}: the tokenizer has {len(tokenizer)} ids; give at least that, or 0"
        )
    bpe = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    words = len(bpe["vocab"])
    wide = type(tokenizer)(
        vocab=bpe["vocab"] | {FILLER.format(number=number): words + number for number in range(missing)},
        merges=[tuple(merge) for merge in bpe["merges"]],
        **{name: tokenizer.init_kwargs[name] for name in ("eos_token", "pad_token", "unk_token")},
        additional_special_tokens=list(mini.SPECIAL_TOKENS),
        model_max_length=TEXT["max_position_embeddings"],
    )
    wide.add_tokens([token for _, token in sorted(tokenizer.added_tokens_decoder.items())])
    wide.chat_template = tokenizer.chat_template
    return wide


def make_config(tokenizer: Any, text: dict[str, Any] = TEXT, vision: dict[str, Any] = VISION) -> Any:
    """The model's configuration around ``tokenizer``'s ids; embedding and head are one matrix, as in the 3B."""
    from transformers import Qwen2_5_VLConfig

    number = tokenizer.convert_tokens_to_ids
    end, turn_end = number(mini.END_OF_TEXT), number(mini.TURN_END)
    ends = {"bos_token_id": end, "pad_token_id": end, "eos_token_id": turn_end}
    return Qwen2_5_VLConfig(
        text_config={**text, **ends, "vocab_size": len(tokenizer), "tie_word_embeddings": True},
        vision_config=vision,
        image_token_id=number(mini.IMAGE_PAD),
        video_token_id=number(mini.VIDEO_PAD),
        vision_start_token_id=number(mini.VISION_START),
        vision_end_token_id=number(mini.VISION_END),
        tie_word_embeddings=True,
    )
