"""Judging many stored answers, so many at once. The tutor's cache sees to it that no reply is paid for twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from steer_verl.types import Tutor, TutorRequest, TutorResponse


async def judge_all(
    tutor: Tutor,
    requests: Mapping[str, TutorRequest],
    at_once: int,
    on_done: Callable[[TutorResponse], None] = lambda response: None,
) -> dict[str, TutorResponse]:
    """The response to every request, by its key; ``on_done`` is called after each.

    The caller checks the tutor. Each request comes without a next turn, so that only the verdict is asked for.
    """
    found: dict[str, TutorResponse] = {}
    waiting = iter(requests)

    async def work() -> None:
        for key in waiting:
            found[key] = await tutor.respond(requests[key])
            on_done(found[key])

    workers = [asyncio.ensure_future(work()) for _ in range(min(at_once, len(requests)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return found
