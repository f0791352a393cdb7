"""What the user's side of a dialogue must be, whoever wrote it, and the dialogue that is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from steer_verl.answer import parse_answer
from steer_verl.data.drawn import drawn
from steer_verl.data.duplicates import normalised
from steer_verl.data.rows.schema import FOREIGN_MARKS
from steer_verl.data.seed import SourceSeed
from steer_verl.data.stages.facts import Facts
from steer_verl.data.stages.left import Reason
from steer_verl.text import folded
from steer_verl.types import IMAGE_MARK, MAX_TURNS, MIN_TURNS, DialogueKind, Seed, UserTurn

MAX_CHARS = 4000
"""Of a user turn; as ``max_question_chars`` of the training."""


class Draft(NamedTuple):
    """What Stage I makes of a seed."""

    seed: Seed
    """The user's side."""
    answers: tuple[str, ...] = ()
    """Of each turn, in the student's format, where the generator wrote both."""


def fault_of(texts: Sequence[str], turns: int) -> tuple[Reason, str] | None:
    """The first thing wrong with the turns' texts, and where; ``None`` if nothing is."""
    if len(texts) != turns:
        return Reason.TURN_COUNT, f"{len(texts)} turns, not {turns}"
    seen: dict[str, int] = {}
    for number, text in enumerate(texts, 1):
        words = normalised(text)
        if has_mark(text):
            return Reason.MARKS, f"turn {number} spells a mark"
        if not folded(text):
            return Reason.EMPTY_TURN, f"turn {number} is empty"
        if len(text) > MAX_CHARS:
            return Reason.TOO_LONG, f"turn {number} has more than {MAX_CHARS} characters"
        if words in seen:
            return Reason.REPEATED_TURN, f"turn {number} repeats turn {seen[words]}"
        seen[words] = number
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


def draw_turns(seed_id: str, weights: Sequence[float]) -> int:
    """Number of turns of a seed's dialogue, by the weights of 2, 3, ... 10; the same whenever it is asked."""
    point = drawn("turns", seed_id) * sum(weights)
    return next((MIN_TURNS + index for index, bound in enumerate(accumulate(weights)) if point < bound), MAX_TURNS)


def dialogue_seed(seed: SourceSeed, kind: DialogueKind, texts: Sequence[str], facts: Facts) -> Seed:
    """The dialogue of these user turns, its image in the first; it keeps the source's origin, licence and facts."""
    images = (seed.image,) if seed.image is not None else ()
    turns = [UserTurn(text=text) for text in texts]
    turns[0] = UserTurn(text=IMAGE_MARK * len(images) + texts[0], images=images)
    known = {"question": seed.question, "category": seed.category, "answer": seed.answer, "choice": seed.choice}
    return Seed(
        id=f"{seed.id}/{kind.value}",
        turns=tuple(turns),
        kind=kind,
        source=seed.source,
        source_id=seed.source_id,
        license=seed.license,
        facts=facts.model_copy(update=known).beside(seed.facts),
    )
