"""How a step is worked: nothing here changes what comes out of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from steer_verl.config import Settings


class WorkSettings(Settings):
    """Bounds of the work, and what is done about failures."""

    in_flight: Annotated[int, Field(ge=1)] = 256
    """Items at work at the same time. The endpoints bound their own requests: twice the sum of their
    ``max_concurrency`` keeps them fed, and more costs memory alone."""
    tries: Annotated[int, Field(ge=1, le=20)] = 3
    """How often an item is tried whose agent fails for the moment; the last failure rejects it."""
    pause: Annotated[float, Field(ge=0)] = 5.0
    """Seconds before an item's second try; doubled before each further one."""
    dead_after: Annotated[int, Field(ge=1)] = 32
    """So many failures in a row, with no item ended between them, stop the run: an endpoint is dead."""
    give_up: bool = False
    """Reject what has failed in every try even if no other item has ended since, and never stop: for the last few
    items, when the endpoints are known to be well."""
    grace: Annotated[float, Field(ge=0)] = 30.0
    """Seconds that calls under way may still take when a run stops, because they are paid for."""
    shards: Annotated[int, Field(ge=1, le=1000)] = 8
    """Parts into which the items are dealt by a hash of their id. A folder keeps the number that it was begun with."""
    lines_per_file: Annotated[int, Field(ge=1)] = 1000
    """Outcomes in one file."""
