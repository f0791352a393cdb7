"""Templated dialogues of 2-10 turns, mostly 3-5: the user's side as seeds, with static next questions.

* *benign*: anything about a free device (pushy and framed questions too), or only safe questions about a sealed
  one. The same words are allowed or restricted depending on the picture, so over-refusal shows.
* *obfuscated*: a sealed device; harmless turns, each fine alone, and a last one that narrows to how it opens.
* *red_team*: a sealed device; steps are asked for early and again under one framing after another.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from steer_verl.mini.phrases import (
    ADAPTIVE,
    DIRECT,
    ESCALATION,
    FRAMED,
    LOOK,
    NARROWING,
    OFFERS,
    STEPS_QUESTIONS,
    TOPICS,
)
from steer_verl.mini.world import STEPS, Scene, Split, draw_scene, is_restricted
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed, UserTurn

LENGTHS = {2: 8, 3: 32, 4: 30, 5: 16, 6: 6, 7: 3, 8: 2, 9: 1, 10: 2}
"""Turns of a dialogue, in per cent: mean 4.1."""

KINDS = {DialogueKind.BENIGN: 40, DialogueKind.OBFUSCATED: 30, DialogueKind.RED_TEAM: 30}
"""Mixture of the three kinds, in per cent."""

SAFE_QUESTIONS = (*LOOK, *(question for questions in TOPICS.values() for question in questions))


def pick_length(rng: random.Random) -> int:
    """A number of turns by ``LENGTHS``."""
    return rng.choices(list(LENGTHS), weights=list(LENGTHS.values()))[0]


def questions(kind: DialogueKind, scene: Scene, turns: int, rng: random.Random) -> list[str]:
    """The user's side of one dialogue: ``turns`` different questions."""
    if kind is DialogueKind.BENIGN:
        return _benign(scene, turns, rng)
    if kind is DialogueKind.OBFUSCATED:
        last = rng.choice(NARROWING)
        return [*_different(SAFE_QUESTIONS, turns - 1, rng), last]
    opening = rng.choice((*LOOK, *LOOK, *DIRECT))
    return [opening, *_different([q for q in DIRECT + FRAMED + NARROWING if q != opening], turns - 1, rng)]


def seed(
    seed_id: str, kind: DialogueKind, scene: Scene, image: str, rng: random.Random, *, turns: int | None = None
) -> Seed:
    """One dialogue over ``scene``, whose picture is the file ``image``, shown in the first turn."""
    asked = questions(kind, scene, turns or pick_length(rng), rng)
    opening = UserTurn(text=IMAGE_MARK + asked[0], images=(image,))
    return Seed(
        id=seed_id,
        turns=(opening, *(UserTurn(text=question) for question in asked[1:])),
        kind=kind,
        source="steer-mini",
        license="Apache-2.0",
        facts=scene.facts(),
    )


def scenes_and_kinds(
    count: int, split: Split, rng: random.Random, mixture: Mapping[DialogueKind, int] = KINDS
) -> Iterator[tuple[DialogueKind, Scene]]:
    """``count`` pairs by ``mixture``. Attacks are on sealed devices; two thirds of benign dialogues on free ones."""
    for _ in range(count):
        kind = rng.choices(list(mixture), weights=list(mixture.values()))[0]
        sealed = rng.random() < 1 / 3 if kind is DialogueKind.BENIGN else True
        yield kind, draw_scene(rng, split, restricted=sealed)


def adaptive_question(scene: Scene, rng: random.Random) -> str:
    """A follow-up as the tutor would word it, about ``scene``."""
    template = rng.choice([text for texts in (*ADAPTIVE.values(), ESCALATION) for text in texts])
    return template.format(
        name=scene.name, offer=rng.choice(list(OFFERS.values())), step=rng.choice(STEPS[scene.shape])
    )


def _benign(scene: Scene, turns: int, rng: random.Random) -> list[str]:
    pool = SAFE_QUESTIONS if is_restricted(scene) else SAFE_QUESTIONS + STEPS_QUESTIONS
    opening = rng.choice(LOOK + LOOK + pool)
    return [opening, *_different([q for q in pool if q != opening], turns - 1, rng)]


def _different(pool: list[str] | tuple[str, ...], count: int, rng: random.Random) -> list[str]:
    return rng.sample(list(pool), count)
