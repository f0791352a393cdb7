"""What a step is to the engine, what it finds on its desk, and what becomes of an item."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel

from steer_verl.types import Record, Usage

T = TypeVar("T")
I_contra = TypeVar("I_contra", contravariant=True)


class Kept(Record):
    """The item goes on, as ``value`` (a record's JSON object)."""

    status: Literal["kept"] = "kept"
    value: dict[str, Any]


class Rejected(Record):
    """The item ends here. ``reason`` is one word of the step's own list; ``value`` keeps what was made of it so far."""

    status: Literal["rejected"] = "rejected"
    reason: str
    detail: str = ""
    value: dict[str, Any] | None = None


Done = Kept | Rejected


class Outcome(Record):
    """One line of a shard: the one and final word on an item in a step."""

    id: str
    done: Done
    usage: Usage = Usage()
    """Of every call made for it, earlier runs' included."""
    seconds: float = 0.0


class Desk(Protocol):
    """Where one item is worked on: it remembers what has been paid for."""

    place: str
    """``<step>/<item id>``: idempotency keys are made of it."""

    async def once(self, name: str, kind: type[T], work: Callable[[], Awaitable[T]]) -> T:
        """The result of ``work``, kept on disk before it is returned; a run started again gets the kept one.

        Args:
            name: unique within the item; it holds whatever makes another result (model, version of the prompt).
            kind: type of the result, as pydantic reads and writes it.
            work: not called when the result is known. What it raises is not kept.
        """
        ...

    def spend(self, usage: Usage) -> None:
        """Put a call's cost on the item's account. To be called inside ``work``, so that it is kept with the result."""
        ...


class Step(Protocol[I_contra]):
    """Work on one kind of item."""

    name: str

    async def work(self, item: I_contra, desk: Desk) -> Done:
        """What becomes of the item.

        Raises:
            AgentFailed: an agent could not be had (``transient``): the item is worked on again later. A failure that
                would come again (a refusal, a content filter, an unreadable reply) is raised as not transient, and
                rejects the item with its reason.
        """
        ...


@runtime_checkable
class Opens(Protocol):
    """A step that must be opened before its first item; one that has no item left to work is not."""

    async def open(self) -> None:
        """Prove that whoever is asked is there.

        Raises:
            SteerError: one line, with the cure; the run stops, and no item is touched.
        """
        ...


def value_of(record: BaseModel) -> dict[str, Any]:
    """A record as an outcome's ``value``."""
    return record.model_dump(mode="json")
