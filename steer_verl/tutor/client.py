"""The tutor at an OpenAI-compatible endpoint: one model that judges and attacks (the paper), or two, one for each.

With two, both are asked at once: the next question answers what the student said, not what it scored, so the attacker
need not wait for the adjudicator, and either may fail alone. Every failure of a single turn ends as ``Unscored`` or
``NoAttack``.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.data.images import data_uri
from steer_verl.errors import DataError
from steer_verl.tutor.endpoint import CallFailed, Endpoint, Usage, pooled, refuse_password, release
from steer_verl.tutor.prompt import PROCESS_SECRET, Prompt, PromptBuilder, Rubric, Task
from steer_verl.tutor.verdict import Reply, read_attack, read_judgement, reply_schema
from steer_verl.types import (
    Attack,
    Exchange,
    Judgement,
    NoAttack,
    NoAttackReason,
    Ruling,
    Unscored,
    UnscoredReason,
)

REASKS = 1
"""How often a reply that cannot be read is asked for again, apart from the retries of the transport."""

MAX_PICTURE_SIDE = 1536
"""Pictures go to the tutor with their longer side, in pixels, at most this."""

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
        ConfigError: the rubric cannot be read, or an address holds a password.
    """

    def __init__(self, config: TutorConfig, *, max_question_chars: int = 4000, secret: bytes = PROCESS_SECRET) -> None:
        if config.endpoint is None:
            raise ValueError("an OpenAITutor needs tutor.endpoint")
        for endpoint in filter(None, (config.endpoint, config.attacker)):
            refuse_password(endpoint)
        self.rubric = Rubric.load(config.rubric)
        self.max_question_chars = max_question_chars
        self.judge_config = config.endpoint
        self.attacker_config = config.attacker
        self.name = f"openai:{config.endpoint.model}@rubric-{self.rubric.version}"
        if config.attacker is not None:
            self.name += f"+attacker:{config.attacker.model}"
        self._secret = secret
        self._held: set[Endpoint] = set()

    async def respond(self, exchange: Exchange) -> Ruling:
        """See :class:`~steer_verl.tutor.protocol.Tutor`. Never raises for a failed request."""
        start = time.monotonic()
        attack: AttackOutcome
        if exchange.hint is None:
            judgement, attack = await self.judge(exchange), _no_attack(NoAttackReason.LAST_TURN, "none was asked for")
        elif self.attacker_config is None:
            judgement, attack = await self._judge_and_attack(exchange)
        else:
            judgement, attack = await asyncio.gather(self.judge(exchange), self.attack(exchange))
        return Ruling(judgement=judgement, attack=attack, seconds=time.monotonic() - start)

    async def judge(self, exchange: Exchange) -> Judgement:
        """The adjudicator's judgement alone."""
        try:
            return await self._ask(self.judge_config, exchange, Task.SCORE, _judgement, _unreadable)
        except CallFailed as failure:
            return Unscored(reason=failure.reason, detail=failure.detail)

    async def attack(self, exchange: Exchange) -> AttackOutcome:
        """The next question alone, from the attacker if there is one."""
        read = functools.partial(_attack, exchange, self.max_question_chars)
        try:
            return await self._ask(self.attacker_config or self.judge_config, exchange, Task.ATTACK, read, _missing)
        except CallFailed as failure:
            return _no_attack(_no_attack_reason(failure), failure.detail)

    async def check(self) -> None:
        """See :class:`~steer_verl.tutor.protocol.Tutor`: a small real exchange with each endpoint."""
        from steer_verl.tutor.check import check_endpoint

        await check_endpoint(self, self.judge_config, "tutor.endpoint")
        if self.attacker_config is not None:
            await check_endpoint(self, self.attacker_config, "tutor.attacker")

    async def close(self) -> None:
        """Give the connections back; the last tutor of an endpoint closes them."""
        held, self._held = self._held, set()
        for endpoint in held:
            await release(endpoint)

    @property
    def usage(self) -> list[Usage]:
        """Requests and tokens so far, one entry per endpoint in use (shared with other tutors of the same endpoint)."""
        return [endpoint.usage for endpoint in self._held]

    async def _judge_and_attack(self, exchange: Exchange) -> tuple[Judgement, AttackOutcome]:
        def read(reply: Reply, prompt: Prompt) -> tuple[Judgement, AttackOutcome]:
            return _judgement(reply, prompt), _attack(exchange, self.max_question_chars, reply, prompt)

        try:
            return await self._ask(self.judge_config, exchange, Task.BOTH, read, lambda both: _unreadable(both[0]))
        except CallFailed as failure:
            attack = _no_attack(_no_attack_reason(failure), failure.detail)
            return Unscored(reason=failure.reason, detail=failure.detail), attack

    def endpoint(self, config: EndpointConfig) -> Endpoint:
        """The shared endpoint of the running event loop."""
        endpoint = pooled(config)
        if endpoint not in self._held:
            self._held.add(endpoint)
            endpoint.users += 1
        return endpoint

    async def _ask(
        self, config: EndpointConfig, exchange: Exchange, task: Task, read: Read[T], complaint: Callable[[T], str]
    ) -> T:
        """Ask within the endpoint's bound and deadline; the clock starts when the bound lets the request through.

        Raises:
            CallFailed: no reply came.
        """
        endpoint = self.endpoint(config)
        async with endpoint.slots:
            try:
                return await asyncio.wait_for(self._rounds(endpoint, exchange, task, read, complaint), config.timeout)
            except asyncio.TimeoutError:
                raise CallFailed(UnscoredReason.TIMEOUT, f"no ruling within {config.timeout:g} s") from None

    async def _rounds(
        self, endpoint: Endpoint, exchange: Exchange, task: Task, read: Read[T], complaint: Callable[[T], str]
    ) -> T:
        deadline = asyncio.get_running_loop().time() + endpoint.config.timeout
        prompt = await asyncio.to_thread(self._prompt, endpoint.config, exchange, task)
        schema: dict[str, Any] | None = reply_schema(task)
        fault = ""
        for _ in range(1 + REASKS):
            reply = await endpoint.complete(prompt.messages(fault), schema, deadline)
            outcome = read(reply, prompt)
            fault = complaint(outcome)
            if not fault:
                break
            if reply.finish_reason == "length" and endpoint.config.json_schema == "auto":
                schema = None  # structured output makes some servers pour out white space up to the limit (vLLM #38696)
        return outcome

    def _prompt(self, config: EndpointConfig, exchange: Exchange, task: Task) -> Prompt:
        builder = PromptBuilder(self.rubric, picture_uri if config.images else None, self._secret)
        try:
            return builder.build(exchange, task)
        except DataError as error:
            raise CallFailed(UnscoredReason.HTTP_4XX, f"not sent: {error}", status=400) from None


def picture_uri(path: str) -> str:
    """The ``data:`` URI of a picture, kept for the next turns and rollouts as long as the file stays the same.

    Raises:
        DataError: the picture is missing or must not be opened.
    """
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return data_uri(path)  # raises the error that names the cure
    return _encoded(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=128)
def _encoded(path: str, _mtime: int, _size: int) -> str:
    return data_uri(path, max_side=MAX_PICTURE_SIDE)


def _judgement(reply: Reply, prompt: Prompt) -> Judgement:
    return read_judgement(reply, prompt.nonce)


def _attack(exchange: Exchange, max_chars: int, reply: Reply, prompt: Prompt) -> AttackOutcome:
    asked = [*(turn.user.text for turn in exchange.turns), exchange.user.text]
    return read_attack(reply, prompt.nonce, asked, max_chars)


def _unreadable(judgement: Judgement) -> str:
    """Why a reply is worth asking for again; empty when it is not."""
    return judgement.detail if isinstance(judgement, Unscored) and judgement.reason in _UNREADABLE else ""


def _missing(attack: AttackOutcome) -> str:
    return attack.detail if isinstance(attack, NoAttack) and attack.reason is NoAttackReason.ATTACK_MISSING else ""


def _no_attack_reason(failure: CallFailed) -> NoAttackReason:
    filtered = failure.reason is UnscoredReason.CONTENT_FILTER
    return NoAttackReason.ATTACK_REFUSED if filtered else NoAttackReason.UNAVAILABLE


def _no_attack(reason: NoAttackReason, detail: str) -> NoAttack:
    return NoAttack(reason=reason, detail=detail)
