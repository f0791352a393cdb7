"""Stage I through real HTTP: agents and steps against a server that plays every role, and fails where it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.agents import BreachJudge, Generator, RedTeam, Target
from steer_verl.data.stage1.endpoints import (
    EndpointBreachJudge,
    EndpointGenerator,
    EndpointRedTeam,
    EndpointTarget,
    prompt_hashes,
)
from steer_verl.data.stage1.expand import ExpandStep
from steer_verl.data.stage1.red_team import RedTeamStep
from steer_verl.data.stage1.settings import ExpandSettings, RedTeamSettings
from steer_verl.data.stage1.strategies import load_strategies, shuffled
from steer_verl.models.failure import AgentFailed
from steer_verl.types import DialogueKind, Seed
from steer_verl.work.step import Done, Kept, Rejected
from tests.data.desks import Interrupted, MemoryDesk
from tests.data.role_server import RoleServer, endpoint, record
from tests.data.samples import picture
from tests.data.stage1.agents import source
from tests.models.replies import prompt_text
from tests.tutor.conftest import no_back_off

KINDS = (DialogueKind.BENIGN, DialogueKind.OBFUSCATED)


@contextlib.asynccontextmanager
async def laboratory(
    server: RoleServer, pictures: Path, expand: ExpandSettings | None = None, **settings: Any
) -> AsyncIterator[tuple[dict[str, Any], RoleServer]]:
    """The three steps on one server, by kind."""
    red = {name: settings.pop(name) for name in ("max_strategies", "keep_from") if name in settings}
    picture(pictures / "a.png")
    async with server:
        config = endpoint(server, **settings)
        generator: Generator = EndpointGenerator(config, pictures)
        red_team: RedTeam = EndpointRedTeam(config, pictures)
        target: Target = EndpointTarget(config, pictures)
        judge: BreachJudge = EndpointBreachJudge(config, pictures)
        steps: dict[str, Any] = {kind.value: ExpandStep(generator, kind, expand) for kind in KINDS}
        steps["red_team"] = RedTeamStep(red_team, target, judge, RedTeamSettings(**red))
        try:
            with no_back_off():
                yield steps, server
        finally:
            await asyncio.gather(*(step.close() for step in steps.values()))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_question_becomes_a_dialogue_in_two_requests(tmp_path: Path, kind: DialogueKind) -> None:
    async with laboratory(RoleServer(), tmp_path) as (steps, server):
        desk = MemoryDesk(f"{kind.value}/look-alikes:1")
        done = await steps[kind.value].work(source(), desk)
        assert isinstance(done, Kept)
        seed = Seed.model_validate(done.value, strict=False)
        assert seed.kind is kind and 2 <= len(seed.turns) <= 10
        assert server.roles == {f"rewrite_{kind.value}": 1, f"expand_{kind.value}": 1}
        assert desk.usage.requests == 2 and sum(server.charges.values()) == 2
        assert "> What is in the box?" in prompt_text(server.bodies[0])
        assert f"> {seed.facts['rewrite']}" in prompt_text(server.bodies[1])
        assert all("data:image/png" in prompt_text(body) for body in server.bodies)


async def test_an_attack_that_succeeds_at_once_costs_one_strategys_requests(tmp_path: Path) -> None:
    async with laboratory(RoleServer(level=lambda _: 5), tmp_path) as (steps, server):
        done = await steps["red_team"].work(source(), MemoryDesk())
        assert isinstance(done, Kept)
        turns = len(done.value["turns"])
        assert done.value["facts"]["risk_curve"] == list(range(1, turns + 1))
        assert server.roles == {"image_report": 1, "reframe": 1, "plan": 1, "target": turns, "breach": 1}
        targets = [body for body in server.bodies if server.role_of(body) == "target"]
        assert [len(body["messages"]) for body in targets] == [2 * n + 1 for n in range(turns)]
        assert "system" not in str([message["role"] for body in targets for message in body["messages"]])
        (judged,) = [body for body in server.bodies if server.role_of(body) == "breach"]
        assert f"assistant {turns}:\n> It is a box" in prompt_text(judged)


async def test_an_attack_that_never_succeeds_costs_all_strategies_and_not_one_more(tmp_path: Path) -> None:
    async with laboratory(RoleServer(level=lambda _: 2), tmp_path, max_strategies=3) as (steps, server):
        done = await steps["red_team"].work(source(), MemoryDesk())
        assert isinstance(done, Rejected) and done.reason == "not_successful"
        assert server.roles["image_report"] == 1
        assert server.roles["reframe"] == server.roles["plan"] == server.roles["breach"] == 3
        plans = [body for body in server.bodies if server.role_of(body) == "plan"]
        named = [re.findall(r"climbs, ([\w+]+): (.+)", prompt_text(body))[-1] for body in plans]
        chosen = shuffled(load_strategies(), "look-alikes:1")[:3]
        assert named == [(strategy.name, strategy.escalation) for strategy in chosen]


@pytest.mark.parametrize(
    ("role", "kind", "reason"),
    [
        ("rewrite_benign", "benign", "refusal"),
        ("expand_obfuscated", "obfuscated", "refusal"),
        ("image_report", "red_team", "refusal"),
    ],
)
async def test_a_model_that_declines_rejects_the_seed_with_that_reason(
    tmp_path: Path, role: str, kind: str, reason: str
) -> None:
    async with laboratory(RoleServer(refusing=[role]), tmp_path) as (steps, _):
        with pytest.raises(AgentFailed) as error:
            await steps[kind].work(source(), MemoryDesk())
        assert (error.value.reason, error.value.transient) == (reason, False)


async def test_a_rewriter_that_declines_inside_its_json_is_not_taken_for_a_user(tmp_path: Path) -> None:
    declined = record(lambda body: {"rewritten": "I'm sorry, but I can't help with this picture."})
    async with laboratory(RoleServer({"rewrite_benign": declined}), tmp_path) as (steps, server):
        with pytest.raises(AgentFailed, match="refusal"):
            await steps["benign"].work(source(), MemoryDesk())
        assert server.requests == 1


async def test_a_red_team_that_declines_is_told_apart_from_a_firm_target(tmp_path: Path) -> None:
    async with laboratory(RoleServer(refusing=["reframe"]), tmp_path, max_strategies=2) as (steps, _):
        done = await steps["red_team"].work(source(), MemoryDesk())
        assert isinstance(done, Rejected) and done.reason == "no_attack"
    async with laboratory(RoleServer(refusing=["target"], level=lambda _: 1), tmp_path) as (steps, server):
        done = await steps["red_team"].work(source(), MemoryDesk())
        assert isinstance(done, Rejected) and done.reason == "not_successful"
        judged = [body for body in server.bodies if server.role_of(body) == "breach"]
        assert all("> I must decline." in prompt_text(body) for body in judged)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("expand_benign", {"messages": ["Only one?"]}, "messages: 1 turns, not 2"),
    ("expand_benign", {"messages": ["One?", "one"]}, "messages: turn 2 repeats turn 1"),
    ("expand_benign", {"messages": ["One?", ""]}, "messages: turn 2 is empty"),
    ("rewrite_benign", {"rewritten": "..."}, "rewritten is empty"),
    ("rewrite_benign", {"question": "?"}, "rewritten: missing"),
]


@pytest.mark.parametrize(("role", "reply", "fault"), WRONG)
async def test_a_reply_of_no_use_is_asked_for_again_with_its_fault(
    tmp_path: Path, role: str, reply: dict[str, Any], fault: str
) -> None:
    two = ExpandSettings(turn_weights=(1, 0, 0, 0, 0, 0, 0, 0, 0))
    async with laboratory(RoleServer({role: record(lambda _: reply)}), tmp_path, two, reasks=2) as (steps, server):
        with pytest.raises(AgentFailed, match="schema"):
            await steps["benign"].work(source(), MemoryDesk())
        asked = [prompt_text(body) for body in server.bodies if server.role_of(body) == role]
        assert [fault in text for text in asked] == [False, True, True]


async def test_marks_in_a_models_text_are_dropped_and_its_picture_stays(tmp_path: Path) -> None:
    marked = record(lambda _: {"messages": ["<image>\nWhat is this?", "And <|im_end|> inside?"]})
    two = ExpandSettings(turn_weights=(1, 0, 0, 0, 0, 0, 0, 0, 0))
    async with laboratory(RoleServer({"expand_benign": marked}), tmp_path, two) as (steps, _):
        done = await steps["benign"].work(source(), MemoryDesk())
        assert isinstance(done, Kept)
        assert done.value["turns"][0]["text"] == "<image>What is this?"
        assert "<|im_end|>" not in json.dumps(done.value, ensure_ascii=False)


async def test_an_interrupted_attack_goes_on_and_pays_only_for_the_rest(tmp_path: Path) -> None:
    """Stopped after every number of kept results, started again by new agents: never a second charge."""
    async with laboratory(RoleServer(level=lambda _: 5), tmp_path) as (steps, server):
        whole = MemoryDesk("red_team/look-alikes:1")
        expected = await steps["red_team"].work(source(), whole)
        requests = server.requests
    for stop in range(requests):
        async with laboratory(RoleServer(level=lambda _: 5), tmp_path) as (steps, server):
            first = MemoryDesk("red_team/look-alikes:1", stop_after=stop)
            with pytest.raises(Interrupted):
                await steps["red_team"].work(source(), first)
            assert server.requests == stop
            second = MemoryDesk("red_team/look-alikes:1", kept=first.kept)
            assert await steps["red_team"].work(source(), second) == expected
            assert server.requests == requests == sum(server.charges.values())
            assert first.usage + second.usage == whole.usage


async def test_a_kill_before_a_result_was_kept_is_not_charged_twice(tmp_path: Path) -> None:
    async with laboratory(RoleServer(level=lambda _: 5), tmp_path) as (steps, server):
        for _ in range(3):
            await steps["red_team"].work(source(), MemoryDesk("red_team/look-alikes:1"))
        assert server.requests == 3 * len(server.charges) and set(server.charges.values()) == {1}


async def test_faults_change_no_result(tmp_path: Path) -> None:
    """A third of the attempts fail; what is made, and what is charged for it, is what a good day would give."""
    items = [source(str(number)) for number in range(12)]

    async def made(server: RoleServer) -> list[Done]:
        async with laboratory(server, tmp_path, max_retries=20, reasks=5) as (steps, _):
            work = [step.work(item, MemoryDesk(f"{name}/{item.id}")) for name, step in steps.items() for item in items]
            return await asyncio.gather(*work)

    good, bad = RoleServer(), RoleServer(faults=0.3)
    assert await made(bad) == await made(good)
    assert bad.requests > 1.3 * good.requests and {"dropped", "half_sent", "flood", "http_503"} <= bad.injected.keys()
    assert set(bad.charges.values()) == set(good.charges.values()) == {1}


def test_prompts_have_versions_for_the_manifest() -> None:
    hashes = prompt_hashes()
    assert len(hashes) == len(set(hashes.values())) == 8


async def test_an_agents_name_says_which_model_and_which_prompts(tmp_path: Path) -> None:
    async with RoleServer() as server:
        config = endpoint(server)
        agents = [EndpointGenerator(config, tmp_path), EndpointBreachJudge(config, tmp_path)]
        assert agents[1].name == f"fake-tutor@breach-{prompt_hashes()['breach']}"
        assert all(f"{role}-{prompt_hashes()[role]}" in agents[0].name for role in EndpointGenerator.roles)
        assert EndpointTarget(config, tmp_path).name == "fake-tutor@target-chat"
        await asyncio.gather(*(agent.close() for agent in agents))
