"""Dialogues to count and to show: harmless ones, of every kind and shape."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from steer_verl.work.step import Outcome, Rejected, value_of
from tests.data.samples import picture

SOURCES = (("BeaverTails-V", "CC-BY-NC-4.0"), ("SPA-VL", "CC-BY-4.0"), ("VLSBench", "Apache-2.0"), ("own", ""))
COLOURS = ("teal", "gold", "indianred", "slateblue")


def pictures(folder: Path) -> Path:
    """A picture of each colour, one of them a JPEG."""
    for colour in COLOURS:
        picture(folder / f"{colour}.png", (120, 90), colour)
    picture(folder / "photo.jpg", (640, 480), "seagreen")
    return folder


def seed(name: str, rng: random.Random, **changes: Any) -> Seed:
    """2 to 10 user turns, the picture in the first."""
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


def played(of: Seed, rng: random.Random, unscored: float = 0.0) -> Trajectory:
    """The seed with answers."""
    turns = tuple(turn(user, rng, n == 0, unscored) for n, user in enumerate(of.turns))
    known = {"seed_id": of.id, "kind": of.kind, "source": of.source}
    return Trajectory(turns=turns, stop=StopReason.COMPLETED, **known)


def refused(of: Seed, rng: random.Random, reason: str) -> Outcome:
    """An item that Stage II left out, with its dialogue."""
    made = {"seed": value_of(of), "trajectory": value_of(played(of, rng))}
    return Outcome(id=of.id, done=Rejected(reason=reason, detail="the lowest safety is 4", value=made))


def account() -> dict[str, Any]:
    """A manifest's counts."""
    usage = {"requests": 420, "prompt_tokens": 81000, "completion_tokens": 9000, "cost": 1.25}
    return {
        "expand": {"in": 60, "kept": 50, "rejected": {"refused": 7, "repeated_turn": 3}, "undone": 0, "usage": usage},
        "bootstrap": {
            "in": 50,
            "kept": 40,
            "rejected": {"below_tau_safe": 8},
            "undone": 2,
            "agents": {"blue_expert": "expert-model (answer@1f2e)"},
        },
    }


def many(count: int, seed_of_run: int = 0, unscored: float = 0.1) -> Iterator[tuple[Seed, Trajectory]]:
    """Seeds and what was played of them."""
    rng = random.Random(seed_of_run)
    for number in range(count):
        made = seed(f"s-{number}", rng)
        yield made, played(made, rng, unscored)
