"""A Qwen2.5-VL-3B of random weights in bf16: the published architecture, the laboratory's tokenizer, no download.

The vocabulary keeps its real size, 151,936, because the head's cost is the benchmark's: at 2,048 hidden units it is a
tenth of the forward pass and nearly all of the log-probs' memory. A tokenizer of 765 ids under such a head would
spoil the run: vLLM masks every id from ``len(tokenizer)`` on (verl, workers/rollout/vllm_rollout/utils.py:106) and
verl's actor does not, so that the two would normalise over different vocabularies. So the *tokenizer* is filled up:
ids that no text is ever cut into, because no merge leads to them, but that decode to a harmless word. Both sides then
see 151,936 tokens, and their log-probs agree.

Weights are drawn as the family initialises them (normal, 0.02). Such a student writes nearly uniform noise, which the
rule tutor judges like any other answer; it is time that is measured here, not learning.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steer_verl.errors import ConfigError
from steer_verl.mini.model import (
    END_OF_TEXT,
    IMAGE_PAD,
    SPECIAL_TOKENS,
    TURN_END,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
)

VOCABULARY = 151_936
"""Rows of the published embedding."""

TEXT: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128_000,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
VISION: dict[str, Any] = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "out_hidden_size": 2048,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "tokens_per_second": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
"""Both from the published config.json of Qwen2.5-VL-3B-Instruct."""

PIXELS = {"min_pixels": 56 * 56, "max_pixels": 28 * 28 * 1280}
"""Qwen2.5-VL's own limits of a picture, in pixels."""

FILLER = "Ġ~{number}"
"""How a token without a text is spelt, in byte-level BPE's alphabet: `` ~17`` when decoded."""


def build(
    folder: Path,
    *,
    text: dict[str, Any] = TEXT,
    vision: dict[str, Any] = VISION,
    vocabulary: int = VOCABULARY,
    seed: int = 0,
) -> Path:
    """Write config, processor and weights to ``folder`` (7.5 GB for the 3B); a folder that is whole is left alone.

    ``vocabulary`` 0 takes exactly the laboratory's words: the cheapest head, for a first try.
    """
    done = folder / "built.json"
    made_of = json.dumps({"text": text, "vision": vision, "vocabulary": vocabulary, "seed": seed})
    if done.exists() and done.read_text() == made_of:
        return folder
    processor = make_processor(vocabulary)
    model = make_model(make_config(processor.tokenizer, text, vision), seed)
    processor.save_pretrained(folder)
    model.save_pretrained(folder, max_shard_size="4GB")
    done.write_text(made_of)
    return folder


def make_processor(vocabulary: int = VOCABULARY) -> Any:
    """The laboratory's processor with the family's pixel limits and a tokenizer of ``vocabulary`` ids."""
    from transformers import Qwen2VLImageProcessor

    from steer_verl.mini import model

    processor = model.make_processor()
    if vocabulary:
        processor.tokenizer = filled_up(processor.tokenizer, vocabulary)
    processor.image_processor = Qwen2VLImageProcessor(patch_size=14, merge_size=2, temporal_patch_size=2, **PIXELS)
    return processor


def filled_up(tokenizer: Any, vocabulary: int) -> Any:
    """The same tokenizer with exactly ``vocabulary`` ids, the new ones between the words and the special tokens.

    Raises:
        ConfigError: it has more already.
    """
    from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer

    missing = vocabulary - len(tokenizer)
    if missing < 0:
        raise ConfigError(
            f"--vocabulary {vocabulary}: the tokenizer has {len(tokenizer)} ids; give at least that, or 0"
        )
    bpe = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    words = len(bpe["vocab"])
    fillers = {FILLER.format(number=number): words + number for number in range(missing)}
    wide = Qwen2Tokenizer(
        vocab={**bpe["vocab"], **fillers},
        merges=[tuple(merge) for merge in bpe["merges"]],
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        unk_token=None,
        additional_special_tokens=list(SPECIAL_TOKENS),
        model_max_length=TEXT["max_position_embeddings"],
    )
    added = tokenizer.added_tokens_decoder
    wide.add_tokens([added[number] for number in sorted(added)])
    wide.chat_template = tokenizer.chat_template
    return wide


def make_config(tokenizer: Any, text: dict[str, Any] = TEXT, vision: dict[str, Any] = VISION) -> Any:
    """The model's configuration around ``tokenizer``'s ids; embedding and head are one matrix, as in the 3B."""
    from transformers import Qwen2_5_VLConfig

    number = tokenizer.convert_tokens_to_ids
    ends = {"bos_token_id": number(END_OF_TEXT), "pad_token_id": number(END_OF_TEXT), "eos_token_id": number(TURN_END)}
    return Qwen2_5_VLConfig(
        text_config={**text, **ends, "vocab_size": len(tokenizer), "tie_word_embeddings": True},
        vision_config=vision,
        image_token_id=number(IMAGE_PAD),
        video_token_id=number(VIDEO_PAD),
        vision_start_token_id=number(VISION_START),
        vision_end_token_id=number(VISION_END),
        tie_word_embeddings=True,
    )


def make_model(config: Any, seed: int = 0) -> Any:
    """A random model in bf16, drawn on the GPU where there is one: on two cores the 3B takes minutes."""
    import torch
    from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    model = model.to(torch.bfloat16).to_empty(device=device)
    model.tie_weights()  # to_empty made two matrices of the one
    generator = torch.Generator(device).manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.02, generator=generator)
        else:
            torch.nn.init.constant_(weight, 0.0 if name.endswith("bias") else 1.0)
    text = config.text_config
    model.generation_config = GenerationConfig(
        bos_token_id=text.bos_token_id, pad_token_id=text.pad_token_id, eos_token_id=text.eos_token_id, do_sample=True
    )
    return model
