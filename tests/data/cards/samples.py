"""Dialogues to count and to show: harmless ones, of every kind and shape."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from steer_verl.data.cards.card import Card
from steer_verl.data.seed import Made, SetName
from steer_verl.types import (
    IMAGE_MARK,
    DialogueKind,
    QuestionOrigin,
    Scores,
    Seed,
    StopReason,
    Trajectory,
    Turn,
    Unscored,
    UnscoredReason,
    UserTurn,
    Verdict,
)
from tests.data.sets.samples import image

SOURCES = (("BeaverTails-V", "CC-BY-NC-4.0"), ("SPA-VL", "CC-BY-4.0"), ("VLSBench", "Apache-2.0"), ("own", ""))
COLOURS = ("teal", "gold", "indianred", "slateblue")


def images(folder: Path) -> Path:
    """An image of each colour, one of them a JPEG."""
    for colour in COLOURS:
        image(folder / f"{colour}.png", (120, 90), colour)
    image(folder / "photo.jpg", (640, 480), "seagreen")
    return folder


def seed(name: str, rng: random.Random, **changes: Any) -> Seed:
    """2 to 10 user turns, the image in the first."""
    source, license = rng.choice(SOURCES)
    kind = rng.choice(list(DialogueKind))
    shown = rng.choice([(), ("photo.jpg",), (f"{rng.choice(COLOURS)}.png",)])
    opening = UserTurn(text=IMAGE_MARK * len(shown) + "What stands on the bench?", images=shown)
    later = [UserTurn(text=f"And item {n}, {'please ' * rng.randrange(9)}?") for n in range(rng.randint(1, 9))]
    facts: dict[str, Any] = {"category": rng.choice(["tools", "", "privacy"])}
    if kind is DialogueKind.RED_TEAM:
        facts["strategy"] = rng.choice(["teacher", "fiction"])
    if rng.random() < 0.2:
        facts["perturbation"] = {"kind": rng.choice(["noise", "typography"]), "original": "photo.jpg"}
    record = Seed(
        id=name,
        turns=(opening, *later),
        kind=kind,
        source=source,
        source_id=name,
        license=license,
        facts=facts,
    )
    return record.model_copy(update=changes)


def verdict(rng: random.Random, unscored: float = 0.0) -> Verdict | Unscored:
    """A verdict, or none."""
    if rng.random() < unscored:
        return Unscored(reason=rng.choice(list(UnscoredReason)))
    safety, usefulness = rng.choice([10, 10, 10, 8, 6, 4]), rng.randint(1, 10)
    return Verdict(
        scores=Scores(safety=safety, usefulness=usefulness, faithfulness=rng.randint(5, 10)),
        diagnosis="names what is there",
    )


def turn(user: UserTurn, rng: random.Random, first: bool, unscored: float = 0.0) -> Turn:
    """An exchange about it."""
    answer = rng.choice(["<thinking>A clamp.</thinking><answer>A clamp and a lamp.</answer>", "A clamp, without tags."])
    origin = QuestionOrigin.SEED if first else rng.choice([QuestionOrigin.TUTOR, QuestionOrigin.STATIC])
    return Turn(user=user, origin=origin, answer=answer, verdict=verdict(rng, unscored))


def played(of: Seed, rng: random.Random, unscored: float = 0.0) -> Made:
    """The seed with answers."""
    turns = tuple(turn(user, rng, n == 0, unscored) for n, user in enumerate(of.turns))
    told = Trajectory(seed_id=of.id, kind=of.kind, source=of.source, turns=turns, stop=StopReason.COMPLETED)
    return Made(side=SetName.SFT, seed=of, trajectory=told)


def many(count: int, seed_of_run: int = 0, unscored: float = 0.1) -> Iterator[Made]:
    """Played dialogues."""
    rng = random.Random(seed_of_run)
    for number in range(count):
        yield played(seed(f"s-{number}", rng), rng, unscored)


def seeds(count: int, side: SetName = SetName.RL) -> list[Made]:
    """Dialogues that are to be played."""
    rng = random.Random(3)
    return [Made(side=side, seed=seed(f"s{n}", rng)) for n in range(count)]


def card_of(rows: Iterator[Made] | list[Made]) -> Card:
    """Of all of them."""
    found = Card()
    for made in rows:
        found.add(made)
    return found


def account() -> dict[str, Any]:
    """A manifest's counts."""
    usage = {"requests": 420, "prompt_tokens": 81000, "completion_tokens": 9000, "cost": 1.25}
    return {
        "seeds": {"in": 70, "kept": 60, "rejected": {"near_duplicate": 10}},
        "dialogues": {
            "in": 60,
            "kept": 47,
            "rejected": {"refused": 8, "unsafe": 3},
            "stages": {"expand": {"refused": 7}, "bootstrap": {"refused": 1, "unsafe": 3}},
            "undone": 2,
            "usage": usage,
            "agents": {"blue_expert": "expert-model (answer@1f2e)"},
        },
    }
