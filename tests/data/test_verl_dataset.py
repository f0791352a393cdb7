"""verl's own dataset reads what we write: pictures by path, lengths filtered, the seed whole at the other end.

Without a GPU run it as `make test` does, with STEER_CPU=1: transformers imports torchvision.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.rows.parquet import write_parquet
from steer_verl.data.rows.verl import seed_from_row
from steer_verl.types import DialogueKind, Seed, UserTurn
from tests.data.samples import picture

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


@pytest.fixture(scope="module")
def processor() -> Any:
    """A Qwen2.5-VL processor whose tokenizer knows single bytes only."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import Qwen2_5_VLProcessor, Qwen2TokenizerFast, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    tokenizer = Qwen2TokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|im_end|>", unk_token=None
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    image_processor = Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=28 * 28 * 64)
    return Qwen2_5_VLProcessor(image_processor, tokenizer, Qwen2VLVideoProcessor(), chat_template=CHAT_TEMPLATE)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    folder = tmp_path_factory.mktemp("pictures")
    wide, tall = str(picture(folder / "wide.png", (112, 56))), str(picture(folder / "tall.jpg", (56, 140), "blue"))
    later = UserTurn(text="And <image>?", images=(tall,))
    opening = {
        "one": UserTurn(text="<image>What?", images=(wide,)),
        "two": UserTurn(text="First <image> then <image>: which is taller?", images=(wide, tall)),
        "none": UserTurn(text="No picture here."),
        "long": UserTurn(text="<image>" + "word " * 400, images=(wide,)),
    }
    return [Seed(id=n, turns=(turn, later), kind=DialogueKind.BENIGN, facts={"n": n}) for n, turn in opening.items()]


@pytest.fixture(scope="module")
def rlhf_dataset() -> Any:
    """verl's dataset class (its import takes the better part of a minute on a busy machine: once is enough)."""
    from verl.utils.dataset.rl_dataset import RLHFDataset

    return RLHFDataset


def read(
    dataset_class: Any, processor: Any, file: Path, monkeypatch: pytest.MonkeyPatch, max_prompt_length: int
) -> Any:
    import datasets
    from omegaconf import OmegaConf

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", file.parent / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True, raising=False)
    config = OmegaConf.create({"max_prompt_length": max_prompt_length, "filter_overlong_prompts_workers": None})
    return dataset_class([str(file)], processor.tokenizer, config, processor)


def test_verl_reads_pictures_by_path_and_hands_the_seed_on(
    rlhf_dataset: Any, processor: Any, seeds: list[Seed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(seeds, tmp_path / "train.parquet", system_prompt="Be brief.")
    dataset = read(rlhf_dataset, processor, tmp_path / "train.parquet", monkeypatch, 4000)
    assert len(dataset) == len(seeds)  # verl drops, after printing a traceback, what it cannot process
    for seed, item in zip(seeds, dataset, strict=True):
        assert item["agent_name"] == "steer_dialogue"
        assert seed_from_row(item["extra_info"], item["raw_prompt"]) == seed
        assert item["interaction_kwargs"] == {"rest_messages": [{"role": "user", "content": "And <image>?"}]}
        assert [m["role"] for m in item["raw_prompt"]] == ["system", "user"]
        images, _ = asyncio.run(rlhf_dataset.process_vision_info(item["raw_prompt"], 14, dataset.config))
        assert [image.size for image in images or []] == [
            {"wide.png": (112, 56), "tall.jpg": (56, 140)}[Path(path).name] for path in seed.turns[0].images
        ]


def test_verls_length_filter_counts_our_pictures(
    rlhf_dataset: Any, processor: Any, seeds: list[Seed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(seeds, tmp_path / "train.parquet")
    dataset = read(rlhf_dataset, processor, tmp_path / "train.parquet", monkeypatch, 200)
    assert [item["extra_info"]["question_id"] for item in dataset] == ["one", "two", "none"]


def test_a_row_in_the_older_layout_plays_the_same_dialogue(
    rlhf_dataset: Any, processor: Any, seeds: list[Seed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from steer_verl.data.rows.verl import verl_row

    item = verl_row(seeds[1], 0, split="train")
    item["extra_info"] = {"index": 0, "interaction_kwargs": {"rest_messages": [{"role": "user", "content": "And?"}]}}
    pq.write_table(pa.Table.from_pylist([item]), tmp_path / "old.parquet")
    (row,) = read(rlhf_dataset, processor, tmp_path / "old.parquet", monkeypatch, 4000)
    seed = seed_from_row(row["extra_info"], row["raw_prompt"])
    assert seed.turns == (seeds[1].turns[0], UserTurn(text="And?"))
