"""What Stage II's student learns from an assembled sft.parquet: the assistant's words, all of them and no others.

Read by verl's own dataset, with the processor of the miniature student; proved on the tensors that training sees.
Without a GPU run it as `make test` does, with STEER_CPU=1: transformers imports torchvision.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.seed import Made
from steer_verl.data.student_format import STUDENT_FORMAT
from steer_verl.types import Seed, UserTurn
from tests.data.sets.samples import BENIGN, SFT, image, kept, played, put_together, seed


def dialogues() -> list[Made]:
    """One image, two in different turns, none; answers that differ and hold what a template might trip over."""
    later = UserTurn(text="And <image>, which is taller?", images=("b.png",))
    two = seed("s:2/benign", BENIGN, image="a.png")
    return [
        _answered(seed("s:1/red_team", turns=6, image="a.png")),
        _answered(two.model_copy(update={"turns": (two.turns[0], later, *two.turns[2:])})),
        _answered(seed("s:3/red_team", turns=2)),
    ]


def _answered(item: Seed) -> Made:
    answers = [
        f"<thinking>Turn {n},\n\nassistant user.</thinking><answer>{item.id} {n}: ok?\n</answer>"
        for n in range(len(item.turns))
    ]
    return Made(side=SFT, seed=item, trajectory=played(item, answers))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    image(folder / "images" / "a.png", (84, 84))
    image(folder / "images" / "b.png", (84, 112), "blue")
    for name, prompt in (("plain", None), ("system", STUDENT_FORMAT)):
        put_together(folder / "images", others=[kept(made) for made in dialogues()], out=name, system_prompt=prompt)
    return folder


@pytest.fixture(scope="module")
def processor() -> Any:
    from steer_verl.mini.model import make_processor

    return make_processor()


def read(folder: Path, processor: Any, **settings: Any) -> Any:
    """verl's dataset over a set, as the recipes configure it."""
    from omegaconf import OmegaConf
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset

    config = {
        "pad_mode": "no_padding",
        "truncation": "error",
        "max_length": 4096,
        "messages_key": "messages",
        **settings,
    }
    return MultiTurnSFTDataset(
        str(folder / "sets" / "sft.parquet"), processor.tokenizer, OmegaConf.create(config), processor
    )


def learned(item: dict[str, Any], tokenizer: Any) -> list[str]:
    """The stretches of text under the loss mask."""
    ids, mask = item["input_ids"].tolist(), item["loss_mask"].tolist()
    stretches: list[list[int]] = []
    for token, on, before in zip(ids, mask, [0, *mask], strict=False):
        if on and not before:
            stretches.append([])
        if on:
            stretches[-1].append(token)
    return [tokenizer.decode(stretch) for stretch in stretches]


@pytest.mark.parametrize("name", ["plain", "system"])
@pytest.mark.parametrize("padding", ["no_padding", "right"])
def test_the_loss_is_on_the_assistants_turns_alone(folder: Path, processor: Any, name: str, padding: str) -> None:
    dataset = read(folder / name, processor, pad_mode=padding)
    rows = {made.seed.id: made.trajectory.turns for made in dialogues() if made.trajectory}
    ids = dataset.dataframe["id"].tolist()
    assert sorted(ids) == sorted(rows)
    for row_id, item in zip(ids, (dataset[index] for index in range(len(dataset))), strict=True):
        turns = rows[row_id]
        assert learned(item, processor.tokenizer) == [f"{turn.answer}<|im_end|>\n" for turn in turns]
        images = [name for turn in turns for name in turn.user.images]
        grids = item.get("multi_modal_inputs", {}).get("image_grid_thw", [])
        assert len(grids) == len(images)
        assert (processor.tokenizer.decode(item["input_ids"]).count(STUDENT_FORMAT.strip()[:40]) == 1) == (
            name == "system"
        )


def test_a_cut_dialogue_keeps_the_mask_on_what_is_left_of_the_answers(folder: Path, processor: Any) -> None:
    """At every length: the mask of the first ``n`` tokens is that of the whole dialogue, and so is what is learned."""
    whole = read(folder / "plain", processor)
    for index in range(len(whole)):
        full = whole[index]
        length = len(full["input_ids"])
        for limit in (length - 1, length * 2 // 3, length // 3):
            cut = read(folder / "plain", processor, max_length=limit, truncation="right")[index]
            assert cut["loss_mask"].tolist() == full["loss_mask"][:limit].tolist()
            assert cut["input_ids"].tolist() == full["input_ids"][:limit].tolist()
            texts, answers = learned(cut, processor.tokenizer), learned(full, processor.tokenizer)
            assert texts[:-1] == answers[: max(0, len(texts) - 1)]
            assert not texts or answers[len(texts) - 1].startswith(texts[-1])


def test_a_dialogue_that_is_too_long_is_an_error_and_not_a_cut_one(folder: Path, processor: Any) -> None:
    dataset = read(folder / "plain", processor, max_length=40)
    with pytest.raises(ValueError, match="larger than"):
        dataset[0]


def test_every_answer_under_the_mask_is_in_the_students_format(folder: Path, processor: Any) -> None:
    dataset = read(folder / "plain", processor)
    form = re.compile(r"<thinking>.*</thinking><answer>.*</answer><\|im_end\|>\n", re.DOTALL)
    for index in range(len(dataset)):
        stretches = learned(dataset[index], processor.tokenizer)
        assert stretches and all(form.fullmatch(text) for text in stretches)
