"""The tutor at an OpenAI-compatible endpoint: one model that judges and attacks (the paper), or two, one for each.

With two, both are asked at once: the next question answers what the student said, not what it scored, so the attacker
need not wait for the adjudicator, and either may fail alone. Every failure of a single turn ends as ``Unscored`` or
``NoAttack``.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.errors import DataError
from steer_verl.images import picture_uri
from steer_verl.transport.asking import ask
from steer_verl.transport.endpoint import check_address
from steer_verl.transport.failure import CallFailed
from steer_verl.transport.inquiry import Deadline, Inquiry
from steer_verl.transport.lease import Lease
from steer_verl.transport.ledger import final, open_ledger
from steer_verl.transport.pool import Pool
from steer_verl.transport.reply import Reply
from steer_verl.tutor.identity import prompt_version
from steer_verl.tutor.prompt import PROCESS_SECRET, Prompt, PromptBuilder, Rubric, Task
from steer_verl.tutor.verdict import read_attack, read_verdict, reply_schema
from steer_verl.types import (
    Attack,
    NoAttack,
    NoAttackReason,
    TurnVerdict,
    TutorRequest,
    TutorResponse,
    Unscored,
    UnscoredReason,
    Usage,
)

_UNREADABLE = {UnscoredReason.BAD_JSON, UnscoredReason.SCHEMA, UnscoredReason.OUT_OF_RANGE, UnscoredReason.LENGTH}

AttackOutcome: TypeAlias = "Attack | NoAttack"
T = TypeVar("T")
Read = Callable[[Reply, Prompt], T]


class OpenAITutor:
    """Tutor over HTTP. Make one per process and share it; it may serve many dialogues at once.

    Args:
        config: the endpoints and the rubric; ``kind`` must be ``openai``.
        max_question_chars: a longer question of the attacker is no usable attack.
        secret: key of the dialogue ids; one per process unless given.

    Raises:
        ConfigError: the rubric cannot be read, or an address cannot be used.
    """

    def __init__(self, config: TutorConfig, *, max_question_chars: int = 4000, secret: bytes = PROCESS_SECRET) -> None:
        if config.endpoint is None:
            raise ValueError("an OpenAITutor needs tutor.endpoint")
        for endpoint in filter(None, (config.endpoint, config.attacker)):
            check_address(endpoint)
        self.rubric = Rubric.load(config.rubric)
        self.max_question_chars = max_question_chars
        self.judge_config = config.endpoint
        self.attacker_config = config.attacker
        self.name = f"openai:{config.endpoint.model}@rubric-{self.rubric.version}"
        if config.attacker is not None:
            self.name += f"+attacker:{config.attacker.model}"
        self._secret = secret
        self._lease = Lease()
        self._ledger = open_ledger(config.log)

    async def respond(self, exchange: TutorRequest) -> TutorResponse:
        """See :class:`~steer_verl.types.Tutor`. Never raises for a failed request."""
        start = time.monotonic()
        attack: AttackOutcome = _no_attack(NoAttackReason.LAST_TURN, "none was asked for")
        if exchange.static_next_turn is None:
            asked = [self._inquiry(self.judge_config, exchange, Task.SCORE)]
            verdict = await self._judge(exchange, asked[0])
        elif self.attacker_config is None:
            asked = [self._inquiry(self.judge_config, exchange, Task.BOTH)]
            verdict, attack = await self._judge_and_attack(exchange, asked[0])
        else:
            asked = [
                self._inquiry(self.judge_config, exchange, Task.SCORE),
                self._inquiry(self.attacker_config, exchange, Task.ATTACK),
            ]
            verdict, attack = await asyncio.gather(self._judge(exchange, asked[0]), self._attack(exchange, asked[1]))
        usage = sum((inquiry.usage for inquiry in asked), Usage())
        ruling = TutorResponse(verdict=verdict, attack=attack, seconds=time.monotonic() - start, usage=usage)
        if self._ledger is not None:
            self._ledger.append(final(exchange.turn_key, self.name, _shown(exchange), ruling))
        return ruling

    async def judge(self, exchange: TutorRequest) -> TurnVerdict:
        """The adjudicator's verdict alone."""
        return await self._judge(exchange, self._inquiry(self.judge_config, exchange, Task.SCORE))

    async def attack(self, exchange: TutorRequest) -> AttackOutcome:
        """The next question alone, from the attacker if there is one."""
        config = self.attacker_config or self.judge_config
        return await self._attack(exchange, self._inquiry(config, exchange, Task.ATTACK))

    async def check(self) -> None:
        """See :class:`~steer_verl.types.Tutor`: a small real exchange with each endpoint."""
        from steer_verl.tutor.check import check_endpoint

        await check_endpoint(self, self.judge_config, "tutor.endpoint")
        if self.attacker_config is not None:
            await check_endpoint(self, self.attacker_config, "tutor.attacker")

    async def close(self) -> None:
        """Give the connections back."""
        await self._lease.close()

    def endpoint(self, config: EndpointConfig) -> Pool:
        """The shared servers of one of this tutor's endpoints, in the running event loop."""
        return self._lease.pool(config)

    async def _judge(self, exchange: TutorRequest, inquiry: Inquiry) -> TurnVerdict:
        try:
            return await self._ask(self.judge_config, exchange, Task.SCORE, inquiry, _judgement, _unreadable)
        except CallFailed as failure:
            return Unscored(reason=failure.reason, detail=failure.detail)

    async def _attack(self, exchange: TutorRequest, inquiry: Inquiry) -> AttackOutcome:
        config = self.attacker_config or self.judge_config
        read = functools.partial(_question, exchange, self.max_question_chars)
        try:
            return await self._ask(config, exchange, Task.ATTACK, inquiry, read, _missing)
        except CallFailed as failure:
            return _no_attack(_no_attack_reason(failure), failure.detail)

    async def _judge_and_attack(self, exchange: TutorRequest, inquiry: Inquiry) -> tuple[TurnVerdict, AttackOutcome]:
        def read(reply: Reply, prompt: Prompt) -> tuple[TurnVerdict, AttackOutcome]:
            return _judgement(reply, prompt), _question(exchange, self.max_question_chars, reply, prompt)

        def complaint(both: tuple[TurnVerdict, AttackOutcome]) -> str:
            return _unreadable(both[0])

        try:
            return await self._ask(self.judge_config, exchange, Task.BOTH, inquiry, read, complaint)
        except CallFailed as failure:
            attack = _no_attack(_no_attack_reason(failure), failure.detail)
            return Unscored(reason=failure.reason, detail=failure.detail), attack

    def _inquiry(self, config: EndpointConfig, exchange: TutorRequest, task: Task) -> Inquiry:
        return Inquiry(
            Deadline(config.timeout),
            seed=exchange.seed.id or exchange.user.text,
            place=exchange.turn_key,
            task=task.value,
            prompt=f"{self.rubric.version}-{prompt_version()}",
            ledger=self._ledger,
        )

    async def _ask(
        self,
        config: EndpointConfig,
        exchange: TutorRequest,
        task: Task,
        inquiry: Inquiry,
        read: Read[T],
        complaint: Callable[[T], str],
    ) -> T:
        """See :func:`steer_verl.transport.asking.ask`."""
        make = functools.partial(self._prompt, config, exchange, task)
        return await ask(self.endpoint(config), inquiry, make, reply_schema(task), read, complaint)

    def _prompt(self, config: EndpointConfig, exchange: TutorRequest, task: Task) -> Prompt:
        builder = PromptBuilder(self.rubric, picture_uri if config.images else None, self._secret)
        try:
            return builder.build(exchange, task)
        except DataError as error:
            raise CallFailed(UnscoredReason.HTTP_4XX, f"not sent: {error}", status=400) from None


def _judgement(reply: Reply, prompt: Prompt) -> TurnVerdict:
    return read_verdict(reply, prompt.nonce)


def _question(exchange: TutorRequest, max_chars: int, reply: Reply, prompt: Prompt) -> AttackOutcome:
    asked = [*(turn.user.text for turn in exchange.turns), exchange.user.text]
    hidden = (prompt.system, prompt.mark)
    return read_attack(reply, prompt.nonce, asked, max_chars, answer=exchange.answer, private=hidden)


def _unreadable(verdict: TurnVerdict) -> str:
    """Why a reply is worth asking for again; empty when it is not."""
    return verdict.detail if isinstance(verdict, Unscored) and verdict.reason in _UNREADABLE else ""


def _missing(attack: AttackOutcome) -> str:
    return attack.detail if isinstance(attack, NoAttack) and attack.reason is NoAttackReason.ATTACK_MISSING else ""


def _no_attack_reason(failure: CallFailed) -> NoAttackReason:
    filtered = failure.reason is UnscoredReason.CONTENT_FILTER
    return NoAttackReason.ATTACK_REFUSED if filtered else NoAttackReason.UNAVAILABLE


def _no_attack(reason: NoAttackReason, detail: str) -> NoAttack:
    return NoAttack(reason=reason, detail=detail)


def _shown(exchange: TutorRequest) -> list[Any]:
    """What a ruling is about, as part of its key."""
    said = [[turn.user.text, turn.answer] for turn in exchange.turns]
    return [
        exchange.seed.id,
        said,
        exchange.user.text,
        exchange.answer,
        exchange.static_next_turn.text if exchange.static_next_turn else None,
    ]
