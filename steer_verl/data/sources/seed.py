"""One single-turn question about a picture: what Stage I begins with."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from steer_verl.types import Record


class SourceSeed(Record):
    """A question of a public set or of a user's own file. It keeps its origin for good."""

    id: str
    """``<source>:<source_id>``; no two seeds of a build have the same."""
    question: str
    image: str | None = None
    """Path below the build's ``pictures`` folder, where the picture lies re-encoded under the digest of its pixels;
    ``None`` for a question without a picture."""
    unsafe: bool | None = None
    """What the source says of the question together with its picture; ``None``: it does not say."""
    category: str = ""
    answer: str = ""
    """The source's own good answer, where it has one."""
    source: str
    source_id: str
    license: str
    """What may be made of this row may be made of everything derived from it."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """What an embedded agent may know of the picture."""
