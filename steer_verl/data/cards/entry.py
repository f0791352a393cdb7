"""One dialogue as a card sees it: a seed, a played dialogue, or an item that a step rejected."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pydantic import TypeAdapter

from steer_verl.data.sources.seed import SourceSeed
from steer_verl.models.forms import Said
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed, Trajectory, Turn, UserTurn
from steer_verl.work.step import Outcome, Rejected

R = TypeVar("R")

_TRAJECTORY, _SEED, _SINGLE = TypeAdapter(Trajectory), TypeAdapter(Seed), TypeAdapter(SourceSeed)
_MESSAGES = TypeAdapter(tuple[Said, ...])


@dataclass(frozen=True)
class Entry:
    """Whatever is known of one dialogue."""

    id: str
    kind: DialogueKind | None = None
    """``None``: an item that was rejected before it had one."""
    source: str = ""
    source_id: str = ""
    license: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    asked: tuple[UserTurn, ...] = ()
    """The user's side, as it was played if it was."""
    turns: tuple[Turn, ...] = ()
    """The exchanges; empty for a seed."""
    unfinished: tuple[Said, ...] = ()
    """What was said after the last exchange, in a dialogue that was broken off."""
    step: str = ""
    """Where it was rejected; empty for a dialogue of the set."""
    reason: str = ""
    detail: str = ""

    @property
    def category(self) -> str:
        """What the source says that the question is about; empty if it says nothing."""
        return str(self.facts.get("category") or "")

    @property
    def pictures(self) -> int:
        """How many pictures the user shows in all."""
        return sum(len(turn.images) for turn in self.asked)


def entry_of(record: Entry | Seed | Trajectory, seed: Seed | None = None) -> Entry:
    """A record of a set as an entry.

    Args:
        record: a seed, a played dialogue, or an entry, which is returned as it is.
        seed: what a played dialogue was played from: a trajectory does not carry its licence.
    """
    if isinstance(record, Entry):
        return record
    if isinstance(record, Seed):
        return Entry(
            record.id, record.kind, record.source, record.source_id, record.license, record.facts, record.turns
        )
    asked, known = tuple(turn.user for turn in record.turns), {**(seed.facts if seed else {}), **record.facts}
    played = Entry(record.seed_id, record.kind, record.source, facts=known, asked=asked, turns=record.turns)
    return replace(played, source_id=seed.source_id, license=seed.license) if seed else played


def rejected_entry(step: str, outcome: Outcome) -> Entry:
    """A rejected item with what was made of it so far: a dialogue, a seed, a single question, or nothing readable."""
    done = outcome.done
    if not isinstance(done, Rejected):
        raise ValueError(f"{outcome.id}: {done.status}, not rejected")
    found = _made(done.value or {})
    known = found or Entry(outcome.id, facts=done.value or {})
    return replace(known, id=outcome.id, step=step, reason=done.reason, detail=done.detail)


def _made(value: Mapping[str, Any]) -> Entry | None:
    """The first of the known records that the value is or holds."""
    if played := _read(_TRAJECTORY, value.get("trajectory", value)):
        broken_off = _read(_MESSAGES, value.get("unfinished", ())) or ()
        return replace(entry_of(played, _read(_SEED, value.get("seed"))), unfinished=broken_off)
    if seed := _read(_SEED, value):
        return entry_of(seed)
    if single := _read(_SINGLE, value):
        return _of_single(single)
    inner = value.get("seed")
    return _made(inner) if isinstance(inner, Mapping) else None


def _of_single(seed: SourceSeed) -> Entry:
    images = (seed.image,) if seed.image else ()
    words = seed.question.replace(IMAGE_MARK, " ")
    facts = {"category": seed.category, **seed.facts}
    turn = UserTurn(text=IMAGE_MARK * len(images) + words, images=images)
    return Entry(seed.id, None, seed.source, seed.source_id, seed.license, facts, (turn,))


def _read(kind: TypeAdapter[R], value: Any) -> R | None:
    """The value as that record, or ``None``: the records are strict, so a value is never two of them."""
    try:
        return kind.validate_json(json.dumps(value))
    except (TypeError, ValueError):
        return None
