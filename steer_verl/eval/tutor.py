"""The tutor of an evaluation: its rulings are kept, and a failure of the moment puts the item off.

Training goes on without a ruling; an evaluation has the time to ask again when the tutor is well.
"""

from __future__ import annotations

import asyncio
import hashlib
import json

from steer_verl.dialogue import begin, following
from steer_verl.models.cache import ReplyCache
from steer_verl.models.failure import AgentFailed
from steer_verl.models.place import Place
from steer_verl.tutor.cached import CachedTutor
from steer_verl.types import Attack, NoAttack, NoAttackReason, Pending, Tutor, TutorRequest, TutorResponse, Unscored


class RememberedTutor(CachedTutor):
    """The tutor in one dialogue (:class:`~steer_verl.types.EarlyTutor`).

    Args:
        tutor: who is asked.
        cache: keeps the rulings, with what they cost.
        place: the item's, which pays.
        digest: the item's: another dialogue under its id is ruled anew.
    """

    def __init__(self, tutor: Tutor, cache: ReplyCache, place: Place, digest: str) -> None:
        super().__init__(tutor, cache)
        self.place, self.digest = place, digest

    def begin(self, request: TutorRequest) -> Pending:
        """The kept ruling; or the question as soon as the tutor has it. What may pass raises ``AgentFailed``."""
        name = self._name(request)
        kept = self.cache.get(request.turn_key, name, TutorResponse)
        if kept is not None:
            return Pending.of(kept)
        pending = begin(self.tutor, request)
        response = following(pending, self._ruling(pending, request.turn_key, name))
        return Pending(asyncio.ensure_future(_question(pending, response)), response)

    async def _ruling(self, pending: Pending, key: str, name: str) -> TutorResponse:
        ruling = await pending.response
        self.place.spend(ruling.usage)
        verdict, attack = ruling.verdict, ruling.attack
        if isinstance(verdict, Unscored) and verdict.reason.may_pass:
            raise AgentFailed(verdict.reason.value, f"tutor ({self.name}): {verdict.detail}", transient=True)
        if isinstance(attack, NoAttack) and attack.reason is NoAttackReason.UNAVAILABLE:
            raise AgentFailed("tutor_unavailable", f"tutor ({self.name}): {attack.detail}", transient=True)
        self.cache.put(key, name, ruling)
        return ruling

    def _name(self, request: TutorRequest) -> str:
        """All that the ruling depends on; of images, the item's digest knows the bytes."""
        said = [(one.user.text, one.answer) for one in request.turns]
        hint = request.static_next_turn.text if request.static_next_turn else None
        shown = [self.name, self.digest, said, request.user.text, request.answer, hint]
        return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:32]


async def _question(pending: Pending, response: asyncio.Future[TutorResponse]) -> Attack | NoAttack:
    """A usable question at once; whether one that is missing may come later, the whole response tells."""
    attack = await pending.question
    return attack if isinstance(attack, Attack) else (await asyncio.shield(response)).attack
