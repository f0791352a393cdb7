"""What a step is, what becomes of an item, and how a step is worked."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, Field

from steer_verl.config import Settings
from steer_verl.models.place import Place
from steer_verl.types import Record, Usage

I_contra = TypeVar("I_contra", contravariant=True)


class Kept(Record):
    """The item goes on, as ``value`` (a record's JSON object)."""

    status: Literal["kept"] = "kept"
    value: dict[str, Any]


class Rejected(Record):
    """The item ends here."""

    status: Literal["rejected"] = "rejected"
    reason: str
    """One word of the step's own list."""
    detail: str = ""
    value: dict[str, Any] | None = None
    """What was made of it so far."""
    stage: str = ""
    """The part of the work that it did not pass, where a step has several."""
    given_up: bool = False
    """An agent failed for the moment in every try. The engine says so; ``retry`` works these items again."""


Done = Kept | Rejected


class Outcome(Record):
    """One line of a shard: the one and final word on an item in a step."""

    id: str
    done: Done
    content: str = ""
    """Digest of what the item held; of an item that holds something else, this is no word."""
    usage: Usage = Usage()
    """Of every call ever made for it, in earlier runs too."""
    seconds: float = 0.0


def given_up(outcome: Outcome) -> bool:
    """Whether an item ended because an agent failed for the moment in every try."""
    return isinstance(outcome.done, Rejected) and outcome.done.given_up


class Step(Protocol[I_contra]):
    """Work on one kind of item. What it asks for at the item's place is replayed when the item is worked again.

    It may have two more asynchronous methods. ``open()`` proves, before the first item that is left to work, that
    whoever is asked is there; its ``SteerError`` stops the run and touches no item. ``close()`` gives things back.
    """

    name: str

    async def work(self, item: I_contra, place: Place) -> Done:
        """What becomes of the item.

        Raises:
            AgentFailed: an agent could not be had (``transient``): the item is worked on again later. A failure that
                would come again (a refusal, a content filter, an unreadable reply) is raised as not transient, and
                rejects the item with its reason and stage.
        """
        ...


def value_of(record: BaseModel) -> dict[str, Any]:
    """A record as an outcome's ``value``."""
    return record.model_dump(mode="json")


class WorkSettings(Settings):
    """Bounds of the work, and what is done about failures. Nothing here changes what is made of an item."""

    in_flight: Annotated[int, Field(ge=1)] = 256
    """Items at work at the same time. Endpoints bound their own requests: twice the sum of their ``max_concurrency``
    keeps them fed, and more costs memory alone."""
    tries: Annotated[int, Field(ge=1, le=20)] = 3
    """How often an item is tried whose agent fails for the moment; the last failure rejects it."""
    pause: Annotated[float, Field(ge=0)] = 5.0
    """Seconds before an item's second try; doubled before each further one."""
    dead_after: Annotated[int, Field(ge=1)] = 32
    """So many failures in a row, with no item ended between them, stop the run: an endpoint is dead."""
    give_up: bool = False
    """Reject what has failed in every try, and never stop: for the last items, when the endpoints are known to be
    well."""
    grace: Annotated[float, Field(ge=0)] = 30.0
    """Seconds that calls under way may still take when a run stops, because they are paid for."""
    shards: Annotated[int, Field(ge=1, le=1000)] = 8
    """Parts into which the items are dealt by a hash of their id. A folder keeps the number that it was begun with."""
