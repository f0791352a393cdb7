"""A written set read back for its card: its dialogues, what assembly left out of it, and assembly's counts.

Reads what :mod:`steer_verl.data.stage2.assemble` writes. Pictures are named as the build names them, so that one folder
of pictures, the build's, serves a set and what was left out of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from steer_verl.data.cards.entry import Entry, entry_of
from steer_verl.data.jsonl import read_jsonl
from steer_verl.data.rows import RlRow
from steer_verl.data.set_rows import BenchRow
from steer_verl.data.stage2.splits import SetName
from steer_verl.data.stage2.writers import PICTURES
from steer_verl.errors import DataError
from steer_verl.types import (
    IMAGE_MARK,
    DialogueKind,
    QuestionOrigin,
    Scores,
    Turn,
    UserTurn,
    Verdict,
)
from steer_verl.work.step import Outcome, Rejected

ASSEMBLE = "assemble"
"""Name of the step that makes sets of what the others kept."""


def set_entries(folder: Path, name: SetName) -> Iterator[Entry]:
    """The dialogues of ``<folder>/<name>.jsonl``, in order; one row in memory at a time. No file: an empty set.

    Raises:
        DataError: a row that this project does not write: file, row, what is wrong, the cure.
    """
    path = folder / f"{name.value}.jsonl"
    read = _READERS[name]
    for number, value in _objects(path):
        try:
            yield read(value)
        except DataError as error:
            raise DataError(f"{path}: row {number}: {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            cure = "`steer data check` tells more; write the set anew"
            raise DataError(f"{path}: row {number}: not in the set's form ({error!r:.200}); {cure}") from None


def set_left_out(folder: Path, name: SetName) -> Iterator[tuple[str, Outcome]]:
    """What assembly left out of the set, as (step, outcome)."""
    for _, value in _objects(folder / "left_out.jsonl"):
        if value.get("set") == name.value:
            done = Rejected(reason=str(value.get("reason")), detail=str(value.get("detail") or ""))
            yield ASSEMBLE, Outcome(id=str(value.get("id")), done=done)


def set_account(folder: Path, name: SetName) -> dict[str, Any]:
    """Assembly's counts of the set, as a step's in the manifest.

    Raises:
        DataError: no ``sets.json`` that can be read.
    """
    path = folder / "sets.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))[name.value]
        return {ASSEMBLE: {"in": report["offered"], "kept": report["kept"], "rejected": report["left_out"]}}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no counts of {name.value} in it ({error!r:.200}); write the sets anew") from None


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.exists():
        return
    for line in read_jsonl(path):
        if line.value is None:
            raise DataError(f"{path}: row {line.number}: {line.what}; {line.cure}")
        yield line.number, line.value


def _rl(value: Mapping[str, Any]) -> Entry:
    entry = entry_of(RlRow.read(value).seed())
    return _named_as_built(entry, entry.asked)


def _bench(value: Mapping[str, Any]) -> Entry:
    row = BenchRow.read(value)
    opening, *later = (message.content for message in row.messages_fixed)
    images = (row.image,) if row.image else ()
    asked = (UserTurn(text=IMAGE_MARK * len(images) + opening, images=images), *(UserTurn(text=t) for t in later))
    told = {"category": row.category, "source_category": row.source_category, "risk_curve": list(row.risk_trajectory)}
    facts = {key: fact for key, fact in told.items() if fact}
    kind = DialogueKind(row.kind) if row.kind in [kind.value for kind in DialogueKind] else None
    entry = Entry(row.question_id, kind, row.source, row.source_id, row.license, facts)
    return _named_as_built(entry, asked)


def _sft(value: Mapping[str, Any]) -> Entry:
    messages = [message["content"] for message in value["messages"] if message["role"] != "system"]
    pictures = iter(value["images"])
    users = [UserTurn(text=text, images=tuple(islice(pictures, text.count(IMAGE_MARK)))) for text in messages[::2]]
    diagnoses = value.get("diagnoses") or [""] * len(users)
    judged = zip(value["scores"], diagnoses, strict=True)
    verdicts = [Verdict(scores=Scores.model_validate(scores), diagnosis=why) for scores, why in judged]
    origins = map(QuestionOrigin, value["origins"])
    turns = tuple(
        Turn(user=user, origin=origin, answer=answer, verdict=verdict)
        for user, origin, answer, verdict in zip(users, origins, messages[1::2], verdicts, strict=True)
    )
    id, source, source_id, license = (str(value[key]) for key in ("id", "source", "source_id", "license"))
    entry = Entry(id, DialogueKind(value["kind"]), source, source_id, license, value.get("facts") or {}, turns=turns)
    return _named_as_built(entry, tuple(users))


_READERS: dict[SetName, Callable[[Mapping[str, Any]], Entry]] = {
    SetName.SFT: _sft,
    SetName.RL: _rl,
    SetName.BENCH: _bench,
}


def _named_as_built(entry: Entry, asked: tuple[UserTurn, ...]) -> Entry:
    """The entry with its users' pictures named below the build's folder, not below the set's own."""

    def renamed(turn: UserTurn) -> UserTurn:
        images = tuple(path.removeprefix(f"{PICTURES}/") for path in turn.images)
        return turn.model_copy(update={"images": images})

    turns = tuple(turn.model_copy(update={"user": renamed(turn.user)}) for turn in entry.turns)
    return replace(entry, asked=tuple(map(renamed, asked)), turns=turns)
