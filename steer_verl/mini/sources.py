"""The laboratory's single-turn seeds: one scene and one question each, with the image below ``images/``.

Unsafe is a sealed device whose steps are asked for; benign is anything about a free device, and a safe question about
a sealed one. :func:`shares` says how the seeds of a set are dealt to the three kinds of dialogue.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path

from steer_verl.data.image_store import ImageStore
from steer_verl.data.seed import SourceSeed
from steer_verl.data.sources.settings import ShareSettings
from steer_verl.mini.answers import naive_answer
from steer_verl.mini.dialogues import SEALED, benign_questions, scenes_and_kinds
from steer_verl.mini.phrases import DIRECT, LOOK, STEPS_QUESTIONS, asks_for_steps, topic_of
from steer_verl.mini.world import Scene, Split, stable_hash
from steer_verl.types import DialogueKind

SOURCE, LICENSE = "steer-mini", "Apache-2.0"
IMAGES = "images"

SFT_KINDS = {DialogueKind.BENIGN: 60, DialogueKind.OBFUSCATED: 20, DialogueKind.RED_TEAM: 20}
"""Mixture of the SFT set, in per cent: more help than refusal, as in any instruction set."""

OPENS_DIRECTLY = len(DIRECT) / (2 * len(LOOK) + len(DIRECT))
"""Share of red-team dialogues whose first turn shows the picture and asks for its steps at once: a risk by itself, not
by its history, so that the RL set leaves it out."""

RL_SET = {DialogueKind.BENIGN: 50, DialogueKind.OBFUSCATED: 25, DialogueKind.RED_TEAM: 25}
"""Mixture of the RL set, in per cent: help weighs as much as defence, or refusing everything is learnt first."""

RL_KINDS = {**RL_SET, DialogueKind.RED_TEAM: RL_SET[DialogueKind.RED_TEAM] / (1 - OPENS_DIRECTLY)}
"""Mixture that the RL set is made of; what it leaves out is made up for, and ``RL_SET`` is left."""

MIXTURES: dict[str, Mapping[DialogueKind, float]] = {"sft": SFT_KINDS, "rl": RL_KINDS}
"""Sets that are made through the pipeline, and the mixture that each is made of. Weights need not sum to 100."""

SEALED_SHARES = {"sft": SEALED, "rl": 0.1}
"""Of each set's benign dialogues, how many are about a sealed device. What is asked of those is easily answered: Stage
III learns more where the steps of a free device are asked as an attacker would."""


def mini_sources(
    out: Path, count: int, seed: int, *, name: str = "rl", split: Split = Split.TRAIN
) -> Iterator[SourceSeed]:
    """``count`` seeds of as many scenes, their images written below ``out/images``.

    The same arguments give the same seeds, so that an interrupted build finds them again. Seeds of two sets never show
    the same scene.

    Args:
        out: folder of the build.
        count: seeds.
        seed: of the draw; it is a part of their ids.
        name: of the set (:data:`MIXTURES`).
        split: scenes to draw from.
    """
    rng = random.Random(f"{seed}:{name}:{split.value}:sources")
    images = ImageStore(out / IMAGES)
    for number, (scene, unsafe) in enumerate(_scenes(count, name, split, rng)):
        question = rng.choice(STEPS_QUESTIONS if unsafe else benign_questions(scene))
        source_id = f"{name}-{seed}-{split.value}-{number:05d}"  # lots are drawn by it: other builds, other lots
        yield SourceSeed(
            id=f"{SOURCE}:{source_id}",
            question=question,
            image=images.add(scene.draw()),
            unsafe=unsafe,
            category="steps" if asks_for_steps(question) else topic_of(question) or "look",
            answer="" if unsafe else naive_answer(scene, question),
            source=SOURCE,
            source_id=source_id,
            license=LICENSE,
            facts=scene.facts(),
        )


def shares(name: str) -> ShareSettings:
    """How the seeds of a set are dealt to the three kinds of dialogue: all benign ones, and the attacks by mixture."""
    obfuscated, red_team = (MIXTURES[name][kind] for kind in (DialogueKind.OBFUSCATED, DialogueKind.RED_TEAM))
    attacks = obfuscated + red_team
    return ShareSettings(benign_of_unsafe=0.0, obfuscated=obfuscated / attacks, red_team=red_team / attacks)


def set_of(scene: Scene) -> str:
    """The set that a scene belongs to, by its specification alone."""
    return sorted(MIXTURES)[stable_hash(f"set of {scene}") % len(MIXTURES)]


def _scenes(count: int, name: str, split: Split, rng: random.Random) -> Iterator[tuple[Scene, bool]]:
    """Scenes of a set, none twice, each with whether its question is to be unsafe."""
    seen: set[Scene] = set()
    while len(seen) < count:
        kind, scene = next(scenes_and_kinds(1, split, rng, MIXTURES[name], SEALED_SHARES[name]))
        if set_of(scene) == name and scene not in seen:
            seen.add(scene)
            yield scene, kind is not DialogueKind.BENIGN
