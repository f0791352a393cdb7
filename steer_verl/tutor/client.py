"""The tutor at an OpenAI-compatible endpoint: one model that judges and attacks (the paper), or two, one for each.

Nobody waits for a score: the next question answers what the student said, not what it scored. One model is asked for
both in one streamed reply, the question first, and the dialogue goes on as soon as that is whole; two are asked at
once. Either half may fail alone. ``order: scores_first`` has the paper's order instead, in which the attack follows
from the scores. Every failure of a single turn ends as ``Unscored`` or ``NoAttack``.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from steer_verl.config import TutorConfig
from steer_verl.errors import DataError
from steer_verl.images import image_uri
from steer_verl.models.cache import Cache, ReplyCache
from steer_verl.models.endpoint import Endpoint
from steer_verl.models.failure import Cause, Failure, failed
from steer_verl.models.log import open_log
from steer_verl.models.request import Deadline, Reply, Request, RequestContext, Stream
from steer_verl.tutor.check import check_endpoint
from steer_verl.tutor.identity import prompt_version
from steer_verl.tutor.prompt import Prompt, PromptBuilder, Rubric, Task
from steer_verl.tutor.verdict import Outcome, early_attack, read_attack, read_verdict, reply_schema
from steer_verl.types import (
    Attack,
    NoAttack,
    NoAttackReason,
    Pending,
    TutorRequest,
    TutorResponse,
    Unscored,
    UnscoredReason,
    Usage,
)

Question = asyncio.Future[Attack | NoAttack]
"""The next question, to be told as soon as it is there."""


class OpenAITutor:
    """Tutor over HTTP (:class:`~steer_verl.types.Tutor`). Make one per process; it serves many dialogues at once.

    Args:
        config: the endpoints and the rubric; ``kind`` must be ``openai``.
        max_question_chars: a longer question of the attacker is no usable attack.
        cache: keeps every reply, and holds the key of the ids in the prompts.
        images: folder that the paths of images lie below; without one they are taken as they are.
        where: its place in the configuration.

    Raises:
        ConfigError: the rubric cannot be read, or an address cannot be used.
    """

    def __init__(
        self,
        config: TutorConfig,
        *,
        max_question_chars: int = 4000,
        cache: ReplyCache | None = None,
        images: Path | None = None,
        where: str = "tutor",
    ) -> None:
        if config.endpoint is None:
            raise ValueError("an OpenAITutor needs tutor.endpoint")
        self.config, self.images = config, images
        self.cache = cache = cache or Cache(None)
        log = open_log(config.log)
        self.rubric = Rubric.load(config.rubric, where)
        self.max_question_chars = max_question_chars
        self.adjudicator = Endpoint(config.endpoint, cache=cache, log=log, where=f"{where}.endpoint")
        self.attacker = self.adjudicator
        self.name = f"openai:{config.endpoint.model}@rubric-{self.rubric.version}{config.endpoint.manner}"
        if config.attacker is not None:
            self.attacker = Endpoint(config.attacker, cache=cache, log=log, where=f"{where}.attacker")
            self.name += f"+attacker:{config.attacker.model}{config.attacker.manner}"
        elif config.order != "question_first":
            self.name += f"+{config.order}"

    async def respond(self, request: TutorRequest) -> TutorResponse:
        """See :class:`~steer_verl.types.Tutor`. Never raises for a failed request."""
        return await self.begin(request).response

    def begin(self, request: TutorRequest) -> Pending:
        """See :class:`~steer_verl.types.EarlyTutor`."""
        question: Question = asyncio.get_running_loop().create_future()
        return Pending(question, asyncio.ensure_future(self._response(request, question)))

    async def _response(self, request: TutorRequest, question: Question) -> TutorResponse:
        """The whole response; the question is told as soon as it is there."""
        start = time.monotonic()
        try:
            outcome = await self._asked(request, question)
            if not question.done():
                question.set_result(outcome.attack)
        except BaseException as error:
            if not question.done():
                question.set_exception(error) if isinstance(error, Exception) else question.cancel()
            raise
        seconds = time.monotonic() - start
        return TutorResponse(verdict=outcome.verdict, attack=outcome.attack, seconds=seconds, usage=outcome.usage)

    async def _asked(self, request: TutorRequest, question: Question) -> Outcome:
        if request.static_next_turn is None:
            return await self._scored(request)
        if self.attacker is self.adjudicator:
            early = question if self.config.order == "question_first" else None
            return await self.ask(self.adjudicator, request, Task.BOTH, early)

        async def attack() -> Outcome:
            asked = await self.ask(self.attacker, request, Task.ATTACK)
            if not question.done():  # nobody waits for it any more
                question.set_result(asked.attack)
            return asked

        scored, asked = await asyncio.gather(self._scored(request), attack())
        return Outcome(scored.verdict, asked.attack, scored.usage + asked.usage)

    async def _scored(self, request: TutorRequest) -> Outcome:
        """The verdict alone. What the adjudicator's content filter took, the attacker's model is asked to judge."""
        deadline = Deadline(self.adjudicator.config.timeout)  # one for the ruling, whoever is asked
        outcome = await self.ask(self.adjudicator, request, Task.SCORE, deadline=deadline)
        if not outcome.filtered or self.attacker is self.adjudicator:
            return outcome
        second = await self.ask(self.attacker, request, Task.SCORE, deadline=deadline)
        verdict = outcome.verdict if isinstance(second.verdict, Unscored) else second.verdict
        return Outcome(verdict, outcome.attack, outcome.usage + second.usage)

    async def ask(
        self,
        endpoint: Endpoint,
        request: TutorRequest,
        task: Task,
        question: Question | None = None,
        deadline: Deadline | None = None,
    ) -> Outcome:
        """What one endpoint says, asked again up to ``reasks`` times about a reply that cannot be read.

        Args:
            endpoint: who is asked.
            request: about what.
            task: for what.
            question: is told the question while the reply is still coming. A verdict that then fails is asked for
                again alone, and the question stays.
            deadline: by when; the endpoint's own ``timeout`` from now on unless given.
        """
        context = endpoint.context(
            key=request.turn_key,
            affinity=request.seed.id or request.user.text,
            purpose=task.value,
            prompt=f"{self.rubric.version}-{prompt_version(self.config.order)}",
            deadline=deadline,
        )
        async with endpoint.admitted(context):
            try:
                with context.deadline.stopped():
                    prompt = await self._prompt(endpoint, request, task)
            except DataError as error:
                not_sent = failed(Cause.REQUEST, UnscoredReason.IMAGE, f"not sent: {error}")
                return self._read(not_sent, None, request, task, Usage())
            place = f"question {prompt.nonce}"  # of a question whose reply broke off: a run that was killed asks it too
            if question is not None and (kept := self.cache.get(request.turn_key, place, Attack)) is not None:
                if not question.done():  # nobody waits for it any more
                    question.set_result(kept)
                task, prompt = await self._alone(endpoint, request, context)
            fault, again, structured = "", 0, True
            while True:
                schema = reply_schema(task, self.config.order) if structured else None
                asking = Request(prompt.messages(fault), schema, again=again)
                reply = await self._reply(endpoint, asking, context, prompt, request, question)
                outcome = self._read(reply, prompt, request, task, context.usage)
                fault = outcome.fault(task)
                if question is not None:
                    if isinstance(outcome.attack, Attack) and not question.done():
                        question.set_result(outcome.attack)
                    if question.done() and not question.cancelled():
                        outcome = replace(outcome, attack=question.result())
                alone = task is Task.BOTH and question is not None and question.done()
                broke_off = alone and outcome.failure is not None and (outcome.failure.retryable or outcome.filtered)
                if not broke_off and (not fault or again == endpoint.config.reasks):
                    return outcome
                again += not broke_off
                if alone:  # the question is asked already
                    if broke_off and isinstance(outcome.attack, Attack):
                        self.cache.put(request.turn_key, place, outcome.attack)
                    task, prompt = await self._alone(endpoint, request, context)
                elif isinstance(reply, Reply) and reply.truncated and endpoint.config.json_schema == "auto":
                    structured = False  # some servers pour out white space up to the limit under a schema (vLLM #38696)

    async def _alone(self, endpoint: Endpoint, request: TutorRequest, context: RequestContext) -> tuple[Task, Prompt]:
        """From here on the verdict is asked for, without a question."""
        context.purpose = Task.SCORE.value
        return Task.SCORE, await self._prompt(endpoint, request, Task.SCORE)

    async def _reply(
        self,
        endpoint: Endpoint,
        asking: Request,
        context: RequestContext,
        prompt: Prompt,
        request: TutorRequest,
        question: Question | None,
    ) -> Reply | Failure:
        """The reply; ``question`` is told while it comes."""
        if question is None or question.done() or not endpoint.config.stream:
            return await endpoint.ask(asking, context)
        stream = Stream()
        listening = asyncio.ensure_future(self._listen(stream, prompt, request, question))
        try:
            return await endpoint.ask(replace(asking, stream=stream), context)
        finally:
            stream.close()
            await listening

    async def _listen(self, stream: Stream, prompt: Prompt, request: TutorRequest, question: Question) -> None:
        asked, hidden = _shown(request), (prompt.system, prompt.mark)
        async for text in stream:
            attack = early_attack(
                text, prompt.nonce, asked, self.max_question_chars, answer=request.answer, private=hidden
            )
            if attack is not None:
                stream.used = True
                if not question.done():
                    question.set_result(attack)
                return

    async def check(self) -> None:
        """See :class:`~steer_verl.types.Tutor`: a small real request to each server."""
        if self.attacker is self.adjudicator:
            await check_endpoint(self.adjudicator, Task.BOTH, self.ask_as_played)
            return
        await self.check_scores()
        await check_endpoint(self.attacker, Task.ATTACK, self.ask)

    async def check_scores(self) -> None:
        """:meth:`check` of a tutor that is asked for scores alone."""
        await check_endpoint(self.adjudicator, Task.SCORE, self.ask)

    async def ask_as_played(self, endpoint: Endpoint, request: TutorRequest, task: Task) -> Outcome:
        """:meth:`ask`, with the reply streamed where a dialogue would not wait for its end."""
        early = task is Task.BOTH and self.config.order == "question_first"
        question: Question | None = asyncio.get_running_loop().create_future() if early else None
        return await self.ask(endpoint, request, task, question)

    async def close(self) -> None:
        """Give the connections back."""
        await self.adjudicator.close()
        if self.attacker is not self.adjudicator:
            await self.attacker.close()

    async def _prompt(self, endpoint: Endpoint, request: TutorRequest, task: Task) -> Prompt:
        """Made in a thread: images are read and encoded. Raises ``DataError`` of an image that cannot be opened."""
        image = partial(image_uri, root=self.images) if endpoint.config.images else None
        builder = PromptBuilder(self.rubric, image, self.cache.secret, self.config.order)
        return await asyncio.to_thread(builder.build, request, task)

    def _read(
        self, reply: Reply | Failure, prompt: Prompt | None, request: TutorRequest, task: Task, usage: Usage
    ) -> Outcome:
        nonce = prompt.nonce if prompt else ""
        verdict = read_verdict(reply, nonce)
        attack: Attack | NoAttack = NoAttack(reason=NoAttackReason.LAST_TURN, detail="none was asked for")
        if task is not Task.SCORE:
            hidden = (prompt.system, prompt.mark) if prompt else ()
            attack = read_attack(
                reply, nonce, _shown(request), self.max_question_chars, answer=request.answer, private=hidden
            )
        return Outcome(verdict, attack, usage, reply if isinstance(reply, Failure) else None)


def _shown(request: TutorRequest) -> list[str]:
    """What the user has said so far."""
    return [*(turn.user.text for turn in request.turns), request.user.text]
