"""The tutor at an OpenAI-compatible endpoint: one model that judges and attacks (the paper), or two, one for each.

With two, both are asked at once: the next question answers what the student said, not what it scored, so the attacker
need not wait for the adjudicator, and either may fail alone. Every failure of a single turn ends as ``Unscored`` or
``NoAttack``.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.errors import DataError
from steer_verl.images import image_uri
from steer_verl.models.cache import Cache
from steer_verl.models.endpoint import Endpoint
from steer_verl.models.failure import Cause, Failure, failed
from steer_verl.models.log import open_log
from steer_verl.models.request import Reply, Request
from steer_verl.tutor.check import check_endpoint
from steer_verl.tutor.identity import prompt_version
from steer_verl.tutor.prompt import Prompt, PromptBuilder, Rubric, Task
from steer_verl.tutor.verdict import Outcome, read_attack, read_verdict, reply_schema
from steer_verl.types import (
    Attack,
    NoAttack,
    NoAttackReason,
    TutorRequest,
    TutorResponse,
    UnscoredReason,
    Usage,
)


class OpenAITutor:
    """Tutor over HTTP (:class:`~steer_verl.types.Tutor`). Make one per process; it serves many dialogues at once.

    Args:
        config: the endpoints and the rubric; ``kind`` must be ``openai``.
        max_question_chars: a longer question of the attacker is no usable attack.
        cache: keeps every reply, and holds the key of the ids in the prompts.

    Raises:
        ConfigError: the rubric cannot be read, or an address cannot be used.
    """

    def __init__(self, config: TutorConfig, *, max_question_chars: int = 4000, cache: Cache | None = None) -> None:
        if config.endpoint is None:
            raise ValueError("an OpenAITutor needs tutor.endpoint")
        cache, log = cache or Cache(None), open_log(config.log)
        self.rubric = Rubric.load(config.rubric)
        self.max_question_chars = max_question_chars
        self.adjudicator = Endpoint(config.endpoint, cache=cache, log=log, where="tutor.endpoint")
        self.attacker = self.adjudicator
        self.name = f"openai:{config.endpoint.model}@rubric-{self.rubric.version}"
        if config.attacker is not None:
            self.attacker = Endpoint(config.attacker, cache=cache, log=log, where="tutor.attacker")
            self.name += f"+attacker:{config.attacker.model}"
        self._secret = cache.secret

    async def respond(self, request: TutorRequest) -> TutorResponse:
        """See :class:`~steer_verl.types.Tutor`. Never raises for a failed request."""
        start = time.monotonic()
        if request.static_next_turn is None:
            outcome = await self.ask(self.adjudicator, request, Task.SCORE)
            verdict, attack, usage = outcome.verdict, outcome.attack, outcome.usage
        elif self.attacker is self.adjudicator:
            outcome = await self.ask(self.adjudicator, request, Task.BOTH)
            verdict, attack, usage = outcome.verdict, outcome.attack, outcome.usage
        else:
            scored, asked = await asyncio.gather(
                self.ask(self.adjudicator, request, Task.SCORE), self.ask(self.attacker, request, Task.ATTACK)
            )
            verdict, attack, usage = scored.verdict, asked.attack, scored.usage + asked.usage
        return TutorResponse(verdict=verdict, attack=attack, seconds=time.monotonic() - start, usage=usage)

    async def ask(self, endpoint: Endpoint, request: TutorRequest, task: Task) -> Outcome:
        """What one endpoint says, asked again up to ``reasks`` times about a reply that cannot be read."""
        context = endpoint.context(
            key=request.turn_key,
            affinity=request.seed.id or request.user.text,
            purpose=task.value,
            prompt=f"{self.rubric.version}-{prompt_version()}",
        )
        schema: dict[str, Any] | None = reply_schema(task)
        async with endpoint.admitted(context):
            try:
                with context.deadline.stopped():
                    prompt = await asyncio.to_thread(self._prompt, endpoint.config, request, task)
            except DataError as error:
                not_sent = failed(Cause.REQUEST, UnscoredReason.IMAGE, f"not sent: {error}")
                return self._read(not_sent, None, request, task, Usage())
            fault = ""
            for again in range(1 + endpoint.config.reasks):
                reply = await endpoint.ask(Request(prompt.messages(fault), schema, again=again), context)
                outcome = self._read(reply, prompt, request, task, context.usage)
                fault = outcome.fault(task)
                if not fault:
                    break
                if isinstance(reply, Reply) and reply.truncated and endpoint.config.json_schema == "auto":
                    schema = None  # some servers pour out white space up to the limit under a schema (vLLM #38696)
        return outcome

    async def check(self) -> None:
        """See :class:`~steer_verl.types.Tutor`: a small real request to each server."""
        if self.attacker is self.adjudicator:
            await check_endpoint(self.adjudicator, Task.BOTH, self.ask)
            return
        await check_endpoint(self.adjudicator, Task.SCORE, self.ask)
        await check_endpoint(self.attacker, Task.ATTACK, self.ask)

    async def close(self) -> None:
        """Give the connections back."""
        await self.adjudicator.close()
        if self.attacker is not self.adjudicator:
            await self.attacker.close()

    def _prompt(self, config: EndpointConfig, request: TutorRequest, task: Task) -> Prompt:
        return PromptBuilder(self.rubric, image_uri if config.images else None, self._secret).build(request, task)

    def _read(
        self, reply: Reply | Failure, prompt: Prompt | None, request: TutorRequest, task: Task, usage: Usage
    ) -> Outcome:
        nonce = prompt.nonce if prompt else ""
        verdict = read_verdict(reply, nonce)
        attack: Attack | NoAttack = NoAttack(reason=NoAttackReason.LAST_TURN, detail="none was asked for")
        if task is not Task.SCORE:
            asked = [*(turn.user.text for turn in request.turns), request.user.text]
            hidden = (prompt.system, prompt.mark) if prompt else ()
            attack = read_attack(reply, nonce, asked, self.max_question_chars, answer=request.answer, private=hidden)
        return Outcome(verdict, attack, usage, reply if isinstance(reply, Failure) else None)
