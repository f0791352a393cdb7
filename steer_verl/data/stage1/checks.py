"""What the user's side of a dialogue must be, whoever wrote it, and the seed that is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steer_verl.data.rows import FOREIGN_MARKS
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.stage1.rejections import Rejection
from steer_verl.text import folded
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed, UserTurn


def fault_of(texts: Sequence[str], turns: int, max_chars: int) -> tuple[Rejection, str] | None:
    """The first thing wrong with the turns' texts, and where; ``None`` if nothing is."""
    if len(texts) != turns:
        return Rejection.TURN_COUNT, f"{len(texts)} turns, not {turns}"
    seen: dict[str, int] = {}
    for number, text in enumerate(texts, 1):
        words = folded(text)
        if any(mark in text for mark in (IMAGE_MARK, *FOREIGN_MARKS)):
            return Rejection.MARKS, f"turn {number} spells a mark"
        if not words:
            return Rejection.EMPTY_TURN, f"turn {number} is empty"
        if len(text) > max_chars:
            return Rejection.TOO_LONG, f"turn {number} has more than {max_chars} characters"
        if words in seen:
            return Rejection.REPEATED_TURN, f"turn {number} repeats turn {seen[words]}"
        seen[words] = number
    return None


def dialogue_seed(seed: SourceSeed, kind: DialogueKind, texts: Sequence[str], **facts: Any) -> Seed:
    """The dialogue of these user turns, its picture in the first; it keeps the source's origin, licence and facts.

    Its facts are the source's own, with ``question``, ``category`` and what else is given.
    """
    images = (seed.image,) if seed.image is not None else ()
    turns = [UserTurn(text=text) for text in texts]
    turns[0] = UserTurn(text=IMAGE_MARK * len(images) + texts[0], images=images)
    known = {"question": seed.question, "category": seed.category, **({"answer": seed.answer} if seed.answer else {})}
    return Seed(
        id=f"{seed.id}/{kind.value}",
        turns=tuple(turns),
        kind=kind,
        source=seed.source,
        source_id=seed.source_id,
        license=seed.license,
        facts={**seed.facts, **known, **facts},
    )
