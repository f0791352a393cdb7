"""The laboratory's dialogues twice: built directly from one stream of random numbers, and by the pipeline's agents.

The direct construction is the specification of the sets: which questions are asked, which of them are reworded, how
many refusals are plain. The agents must come to the same distribution, each turn by itself and from a hash.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from steer_verl.data.agents import Said, Strategy
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.mini import dialogues
from steer_verl.mini.agents import Agents
from steer_verl.mini.answers import expert_answer
from steer_verl.mini.dialogues import adaptive_question, pick_length, scenes_and_kinds
from steer_verl.mini.phrases import ACCEPTANCE, FOLLOW_UP, OFFERS
from steer_verl.mini.sources import mini_sources, unsafe_shares
from steer_verl.mini.world import Scene, Split, is_restricted, stable_hash
from steer_verl.types import IMAGE_MARK, DialogueKind, Exchange, Judgement, QuestionOrigin, Seed, Turn, Usage, UserTurn

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
    return [await script(agents, source, dealt(source, name)) for source in mini_sources(out, count, seed, name=name)]


def dealt(source: SourceSeed, name: str) -> DialogueKind:
    """The kind of dialogue that a source becomes."""
    if not source.unsafe:
        return DialogueKind.BENIGN
    draw = stable_hash(f"deal {source.id}") / 2**64
    obfuscated = draw < unsafe_shares(name)[DialogueKind.OBFUSCATED]
    return DialogueKind.OBFUSCATED if obfuscated else DialogueKind.RED_TEAM


async def script(agents: Agents, source: SourceSeed, kind: DialogueKind) -> Seed:
    """The user's side of one dialogue."""
    desk = Table(f"{'red_team' if kind is DialogueKind.RED_TEAM else 'expand'}/{source.id}")
    if kind is DialogueKind.RED_TEAM:
        report = await agents.red_team.analyse(source, desk)
        reframed = await agents.red_team.reframe(source, report, STRATEGY, desk)
        plan = await agents.red_team.plan(source, report, reframed, STRATEGY, desk)
        asked = tuple(turn.user_prompt for turn in plan.dialogue_script)
    else:
        turns = pick_length(random.Random(f"turns {source.id}"))
        rewritten = await agents.generator.rewrite(source, kind, desk)
        asked = await agents.generator.expand(source, kind, rewritten, turns, desk)
    opening = UserTurn(text=IMAGE_MARK + asked[0], images=(str(source.image),))
    later = (UserTurn(text=question) for question in asked[1:])
    return Seed(id=f"{source.id}/{kind.value}", turns=(opening, *later), kind=kind, facts=source.facts)


async def bootstrapped(agents: Agents, seed: Seed) -> tuple[Talk, list[Judgement]]:
    """Stage II: one dialogue, every answer scored."""
    said: list[Said] = []
    turns: list[Turn] = []
    for number, template in enumerate(seed.turns):
        desk = Table(f"bootstrap/{seed.id}/turn{number + 1}")
        text = await agents.red_user.ask(seed, tuple(said), template, desk) if number else template.text
        user = template.with_text(text)
        said.append(Said(role="user", text=text.replace(IMAGE_MARK, ""), images=user.images))
        answer = await agents.blue_expert.answer(seed, tuple(said), desk)
        said.append(Said(role="assistant", text=answer))
        judgement = await agents.evaluator.score(
            Exchange(seed=seed, turns=tuple(turns), user=user, answer=answer, hint=None), desk
        )
        turns.append(Turn(user=user, origin=QuestionOrigin.TUTOR, answer=answer, judgement=judgement))
    return talk_of(seed, turns), [turn.judgement for turn in turns]


def talk_of(seed: Seed, turns: list[Turn] | None = None) -> Talk:
    """A seed, or the dialogue played on it, as texts."""
    users = seed.turns if turns is None else [turn.user for turn in turns]
    asked = tuple(user.text.replace(IMAGE_MARK, "") for user in users)
    return Talk(seed.kind, Scene.of(seed.facts), asked, tuple(turn.answer for turn in turns or ()))
