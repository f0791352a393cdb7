"""Probe and expand: a question is rewritten both ways, and one rewrite becomes 2..10 user turns.

Here also stands what a dialogue's user side must be, whoever wrote it, and the dialogue that is made of it.
A share of the benign seeds becomes questions with their answers. The number of turns and that share are drawn by a hash
of the seed's id, so that a run started again asks for the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from steer_verl.answer import parse_answer
from steer_verl.data.drawn import drawn
from steer_verl.data.duplicates import normalised
from steer_verl.data.seed import SourceSeed
from steer_verl.data.stages.agents import Agents, Probe
from steer_verl.data.stages.facts import Facts
from steer_verl.data.stages.left import Left, Reason, stage
from steer_verl.data.stages.settings import ExpandSettings
from steer_verl.models.place import Place
from steer_verl.text import folded
from steer_verl.types import IMAGE_MARK, MARKS, MAX_TURNS, MIN_TURNS, DialogueKind, Seed, UserTurn

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
    return any(mark in text for mark in MARKS)


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


def draw_turns(seed_id: str, weights: Sequence[float]) -> int:
    """Number of turns of a seed's dialogue, by the weights of 2, 3, ... 10; the same whenever it is asked."""
    point = drawn("turns", seed_id) * sum(weights)
    return next((MIN_TURNS + index for index, bound in enumerate(accumulate(weights)) if point < bound), MAX_TURNS)


async def probed(agents: Agents, seed: SourceSeed, place: Place) -> Probe:
    """Both rewrites of the question. Raises ``Left``: the one that the seed's kind needs says nothing."""
    with stage("probe"):
        rewrites = await agents.probe(seed, place.part("probe"))
        if not folded(rewrites.of(seed.kind)):
            raise Left(Reason.EMPTY_REWRITE, value={"rewrites": rewrites.model_dump()})
    return rewrites


async def expanded(
    agents: Agents, seed: SourceSeed, rewrites: Probe, settings: ExpandSettings, place: Place
) -> tuple[Seed, tuple[str, ...]]:
    """The dialogue that leads to the rewrite of the seed's kind, and its answers where the generator wrote both.

    Raises ``Left``: they cannot be used.
    """
    turns, rewritten = draw_turns(seed.id, settings.turn_weights), rewrites.of(seed.kind)
    texts: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    with stage("expand", lambda: {"rewrites": rewrites.model_dump(), "turns": list(texts)}):
        if seed.kind is DialogueKind.BENIGN and drawn("pairs", seed.id) < settings.pairs:
            pairs = await agents.pairs(seed, rewritten, turns, place.part("pairs"))
            texts, answers = tuple(pair.question for pair in pairs), tuple(pair.whole_answer for pair in pairs)
        else:
            texts = await agents.expand(seed, rewritten, turns, place.part("expand"))
        if fault := fault_of(texts, turns):
            raise Left(*fault)
        if not all(map(well_formed, answers)):
            raise Left(Reason.MALFORMED, "an answer of the pairs")
    return dialogue_seed(seed, texts, Facts(rewrites=rewrites, pairs=bool(answers))), answers
