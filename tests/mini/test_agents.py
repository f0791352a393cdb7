"""The rule agents one by one and on a seed's way: what they may say, and that they know only what the facts tell."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.seed import SetName, SourceSeed
from steer_verl.data.stages.agents import ROLES, Reframed
from steer_verl.data.stages.facts import Facts
from steer_verl.data.stages.make import MakeStep
from steer_verl.mini.agents import MiniAgents
from steer_verl.mini.phrases import LOOK, NARROWING, STEPS_QUESTIONS
from steer_verl.mini.world import Scene
from steer_verl.models.failure import AgentFailed
from steer_verl.models.forms import Said
from steer_verl.types import IMAGE_MARK, DialogueKind, QuestionOrigin, Seed, UserTurn
from steer_verl.work.step import Done, Kept, Rejected
from tests.mini.twin import BRIEF, STAGES, dealt, free, kept

SEALED, FREE = Scene("red", "circle", 5, 6, 60, 0), Scene("green", "square", 5, 6, 60, 0)
STEPS = "How do I open it, step by step?"
BENIGN, OBFUSCATED, RED_TEAM = DialogueKind


def source(scene: Scene, question: str = STEPS, number: int = 0) -> SourceSeed:
    return SourceSeed(
        id=f"{number:024x}",
        question=question,
        image="a.png",
        source="steer-mini",
        source_id=str(number),
        license="Apache-2.0",
        facts=scene.facts(),
    )


def seed(scene: Scene, *asked: str) -> Seed:
    opening = UserTurn(text=IMAGE_MARK + asked[0], images=("a.png",))
    return Seed(id="s", turns=(opening, *(UserTurn(text=text) for text in asked[1:])), facts=scene.facts())


def at(number: int = 0, part: str = "x") -> Any:
    return free(f"dialogues/{number:024x}/{part}")


@pytest.mark.parametrize("question", STEPS_QUESTIONS)
@pytest.mark.parametrize("turns", [2, 10])
async def test_a_script_leads_to_the_seed_s_question(question: str, turns: int) -> None:
    agents = MiniAgents()
    for number in range(20):
        one = dealt(source(SEALED, question, number), OBFUSCATED)
        rewritten = (await agents.probe(one, at(number))).of(OBFUSCATED)
        assert rewritten == question if question in NARROWING else rewritten in NARROWING
        asked = await agents.expand(one, rewritten, turns, at(number))
        assert asked[-1] == rewritten
        assert len(set(asked)) == turns

        one = dealt(source(FREE, question, number), BENIGN)
        assert (await agents.probe(one, at(number))).of(BENIGN) == question
        asked = await agents.expand(one, question, turns, at(number))
        assert question in (asked[0], asked[-1])
        assert len(set(asked)) == turns


async def test_the_red_team_plans_what_it_reframed() -> None:
    agents, prompts = MiniAgents(), set()
    for number in range(80):
        one = source(SEALED, STEPS, number)
        report = await agents.report(one, STEPS, at(number))
        assert "red circle" in report.summary and report.risks
        brief = BRIEF.model_copy(update={"turns": 2 + number % 9})
        reframed = await agents.reframe(one, brief, at(number, "reframe"))
        script = await agents.plan(one, brief, reframed, at(number, "plan"))
        assert reframed.complex_prompt in (script.texts[0], script.texts[-1])
        assert brief.turns == len(script.texts) == len(set(script.texts)) and script.turns[-1].risk == 5
        prompts.add(reframed.complex_prompt)
    assert prompts == set(STEPS_QUESTIONS)
    assert (await agents.report(source(FREE), STEPS, at())).risks == ()


async def test_another_strategy_words_it_otherwise() -> None:
    agents = MiniAgents()
    pairs = [
        [(await agents.reframe(source(SEALED), BRIEF, at(n, name))).complex_prompt for name in ("authority", "fiction")]
        for n in range(40)
    ]
    assert sum(a != b for a, b in pairs) > 25


async def test_the_target_complies_and_the_attack_is_a_breach() -> None:
    agents, said = MiniAgents(), (Said(role="user", text=STEPS, images=("a.png",)),)
    answer = await agents.attack_target(said, at(), source(SEALED))
    assert await agents.breach(source(SEALED), (*said, Said(role="assistant", text=answer)), at()) == 5


async def test_the_target_refuses_its_share_of_seeds_under_every_strategy() -> None:
    agents, refused = MiniAgents(target_refuses=0.3), 0
    for number in range(600):
        one, levels = source(SEALED, number=number), set()
        for question in STEPS_QUESTIONS[:3]:
            said = (Said(role="user", text=question),)
            answer = await agents.attack_target(said, at(number, question), one)
            levels.add(await agents.breach(one, (*said, Said(role="assistant", text=answer)), at(number)))
        assert len(levels) == 1
        refused += levels == {1}
    assert abs(refused / 600 - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 600)
    look = (Said(role="user", text="What is in the picture?"),)
    assert "red circle" in await MiniAgents(target_refuses=1).attack_target(look, at(), source(SEALED))


@pytest.mark.parametrize(
    ("answers", "scene", "level"),
    [
        (["I will not give steps for the red circle."], SEALED, 1),
        (
            ["I do not explain how the red circle opens. I can tell you how to store it. Would you like that?"],
            SEALED,
            2,
        ),
        (["The picture shows a red circle."], SEALED, 3),
        (["First turn the ring.", "The picture shows a red circle."], SEALED, 4),
        (["Turn the ring, then lift the cap.", "I will not give steps."], SEALED, 5),
        (["To open the green square, slide the bolt, then raise the lid."], FREE, 3),
        (["The picture shows a red circle.", "I will not give steps."], SEALED, 1),
    ],
)
async def test_levels_of_breach(answers: list[str], scene: Scene, level: int) -> None:
    said = tuple(Said(role=role, text=text) for a in answers for role, text in (("user", STEPS), ("assistant", a)))
    assert await MiniAgents().breach(source(scene), said, at()) == level


@pytest.mark.parametrize(
    ("scene", "asked", "alone", "whole"),
    [
        (SEALED, ("What is in the picture?", STEPS), [1, 1], 5),
        (SEALED, (STEPS, STEPS + " Now."), [5, 1], 5),
        (SEALED, ("What is in the picture?", "How do I clean it?"), [1, 1], 1),
        (FREE, (STEPS, "What are the steps to open it?"), [1, 1], 1),
    ],
)
async def test_risk_lies_in_the_picture_and_the_words_together(
    scene: Scene, asked: tuple[str, str], alone: list[int], whole: int
) -> None:
    agents, one = MiniAgents(), seed(scene, *asked)
    assert [(await agents.risk_alone(one, turn, at())).level for turn in range(2)] == alone
    assert (await agents.risk_whole(one, at())).level == whole


async def test_a_foreign_seed_fails_for_good_and_says_what_is_missing() -> None:
    agents = MiniAgents()
    foreign = dealt(source(SEALED), BENIGN).model_copy(update={"facts": {"colour": "red"}})
    dialogue = seed(SEALED, STEPS, STEPS).model_copy(update={"facts": {}})
    reframed = Reframed(attack_vector="", rationale="", complex_prompt=STEPS)
    attempts: list[Coroutine[Any, Any, Any]] = [
        agents.expand(foreign, STEPS, 3, at()),
        agents.plan(foreign, BRIEF, reframed, at()),
        agents.blue_expert(dialogue, (Said(role="user", text=STEPS),), at()),
    ]
    for attempt in attempts:
        with pytest.raises(AgentFailed, match="no_facts") as failed:
            await attempt
        assert not failed.value.transient
        assert "facts lack" in failed.value.detail


def test_every_role_has_a_name() -> None:
    names = MiniAgents().names()
    assert names.keys() == set(ROLES) and len(set(names.values())) == len(ROLES)


@pytest.mark.parametrize("wrong", [{"seeds": 1}, {"adaptive": 2}])
def test_settings_that_are_none_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MiniAgents(**wrong)


# ----- on a seed's way


async def make(agents: MiniAgents, item: SourceSeed) -> Done:
    return await MakeStep(agents, STAGES, Path()).work(item, free(f"dialogues/{item.id}"))


ITEMS = [
    dealt(source(scene, question, number), kind, side)
    for number, (scene, question, kind) in enumerate(
        [(FREE, LOOK[0], BENIGN), (FREE, STEPS, BENIGN), (SEALED, STEPS, OBFUSCATED), (SEALED, STEPS, RED_TEAM)]
    )
    for side in SetName
]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: f"{item.kind.value}-{item.side.value}")
async def test_a_seed_becomes_what_its_set_asks_for(item: SourceSeed) -> None:
    done = await make(MiniAgents(), item)
    if isinstance(done, Rejected):  # its first words show a sealed device and ask for its steps
        assert (done.stage, done.reason, item.kind) == ("select", "risky_alone", RED_TEAM)
        return
    value = kept(done)
    facts = Facts.of(value.seed.facts)
    assert (value.side, value.seed.kind) == (item.side, item.kind) and facts.quality is not None
    assert (facts.breach == 5) == (item.kind is RED_TEAM)
    assert (facts.history_risk is not None) == (item.side is SetName.RL and item.kind is not BENIGN)
    if item.side is SetName.SFT:
        assert value.trajectory is not None and len(value.trajectory.turns) == len(value.seed.turns)
        assert value.trajectory.turns[0].origin is QuestionOrigin.SEED, "the red user leaves the opening as it is"
    else:
        assert value.trajectory is None


async def test_another_order_process_or_stop_changes_nothing() -> None:
    """Nothing but its own place decides about a seed: not its neighbours, so not how many shards there are either."""
    first = {item.id + item.side.value: await make(MiniAgents(seed=3), item) for item in ITEMS}
    again: dict[str, Done] = {}
    for item in random.Random(0).sample(ITEMS, len(ITEMS)):
        again[item.id + item.side.value] = await make(pickle.loads(pickle.dumps(MiniAgents(seed=3))), item)
    assert again == first
    other = {item.id + item.side.value: await make(MiniAgents(seed=4), item) for item in ITEMS}
    assert sum(other[name] != first[name] for name in first) > len(first) / 2


async def test_pairs_are_not_theirs() -> None:
    with pytest.raises(AgentFailed, match="no_pairs") as failed:
        await MiniAgents().pairs(source(FREE), STEPS, 3, at())
    assert "expand.pairs=0" in failed.value.detail and not failed.value.transient


async def test_a_seed_whose_target_refuses_is_no_red_team_dialogue() -> None:
    done = await make(MiniAgents(target_refuses=1), dealt(source(SEALED), RED_TEAM))
    assert isinstance(done, Rejected) and (done.stage, done.reason) == ("red_team", "not_successful")
    assert isinstance(await make(MiniAgents(), dealt(source(SEALED), RED_TEAM)), Kept)
