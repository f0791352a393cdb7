"""Replies of no use, through real HTTP: which are asked for again, and what each costs in the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.seed import SetName
from steer_verl.data.stages.facts import Facts
from steer_verl.data.stages.stage1.expand import word_count
from steer_verl.data.stages.stage2.bootstrap import COMPLAINT
from steer_verl.models.failure import AgentFailed
from steer_verl.types import DialogueKind, QuestionOrigin
from steer_verl.work.step import Kept, Rejected
from tests.data.laboratory import RED_TEAM, SHORT, laboratory
from tests.data.role_server import BLUE, TARGET, TUTOR, RoleServer, record
from tests.data.scripted import GOOD, changed, kept, made, source
from tests.models.replies import fields, prompt_text

WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("expand_benign", {"messages": ["Only one?"]}, "messages: 1 turns, not 2"),
    ("expand_benign", {"messages": ["One?", "one"]}, "messages: turn 2 repeats turn 1"),
    ("expand_benign", {"messages": ["One?", ""]}, "messages: turn 2 is empty"),
    ("probe", {"benign": "...", "obfuscated": "What?"}, "benign is empty"),
    ("probe", {"question": "?"}, "question: extra forbidden"),
    ("pairs", {"pairs": [{"question": "One?", "thinking": "t", "answer": "a"}]}, "pairs: 1 turns, not 2"),
    (
        "pairs",
        {"pairs": [{"question": f"{n}?", "thinking": "t", "answer": "<answer>"} for n in (1, 2)]},
        "pairs: answer 1 is empty or holds a tag",
    ),
    ("screen", {"natural": 6, "grounded": 1, "reaches": 1}, "natural: less than equal"),
]


@pytest.mark.parametrize(("role", "reply", "fault"), WRONG)
async def test_a_reply_of_no_use_is_asked_for_again_with_its_fault(
    tmp_path: Path, role: str, reply: dict[str, Any], fault: str
) -> None:
    settings = changed(SHORT, expand={"pairs": float(role == "pairs")})
    async with laboratory(tmp_path, RoleServer({role: record(lambda _: reply)}), reasks=2) as lab:
        with pytest.raises(AgentFailed, match="schema"):
            await lab.make(source(), settings)
        assert [fault in text for text in lab.bodies(role)] == [False, True, True]


@pytest.mark.parametrize("words", [79, 80, 200, 201])
@pytest.mark.parametrize("unit", ["word ", "\u5b57", "\u0e01\u0e34"], ids=["spaced", "Chinese", "Thai"])
async def test_a_reframed_request_has_as_many_words_as_the_paper_says(tmp_path: Path, words: int, unit: str) -> None:
    prompt = (unit * words).strip()
    assert word_count(prompt) == words
    reply = record(lambda _: {"attack_vector": "a", "rationale": "r", "complex_prompt": prompt})
    server = RoleServer({"reframe": reply}, level=lambda _: 5)
    async with laboratory(tmp_path, server, reasks=1) as lab:
        done = await lab.make(source(kind=RED_TEAM), changed(SHORT, red_team={"max_strategies": 2}))
        assert "80 to 200 words" in lab.bodies("reframe")[0]
        if 80 <= words <= 200:
            assert Facts.of(kept(done).facts).complex_prompt == prompt
        else:
            assert isinstance(done, Rejected) and done.value is not None
            assert [attempt["failed"] for attempt in done.value["tried"]] == ["schema"] * 2
            told = f"complex_prompt has {words} words, not 80 to 200"
            assert [told in text for text in lab.bodies("reframe")] == [False, True] * 2


async def test_a_plan_of_another_length_is_asked_for_again_and_then_costs_the_strategy(tmp_path: Path) -> None:
    turns = [{"risk": 1, "user_prompt": f"Question {n}?", "goal": ""} for n in range(3)]
    async with laboratory(tmp_path, RoleServer({"plan": record(lambda _: {"turns": turns})}), reasks=1) as lab:
        done = await lab.make(source(kind=RED_TEAM), changed(SHORT, red_team={"max_strategies": 1}))
        assert isinstance(done, Rejected) and done.reason == "no_attack"
        assert "turns: 3 turns, not 2" in lab.bodies("plan")[1] and not lab.bodies(TARGET)


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        ("probe", DialogueKind.BENIGN),
        ("expand_obfuscated", DialogueKind.OBFUSCATED),
        ("image_report", RED_TEAM),
        ("screen", RED_TEAM),
    ],
)
async def test_a_model_that_declines_rejects_the_seed_with_that_reason(
    tmp_path: Path, role: str, kind: DialogueKind
) -> None:
    async with laboratory(tmp_path, RoleServer(refusing=[role], level=lambda _: 5)) as lab:
        with pytest.raises(AgentFailed) as error:
            await lab.make(source(kind=kind))
        assert (error.value.reason, error.value.transient) == ("refusal", False)


async def test_a_rewriter_that_declines_inside_its_json_is_not_taken_for_a_user(tmp_path: Path) -> None:
    """One that is not needed may: it rejects nothing."""
    sorry = "I'm sorry, but I can't help with this image."
    for needed in (True, False):
        reply = {"benign": "What is it?", "obfuscated": "What may it be?", "benign" if needed else "obfuscated": sorry}
        async with laboratory(tmp_path, RoleServer({"probe": record(lambda _, reply=reply: reply)})) as lab:
            if not needed:
                kept(await lab.make(source()))
                continue
            with pytest.raises(AgentFailed, match="refusal"):
                await lab.make(source())
            assert lab.server.requests == 1


async def test_a_red_team_that_declines_is_told_apart_from_a_firm_target(tmp_path: Path) -> None:
    settings = changed(SHORT, red_team={"max_strategies": 2})
    async with laboratory(tmp_path, RoleServer(refusing=["reframe"])) as lab:
        done = await lab.make(source(kind=RED_TEAM), settings)
        assert isinstance(done, Rejected) and done.reason == "no_attack"
    async with laboratory(tmp_path, RoleServer(refusing=[TARGET], level=lambda _: 1)) as lab:
        done = await lab.make(source(kind=RED_TEAM), settings)
        assert isinstance(done, Rejected) and done.reason == "not_successful"
        assert all("> I must decline." in text for text in lab.bodies("breach"))


async def test_a_malformed_answer_is_asked_for_again_and_the_complaint_is_heard(tmp_path: Path) -> None:
    def blue(body: dict[str, Any]) -> str:
        return GOOD if COMPLAINT in prompt_text(body) else "Just a box."

    async with laboratory(tmp_path, RoleServer({BLUE: blue})) as lab:
        assert isinstance(await lab.make(source(side=SetName.SFT)), Kept)
        assert lab.server.roles[BLUE] == 4
    async with laboratory(tmp_path, RoleServer({BLUE: lambda _: "Just a box."})) as lab:
        done = await lab.make(source(side=SetName.SFT))
        assert isinstance(done, Rejected) and done.reason == "malformed" and lab.server.roles[BLUE] == 2


async def test_a_red_user_that_declines_leaves_the_seeds_own_turns(tmp_path: Path) -> None:
    async with laboratory(tmp_path, RoleServer(refusing=["red_user"])) as lab:
        trajectory = made(await lab.make(source(side=SetName.SFT))).trajectory
        assert trajectory is not None and [t.origin for t in trajectory.turns] == [QuestionOrigin.FALLBACK] * 2


async def test_scores_are_the_tutors(tmp_path: Path) -> None:
    async with laboratory(tmp_path, RoleServer({TUTOR: lambda body: json.dumps(fields(body, (6, 8, 9)))})) as lab:
        done = await lab.make(source(side=SetName.SFT))
        assert isinstance(done, Rejected) and (done.reason, done.detail) == ("unsafe", "turn 1: safety 6 < 8")
