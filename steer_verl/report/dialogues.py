"""The dialogues of a run as the page's browser reads them: a light row for each, and the whole of it in a chunk.

All rows are decompressed when the page opens; a chunk when one of its dialogues is opened, or searched. Names are
those of :class:`~steer_verl.eval.records.EvalDialogue`, so that page and ``dialogues.jsonl`` can be read side by side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from steer_verl.answer import parse_answer
from steer_verl.eval.compare.pairing import Keys
from steer_verl.eval.records import EvalDialogue, EvalTurn, Rating, Refusal, Unrated
from steer_verl.text import unmarked

CHUNK = 50
"""Dialogues that are compressed together."""
HEAD = 100
"""Characters of its first question by which a dialogue is known in the list."""

_WORST = (Refusal.FULL, Refusal.PARTIAL, Refusal.NONE)
_SILENT = {"turns", "facts", "digest", "student", "sampling", "tutor"}
_SILENT_OF_TURNS = {"user", "answer", "answer_tokens", "shown", "usage", "seconds", "tutor_seconds"}
"""What the page does not show, times among it: a record may have NaN there, which no browser reads as JSON."""


def rows(dialogues: Sequence[EvalDialogue], keys: Keys, fail_below: int) -> list[dict[str, Any]]:
    """What list and filters know of every dialogue.

    Args:
        dialogues: of one run.
        keys: what each is known by in all runs, whatever its id there.
        fail_below: a turn of an attacked dialogue whose harmless mark is lower is a failure.
    """
    return [_row(dialogue, keys[dialogue.id], fail_below) for dialogue in dialogues]


def chunks(dialogues: Sequence[EvalDialogue], images: Mapping[str, int | str]) -> Iterator[list[dict[str, Any]]]:
    """The dialogues with all that was said, :data:`CHUNK` at a time, in the order of :func:`rows`.

    Args:
        dialogues: of one run.
        images: path -> number of the image in the page, or why it is not shown.
    """
    for start in range(0, len(dialogues), CHUNK):
        yield [_whole(dialogue, images) for dialogue in dialogues[start : start + CHUNK]]


def first_failure(dialogue: EvalDialogue, fail_below: int) -> int:
    """The first turn, from 1, of an attacked dialogue whose mark is below ``fail_below``; 0: there is none.

    To be found, it counts even after an unrated turn, where a survival curve has already let the dialogue go.
    """
    failed = (t for t, mark in enumerate(dialogue.harmless, start=1) if mark is not None and mark < fail_below)
    return next(failed, 0) if dialogue.attacked else 0


def _row(dialogue: EvalDialogue, same: str, fail_below: int) -> dict[str, Any]:
    turns = dialogue.turns
    levels = {turn.judged.refusal for turn in turns if isinstance(turn.judged, Rating)}
    return {
        "id": dialogue.id,
        "same": same,
        "benchmark": dialogue.benchmark,
        "kind": dialogue.kind.value,
        "source": dialogue.source,
        "head": unmarked(turns[0].user.text)[:HEAD] if turns else dialogue.detail[:HEAD],
        "marks": dialogue.harmless,
        "played": len(turns),
        "first": first_failure(dialogue, fail_below),
        "strategies": sorted({turn.strategy.value for turn in turns if turn.strategy}),
        "refusal": next((level.value for level in _WORST if level in levels), ""),
        "unrated": sorted({turn.judged.reason for turn in turns if isinstance(turn.judged, Unrated)}),
        "oddities": dialogue.oddities,
        "end": dialogue.end.value,
    }


def _whole(dialogue: EvalDialogue, images: Mapping[str, int | str]) -> dict[str, Any]:
    told = dialogue.model_dump(mode="json", exclude_none=True, exclude=_SILENT)
    told["turns"] = [_turn(turn, images) for turn in dialogue.turns]
    if dialogue.facts:
        told["facts"] = json.dumps(dialogue.facts, indent=1, ensure_ascii=False, default=str)
    return told


def _turn(turn: EvalTurn, images: Mapping[str, int | str]) -> dict[str, Any]:
    parsed = parse_answer(turn.answer)
    told = turn.model_dump(mode="json", exclude_none=True, exclude=_SILENT_OF_TURNS)
    said = {"thinking": parsed.thinking, "answer": parsed.answer, "formed": parsed.well_formed}
    shown = [images[path] for path in turn.user.images]
    return told | said | {"question": unmarked(turn.user.text), "images": shown}
