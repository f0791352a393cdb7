"""Dialogues of a build, small and harmless, and a way to assemble them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from steer_verl.data.seed import Made, SetName
from steer_verl.data.sets.assemble import SetReport, assemble
from steer_verl.data.sets.settings import SetSettings
from steer_verl.data.sources.settings import DuplicateSettings
from steer_verl.types import (
    IMAGE_MARK,
    DialogueKind,
    QuestionOrigin,
    Scores,
    Seed,
    StopReason,
    Trajectory,
    Turn,
    UserTurn,
    Verdict,
)
from steer_verl.work.outcomes import OutcomeLog, outcome_pointers, read_at
from steer_verl.work.step import Kept, Outcome, value_of

BENIGN, RED = DialogueKind.BENIGN, DialogueKind.RED_TEAM
SFT, RL, BENCH = SetName.SFT, SetName.RL, SetName.BENCH
GOOD = "<thinking>A box.</thinking><answer>It is a box.</answer>"
PERFECT = Verdict(scores=Scores(safety=10, usefulness=10, faithfulness=9))


def image(path: Path, size: tuple[int, int] = (56, 56), colour: str = "red") -> Path:
    """A plain image, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def seed(
    name: str, kind: DialogueKind = RED, turns: int = 3, image: str | None = None, topic: str = "", **more: Any
) -> Seed:
    """A dialogue about boxes; every name and topic has its own words. ``s:1/benign`` is made of row 1 of ``s``."""
    words = " ".join(f"{topic or name} {part}".replace("/", " ") for part in ("lid", "hinge", "label", "corner"))
    texts = [f"About {words}: what is side {number}?" for number in range(turns)]
    opening = UserTurn(text=IMAGE_MARK * bool(image) + texts[0], images=(image,) if image else ())
    rest = tuple(UserTurn(text=text) for text in texts[1:])
    origin = {"source": "s", "source_id": name.split("/")[0].removeprefix("s:"), "license": "CC-BY-4.0"}
    return Seed(id=name, turns=(opening, *rest), kind=kind, **{**origin, **more})


def played(seed: Seed, answers: Sequence[str] = (), verdict: Any = PERFECT) -> Trajectory:
    """The seed with static questions and good answers."""
    turns = tuple(
        Turn(user=user, origin=QuestionOrigin.STATIC, answer=answer, verdict=verdict)
        for user, answer in zip(seed.turns, answers or [GOOD] * len(seed.turns), strict=True)
    )
    return Trajectory(seed_id=seed.id, kind=seed.kind, source=seed.source, turns=turns, stop=StopReason.COMPLETED)


def made(side: SetName, seed: Seed) -> Made:
    """What the build keeps of a seed on that side."""
    return Made(side=side, seed=seed, trajectory=played(seed) if side is SFT else None)


def kept(made: Made) -> Outcome:
    """Its outcome."""
    return Outcome(id=made.seed.id, done=Kept(value=value_of(made)))


def put_together(
    images: Path,
    sft: Iterable[Seed] = (),
    rl: Iterable[Seed] = (),
    bench: Iterable[Seed] = (),
    *,
    others: Sequence[Outcome] = (),
    out: str = "out",
    settings: SetSettings | None = None,
    **more: Any,
) -> dict[SetName, SetReport]:
    """Assemble these into ``<out>`` beside the folder of images."""
    steps, sides = images.parent / "steps" / "dialogues", ((SFT, sft), (RL, rl), (BENCH, bench))
    shutil.rmtree(steps, ignore_errors=True)
    logs = [OutcomeLog(steps / f"shard-{number:03d}") for number in range(2)]
    outcomes = [kept(made(side, item)) for side, items in sides for item in items] + list(others)
    for number, outcome in enumerate(outcomes):
        logs[number % 2].append(outcome)
    return assemble(
        images.parent / out,
        outcome_pointers(steps),
        read_at,
        images,
        settings=settings or SetSettings(),
        duplicates=DuplicateSettings(),
        **more,
    )
