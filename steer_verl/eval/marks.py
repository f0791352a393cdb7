"""What measures read of a judged dialogue: its marks, turn by turn, without the texts.

They are reduced from the records of a run (:func:`marks_of_run`), and laid out as arrays to be measured
(:func:`grid_of`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import Field

from steer_verl.answer import parse_answer
from steer_verl.eval.records import EvalDialogue, EvalTurn, Harmless, Helpful, Rating, Refusal
from steer_verl.types import AttackStrategy, DialogueKind, QuestionOrigin, Record, Score, Verdict

Key = tuple[str, str]
"""Of a dialogue, whoever plays it: benchmark, and digest or id."""


class TurnMarks(Record):
    """One judged answer. ``None``: it could not be scored, and no measure counts it as a number."""

    harmless: Harmless | None
    helpful: Helpful | None
    safety: Score | None
    """The tutor's."""
    restricted: bool | None
    """Whether the request of this turn must be declined; ``None``: it is safe whatever the picture shows, or nobody
    says."""
    refused: bool | None
    """Whether it was declined; ``None``: nobody says, or nobody says whether it might be."""
    well_formed: bool
    refusal: Refusal | None = None
    correct: bool | None = None
    """Whether it is the reference; ``None``: there is none for this turn."""
    origin: QuestionOrigin | None = None
    strategy: AttackStrategy | None = None

    @property
    def asked(self) -> str:
        """How the question came about: the tutor's strategy, else its origin; empty where that was not kept."""
        how = self.strategy or self.origin
        return how.value if how else ""


class DialogueMarks(Record):
    """One judged dialogue."""

    seed_id: str
    kind: DialogueKind
    turns: tuple[TurnMarks, ...]
    run: int = 0
    """Which training seed's student played it; dialogues of several runs can be pooled."""
    benchmark: str = ""
    digest: str = ""
    """See :attr:`~steer_verl.eval.records.EvalItem.digest`."""
    planned: Annotated[int, Field(ge=0)] = 0
    """User turns that it has; more than ``turns`` when it was not played to its end. 0: as many as ``turns``."""
    single: bool = False
    """It belongs to a set of single-turn questions."""
    exact: bool = False
    """Its last answer is compared with a reference."""
    silent: tuple[str, ...] = ()
    """Marks that nobody gives in this evaluation, of ``safety``, ``refusal`` and ``restricted``: a judge that knows no
    truth, questions without a tutor. They are not missing."""

    @property
    def key(self) -> Key:
        """The dialogue, whoever played it."""
        return self.benchmark, self.digest or self.seed_id

    @property
    def attacked(self) -> bool:
        """Whether somebody tried to break the student in this dialogue."""
        return self.kind is not DialogueKind.BENIGN

    @property
    def length(self) -> int:
        """Turns that it has, played or not."""
        return max(self.planned, len(self.turns))


def marks_of_run(dialogues: Iterable[EvalDialogue], exact: Collection[str] = ()) -> list[DialogueMarks]:
    """The marks of a run, in its order. A benchmark is single-turn when none of its dialogues has a second turn.

    Args:
        dialogues: Of all its benchmarks.
        exact: Benchmarks whose last answers are compared with references.
    """
    dialogues = list(dialogues)
    several = of_several_turns(dialogues)
    silent = _silent([turn for d in dialogues for turn in d.turns])
    return [
        DialogueMarks(
            seed_id=d.id,
            kind=d.kind,
            turns=tuple(_turn_marks(turn, not d.attacked or "restricted" not in silent) for turn in d.turns),
            run=d.run,
            benchmark=d.benchmark,
            digest=d.digest,
            planned=d.planned,
            single=d.benchmark not in several,
            exact=d.benchmark in exact,
            silent=silent,
        )
        for d in dialogues
    ]


def of_several_turns(dialogues: Iterable[EvalDialogue]) -> set[str]:
    """Benchmarks of which a dialogue has a second turn."""
    return {d.benchmark for d in dialogues if max(d.planned, len(d.turns)) > 1}


def _silent(turns: Sequence[EvalTurn]) -> tuple[str, ...]:
    ratings = [turn.judged for turn in turns if isinstance(turn.judged, Rating)]
    said = {
        "safety": any(isinstance(turn.tutor, Verdict) for turn in turns),
        "refusal": any(rating.refusal is not None for rating in ratings),
        "restricted": any(rating.restricted is not None for rating in ratings),
    }
    return tuple(name for name, heard in said.items() if not heard)


def _turn_marks(turn: EvalTurn, allowed_known: bool) -> TurnMarks:
    """``allowed_known``: no word on ``restricted`` means that the request is safe whatever the picture shows. So it is
    from a judge that knows the truth; from another only a benign request is known to be allowed."""
    rating = turn.judged if isinstance(turn.judged, Rating) else None
    restricted, refusal = (rating.restricted, rating.refusal) if rating else (None, None)
    return TurnMarks(
        harmless=rating.harmless if rating else None,
        helpful=rating.helpful if rating else None,
        safety=turn.tutor.scores.safety if isinstance(turn.tutor, Verdict) else None,
        restricted=restricted,
        refused=refusal is Refusal.FULL if refusal is not None and allowed_known else None,
        well_formed=parse_answer(turn.answer).well_formed,
        refusal=refusal,
        correct=turn.correct,
        origin=turn.origin,
        strategy=turn.strategy,
    )


LEVELS = (Refusal.NONE, Refusal.PARTIAL, Refusal.FULL)
"""Of refusal; their places stand in :attr:`Grid.refusal_NT`."""


@dataclass(frozen=True)
class Grid:
    """The marks of N dialogues at T turns as arrays of numbers (truth: 1 and 0); NaN where there is no mark."""

    dialogues: Sequence[DialogueMarks]
    harmless_NT: np.ndarray
    helpful_NT: np.ndarray
    safety_NT: np.ndarray
    restricted_NT: np.ndarray
    refused_NT: np.ndarray
    well_formed_NT: np.ndarray
    refusal_NT: np.ndarray
    correct_NT: np.ndarray
    asked_NT: np.ndarray
    """Words."""

    @property
    def turn_T(self) -> np.ndarray:
        """1..T."""
        return np.arange(1, self.harmless_NT.shape[1] + 1)

    @cached_property
    def length_N(self) -> np.ndarray:
        """Turns that each has, played or not."""
        return np.array([d.length for d in self.dialogues], dtype=int)

    @cached_property
    def planned_NT(self) -> np.ndarray:
        """Turns that there are."""
        return self.turn_T <= self.length_N[:, None]

    @cached_property
    def played_NT(self) -> np.ndarray:
        """Turns that were asked."""
        return self.turn_T <= np.array([len(d.turns) for d in self.dialogues], dtype=int)[:, None]

    @cached_property
    def attacked_N(self) -> np.ndarray:
        """See :attr:`DialogueMarks.attacked`; so for the next."""
        return np.array([d.attacked for d in self.dialogues], dtype=bool)

    @cached_property
    def single_N(self) -> np.ndarray:
        """See :attr:`DialogueMarks.single`."""
        return np.array([d.single for d in self.dialogues], dtype=bool)

    @cached_property
    def exact_N(self) -> np.ndarray:
        """See :attr:`DialogueMarks.exact`."""
        return np.array([d.exact for d in self.dialogues], dtype=bool)

    def heard(self, name: str) -> np.ndarray:
        """(N, 1): whether anybody gives the mark ``name`` at all (:attr:`DialogueMarks.silent`)."""
        return np.array([[name not in d.silent] for d in self.dialogues], dtype=bool).reshape(-1, 1)

    @cached_property
    def undecided_NT(self) -> np.ndarray:
        """Turns whose refusal is missing. Where nobody knows which requests must be declined, refusals under attack are
        not missing."""
        known_NT = ~np.isnan(self.refused_NT) | ~np.isnan(self.refusal_NT)
        told_N1 = self.heard("refusal") & (~self.attacked_N[:, None] | self.heard("restricted"))
        return self.planned_NT & ~known_NT & told_N1


_MARKS = ("harmless", "helpful", "safety", "restricted", "refused", "well_formed", "refusal", "correct", "asked")


def grid_of(dialogues: Sequence[DialogueMarks]) -> Grid:
    """The marks of ``dialogues`` as arrays."""
    longest = max((d.length for d in dialogues), default=0)
    place = np.array([(i, t) for i, d in enumerate(dialogues) for t in range(len(d.turns))], dtype=int).reshape(-1, 2)
    turns = [turn for d in dialogues for turn in d.turns]
    arrays = []
    for name in _MARKS:
        array = np.full((len(dialogues), longest), "" if name == "asked" else np.nan, dtype=object)
        values = [getattr(turn, name) for turn in turns]
        if name == "refusal":
            values = [None if level is None else LEVELS.index(level) for level in values]
        array[place[:, 0], place[:, 1]] = values
        arrays.append(array if name == "asked" else array.astype(float))
    return Grid(dialogues, *arrays)
