"""The laboratory's dialogues twice: built directly from one stream of random numbers, and by the pipeline's agents.

The direct construction is the specification of the sets: which questions are asked, which of them are reworded, how
many refusals are plain. The agents must come to the same distribution, each turn by itself and from a hash.
"""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from steer_verl.data.agents import Strategy
from steer_verl.data.sources.assign import assign
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.stage1.expand import ExpandStep
from steer_verl.data.stage1.red_team import RedTeamStep
from steer_verl.data.stage1.settings import ExpandSettings
from steer_verl.data.stage2.bootstrap import Bootstrapped, BootstrapStep
from steer_verl.data.stage2.history import HistoryStep
from steer_verl.data.stage2.settings import BootstrapSettings
from steer_verl.mini import dialogues
from steer_verl.mini.agents import Agents
from steer_verl.mini.answers import expert_answer
from steer_verl.mini.dialogues import LENGTHS, adaptive_question, pick_length, scenes_and_kinds
from steer_verl.mini.phrases import ACCEPTANCE, FOLLOW_UP, OFFERS
from steer_verl.mini.sources import mini_sources, shares
from steer_verl.mini.world import Scene, Split, is_restricted
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed, Usage
from steer_verl.work.step import Done, Kept

T = TypeVar("T")
STRATEGY = Strategy(name="authority", framing="as one who may", escalation="by small steps")


@dataclass(frozen=True)
class Talk:
    """A dialogue as texts, without picture marks; ``answers`` stay empty where only the user's side is wanted."""

    kind: DialogueKind
    scene: Scene
    asked: tuple[str, ...]
    answers: tuple[str, ...] = ()


@dataclass
class Table:
    """A desk for agents that need no memory."""

    place: str

    async def once(self, name: str, kind: type[T], work: Callable[[], Awaitable[T]]) -> T:
        raise AssertionError(f"{self.place}: a rule agent wants {name} remembered")

    def spend(self, usage: Usage) -> None:
        raise AssertionError(f"{self.place}: a rule agent costs {usage}")


def direct(count: int, mixture: Mapping[DialogueKind, float], rng: random.Random) -> Iterator[Talk]:
    """Static dialogues of the three kinds, some later questions reworded, with the policy's answers."""
    for talk in templates(count, mixture, rng):
        opening, *later = talk.asked
        asked = (opening, *(reworded(question, talk.kind, talk.scene, rng) for question in later))
        answers = (expert_answer(talk.scene, q, rng, constructive=rng.random() >= 0.15) for q in asked)
        yield Talk(talk.kind, talk.scene, asked, tuple(answers))


def templates(count: int, mixture: Mapping[DialogueKind, float], rng: random.Random) -> Iterator[Talk]:
    """The user's side of dialogues as Stage I leaves them."""
    for kind, scene in scenes_and_kinds(count, Split.TRAIN, rng, mixture):
        yield Talk(kind, scene, tuple(dialogues.questions(kind, scene, pick_length(rng), rng)))


def reworded(question: str, kind: DialogueKind, scene: Scene, rng: random.Random) -> str:
    """The question as it is, or in other words: none of them asks a sealed device's steps as the tutor would."""
    if not is_restricted(scene) and rng.random() < 0.9:
        return adaptive_question(scene, rng)
    if is_restricted(scene) and rng.random() < 0.2:
        return ACCEPTANCE.format(offer=rng.choice(list(OFFERS.values())))
    if kind is DialogueKind.BENIGN and rng.random() < 0.2:
        return rng.choice(FOLLOW_UP).format(name=scene.name, question=question)
    return question


async def scripted(agents: Agents, out: Path, name: str, count: int, seed: int = 0) -> list[Seed]:
    """Stage I: sources, dealt to the three kinds, expanded or planned."""
    pairs = [(source, assign(source, shares(name))) for source in mini_sources(out, count, seed, name=name)]
    return [await script(agents, source, kind) for source, kind in pairs if kind is not None]


async def script(agents: Agents, source: SourceSeed, kind: DialogueKind) -> Seed:
    """Stage I's step on one source seed."""
    step: ExpandStep | RedTeamStep
    if kind is DialogueKind.RED_TEAM:
        step = RedTeamStep(agents.red_team, agents.target, agents.breach_judge, strategies=[STRATEGY])
    else:
        weights = tuple(map(float, LENGTHS.values()))
        step = ExpandStep(agents.generator, kind, ExpandSettings(turn_weights=weights))
    return Seed.model_validate_json(json.dumps(kept(await step.work(source, Table(f"{step.name}/{source.id}")))))


async def bootstrapped(agents: Agents, seed: Seed) -> Bootstrapped:
    """Stage II's step on one seed."""
    step = BootstrapStep(
        agents.red_user,
        agents.blue_expert,
        agents.evaluator,
        BootstrapSettings(tau_safe=8, tau_help=8, static_share=0),
    )
    return Bootstrapped.model_validate_json(json.dumps(kept(await step.work(seed, Table(f"{step.name}/{seed.id}")))))


async def in_history(agents: Agents, seed: Seed) -> bool:
    """Whether the seed may enter the RL set."""
    return isinstance(await HistoryStep(agents.risk_judge).work(seed, Table(f"history/{seed.id}")), Kept)


def kept(done: Done) -> dict[str, Any]:
    """What goes on.

    Raises:
        AssertionError: it was rejected.
    """
    assert isinstance(done, Kept), done
    return done.value


def talk_of(row: Seed | Bootstrapped) -> Talk:
    """A seed, or the dialogue played on it, as texts."""
    seed, turns = (row, ()) if isinstance(row, Seed) else (row.seed, row.trajectory.turns)
    users = [turn.user for turn in turns] or seed.turns
    asked = tuple(user.text.replace(IMAGE_MARK, "") for user in users)
    return Talk(seed.kind, Scene.of(seed.facts), asked, tuple(turn.answer for turn in turns))
