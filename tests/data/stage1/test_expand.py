"""Expansion: so many turns as the seed's lot says, checked, with the source's origin kept for good."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from steer_verl.data.stage1.expand import ExpandStep, draw_turns
from steer_verl.data.stage1.settings import ExpandSettings
from steer_verl.types import DialogueKind, Seed
from steer_verl.work.step import Kept, Rejected
from tests.data.desks import MemoryDesk
from tests.data.stage1.agents import Generator, source

BENIGN, OBFUSCATED = DialogueKind.BENIGN, DialogueKind.OBFUSCATED
TWO = ExpandSettings(turn_weights=(1, 0, 0, 0, 0, 0, 0, 0, 0))


async def test_a_dialogue_keeps_where_it_comes_from() -> None:
    item = source(image="ab/c.png", answer="A cup.", facts={"shape": "round"})
    done = await ExpandStep(Generator(["What is this?", "And in it?"]), OBFUSCATED, TWO).work(item, MemoryDesk())
    assert isinstance(done, Kept)
    seed = Seed.model_validate_json(Seed.model_validate(done.value, strict=False).model_dump_json())
    assert seed.id == "look-alikes:1/obfuscated" and seed.kind is OBFUSCATED
    assert [turn.text for turn in seed.turns] == ["<image>What is this?", "And in it?"]
    assert [turn.images for turn in seed.turns] == [("ab/c.png",), ()]
    assert (seed.source, seed.source_id, seed.license) == ("look-alikes", "1", "CC-BY-NC-4.0")
    assert seed.facts == {
        "shape": "round",
        "question": "What is in the box?",
        "category": "boxes",
        "answer": "A cup.",
        "rewrite": "What may be in it?",
    }


async def test_a_seed_without_a_picture_makes_a_dialogue_without_one() -> None:
    done = await ExpandStep(Generator(), BENIGN).work(source(image=None), MemoryDesk())
    assert isinstance(done, Kept) and "<image>" not in str(done.value)


def test_turn_counts_follow_the_weights_and_never_change() -> None:
    settings = ExpandSettings()
    assert abs(settings.mean_turns - 8) < 0.1
    drawn = [draw_turns(f"s:{n}", settings) for n in range(20_000)]
    assert drawn == [draw_turns(f"s:{n}", settings) for n in range(20_000)]
    counts, total = Counter(drawn), sum(settings.turn_weights)
    for turns, weight in enumerate(settings.turn_weights, 2):
        expected = 20_000 * weight / total
        assert abs(counts[turns] - expected) < 5 * expected**0.5, (turns, counts[turns], expected)
    assert abs(sum(drawn) / len(drawn) - settings.mean_turns) < 0.1


@pytest.mark.parametrize("only", range(2, 11))
async def test_any_single_length_can_be_had(only: int) -> None:
    settings = ExpandSettings(turn_weights=tuple(float(turns == only) for turns in range(2, 11)))
    for number in range(50):
        done = await ExpandStep(Generator(), BENIGN, settings).work(source(str(number)), MemoryDesk())
        assert isinstance(done, Kept) and len(done.value["turns"]) == only


@pytest.mark.parametrize("weights", [(0,) * 9, (1,) * 8, (-1, *(1,) * 8), (float("inf"), *(1,) * 8)])
def test_weights_that_cannot_work_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        ExpandSettings(turn_weights=weights)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["One?"], "turn_count"),
        (["One?", "Two?", "Three?"], "turn_count"),
        (["One?", " \u200b\n"], "empty_turn"),
        (["One?", "?!"], "empty_turn"),
        (["One?", "ONE !"], "repeated_turn"),
        (["<image>One?", "Two?"], "marks"),
        (["One?", "See <video> two?"], "marks"),
        (["One?", "x" * 4001], "too_long"),
    ],
)
async def test_what_is_wrong_with_a_dialogue_is_its_reason(texts: list[str], reason: str) -> None:
    done = await ExpandStep(Generator(texts), BENIGN, TWO).work(source(), MemoryDesk())
    assert isinstance(done, Rejected) and done.reason == reason and done.detail
    assert done.value == {"rewrite": "What may be in it?", "turns": texts}


async def test_an_empty_rewrite_is_not_expanded() -> None:
    done = await ExpandStep(Generator(rewritten=" ... "), BENIGN).work(source(), MemoryDesk())
    assert isinstance(done, Rejected) and done.reason == "empty_turn"


def test_a_red_team_dialogue_is_not_made_here() -> None:
    with pytest.raises(ValueError, match="RedTeamStep"):
        ExpandStep(Generator(), DialogueKind.RED_TEAM)
