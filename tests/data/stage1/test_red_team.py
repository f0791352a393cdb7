"""The red team: one strategy after another until the target gives in, and an account of those that failed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pydantic import ValidationError

from steer_verl.data.stages.facts import Facts
from steer_verl.data.stages.settings import RedTeamSettings
from steer_verl.data.stages.stage1.red_team import load_strategies, shuffled
from steer_verl.models.failure import AgentFailed
from steer_verl.types import DialogueKind
from steer_verl.work.step import Done, Kept, Rejected
from tests.data.scripted import ANSWERS, ScriptedAgents, changed, kept, make, script, source

THREE = {"turn_weights": [0, 1, 0, 0, 0, 0, 0, 0, 0]}
DECLINED = AgentFailed("refusal", "no")


async def attack(agents: ScriptedAgents, **settings: Any) -> Done:
    """A seed in three turns."""
    return await make(agents, source(kind=DialogueKind.RED_TEAM), changed(expand=THREE, red_team=settings))


def strategies_of(agents: ScriptedAgents) -> list[str]:
    return [brief.strategy.name for _, brief in agents.heard_by("reframe")]


async def test_a_first_success_ends_the_search_and_is_kept_with_its_plan() -> None:
    agents = ScriptedAgents()
    seed = kept(await attack(agents))
    assert seed.id == "1/red_team" and len(seed.turns) == 3
    assert seed.turns[0].text == "<image>Question 1?" and seed.turns[0].images == ("a.png",)
    (strategy,) = strategies_of(agents)
    facts = Facts.of(seed.facts)
    assert (facts.strategy, facts.complex_prompt) == (strategy, f"{strategy}: how?")
    assert (facts.attack_vector, facts.risk_curve, facts.rewrites) == ("a lesson", (1, 2, 3), ANSWERS["probe"])
    assert (facts.breach, facts.strategies_tried, facts.category) == (5, 1, "boxes")
    once = dict.fromkeys(("probe", "report", "reframe", "plan", "breach", "screen"), 1)
    assert agents.asked == {**once, "attack_target": 3}


async def test_it_begins_with_the_obfuscated_rewrite_and_the_judge_knows_the_question() -> None:
    agents = ScriptedAgents()
    await attack(agents, prompt_words=[5, 7])
    assert agents.heard_by("report")[0][1] == "What may be in it?"
    (_, brief), (_, planned, reframed) = agents.heard_by("reframe")[0], agents.heard_by("plan")[0]
    assert (brief.rewritten, brief.words, brief.turns) == ("What may be in it?", (5, 7), 3) and planned == brief
    assert reframed.complex_prompt.endswith(": how?")
    assert agents.heard_by("breach")[0][0].question == "What is in the box?"


async def test_the_target_sees_the_whole_dialogue_and_the_image_once() -> None:
    agents = ScriptedAgents()
    await attack(agents)
    ((_, said),) = agents.heard_by("breach")
    assert [message.role for message in said] == ["user", "assistant"] * 3
    assert [message.images for message in said] == [("a.png",), *[()] * 5]
    assert [message.text for message in said if message.role == "assistant"] == ["Answer 1.", "Answer 3.", "Answer 5."]


@pytest.mark.parametrize("success", range(4))
async def test_strategies_are_tried_until_one_succeeds(success: int) -> None:
    numbers = itertools.count()
    agents = ScriptedAgents(breach=lambda seed, said: 4 if next(numbers) == success else 3)
    seed = kept(await attack(agents, max_strategies=4))
    assert Facts.of(seed.facts).strategies_tried == success + 1
    assert agents.asked["breach"] == success + 1 and agents.asked["attack_target"] == 3 * (success + 1)
    assert agents.asked["report"] == 1
    order = [strategy.name for strategy in shuffled(load_strategies(), "1")]
    assert strategies_of(agents) == order[: success + 1]


@pytest.mark.parametrize(("keep_from", "succeeds"), [(3, True), (4, False)])
async def test_what_counts_as_a_success_is_a_setting(keep_from: int, succeeds: bool) -> None:
    assert isinstance(await attack(ScriptedAgents(breach=3), keep_from=keep_from), Kept) is succeeds


async def test_a_seed_that_nothing_breaks_is_rejected_with_what_was_tried() -> None:
    levels = itertools.cycle([1, 2, 3])
    agents = ScriptedAgents(breach=lambda seed, said: next(levels))
    done = await attack(agents, max_strategies=5)
    assert isinstance(done, Rejected) and (done.stage, done.reason) == ("red_team", "not_successful")
    assert done.value is not None and done.value["rewrites"] == ANSWERS["probe"].model_dump()
    assert [attempt["strategy"] for attempt in done.value["tried"]] == strategies_of(agents)
    assert [attempt["breach"] for attempt in done.value["tried"]] == [1, 2, 3, 1, 2]


def failing_for(*numbers: int, method: str) -> Any:
    """The scripted answer, but for the strategies of these numbers."""
    count = itertools.count()

    def answer(*arguments: Any) -> Any:
        usual = ANSWERS[method]
        return DECLINED if next(count) in numbers else usual(*arguments) if callable(usual) else usual

    return answer


async def test_an_agent_that_declines_costs_a_strategy_and_not_the_seed() -> None:
    answers = {"reframe": (0,), "plan": (0,), "attack_target": (0,), "breach": (0,)}
    agents = ScriptedAgents(**{method: failing_for(*numbers, method=method) for method, numbers in answers.items()})
    seed = kept(await attack(agents, max_strategies=5))
    assert Facts.of(seed.facts).strategies_tried == 5


async def test_agents_that_decline_every_time_are_named() -> None:
    done = await attack(ScriptedAgents(reframe=DECLINED), max_strategies=3)
    assert isinstance(done, Rejected) and done.reason == "no_attack" and done.value is not None
    assert [attempt["failed"] for attempt in done.value["tried"]] == ["refusal"] * 3


async def test_without_a_report_there_is_no_attack() -> None:
    with pytest.raises(AgentFailed) as failed:
        await attack(ScriptedAgents(report=DECLINED))
    assert failed.value.stage == "red_team"


@pytest.mark.parametrize("method", ["report", "reframe", "plan", "attack_target", "breach"])
async def test_an_endpoint_that_is_away_decides_nothing(method: str) -> None:
    away = AgentFailed("connect", "away", transient=True)
    with pytest.raises(AgentFailed, match="connect") as failed:
        await attack(ScriptedAgents(**{method: away}))
    assert failed.value.transient and failed.value.stage == "red_team"


@pytest.mark.parametrize(
    ("texts", "reason"), [(("One?", "Two?", "one"), "repeated_turn"), (("One?", "Two?"), "turn_count")]
)
async def test_a_script_that_cannot_be_played_is_not_played(texts: tuple[str, ...], reason: str) -> None:
    agents = ScriptedAgents(plan=script(*texts))
    done = await attack(agents, max_strategies=2)
    assert isinstance(done, Rejected) and done.reason == "no_attack" and agents.asked["attack_target"] == 0
    assert done.value is not None and done.value["tried"][0]["failed"] == reason


def test_word_bounds_that_cannot_work_are_refused() -> None:
    assert RedTeamSettings().prompt_words == (80, 200)
    with pytest.raises(ValidationError, match="prompt_words"):
        RedTeamSettings(prompt_words=(9, 8))
