"""What the user's side of a dialogue must be, whoever wrote it, and the dialogue that is made of it."""

from __future__ import annotations

from collections.abc import Sequence

from steer_verl.answer import parse_answer
from steer_verl.data.duplicates import normalised
from steer_verl.data.rows.schema import FOREIGN_MARKS
from steer_verl.data.seed import SourceSeed
from steer_verl.data.stages.facts import Facts
from steer_verl.data.stages.left import Reason
from steer_verl.text import folded
from steer_verl.types import IMAGE_MARK, Seed, UserTurn

MAX_CHARS = 4000
"""Of a user turn; as ``max_question_chars`` of the training."""


def fault_of(texts: Sequence[str], turns: int) -> tuple[Reason, str] | None:
    """The first thing wrong with the turns' texts, and where; ``None`` if nothing is."""
    if len(texts) != turns:
        return Reason.TURN_COUNT, f"{len(texts)} turns, not {turns}"
    seen: dict[str, int] = {}
    for number, text in enumerate(texts, 1):
        first = seen.setdefault(normalised(text), number)
        if has_mark(text):
            return Reason.MARKS, f"turn {number} spells a mark"
        if not folded(text):
            return Reason.EMPTY_TURN, f"turn {number} is empty"
        if len(text) > MAX_CHARS:
            return Reason.TOO_LONG, f"turn {number} has more than {MAX_CHARS} characters"
        if first < number:
            return Reason.REPEATED_TURN, f"turn {number} repeats turn {first}"
    return None


def has_mark(text: str) -> bool:
    """Whether verl's dataset would take a part of the text for an image, a video or a sound."""
    return any(mark in text for mark in (IMAGE_MARK, *FOREIGN_MARKS))


def well_formed(answer: str) -> bool:
    """In the student's format, and without a mark."""
    return parse_answer(answer).well_formed and not has_mark(answer)


def word_count(text: str) -> int:
    """Words and numbers of a text; where a script writes no spaces, each letter counts as a word."""
    return sum(token[0].isalnum() for token in normalised(text).split())


def dialogue_seed(seed: SourceSeed, texts: Sequence[str], facts: Facts) -> Seed:
    """The dialogue of these user turns, its image in the first; it keeps the source's origin, licence and facts."""
    assert seed.kind is not None, "a seed that is dealt has a kind"
    opening = UserTurn(text=IMAGE_MARK * len(seed.images) + texts[0], images=seed.images)
    known = {name: getattr(seed, name) for name in ("question", "category", "answer", "choice")}
    return Seed(
        id=f"{seed.id}/{seed.kind.value}",
        turns=(opening, *(UserTurn(text=text) for text in texts[1:])),
        kind=seed.kind,
        source=seed.source,
        source_id=seed.source_id,
        license=seed.license,
        facts=facts.model_copy(update=known).beside(seed.facts),
    )
