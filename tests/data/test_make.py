"""The way of a seed, stage by stage, and as a step of the engine."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

import pytest

from steer_verl.data.seed import SetName, SourceSeed
from steer_verl.data.stages.agents import ROLES
from steer_verl.data.stages.endpoint_agents import EndpointAgents
from steer_verl.data.stages.make import MakeStep
from steer_verl.data.stages.settings import StageSettings
from steer_verl.mini.agents import MiniAgents
from steer_verl.mini.world import Scene
from steer_verl.models.cache import ReplyCache
from steer_verl.types import DialogueKind
from steer_verl.work.job import Job
from steer_verl.work.manifest import StepAccount
from steer_verl.work.outcomes import read_outcomes
from steer_verl.work.run import run
from steer_verl.work.step import Kept, Rejected, WorkSettings
from tests.data.role_server import RoleServer, endpoint
from tests.data.samples import picture
from tests.data.scripted import TWO, ScriptedAgents, changed, kept, made, make, source
from tests.mini.twin import STAGES

SHORT = changed(expand={"turn_weights": TWO})
FIRST = {
    DialogueKind.BENIGN: ["probe", "expand", "screen"],
    DialogueKind.OBFUSCATED: ["probe", "expand", "screen"],
    DialogueKind.RED_TEAM: ["probe", "report", "reframe", "plan", "attack_target", "attack_target", "breach", "screen"],
}
THEN = {
    SetName.BENCH: [],
    SetName.RL: ["risk_alone", "risk_whole"],
    SetName.SFT: ["red_user", "blue_expert", "evaluate"] * 2,
}


@pytest.mark.parametrize("kind", [*DialogueKind])
@pytest.mark.parametrize("side", [*SetName])
async def test_every_kind_takes_its_way_to_every_set(kind: DialogueKind, side: SetName) -> None:
    agents = ScriptedAgents()
    done = await make(agents, source(kind=kind, side=side), SHORT)
    benign_rl = side is SetName.RL and kind is DialogueKind.BENIGN
    assert [method for method, _ in agents.calls] == FIRST[kind] + ([] if benign_rl else THEN[side])
    places = [place for _, place in agents.calls]
    assert len(set(places)) == len(places) and all(place.startswith("dialogues/1/") for place in places)
    value = made(done)
    assert value.side is side and kept(done).kind is kind and (value.trajectory is not None) == (side is SetName.SFT)


async def test_the_step_closes_its_agents() -> None:
    agents = ScriptedAgents()
    await MakeStep(agents, SHORT, Path()).close()
    assert agents.closed


# ----- on the engine


def mini_seeds(count: int) -> Iterable[SourceSeed]:
    for number in range(count):
        sealed = number % 2
        scene = Scene("red", "circle", 5, 6, 60, 0) if sealed else Scene("green", "square", 5, 6, 60, 0)
        attacks = [DialogueKind.OBFUSCATED, DialogueKind.RED_TEAM]
        kind = attacks[number % 4 // 2] if sealed else DialogueKind.BENIGN
        question, side = "How do I open it, step by step?", [*SetName][number % 3]
        yield source(f"{number:024x}", question=question, facts=scene.facts(), kind=kind, side=side)


def mini_step(processes: int, cache: ReplyCache) -> MakeStep:
    return MakeStep(MiniAgents(), STAGES, Path())


def worked(folder: Path, shards: int) -> tuple[StepAccount, dict[str, object]]:
    settings = WorkSettings(shards=shards, in_flight=4)
    account = run(Job("dialogues", folder, mini_step, functools.partial(mini_seeds, 60), settings), {"a": 1})
    return account, {outcome.id: outcome.done for outcome in read_outcomes(folder)}


def test_what_is_made_does_not_depend_on_the_shards(tmp_path: Path) -> None:
    first, one = worked(tmp_path / "1", 1)
    again, five = worked(tmp_path / "5", 5)
    assert one == five and len(one) == 60 and first.kept == again.kept
    rejected = [done for done in one.values() if isinstance(done, Rejected)]
    assert first.stages == {"select": {"risky_alone": len(rejected)}} and rejected
    kept = sum(isinstance(outcome.done, Kept) for outcome in read_outcomes(tmp_path / "5"))
    assert kept == first.kept == 60 - len(rejected)


def asking_step(images: Path, url: str, processes: int, cache: ReplyCache) -> MakeStep:
    class Server:
        base_url = url

    config = endpoint(Server())  # type: ignore[arg-type]
    settings = StageSettings.model_validate({"perturb": {"share": 1}, "expand": {"turn_weights": TWO}})
    return MakeStep(EndpointAgents(dict.fromkeys(ROLES, config), images, cache=cache), settings, images)


def asking_seeds() -> Iterable[SourceSeed]:
    for number in range(9):
        yield source(str(number), kind=[*DialogueKind][number % 3], side=[*SetName][number // 3])


def test_work_that_is_done_anew_is_replayed_from_the_replies_that_were_kept(tmp_path: Path) -> None:
    """Also where images are perturbed and answers would differ: nothing is asked twice, refusals included."""
    picture(tmp_path / "images" / "a.png", (200, 100))
    server = RoleServer(level=lambda _: 5, refusing=["red_user"])
    with server.in_thread():
        step = functools.partial(asking_step, tmp_path / "images", server.base_url)
        job = Job("dialogues", tmp_path / "work", step, asking_seeds, WorkSettings(shards=2, in_flight=3))
        first = run(job, {"a": 1})
        before, requests = {o.id: o.done for o in read_outcomes(job.folder)}, server.requests
        again = run(job, {"a": 2}, accept_changes=True)
        assert server.requests == requests > 40 and again.kept == first.kept == 9
        assert {o.id: o.done for o in read_outcomes(job.folder)} == before
        assert all(isinstance(done, Kept) for done in before.values())
