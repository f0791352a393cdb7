"""Stages I and II through real HTTP: what each role is asked, how often, and at which endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from steer_verl.data.seed import SetName
from steer_verl.data.stages.agents import (
    ROLES,
    SAMPLING,
    ImageReport,
    Pair,
    Probe,
    Quality,
    Reframed,
    Risk,
    Role,
    Script,
    ScriptTurn,
)
from steer_verl.data.stages.endpoint_agents import PROMPTS, EndpointAgents, Messages, NextMessage, Pairs, prompts_of
from steer_verl.data.stages.facts import Facts
from steer_verl.data.stages.make import MakeStep
from steer_verl.data.stages.stage1.red_team import load_strategies, shuffled
from steer_verl.errors import ConfigError
from steer_verl.models.failure import AgentFailed
from steer_verl.models.log import read_log
from steer_verl.types import DialogueKind, QuestionOrigin, Seed, TutorRequest, UserTurn
from steer_verl.work.step import Kept, Rejected
from tests.data.laboratory import RED_TEAM, SHORT, WAYS, laboratory
from tests.data.role_server import BLUE, TARGET, TUTOR, RoleServer, endpoint, number_of
from tests.data.samples import picture
from tests.data.scripted import GOOD, PLAIN, changed, kept, made, source
from tests.models.memory import Bill
from tests.models.replies import prompt_text

KINDS = [DialogueKind.BENIGN, DialogueKind.OBFUSCATED]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_question_becomes_a_dialogue_in_three_requests(tmp_path: Path, kind: DialogueKind) -> None:
    async with laboratory(tmp_path) as lab:
        seed = kept(await lab.make(source(kind=kind), PLAIN))
        assert seed.kind is kind and 2 <= len(seed.turns) <= 10
        assert lab.server.roles == {"probe": 1, f"expand_{kind.value}": 1, "screen": 1}
        assert lab.usage["1"].requests == 3 == sum(lab.server.charges.values())
        assert "> What is in the box?" in lab.bodies("probe")[0]
        rewrites = Facts.of(seed.facts).rewrites
        assert rewrites is not None and f"> {rewrites.of(kind)}" in lab.bodies(f"expand_{kind.value}")[0]
        assert all("data:image/png" in prompt_text(body) for body in lab.server.bodies)
        for turn in seed.turns:
            assert f"> {turn.text.removeprefix('<image>')}" in lab.bodies("screen")[0]


async def test_pairs_are_one_request_and_their_last_answer_is_the_sources(tmp_path: Path) -> None:
    async with laboratory(tmp_path) as lab:
        settings = changed(SHORT, expand={"pairs": 1})
        done = await lab.make(source(side=SetName.SFT, answer="42", unsafe=False), settings)
        assert isinstance(done, Kept) and lab.server.roles == {"probe": 1, "pairs": 1, "screen": 1, TUTOR: 2}
        assert "> 42" in lab.bodies("pairs")[0]
        await lab.make(source("2", side=SetName.SFT, answer="42", unsafe=True), settings)
        assert "none is given" in lab.bodies("pairs")[1], "the question is another one"


async def test_an_attack_that_succeeds_at_once_costs_one_strategys_requests(tmp_path: Path) -> None:
    async with laboratory(tmp_path) as lab:
        seed = kept(await lab.make(source(kind=RED_TEAM), PLAIN))
        turns = len(seed.turns)
        once = dict.fromkeys(("probe", "image_report", "reframe", "plan", "breach", "screen"), 1)
        assert lab.server.roles == {**once, TARGET: turns} and f"exactly {turns} messages" in lab.bodies("plan")[0]
        targets = [body for body in lab.server.bodies if lab.server.role_of(body) == TARGET]
        assert [len(body["messages"]) for body in targets] == [2 * n + 1 for n in range(turns)]
        assert f"assistant {turns}:\n> It is a box" in lab.bodies("breach")[0]
        facts = Facts.of(seed.facts)
        assert facts.rewrites is not None
        for role in ("image_report", "reframe", "plan"):  # the report and both that follow see the image itself
            (said,) = lab.bodies(role)
            assert "data:image/png" in said and (role == "plan" or f"> {facts.rewrites.obfuscated}" in said)
            assert "What is in the box?" not in said


async def test_an_attack_that_never_succeeds_costs_all_strategies_and_not_one_more(tmp_path: Path) -> None:
    async with laboratory(tmp_path, RoleServer(level=lambda _: 2)) as lab:
        done = await lab.make(source(kind=RED_TEAM), changed(SHORT, red_team={"max_strategies": 3}))
        assert isinstance(done, Rejected) and done.reason == "not_successful"
        assert lab.server.roles["image_report"] == 1
        assert lab.server.roles["reframe"] == lab.server.roles["plan"] == lab.server.roles["breach"] == 3
        chosen = shuffled(load_strategies(), "1")[:3]
        for said, strategy in zip(lab.bodies("plan"), chosen, strict=True):
            assert f"How the dialogue climbs, {strategy.name}: {strategy.escalation}" in said


async def test_a_dialogue_through_all_roles_of_stage_two(tmp_path: Path) -> None:
    async with laboratory(tmp_path) as lab:
        done = await lab.make(source(side=SetName.SFT))
        trajectory = made(done).trajectory
        assert isinstance(done, Kept) and trajectory is not None
        assert [turn.origin for turn in trajectory.turns] == [QuestionOrigin.TUTOR] * 2
        stage_two = {role: lab.server.roles[role] for role in ("red_user", BLUE, TUTOR)}
        assert stage_two == {"red_user": 2, BLUE: 2, TUTOR: 2}
        assert len({turn.answer for turn in trajectory.turns}) == 2
        assert trajectory.turns[0].user.text.startswith("<image>And number")
        assert lab.usage["1"].requests == len(lab.server.charges) and lab.usage["1"].prompt_tokens == 90
        first, second = lab.bodies("red_user")
        assert "Nothing was said yet." in first and "assistant 1:" in second
        for body in lab.server.bodies:
            assert "data:image/png" in prompt_text(body) and str(tmp_path) not in prompt_text(body)


async def test_a_turn_alone_is_shown_without_the_others(tmp_path: Path) -> None:
    async with laboratory(tmp_path) as lab:
        settings = changed(SHORT, select={"rule": "every"})
        kept(await lab.make(source(side=SetName.RL, kind=DialogueKind.OBFUSCATED), settings))
        said = [*lab.bodies("risk_alone"), *lab.bodies("risk_whole")]
        steps = [[f"Step {turn} about" in text for turn in (1, 2)] for text in said]
        assert steps == [[False, True], [True, False], [True, True]]
        assert ["data:image" in text for text in said] == [False, True, True]


async def test_a_dialogue_without_an_image_is_screened_as_one(tmp_path: Path) -> None:
    async with laboratory(tmp_path) as lab:
        kept(await lab.make(source(image=None)))
        assert "There is no image." in lab.bodies("screen")[0] and "data:image" not in lab.bodies("screen")[0]


@pytest.mark.parametrize("name", ["../a.png", "/etc/hostname", "none.png"])
async def test_an_image_outside_the_folder_is_scored_by_nobody(tmp_path: Path, name: str) -> None:
    async with laboratory(tmp_path / "images") as lab:
        picture(tmp_path / "a.png")
        opening = UserTurn(text="<image>What is it?", images=(name,))
        seed = Seed(id="1", turns=(opening, opening), kind=DialogueKind.BENIGN)
        exchange = TutorRequest(seed=seed, turns=(), user=opening, answer=GOOD, static_next_turn=None)
        with pytest.raises(AgentFailed) as failed:
            await lab.agents.evaluate(exchange, Bill("dialogues/1").place)
        assert failed.value.reason == "image" and failed.value.transient and "not sent" in failed.value.detail
        assert not lab.server.requests


def test_every_role_has_a_temperature_and_all_but_the_tutor_a_prompt() -> None:
    assert SAMPLING.keys() == set(ROLES) == {*PROMPTS, "evaluator"}
    named = {name for names in PROMPTS.values() for name in names}
    assert named == {*prompts_of(), TARGET}


def test_every_prompt_names_every_field_of_its_reply() -> None:
    replies: dict[str, list[type[BaseModel]]] = {
        "probe": [Probe],
        "expand_benign": [Messages],
        "expand_obfuscated": [Messages],
        "pairs": [Pairs, Pair],
        "image_report": [ImageReport],
        "reframe": [Reframed],
        "plan": [Script, ScriptTurn],
        "breach": [Risk],
        "screen": [Quality],
        "red_user": [NextMessage],
        "risk_alone": [Risk],
        "risk_whole": [Risk],
    }
    prompts = prompts_of()
    assert replies.keys() == prompts.keys() - {BLUE}
    for name, kinds in replies.items():
        fields = [field for kind in kinds for field in kind.model_fields]
        assert [field for field in fields if f'"{field}"' not in prompts[name].system] == [], name


async def test_names_say_which_model_and_which_prompts(tmp_path: Path) -> None:
    async with laboratory(tmp_path) as lab:
        names, prompts = lab.agents.names(), prompts_of()
        assert names.keys() == set(ROLES)
        assert names["breach_judge"] == f"fake-tutor@breach-{prompts['breach'].version}"
        assert names["target"] == "fake-tutor@target-chat"
        assert names["evaluator"].startswith("openai:fake-tutor@rubric-")
        for name in PROMPTS["generator"]:
            assert f"{name}-{prompts[name].version}" in names["generator"]


async def test_each_role_is_asked_at_its_own_endpoint(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    async with RoleServer() as server:
        endpoints: dict[Role, Any] = {role: endpoint(server, model=f"model-{role}") for role in ROLES}
        agents = EndpointAgents(endpoints, tmp_path, calls=str(tmp_path / "calls"))
        for way in WAYS:
            await MakeStep(agents, SHORT, tmp_path).work(source(**way), Bill().place)
        await agents.close()
        by_role = {server.role_of(body): body["model"] for body in server.bodies}
        assert by_role[TUTOR] == "model-evaluator" and by_role["probe"] == by_role["expand_benign"] == "model-generator"
        assert by_role["screen"] == "model-screener" and by_role["risk_whole"] == "model-risk_judge"
        assert {attempt.model for attempt in read_log(tmp_path / "calls")} == set(by_role.values())


def test_a_users_guidelines_take_the_place_of_ours_and_change_the_version(tmp_path: Path) -> None:
    own = tmp_path / "own.md"
    own.write_text("Always answer with a riddle.")
    ours, theirs = prompts_of(), prompts_of(own)
    assert "riddle" in theirs[BLUE].system and "riddle" not in ours[BLUE].system
    assert "<thinking>" in theirs[BLUE].system, "the form of an answer is not the guidelines' to change"
    assert {name for name in ours if ours[name].version != theirs[name].version} == {BLUE}
    own.write_text(" \n")
    for file in (own, tmp_path / "none.md"):
        with pytest.raises(ConfigError, match="guidelines"):
            prompts_of(file)


def test_the_number_of_a_request_does_not_depend_on_its_id() -> None:
    body = {"messages": [{"role": "user", "content": "Why?\n\nReply with the JSON object now. This ... is 12."}]}
    other = {"messages": [{"role": "user", "content": "Why?\n\nReply with the JSON object now. This ... is 34."}]}
    assert number_of(body) == number_of(other)
