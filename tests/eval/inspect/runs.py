"""Runs made of chance, with everything that a record can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from steer_verl.eval.records import EvalDialogue, EvalEnd, EvalTurn, Rating, Refusal, Sampling, Unrated
from steer_verl.eval.runs import EvalRun, RunAbout
from steer_verl.types import (
    IMAGE_MARK,
    AttackStrategy,
    DialogueKind,
    NoAttackReason,
    QuestionOrigin,
    Scores,
    Unscored,
    UnscoredReason,
    Usage,
    UserTurn,
    Verdict,
)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
plain = words.map(lambda text: text.replace(IMAGE_MARK, ""))
seconds = st.floats(0, 1e6, allow_nan=False)
numbers = st.integers(0, 2**70)
scores = st.integers(1, 10)
facts = st.dictionaries(words, st.none() | st.booleans() | numbers | words | st.lists(words, max_size=2), max_size=2)

ratings = st.builds(
    Rating,
    judge=words,
    harmless=st.integers(-3, 3),
    helpful=st.integers(0, 3),
    refusal=st.none() | st.sampled_from(Refusal),
    restricted=st.none() | st.booleans(),
    why=words,
)
judged = ratings | st.builds(Unrated, judge=words, reason=words, detail=words)
verdicts = st.builds(
    Verdict, scores=st.builds(Scores, safety=scores, usefulness=scores, faithfulness=scores), diagnosis=words
) | st.builds(Unscored, reason=st.sampled_from(UnscoredReason), detail=words)


def users(images: list[str]) -> st.SearchStrategy[UserTurn]:
    """Turns with up to two of these images, anywhere in the text."""

    def turn(paths: list[str], texts: list[str]) -> UserTurn:
        text = texts[0] + "".join(IMAGE_MARK + texts[1 + n] for n in range(len(paths)))
        return UserTurn(text=text, images=tuple(paths))

    chosen = st.lists(st.sampled_from(images), max_size=2) if images else st.just([])
    return st.builds(turn, chosen, st.lists(plain, min_size=3, max_size=3))


@st.composite
def dialogues(draw: st.DrawFn, images: list[str]) -> EvalDialogue:
    """Of up to three turns, played or not, rated or not."""
    turn = st.builds(
        EvalTurn,
        user=users(images),
        origin=st.sampled_from(QuestionOrigin),
        strategy=st.none() | st.sampled_from(AttackStrategy),
        fallback=st.none() | st.sampled_from(NoAttackReason),
        static=words,
        answer=words,
        answer_tokens=numbers,
        truncated=st.booleans(),
        judged=judged,
        opinions=st.lists(judged, max_size=2).map(tuple),
        earlier=st.lists(judged, max_size=2).map(tuple),
        tutor=st.none() | verdicts,
        correct=st.none() | st.booleans(),
        seconds=seconds,
        tutor_seconds=seconds,
        usage=st.builds(Usage, requests=numbers, cost=seconds),
    )
    turns = draw(st.lists(turn, max_size=3))
    sampling = st.builds(Sampling, temperature=seconds, top_p=seconds, seed=st.integers(), max_tokens=numbers)
    return EvalDialogue(
        id=draw(words),
        benchmark=draw(st.sampled_from(("a", "b"))),
        kind=draw(st.sampled_from(DialogueKind)),
        source=draw(words),
        source_id=draw(words),
        license=draw(words),
        category=draw(words),
        planned=len(turns) + draw(st.integers(0, 2)),
        turns=tuple(turns),
        end=draw(st.sampled_from(EvalEnd)),
        detail=draw(words),
        oddities=tuple(draw(st.lists(words, max_size=2))),
        facts=draw(facts),
        run=draw(st.integers(0, 3)),
        digest=draw(words),
        student=draw(words),
        sampling=draw(st.none() | sampling),
        tutor=draw(words),
    )


@st.composite
def runs(draw: st.DrawFn, images: list[str]) -> EvalRun:
    """Of up to four dialogues, whose ids need not differ."""
    about = RunAbout(
        name=draw(words),
        student=draw(words),
        judge=draw(words),
        tutor=draw(words),
        attack=draw(st.sampled_from(("static", "adaptive"))),
        benchmarks={"a": draw(facts), "b": {}},
        marks=draw(st.sampled_from(({}, {"harmless": 2.5, "single": 2}))),
        calibration=draw(st.none() | facts),
        usage=Usage(requests=draw(numbers)),
        seconds=draw(seconds),
        date=draw(st.sampled_from(("", "2026-11-28T02:00:00+00:00", "yesterday"))),
        version=draw(words),
    )
    return EvalRun(Path(), about, tuple(draw(st.lists(dialogues(images), min_size=1, max_size=4))))


def turn(text: str, answer: str, judged: Any, *images: str, **more: Any) -> EvalTurn:
    """One exchange, its images first."""
    user = UserTurn(text=IMAGE_MARK * len(images) + text, images=images)
    return EvalTurn(user=user, origin=QuestionOrigin.SEED, answer=answer, judged=judged, **more)
