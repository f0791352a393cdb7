"""Ask, read the reply, and ask again about one that cannot be read, naming what was wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from steer_verl.transport.inquiry import Inquiry
from steer_verl.transport.pool import Pool
from steer_verl.transport.reading import was_cut
from steer_verl.transport.reply import Reply

T = TypeVar("T")


class Askable(Protocol):
    """A prompt that can be sent again with a complaint."""

    def messages(self, complaint: str = "") -> list[dict[str, Any]]:
        """The chat messages. ``complaint`` (our own words) says why the last reply was of no use."""
        ...


P = TypeVar("P", bound=Askable)


async def ask(
    pool: Pool,
    inquiry: Inquiry,
    make: Callable[[], P],
    schema: dict[str, Any] | None,
    read: Callable[[Reply, P], T],
    complaint: Callable[[T], str],
) -> T:
    """What ``read`` makes of the first reply without a complaint, or of the last one after ``reasks`` more.

    Args:
        pool: who is asked; its configuration says how often again.
        inquiry: whose request it is.
        make: builds the prompt; called off the event loop, for it may read pictures, and only once the pool has room.
        schema: structured output that is asked for; ``None`` asks for plain text.
        read: what a reply comes to.
        complaint: why that is worth asking again for, in words for the model; empty when it is not.

    Raises:
        CallFailed: no reply came.
    """
    config = pool.config
    async with pool.admitted(inquiry):
        with inquiry.deadline.stopped():
            prompt = await asyncio.to_thread(make)
        fault = ""
        for number in range(1 + config.reasks):
            inquiry.round = number
            reply = await pool.complete(prompt.messages(fault), schema, inquiry)
            outcome = read(reply, prompt)
            fault = complaint(outcome)
            if not fault:
                break
            if was_cut(reply.finish_reason) and config.json_schema == "auto":
                schema = None  # some servers pour out white space up to the limit under a schema (vLLM #38696)
    return outcome
