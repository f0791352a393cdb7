"""Plain counts over evaluated dialogues: ends, unrated turns, oddities, marks by turn, strategies, refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from steer_verl.eval.config import MarkSettings
from steer_verl.eval.marks import DialogueMarks
from steer_verl.eval.records import EvalDialogue, Unrated
from steer_verl.eval.shape import Heat, Refusals
from steer_verl.types import Usage

SHOWN_DETAILS = 20
"""Reasons of early ends that are listed, the commonest first."""

UNRATED, UNPLAYED = "unrated", "unplayed"
HARMLESS_MARKS = ("3", "2", "1", "0", "-1", "-2", "-3", UNRATED, UNPLAYED)
HELPFUL_MARKS = ("3", "2", "1", "0", UNRATED, UNPLAYED)


def unrated_reasons(dialogues: Iterable[EvalDialogue]) -> dict[str, int]:
    """Reason -> planned turns without a rating, the commonest first; ``unplayed``: never asked."""
    found: Counter[str] = Counter()
    for d in dialogues:
        found.update(turn.judged.reason for turn in d.turns if isinstance(turn.judged, Unrated))
        found[UNPLAYED] += max(0, d.planned - len(d.turns))
    return _commonest(found)


def end_details(dialogues: Iterable[EvalDialogue]) -> dict[str, int]:
    """Why dialogues ended early -> dialogues."""
    return _commonest(Counter(d.detail for d in dialogues if d.detail), SHOWN_DETAILS)


def oddities(dialogues: Iterable[EvalDialogue]) -> dict[str, int]:
    """What is unusual about rows -> dialogues, the commonest first."""
    return _commonest(Counter(oddity for d in dialogues for oddity in set(d.oddities)))


def _commonest(found: Counter[str], most: int | None = None) -> dict[str, int]:
    ranked = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return {name: n for name, n in ranked[:most] if n}


def heat(dialogues: Sequence[DialogueMarks]) -> Heat:
    """How many answers got which mark at which turn."""
    longest = max((d.length for d in dialogues), default=0)
    return Heat(
        turns=list(range(1, longest + 1)),
        harmless_marks=list(HARMLESS_MARKS),
        harmless=_grid(dialogues, "harmless", HARMLESS_MARKS, longest),
        helpful_marks=list(HELPFUL_MARKS),
        helpful=_grid(dialogues, "helpful", HELPFUL_MARKS, longest),
    )


def _grid(dialogues: Sequence[DialogueMarks], name: str, columns: Sequence[str], rows: int) -> list[list[int]]:
    place = {column: i for i, column in enumerate(columns)}
    grid = np.zeros((rows, len(columns)), dtype=int)
    for d in dialogues:
        for t, turn in enumerate(d.turns):
            mark = getattr(turn, name)
            grid[t, place[UNRATED if mark is None else str(mark)]] += 1
        grid[len(d.turns) : d.length, place[UNPLAYED]] += 1
    return [[int(n) for n in row] for row in grid]


def refusals(dialogues: Sequence[DialogueMarks], attacked: bool) -> Refusals:
    """Answers by refusal level, of the attacked dialogues or of the benign ones."""
    found: Counter[str] = Counter()
    for d in dialogues:
        if d.attacked == attacked:
            found[UNPLAYED] += d.length - len(d.turns)
            for turn in d.turns:
                rated = turn.refusal.value if turn.refusal is not None else "unsaid"
                found[rated if turn.harmless is not None else UNRATED] += 1
    return Refusals(**{name: found[name] for name in Refusals.model_fields})


def asked_by_turn(dialogues: Sequence[DialogueMarks], marks: MarkSettings) -> dict[str, list[list[int]]]:
    """How the question came about -> ``[asked, rated, failed]`` at turn 1, 2, ... of the attacked dialogues."""
    longest = max((len(d.turns) for d in dialogues if d.attacked), default=0)
    found: dict[str, list[list[int]]] = {}
    for d in dialogues:
        for t, turn in enumerate(d.turns if d.attacked else ()):
            row = found.setdefault(turn.asked or "unknown", [[0, 0, 0] for _ in range(longest)])[t]
            row[0] += 1
            row[1] += turn.harmless is not None
            row[2] += turn.harmless is not None and turn.harmless < marks.fail_below
    return dict(sorted(found.items()))


def usage(dialogues: Iterable[EvalDialogue], total: Usage, seconds: float) -> dict[str, Any]:
    """What was spent (``Summary.usage``)."""
    turns = [turn for d in dialogues for turn in d.turns]
    free = Usage()
    paid = [turn.usage for turn in turns if turn.usage != free]
    return {
        "total": total.model_dump(),
        "tutor": {name: sum(getattr(one, name) for one in paid) for name in Usage.model_fields},
        "answer_tokens": sum(turn.answer_tokens for turn in turns),
        "student_seconds": round(sum(turn.seconds for turn in turns), 3),
        "tutor_seconds": round(sum(turn.tutor_seconds for turn in turns), 3),
        "seconds": seconds,
    }
