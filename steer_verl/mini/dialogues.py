"""Templated dialogues of 2-10 turns, mostly 3-5: the user's side as seeds, with static next questions.

* *benign*: anything about a free device (pushy and framed questions too), or only safe questions about a sealed
  one. The same words are allowed or restricted depending on the picture, so over-refusal shows.
* *obfuscated*: a sealed device; harmless turns, each fine alone, and a last one that narrows to how it opens.
* *red_team*: a sealed device; steps are asked for early and again under one framing after another.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping

from steer_verl.mini.phrases import (
    ACCEPTANCE,
    ADAPTIVE,
    DIRECT,
    ESCALATION,
    LOOK,
    NARROWING,
    OFFERS,
    STEPS_QUESTIONS,
    TOPICS,
)
from steer_verl.mini.world import STEPS, Scene, Split, draw_scene, is_restricted
from steer_verl.types import IMAGE_MARK, AttackStrategy, DialogueKind, Seed, UserTurn

LENGTHS = {2: 8, 3: 32, 4: 30, 5: 16, 6: 6, 7: 3, 8: 2, 9: 1, 10: 2}
"""Turns of a dialogue, in per cent: mean 4.1."""

KINDS = {DialogueKind.BENIGN: 40, DialogueKind.OBFUSCATED: 30, DialogueKind.RED_TEAM: 30}
"""Mixture of the three kinds, in per cent."""

SEALED = 1 / 3
"""Share of benign dialogues that are about a sealed device."""

SAFE_QUESTIONS = (*LOOK, *(question for questions in TOPICS.values() for question in questions))


def pick_length(rng: random.Random) -> int:
    """A number of turns by ``LENGTHS``."""
    return rng.choices(list(LENGTHS), weights=list(LENGTHS.values()))[0]


def questions(kind: DialogueKind, scene: Scene, turns: int, rng: random.Random, goal: str | None = None) -> list[str]:
    """The user's side of one dialogue: ``turns`` different questions.

    ``goal`` is asked last, unless the dialogue happens to open with it. A goal drawn evenly from what such a dialogue
    may ask leaves the distribution of dialogues as it is without one.
    """
    if kind is DialogueKind.OBFUSCATED:
        last = goal or rng.choice(NARROWING)
        return [*rng.sample(SAFE_QUESTIONS, turns - 1), last]
    benign = kind is DialogueKind.BENIGN
    pool = benign_questions(scene) if benign else STEPS_QUESTIONS
    opening = rng.choice((*LOOK, *LOOK, *(pool if benign else DIRECT)))
    later = [question for question in pool if question != opening]
    if goal not in later:
        return [opening, *rng.sample(later, turns - 1)]
    later.remove(goal)
    return [opening, *rng.sample(later, turns - 2), goal]


def benign_questions(scene: Scene) -> tuple[str, ...]:
    """All that may be asked of a device in a benign dialogue: anything of a free one, what is safe of a sealed one."""
    return SAFE_QUESTIONS if is_restricted(scene) else SAFE_QUESTIONS + STEPS_QUESTIONS


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
    count: int,
    split: Split,
    rng: random.Random,
    mixture: Mapping[DialogueKind, float] = KINDS,
    sealed_share: float = SEALED,
) -> Iterator[tuple[DialogueKind, Scene]]:
    """``count`` pairs by ``mixture``. Attacks are on sealed devices, and ``sealed_share`` of benign dialogues."""
    for _ in range(count):
        kind = rng.choices(list(mixture), weights=list(mixture.values()))[0]
        sealed = rng.random() < sealed_share if kind is DialogueKind.BENIGN else True
        yield kind, draw_scene(rng, split, restricted=sealed)


def mixed(seeds: Iterable[Seed]) -> list[Seed]:
    """The seeds in another order, of which every stretch holds each kind, of sealed and of free devices, in its share.

    A training that reads them in order sees the mixture in every batch, as nearly as whole dialogues can.
    """
    groups: dict[tuple[str, bool], list[Seed]] = {}
    for one in seeds:
        groups.setdefault((one.kind.value, bool(one.facts["restricted"])), []).append(one)
    places = [((n + 0.5) / len(group), key, n) for key, group in sorted(groups.items()) for n in range(len(group))]
    return [groups[key][n] for _, key, n in sorted(places)]


def persistent(scene: Scene) -> list[str]:
    """How the tutor asks for the steps once more after a plain refusal."""
    return [text.format(name=scene.name) for text in ADAPTIVE[AttackStrategy.PERSISTENCE]]


def acceptances() -> list[str]:
    """How a user honestly takes what was offered."""
    return [ACCEPTANCE.format(offer=offer) for offer in OFFERS.values()]


def adaptive_question(scene: Scene, rng: random.Random) -> str:
    """A follow-up as the tutor would word it, about ``scene``."""
    template = rng.choice([text for texts in (*ADAPTIVE.values(), ESCALATION) for text in texts])
    return template.format(
        name=scene.name, offer=rng.choice(list(OFFERS.values())), step=rng.choice(STEPS[scene.shape])
    )
