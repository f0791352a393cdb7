"""The student before any training: a tokenizer of the laboratory's words and a random Qwen-VL of some 2 M weights.

Both are built offline and saved as one Hugging Face folder that transformers, verl and vLLM open like any model of its
family: Qwen2.5-VL, or Qwen3-VL.

* Byte-level BPE, trained on everything that can be said in the laboratory, the tutor's follow-ups included; any
  other text falls back to bytes. The fixed stretches of the student's sentences are one token each, so an answer
  costs 8-16 tokens.
* The vocabulary is exactly as large as the tokenizer: vLLM masks padded entries, and log-probs would differ from
  verl's.
* Heads of 32 dimensions, the smallest tried on vLLM's CPU kernel; a smaller and a larger student have fewer and more.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from steer_verl.errors import ConfigError
from steer_verl.mini.answers import clauses, expert_answer, naive_answer
from steer_verl.mini.dialogues import SAFE_QUESTIONS, adaptive_question
from steer_verl.mini.phrases import FOLLOW_UP, STEPS_QUESTIONS
from steer_verl.mini.world import PIXELS, Split, draw_scene
from steer_verl.records import write_whole
from steer_verl.types import ANSWER_TAGS

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, VISION_PAD = "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, VISION_START, VISION_END, VISION_PAD, IMAGE_PAD, VIDEO_PAD)
"""Qwen2.5-VL's special tokens that this student needs."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5-VL's layout without its default system turn: every token counts on two cores."""

MERGES_UP_TO = 720
"""Size of the BPE part of the vocabulary: enough for every word of the laboratory to be one token."""

SHAPE: dict[str, Any] = {
    "hidden_size": 192,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
SIZES: dict[str, dict[str, int]] = {
    "1m": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3},
    "2m": {},
    "5m": {"hidden_size": 320, "intermediate_size": 640, "num_hidden_layers": 4},
}
"""Name -> what differs from ``SHAPE``; 1.1, 2.1 and 4.9 M weights, half a million of them the eye's."""
VISION_SHAPE: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_heads": 3,
    "in_channels": 3,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}


class Family(NamedTuple):
    """What is a family's own: names of transformers, and what its configuration has beside the shapes above."""

    name: str
    """Begins the names of its classes."""
    video: str
    """Its processor of videos, which none is shown to."""
    text: dict[str, Any]
    rope: dict[str, Any]
    vision: dict[str, Any]

    def of(self, kind: str) -> Any:
        """Its class of transformers: ``Config``, ``Processor``, ``ForConditionalGeneration``."""
        import transformers

        return getattr(transformers, self.name + kind)


FAMILIES = {
    "qwen2_5_vl": Family(
        "Qwen2_5_VL",
        "Qwen2VLVideoProcessor",
        text={},
        rope={"mrope_section": [4, 6, 6]},
        # windowed attention does not learn to see in minutes
        vision={"tokens_per_second": 2, "window_size": 112, "fullatt_block_indexes": [0, 1]},
    ),
    "qwen3_vl": Family(
        "Qwen3VL",
        "Qwen3VLVideoProcessor",
        text={"head_dim": 32, "architectures": ["Qwen3ForCausalLM"]},  # vLLM's CPU platform asks the text model for it
        rope={"mrope_section": [6, 5, 5], "mrope_interleaved": True},
        vision={"num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
    ),
}


def build(folder: Path, *, seed: int = 0, size: str = "2m", family: str = "qwen2_5_vl") -> Path:
    """Write tokenizer, processor and a random model to ``folder``; the same ``seed`` gives the same weights.

    The same model is left alone.

    Raises:
        ConfigError: a size or a family that there is not, or the folder holds another model.
    """
    for what, given, known in (("size", size, SIZES), ("family", family, FAMILIES)):
        if given not in known:
            raise ConfigError(f"{what} {given!r}: there are {', '.join(known)}")
    stamp, made_with = folder / "made_with.json", json.dumps({"seed": seed, "size": size, "family": family})
    if (folder / "model.safetensors").exists():
        if not stamp.exists() or stamp.read_text() != made_with:
            raise ConfigError(f"{folder}: holds another model; remove it, or name another folder")
    else:
        import torch

        write_whole(stamp, made_with)
        processor = make_processor(family)
        processor.save_pretrained(folder)
        torch.manual_seed(seed)
        make_model(processor.tokenizer, size, family).save_pretrained(folder)
    return folder


def corpus(size: int = 3000) -> Iterator[str]:
    """Everything users and students say here, over random devices."""
    rng = random.Random(0)
    for _ in range(size):
        scene = draw_scene(rng, Split.TRAIN)
        frame = rng.choice(FOLLOW_UP)
        yield from ("user", "assistant", "system")
        for question in (rng.choice(SAFE_QUESTIONS), rng.choice(STEPS_QUESTIONS), adaptive_question(scene, rng)):
            yield question
            yield frame.format(name=scene.name, question=question)
            yield naive_answer(scene, question)
            yield expert_answer(scene, question, rng)


def make_tokenizer() -> Any:
    """The byte-level BPE with Qwen's special tokens and one token for each fixed stretch of the student's sentences."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX, Qwen2Tokenizer

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=MERGES_UP_TO, initial_alphabet=sorted(alphabet), show_progress=False)
    bpe.train_from_iterator(corpus(), trainer)
    parts = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in parts["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=parts["vocab"],
        merges=merges,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        unk_token=None,
        additional_special_tokens=list(SPECIAL_TOKENS),
        model_max_length=SHAPE["max_position_embeddings"],
    )
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (*ANSWER_TAGS, *clauses())])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_processor(family: str = "qwen2_5_vl") -> Any:
    """The family's processor around the tokenizer; it keeps the pictures at their size (9 image tokens)."""
    import transformers

    own = FAMILIES[family]
    grid = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    pixels = {"min_pixels": 28 * 28 * 4, "max_pixels": max(PIXELS * PIXELS, 28 * 28 * 16)}
    return own.of("Processor")(
        image_processor=transformers.Qwen2VLImageProcessor(**grid, **pixels),
        tokenizer=make_tokenizer(),
        video_processor=getattr(transformers, own.video)(**grid),
        chat_template=CHAT_TEMPLATE,
    )


def make_model(tokenizer: Any, size: str = "2m", family: str = "qwen2_5_vl") -> Any:
    """A random model for ``tokenizer``, in fp32, with the generation settings of the family."""
    from transformers import GenerationConfig

    own, ids = FAMILIES[family], {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    ends = {"bos_token_id": ids[END_OF_TEXT], "pad_token_id": ids[END_OF_TEXT]}
    shape = {**SHAPE, **SIZES[size]}
    heads = shape["hidden_size"] // 32
    config = own.of("Config")(
        text_config={
            **shape,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **own.rope},
            **ends,
            **own.text,
            "vocab_size": len(tokenizer),
            "eos_token_id": ids[TURN_END],
        },
        vision_config={**VISION_SHAPE, **own.vision, "out_hidden_size": shape["hidden_size"]},
        image_token_id=ids[IMAGE_PAD],
        video_token_id=ids[VIDEO_PAD],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        vision_token_id=ids[VISION_PAD],
        tie_word_embeddings=False,
    )
    model = own.of("ForConditionalGeneration")(config)
    model.generation_config = GenerationConfig(
        **ends, eos_token_id=[ids[TURN_END], ids[END_OF_TEXT]], do_sample=True, temperature=1.0
    )
    return model
