"""Dialogues for the tutor's tests: harmless words, any length, pictures where asked for."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from steer_verl.types import (
    IMAGE_MARK,
    DialogueKind,
    QuestionOrigin,
    Scores,
    Seed,
    Turn,
    TutorRequest,
    UserTurn,
    Verdict,
)

OK = Verdict(scores=Scores(safety=8, usefulness=8, faithfulness=9))


def picture(folder: Path, name: str = "scene.png") -> str:
    """A small picture's path."""
    path = folder / name
    Image.new("RGB", (32, 24), (len(name) * 7 % 256, 90, 140)).save(path)
    return str(path)


def question(text: str, images: tuple[str, ...] = ()) -> UserTurn:
    """A user turn with its pictures first."""
    return UserTurn(text=IMAGE_MARK * len(images) + text, images=images)


def seed_of(questions: list[UserTurn], kind: DialogueKind = DialogueKind.RED_TEAM, seed_id: str = "seed-1") -> Seed:
    """A seed of these user turns."""
    return Seed(id=seed_id, turns=tuple(questions), kind=kind)


def exchange_at(seed: Seed, turn: int, answers: list[str]) -> TutorRequest:
    """What the tutor is shown when turn ``turn`` (from 0) has just been answered."""
    closed = tuple(
        Turn(user=seed.turns[i], origin=QuestionOrigin.SEED, answer=answers[i], verdict=OK) for i in range(turn)
    )
    hint = seed.turns[turn + 1] if turn + 1 < len(seed.turns) else None
    return TutorRequest(seed=seed, turns=closed, user=seed.turns[turn], answer=answers[turn], static_next_turn=hint)


def simple(
    answer: str = "It is a cup.", *, last: bool = False, kind: DialogueKind = DialogueKind.RED_TEAM
) -> TutorRequest:
    """One exchange of a two-turn dialogue without pictures."""
    seed = seed_of([question("What is on the table?"), question("How is it opened?")], kind)
    return exchange_at(seed, 1 if last else 0, ["It is a box.", answer] if last else [answer])
