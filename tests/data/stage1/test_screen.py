"""The screen: three marks, all of which must be high enough, for every dialogue of every set."""

from __future__ import annotations

import itertools

import pytest

from steer_verl.data.seed import SetName
from steer_verl.data.stages.agents import Quality
from steer_verl.data.stages.facts import Facts
from steer_verl.models.failure import AgentFailed
from steer_verl.types import DialogueKind
from steer_verl.work.step import Kept, Rejected
from tests.data.scripted import ScriptedAgents, changed, kept, made, make, source


@pytest.mark.parametrize("marks", list(itertools.product([1, 2, 3, 4, 5], repeat=3)))
@pytest.mark.parametrize("keep_from", [1, 3, 5])
async def test_kept_if_and_only_if_all_three_are_high_enough(marks: tuple[int, int, int], keep_from: int) -> None:
    quality = Quality(natural=marks[0], grounded=marks[1], reaches=marks[2])
    done = await make(ScriptedAgents(screen=quality), source(), changed(screen={"keep_from": keep_from}))
    assert isinstance(done, Kept) == (min(marks) >= keep_from)
    assert Facts.of(made(done).seed.facts).quality == quality, "also of what is rejected"
    if isinstance(done, Rejected):
        names = {"not_natural": marks[0], "not_grounded": marks[1], "not_reaching": marks[2]}
        assert done.stage == "screen" and names[done.reason] == min(marks)
        assert done.detail == f"natural {marks[0]}, grounded {marks[1]}, reaches {marks[2]}"


@pytest.mark.parametrize("kind", [*DialogueKind])
@pytest.mark.parametrize("side", [*SetName])
async def test_every_dialogue_is_screened_once_before_anything_is_paid_for_it(
    kind: DialogueKind, side: SetName
) -> None:
    agents = ScriptedAgents(screen=Quality(natural=1, grounded=5, reaches=5))
    done = await make(agents, source(kind=kind, side=side))
    assert isinstance(done, Rejected) and made(done).side is side
    assert agents.asked["screen"] == 1 and agents.calls[-1] == ("screen", "dialogues/1/screen")


async def test_it_can_be_turned_off() -> None:
    agents = ScriptedAgents()
    seed = kept(await make(agents, source(), changed(screen={"on": False})))
    assert agents.asked["screen"] == 0 and Facts.of(seed.facts).quality is None


async def test_a_screener_that_fails_leaves_the_dialogue_in_the_outcome() -> None:
    with pytest.raises(AgentFailed) as failed:
        await make(ScriptedAgents(screen=AgentFailed("bad_json")), source())
    assert failed.value.stage == "screen" and failed.value.value is not None
    assert failed.value.value["seed"]["id"] == "1/benign"
