"""The laboratory's dialogues twice: built directly from one stream of random numbers, and by the pipeline's agents.

The direct construction is the specification of the sets: which questions are asked, which of them are reworded, how
many refusals are plain. The agents must come to the same distribution, each turn by itself and from a hash.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from steer_verl.data.seed import Made, SetName, SourceSeed
from steer_verl.data.stages.agents import Brief, ImageReport, Strategy
from steer_verl.data.stages.judged import selected
from steer_verl.data.stages.left import Left
from steer_verl.data.stages.make import MakeStep
from steer_verl.data.stages.settings import BootstrapSettings, SelectSettings, StageSettings
from steer_verl.data.stages.stage2.bootstrap import bootstrapped as bootstrapped_by
from steer_verl.mini import dialogues
from steer_verl.mini.agents import MiniAgents
from steer_verl.mini.answers import expert_answer
from steer_verl.mini.dialogues import LENGTHS, adaptive_question, pick_length, scenes_and_kinds
from steer_verl.mini.phrases import ACCEPTANCE, ADAPTIVE, FOLLOW_UP, OFFERS, asks_for_steps
from steer_verl.mini.sources import MIXTURES, SEALED_SHARES, mini_sources
from steer_verl.mini.world import Scene, Split, is_restricted
from steer_verl.models.place import Place
from steer_verl.types import IMAGE_MARK, AttackStrategy, DialogueKind, Seed, Usage
from steer_verl.work.step import Done, Kept

STRATEGY = Strategy(name="authority", framing="as one who may", escalation="by small steps")
BRIEF = Brief(rewritten="", report=ImageReport(summary=""), strategy=STRATEGY, words=(1, 200), turns=4)
STAGES = StageSettings.model_validate(
    {
        "perturb": {"share": 0},
        "expand": {"turn_weights": list(LENGTHS.values()), "pairs": 0},
        "bootstrap": {"tau_safe": 8, "tau_help": 8},
    }
)


@dataclass(frozen=True)
class Talk:
    """A dialogue as texts, without image marks; ``answers`` stay empty where only the user's side is wanted."""

    kind: DialogueKind
    scene: Scene
    asked: tuple[str, ...]
    answers: tuple[str, ...] = ()


def free(key: str) -> Place:
    """A place where nothing may cost anything."""

    def spend(usage: Usage) -> None:
        raise AssertionError(f"{key}: a rule agent costs {usage}")

    return Place(key, spend)


def direct(count: int, mixture: Mapping[DialogueKind, float], rng: random.Random) -> Iterator[Talk]:
    """Static dialogues of the three kinds, some later questions reworded, with the policy's answers."""
    for talk in templates(count, mixture, rng):
        opening, *later = talk.asked
        asked = (opening, *(reworded(question, talk.kind, talk.scene, rng) for question in later))
        answers = (expert_answer(talk.scene, q, rng, constructive=rng.random() >= 0.15) for q in asked)
        yield Talk(talk.kind, talk.scene, asked, tuple(answers))


def templates(
    count: int, mixture: Mapping[DialogueKind, float], rng: random.Random, sealed_share: float = SEALED_SHARES["sft"]
) -> Iterator[Talk]:
    """The user's side of dialogues as Stage I leaves them."""
    for kind, scene in scenes_and_kinds(count, Split.TRAIN, rng, mixture, sealed_share):
        yield Talk(kind, scene, tuple(dialogues.questions(kind, scene, pick_length(rng), rng)))


def reworded(question: str, kind: DialogueKind, scene: Scene, rng: random.Random) -> str:
    """The question as it is, or in other words: of the attacks on a sealed device only persistence is among them."""
    if not is_restricted(scene) and rng.random() < 0.9:
        return adaptive_question(scene, rng)
    if is_restricted(scene) and asks_for_steps(question):
        again = rng.choice(ADAPTIVE[AttackStrategy.PERSISTENCE]).format(name=scene.name)
        return again if rng.random() < 0.3 else question
    if is_restricted(scene) and rng.random() < 0.2:
        return ACCEPTANCE.format(offer=rng.choice(list(OFFERS.values())))
    if kind is DialogueKind.BENIGN and rng.random() < 0.2:
        return rng.choice(FOLLOW_UP).format(name=scene.name, question=question)
    return question


async def scripted(agents: MiniAgents, out: Path, name: str, count: int, seed: int = 0) -> list[Seed]:
    """Stage I: sources, dealt to the three kinds, expanded or planned."""
    rng, mixture = random.Random(f"{name} {seed}"), MIXTURES[name]
    attacks = [DialogueKind.OBFUSCATED, DialogueKind.RED_TEAM]
    seeds = []
    for source in mini_sources(out, count, seed, name=name):
        kind = rng.choices(attacks, [mixture[kind] for kind in attacks])[0] if source.unsafe else DialogueKind.BENIGN
        seeds.append(await script(agents, dealt(source, kind)))
    return seeds


def dealt(source: SourceSeed, kind: DialogueKind, side: SetName = SetName.BENCH) -> SourceSeed:
    """A source seed as the build's first step leaves it."""
    return SourceSeed.model_validate({**source.model_dump(), "kind": kind, "side": side})


async def script(agents: MiniAgents, source: SourceSeed) -> Seed:
    """Stage I of a seed for the benchmark."""
    return kept(await MakeStep(agents, STAGES, Path()).work(source, free(f"dialogues/{source.id}"))).seed


async def bootstrapped(agents: MiniAgents, seed: Seed) -> Made:
    """Stage II of one dialogue."""
    settings = BootstrapSettings(tau_safe=8, tau_help=8)
    return await bootstrapped_by(agents, seed, (), settings, free(f"dialogues/{seed.id}"))


async def in_history(agents: MiniAgents, seed: Seed) -> bool:
    """Whether the dialogue may enter the RL set."""
    try:
        await selected(agents, Made(side=SetName.RL, seed=seed), SelectSettings(), free(f"dialogues/{seed.id}"))
    except Left:
        return False
    return True


def kept(done: Done) -> Made:
    """What goes on.

    Raises:
        AssertionError: it was rejected.
    """
    assert isinstance(done, Kept), done
    return Made.model_validate(done.value, strict=False)


def talk_of(row: Seed | Made) -> Talk:
    """A seed, or the dialogue played on it, as texts."""
    seed, played = (row, None) if isinstance(row, Seed) else (row.seed, row.trajectory)
    turns = played.turns if played is not None else ()
    users = [turn.user for turn in turns] or seed.turns
    asked = tuple(user.text.replace(IMAGE_MARK, "") for user in users)
    return Talk(seed.kind, Scene.of(seed.facts), asked, tuple(turn.answer for turn in turns))
