"""Probe and expansion: both rewrites are kept, one is expanded, and the source's origin stays for good."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from steer_verl.data.seed import SetName
from steer_verl.data.stages.agents import Pair, Probe
from steer_verl.data.stages.facts import Facts
from steer_verl.data.stages.settings import ExpandSettings
from steer_verl.data.stages.stage1.expand import draw_turns
from steer_verl.models.failure import AgentFailed
from steer_verl.types import DialogueKind, Seed
from steer_verl.work.step import Rejected
from tests.data.scripted import ANSWERS, TWO, ScriptedAgents, changed, kept, made, make, source

BENIGN, OBFUSCATED = DialogueKind.BENIGN, DialogueKind.OBFUSCATED
SHORT = changed(expand={"turn_weights": TWO})
PAIRS = changed(expand={"turn_weights": TWO, "pairs": 1})


async def test_a_dialogue_keeps_where_it_comes_from_and_both_rewrites() -> None:
    item = source(image="ab/c.png", answer="A cup.", choice="B", facts={"shape": "round"}, kind=OBFUSCATED)
    seed = kept(await make(ScriptedAgents(expand=["What is this?", "And in it?"]), item, SHORT))
    assert Seed.model_validate_json(seed.model_dump_json()) == seed
    assert seed.id == "1/obfuscated" and seed.kind is OBFUSCATED
    assert [turn.text for turn in seed.turns] == ["<image>What is this?", "And in it?"]
    assert [turn.images for turn in seed.turns] == [("ab/c.png",), ()]
    assert (seed.source, seed.source_id, seed.license) == ("look-alikes", "row 1", "CC-BY-NC-4.0")
    assert seed.facts == {
        "shape": "round",
        "question": "What is in the box?",
        "category": "boxes",
        "answer": "A cup.",
        "choice": "B",
        "rewrites": {"benign": "What may be learnt from it?", "obfuscated": "What may be in it?"},
        "quality": {"natural": 5, "grounded": 5, "reaches": 5},
    }


@pytest.mark.parametrize(("kind", "rewrite"), [(BENIGN, "benign"), (OBFUSCATED, "obfuscated")])
async def test_the_kind_decides_which_rewrite_is_expanded(kind: DialogueKind, rewrite: str) -> None:
    agents = ScriptedAgents()
    await make(agents, source(kind=kind))
    ((seed, rewritten, _),) = agents.heard_by("expand")
    assert seed.kind is kind and rewritten == getattr(ANSWERS["probe"], rewrite)
    assert agents.asked["probe"] == 1


@pytest.mark.parametrize("kind", [*DialogueKind])
async def test_only_the_rewrite_that_is_needed_must_say_something(kind: DialogueKind) -> None:
    needed = "benign" if kind is BENIGN else "obfuscated"
    kept(await make(ScriptedAgents(probe=Probe(**{needed: "What may it be?"})), source(kind=kind)))
    useless = Probe(**{"benign": "Fine?", "obfuscated": "Fine?", needed: " ... "})
    done = await make(ScriptedAgents(probe=useless), source(kind=kind))
    assert isinstance(done, Rejected) and (done.stage, done.reason) == ("probe", "empty_rewrite")
    assert done.value == {"rewrites": useless.model_dump()}


async def test_a_seed_without_an_image_makes_a_dialogue_without_one() -> None:
    assert "<image>" not in kept(await make(ScriptedAgents(), source(image=None))).model_dump_json()


def test_turn_counts_follow_the_weights_and_never_change() -> None:
    settings = ExpandSettings()
    mean = sum(n * weight for n, weight in enumerate(settings.turn_weights, 2)) / sum(settings.turn_weights)
    assert abs(mean - 8) < 0.1, "the paper's"
    drawn = [draw_turns(f"s:{n}", settings.turn_weights) for n in range(20_000)]
    assert drawn == [draw_turns(f"s:{n}", settings.turn_weights) for n in range(20_000)]
    counts, total = Counter(drawn), sum(settings.turn_weights)
    for turns, weight in enumerate(settings.turn_weights, 2):
        expected = 20_000 * weight / total
        assert abs(counts[turns] - expected) < 5 * expected**0.5, (turns, counts[turns], expected)
    assert abs(sum(drawn) / len(drawn) - mean) < 0.1


@pytest.mark.parametrize("only", range(2, 11))
@pytest.mark.parametrize("kind", [*DialogueKind])
async def test_any_single_length_can_be_had(only: int, kind: DialogueKind) -> None:
    settings = changed(expand={"turn_weights": [float(turns == only) for turns in range(2, 11)]})
    for number in range(10):
        seed = kept(await make(ScriptedAgents(), source(str(number), kind=kind), settings))
        assert len(seed.turns) == only


@pytest.mark.parametrize(
    "texts",
    [
        ["Is it 5 - 3?", "Is it 5 + 3?"],
        ["3 < 5?", "3 > 5?"],
        ["\u0915\u0940 \u0915\u0940\u092e\u0924?", "\u0915\u093e \u0915\u0940\u092e\u0924?"],
    ],
)
async def test_turns_that_differ_in_a_sign_repeat_nothing(texts: list[str]) -> None:
    assert len(kept(await make(ScriptedAgents(expand=texts), source(), SHORT)).turns) == 2


@pytest.mark.parametrize("weights", [(0,) * 9, (1,) * 8, (-1, *(1,) * 8), (float("inf"), *(1,) * 8)])
def test_weights_that_cannot_work_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        ExpandSettings(turn_weights=weights)


FAULTS = [
    (["One?"], "turn_count"),
    (["One?", "Two?", "Three?"], "turn_count"),
    (["One?", " \u200b\n"], "empty_turn"),
    (["One?", "?!"], "empty_turn"),
    (["One?", "ONE !"], "repeated_turn"),
    (["<image>One?", "Two?"], "marks"),
    (["One?", "See <video> two?"], "marks"),
    (["One?", "x" * 4001], "too_long"),
]


@pytest.mark.parametrize(("texts", "reason"), FAULTS)
@pytest.mark.parametrize("written", ["expand", "pairs"])
async def test_what_is_wrong_with_a_dialogue_is_its_reason(texts: list[str], reason: str, written: str) -> None:
    pairs = [Pair(question=text, thinking="t", answer="a") for text in texts]
    agents = ScriptedAgents(expand=texts, pairs=pairs)
    done = await make(agents, source(), PAIRS if written == "pairs" else SHORT)
    assert isinstance(done, Rejected) and (done.stage, done.reason) == ("expand", reason) and done.detail
    assert done.value == {"rewrites": ANSWERS["probe"].model_dump(), "turns": texts}
    assert agents.asked["screen"] == 0


async def test_an_agent_that_fails_is_told_by_its_stage_with_what_was_made() -> None:
    for method, told, value in (
        ("probe", "probe", None),
        ("expand", "expand", {"rewrites": ANSWERS["probe"].model_dump(), "turns": []}),
    ):
        with pytest.raises(AgentFailed) as failed:
            await make(ScriptedAgents(**{method: AgentFailed("refusal", "no")}), source())
        assert (failed.value.stage, failed.value.reason, failed.value.value) == (told, "refusal", value)


# ----- questions with their answers


async def test_pairs_are_written_for_their_share_of_the_benign_seeds_alone() -> None:
    settings, chosen = changed(expand={"turn_weights": TWO, "pairs": 0.25}), 0
    for number in range(400):
        seed = kept(await make(ScriptedAgents(), source(str(number)), settings))
        chosen += Facts.of(seed.facts).pairs
    assert abs(chosen - 100) < 4 * (400 * 0.25 * 0.75) ** 0.5
    agents = ScriptedAgents()
    await make(agents, source(kind=OBFUSCATED), PAIRS)
    assert agents.asked["pairs"] == 0 and agents.asked["expand"] == 1


@pytest.mark.parametrize("side", [SetName.BENCH, SetName.RL])
async def test_outside_sft_the_questions_of_pairs_serve_alone(side: SetName) -> None:
    agents = ScriptedAgents()
    done = await make(agents, source(side=side), PAIRS)
    assert [turn.text for turn in kept(done).turns] == ["<image>Question 1?", "Question 2?"]
    assert made(done).trajectory is None and agents.asked["evaluate"] == agents.asked["red_user"] == 0


@pytest.mark.parametrize("bad", [{"answer": " "}, {"answer": "<answer>x"}, {"thinking": "<image>"}])
async def test_pairs_whose_answer_has_not_the_students_form_are_rejected(bad: dict[str, Any]) -> None:
    pairs = [Pair(question=text, **{"thinking": "t", "answer": "a", **bad}) for text in ("One?", "Two?")]
    done = await make(ScriptedAgents(pairs=pairs), source(), PAIRS)
    assert isinstance(done, Rejected) and (done.stage, done.reason) == ("expand", "malformed")
