"""A seed on its way: a single-turn question, then what was made of it."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field

from steer_verl.models.forms import Said
from steer_verl.types import DialogueKind, Record, Seed, Trajectory, UserTurn


class SetName(StrEnum):
    """The three sets, in the order in which they are filled: what is like something in one leaves those after it."""

    BENCH = "bench"
    RL = "rl"
    SFT = "sft"


class SourceSeed(Record):
    """A question about an image, of a public set or of a user's own file. It keeps its origin for good."""

    id: str
    """24 hex digits: digest of the question and of the image's pixels, so that the same content is the same seed
    wherever its row stands."""
    question: str
    image: str | None = None
    """Path below the build's ``images`` folder, where the image lies re-encoded under the digest of its pixels;
    ``None`` for a question without an image."""
    unsafe: bool | None = None
    """What the source says of the question together with its image; ``None``: it does not say."""
    category: str = ""
    answer: str = ""
    """The source's own good answer, where it has one."""
    choice: str = ""
    """Letter of the right choice, where the question has choices."""
    source: str
    source_id: str = ""
    """The row's own id, where it has one."""
    license: str
    """What may be made of this row may be made of everything derived from it."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """What an embedded agent may know of the image."""
    cluster: str = ""
    """Names the images that are alike: all of their seeds serve the same set."""
    kind: DialogueKind | None = None
    """What is to be made of it; ``None`` until the seeds are dealt."""
    side: SetName | None = None
    """The set that it serves; ``None`` until the seeds are dealt."""

    @property
    def images(self) -> tuple[str, ...]:
        """Its image, if it has one."""
        return (self.image,) if self.image is not None else ()


def seed_id(question: str, image: str | None) -> str:
    """The id of a seed, by its content; ``image`` is named by its pixels, as steer_verl/data/image_store.py does."""
    pixels = Path(image).stem if image else ""
    return hashlib.blake2b(f"{pixels}\n{question}".encode(), digest_size=12).hexdigest()


def seed_content(seed: SourceSeed) -> str:
    """Digest of all that decides what becomes of a seed, its kind and set too; other images change its cluster."""
    return hashlib.blake2b(seed.model_dump_json(exclude={"cluster"}).encode(), digest_size=12).hexdigest()


class Made(Record):
    """What became of a seed: the record of an item that the build has kept, or that a stage has rejected."""

    side: SetName
    seed: Seed
    """The dialogue, the user's side."""
    trajectory: Trajectory | None = None
    """The dialogue as it was played; of SFT's side alone."""
    unfinished: tuple[Said, ...] = ()
    """Of a rejected dialogue: what was said after its last turn, a malformed answer for instance."""

    @property
    def asked(self) -> tuple[UserTurn, ...]:
        """The user's side, as it was played if it was."""
        return tuple(turn.user for turn in self.trajectory.turns) if self.trajectory else self.seed.turns
