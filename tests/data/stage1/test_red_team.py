"""The red team: one strategy after another until the target gives in, and an account of those that failed."""

from __future__ import annotations

import pytest

from steer_verl.data.stage1.red_team import RedTeamStep
from steer_verl.data.stage1.settings import RedTeamSettings
from steer_verl.data.stage1.strategies import load_strategies, shuffled
from steer_verl.models.failure import AgentFailed
from steer_verl.types import Seed
from steer_verl.work.step import Kept, Rejected
from tests.data.desks import MemoryDesk
from tests.data.stage1.agents import Crew, source


def step(crew: Crew, **settings: int) -> RedTeamStep:
    """The step with one crew for all parts."""
    return RedTeamStep(crew, crew, crew, RedTeamSettings(**settings))


async def test_a_first_success_ends_the_search_and_is_kept_with_its_plan() -> None:
    crew = Crew()
    done = await step(crew).work(source(), MemoryDesk())
    assert isinstance(done, Kept)
    seed = Seed.model_validate(done.value, strict=False)
    assert seed.id == "look-alikes:1/red_team" and len(seed.turns) == 3
    assert seed.turns[0].text == "<image>What is this?" and seed.turns[0].images == ("a.png",)
    (strategy,) = crew.strategies
    assert seed.facts["strategy"] == strategy and seed.facts["rewrite"] == f"{strategy}: how?"
    assert seed.facts["attack_vector"] == "a lesson" and seed.facts["risk_curve"] == [1, 2, 3]
    assert (seed.facts["breach"], seed.facts["strategies_tried"], seed.facts["category"]) == (5, 1, "boxes")
    assert crew.calls == {"analyse": 1, "reframe": 1, "plan": 1, "answer": 3, "breach": 1}


async def test_the_target_sees_the_whole_dialogue_and_the_picture_once() -> None:
    crew = Crew()
    await step(crew).work(source(), MemoryDesk())
    (said,) = crew.said
    assert [message.role for message in said] == ["user", "assistant"] * 3
    assert [message.images for message in said] == [("a.png",), *[()] * 5]
    assert [message.text for message in said if message.role == "assistant"] == ["Answer 1.", "Answer 3.", "Answer 5."]


@pytest.mark.parametrize("success", range(4))
async def test_strategies_are_tried_until_one_succeeds(success: int) -> None:
    crew = Crew(level=lambda number: 4 if number == success else 3)
    done = await step(crew, max_strategies=4).work(source(), MemoryDesk())
    assert isinstance(done, Kept) and done.value["facts"]["strategies_tried"] == success + 1
    assert crew.calls["breach"] == success + 1 and crew.calls["answer"] == 3 * (success + 1)
    assert crew.calls["analyse"] == 1
    order = [strategy.name for strategy in shuffled(load_strategies(), "look-alikes:1")]
    assert crew.strategies == order[: success + 1]


@pytest.mark.parametrize(("keep_from", "kept"), [(3, True), (4, False)])
async def test_what_counts_as_a_success_is_a_setting(keep_from: int, kept: bool) -> None:
    done = await step(Crew(level=lambda _: 3), keep_from=keep_from).work(source(), MemoryDesk())
    assert isinstance(done, Kept) is kept


async def test_a_seed_that_nothing_breaks_is_rejected_with_what_was_tried() -> None:
    crew = Crew(level=lambda number: 1 + number % 3)
    done = await step(crew, max_strategies=5).work(source(), MemoryDesk())
    assert isinstance(done, Rejected) and done.reason == "not_successful" and done.value is not None
    assert [attempt["strategy"] for attempt in done.value["tried"]] == crew.strategies
    assert [attempt["breach"] for attempt in done.value["tried"]] == [1, 2, 3, 1, 2]


async def test_an_agent_that_declines_costs_a_strategy_and_not_the_seed() -> None:
    declined = AgentFailed("refusal", "no")
    crew = Crew(failing={("reframe", 0): declined, ("plan", 1): declined, ("answer", 2): declined})
    done = await step(crew).work(source(), MemoryDesk())
    assert isinstance(done, Kept) and done.value["facts"]["strategies_tried"] == 4


async def test_agents_that_decline_every_time_are_named() -> None:
    crew = Crew(failing={("reframe", n): AgentFailed("refusal", "no") for n in range(3)})
    done = await step(crew, max_strategies=3).work(source(), MemoryDesk())
    assert isinstance(done, Rejected) and done.reason == "no_attack" and done.value is not None
    assert [attempt["failed"] for attempt in done.value["tried"]] == ["refusal"] * 3


@pytest.mark.parametrize("method", ["analyse", "reframe", "plan", "answer", "breach"])
async def test_an_endpoint_that_is_away_decides_nothing(method: str) -> None:
    away = AgentFailed("connect", "away", transient=True)
    crew = Crew(failing={(method, number): away for number in (-1, 0)})
    with pytest.raises(AgentFailed, match="connect"):
        await step(crew).work(source(), MemoryDesk())


async def test_a_script_that_cannot_be_played_is_not_played() -> None:
    crew = Crew(script=("What is this?", "what is THIS"))
    done = await step(crew, max_strategies=2).work(source(), MemoryDesk())
    assert isinstance(done, Rejected) and done.reason == "no_attack" and crew.calls["answer"] == 0
    assert done.value is not None and done.value["tried"][0]["failed"] == "repeated_turn"
