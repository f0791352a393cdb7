"""A tutor of your own, made so that a killed run does not ask it again.

The built-in tutors keep each model reply in the cache themselves. One that does its own asking is wrapped.
"""

from __future__ import annotations

import hashlib
import json

from steer_verl.dialogue import begin, following
from steer_verl.models.cache import ReplyCache
from steer_verl.types import Pending, Tutor, TutorRequest, TutorResponse, Unscored, Usage


class CachedTutor:
    """Keeps the responses of another tutor (:class:`~steer_verl.types.Tutor`).

    A kept response costs nothing: its usage is empty. One without a verdict is not kept, so that it is asked for again.

    Args:
        tutor: who is asked.
        cache: where responses are kept.
    """

    def __init__(self, tutor: Tutor, cache: ReplyCache) -> None:
        self.tutor, self.cache, self.name = tutor, cache, tutor.name

    async def respond(self, request: TutorRequest) -> TutorResponse:
        """See :class:`~steer_verl.types.Tutor`."""
        return await self.begin(request).response

    def begin(self, request: TutorRequest) -> Pending:
        """See :class:`~steer_verl.types.EarlyTutor`."""
        digest = request_digest(self.name, request)
        kept = self.cache.get(request.turn_key, digest, TutorResponse)
        if kept is not None:
            return Pending.of(kept.model_copy(update={"usage": Usage()}))
        pending = begin(self.tutor, request)
        return Pending(pending.question, following(pending, self._put(request.turn_key, digest, pending)))

    async def _put(self, key: str, digest: str, pending: Pending) -> TutorResponse:
        response = await pending.response
        if not isinstance(response.verdict, Unscored):
            self.cache.put(key, digest, response)
        return response

    async def check(self) -> None:
        """See :class:`~steer_verl.types.Tutor`."""
        await self.tutor.check()

    async def close(self) -> None:
        """See :class:`~steer_verl.types.Tutor`."""
        await self.tutor.close()


def request_digest(name: str, request: TutorRequest) -> str:
    """32 hex digits over who is asked and all that is shown, the seed's facts too; how long a turn took may differ."""
    shown = [name, request.model_dump(exclude={"turn_key"})]
    return hashlib.sha256(json.dumps(shown, default=str).encode()).hexdigest()[:32]
