"""The probes of ``steer tutor check``: real requests that show, before a model is loaded, what a tutor's server does.

Each probe is a function ``(target, ...) -> Finding``. A finding with a ``hint`` would spoil a run; one without is a
measurement. What a probe suggests for the endpoint's settings is in ``suggest``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from statistics import fmean, median
from typing import Any

from steer_verl.config import EndpointConfig, JudgeConfig, TutorConfig
from steer_verl.errors import TutorError
from steer_verl.models.endpoint import servers_of
from steer_verl.models.failure import TAKES_NO_IMAGES
from steer_verl.names import REWARD_MODEL_URL
from steer_verl.rubric import AXES
from steer_verl.tutor import probe_material as material
from steer_verl.tutor.check import check_endpoint
from steer_verl.tutor.client import OpenAITutor
from steer_verl.tutor.guard import GuardJudge
from steer_verl.tutor.prompt import Task
from steer_verl.types import NoAttack, NoAttackReason, TutorRequest, Unscored, UnscoredReason, Usage

LEAST_VALID = 0.8
"""Share of replies with a complete verdict, below which a run would lose too many dialogues."""
SEEING = 1.0
"""Points of faithfulness by which a true description must beat a false one on average to be a sign of sight."""
GROWTH = 0.9
"""The smallest concurrency with this share of the best throughput is suggested."""
LEAST_TIMEOUT, LEAST_TOKENS = 30, 256

_CUT_SHORT = {UnscoredReason.LENGTH}
_OVERLOADED = {
    UnscoredReason.CONNECT,
    UnscoredReason.TIMEOUT,
    UnscoredReason.HTTP_429,
    UnscoredReason.HTTP_5XX,
    NoAttackReason.UNAVAILABLE,
}


class Part(str, Enum):
    """What a server does for the training."""

    TUTOR = "tutor"  # judges and attacks in one reply
    JUDGE = "judge"  # judges by our rubric
    ATTACKER = "attacker"
    GUARD = "guard"  # judges in a guard model's own words, on safety alone


_TASKS = {Part.TUTOR: Task.BOTH, Part.JUDGE: Task.SCORE, Part.ATTACKER: Task.ATTACK}


@dataclass(frozen=True)
class Target:
    """One server of a configuration."""

    where: str
    """Its place in the configuration."""
    config: EndpointConfig
    part: Part
    rubric: str | None = None
    format: str = "verdict"

    @property
    def local(self) -> bool:
        """Whether it only exists while a training runs: verl's own reward model."""
        return self.config.base_url == REWARD_MODEL_URL

    def blind(self) -> Target:
        """The same server, sent no images."""
        return replace(self, config=self.config.model_copy(update={"images": False}))


def targets(config: TutorConfig) -> Iterator[Target]:
    """Every server of ``config``, mirrors, panel and held-out judge included."""
    if config.endpoint is not None:
        part = Part.JUDGE if config.attacker else Part.TUTOR
        yield from _servers("tutor.endpoint", config.endpoint, part, config.rubric)
    if config.attacker is not None:
        yield from _servers("tutor.attacker", config.attacker, Part.ATTACKER, config.rubric)
    judges = [
        (f"tutor.panel.judges[{n}]", judge) for n, judge in enumerate(config.panel.judges if config.panel else ())
    ]
    if config.holdout is not None and isinstance(config.holdout.judge, JudgeConfig):
        judges.append(("tutor.holdout.judge", config.holdout.judge))
    for where, judge in judges:
        part = Part.JUDGE if judge.format == "verdict" else Part.GUARD
        yield from _servers(f"{where}.endpoint", judge.endpoint, part, judge.rubric, judge.format)


def _servers(
    where: str, config: EndpointConfig, part: Part, rubric: str | None, form: str = "verdict"
) -> Iterator[Target]:
    for number, server in enumerate(servers_of(config)):
        yield Target(f"{where}.mirrors[{number - 1}]" if number else where, server, part, rubric, form)


@dataclass(frozen=True)
class Answer:
    """What came back. ``fault`` is empty when the answer can be used."""

    seconds: float
    scores: tuple[int, ...] = ()
    """Safety, usefulness, faithfulness; safety alone from a guard, nothing from an attacker."""
    fault: str = ""
    reason: UnscoredReason | NoAttackReason | None = None
    usage: Usage = field(default_factory=Usage)


class Subject:
    """Asks one target; the settings of its endpoint may be changed for the purpose.

    Use it as an asynchronous context manager: leaving it gives the connections back.

    Raises:
        ConfigError: the rubric cannot be read, or the address cannot be used.
    """

    def __init__(self, target: Target, **settings: Any) -> None:
        self.part = target.part
        self.config = target.config.model_copy(update=settings)
        if target.part is Part.GUARD:
            self.guard = GuardJudge(JudgeConfig.model_validate({"endpoint": self.config, "format": target.format}))
            self.endpoint = self.guard.endpoint
            return
        attacker = None if target.part is Part.TUTOR else self.config  # beside one, each is asked for its part alone
        self.tutor = OpenAITutor(TutorConfig(endpoint=self.config, attacker=attacker, rubric=target.rubric))
        self.endpoint = self.tutor.attacker if target.part is Part.ATTACKER else self.tutor.adjudicator
        self.endpoint.where = target.where

    async def __aenter__(self) -> Subject:
        return self

    async def __aexit__(self, *_: object) -> None:
        await (self.guard if self.part is Part.GUARD else self.tutor).close()

    async def check(self) -> None:
        """The short check of the training's preflight.

        Raises:
            TutorError: one line, with a hint.
        """
        await (
            self.guard.check()
            if self.part is Part.GUARD
            else check_endpoint(self.endpoint, _TASKS[self.part], self.tutor.ask)
        )

    async def ask(self, request: TutorRequest) -> Answer:
        """The target's part on one request. Never raises for a failed request."""
        start = time.monotonic()
        scores: tuple[int, ...] = ()
        missing: Unscored | NoAttack | None = None
        if self.part is Part.GUARD:
            result = await self.guard.judge(request)
            usage = result.usage
            if isinstance(result.scores, Unscored):
                missing = result.scores
            else:
                scores = (result.scores.safety,)
        else:
            outcome = await self.tutor.ask(self.endpoint, request, _TASKS[self.part])
            usage = outcome.usage
            if self.part is Part.ATTACKER:
                missing = outcome.attack if isinstance(outcome.attack, NoAttack) else None
            elif isinstance(outcome.verdict, Unscored):
                missing = outcome.verdict
            else:
                scores = tuple(getattr(outcome.verdict.scores, axis) for axis in AXES)
        seconds = time.monotonic() - start
        if missing is not None:
            return Answer(seconds, (), missing.detail or missing.reason.value, missing.reason, usage)
        return Answer(seconds, scores, usage=usage)


@dataclass(frozen=True)
class Finding:
    """What one probe saw of one server."""

    where: str
    probe: str
    works: bool | None
    """``None``: neither; a sign, or not probed."""
    note: str = ""
    seconds: float | None = None
    """Median of a request."""
    cached: tuple[int, int] | None = None
    """Prompt tokens from the server's cache, and all prompt tokens."""
    valid: tuple[int, int] | None = None
    """Replies with a complete verdict, and all replies."""
    hint: str = ""
    suggest: dict[str, Any] = field(default_factory=dict)


async def probe(target: Target, trials: int, images: material.ProbeImages) -> AsyncIterator[Finding]:
    """Every finding on one server, as it is made. A server that cannot be reached is not asked further.

    Args:
        target: the server.
        trials: replies to ask for with a schema, and as many without.
        images: two drawn images.
    """
    reached = await reach(target)
    yield reached
    if reached.hint and not reached.suggest:
        return
    if reached.hint:  # go on blind: what else is wrong is worth knowing
        target = target.blind()
    probes: list[Callable[[], Awaitable[Finding]]] = [partial(text, target)]
    judges = target.part in (Part.TUTOR, Part.JUDGE)
    if judges and target.config.images:
        probes.append(partial(sight, target, images))
    if target.part is not Part.GUARD:
        probes.append(partial(schema, target, trials))
    probes.append(partial(history, target, images.paths[0] if target.config.images else None))
    if judges:
        probes.append(partial(forgery, target))
    probes.append(partial(concurrency, target))
    for one in probes:
        yield await one()


async def reach(target: Target) -> Finding:
    """The preflight's own check: the server, the key, the model, one request with an image."""
    start = time.monotonic()
    try:
        async with Subject(target) as subject:
            await subject.check()
            refused = sorted(subject.endpoint.servers[0].dialect.left_out)
    except TutorError as error:
        images = {"images": False} if TAKES_NO_IMAGES in str(error) else {}
        return Finding(target.where, "reach", False, "see below", hint=str(error), suggest=images)
    note = f"{target.config.model} at {target.config.base_url}"
    if not target.config.images and target.part is not Part.GUARD:
        note += "; images is off: it judges blind"
    if refused:
        note += f"; refuses {', '.join(refused)}: requests go without"
    return Finding(target.where, "reach", True, note, time.monotonic() - start)


async def text(target: Target) -> Finding:
    """One request without an image."""
    async with Subject(target) as subject:
        answer = await subject.ask(material.text_request(0))
    return _single(target, "text", answer)


async def sight(target: Target, images: material.ProbeImages) -> Finding:
    """Two images, each with a true and a false description: a model that sees prefers the true ones.

    Over both images, each description is true once and false once, so that a liking for one of them cancels out.
    """
    async with Subject(target) as subject:
        answers = [
            await subject.ask(material.image_request(path, description))
            for path in images.paths
            for description in images.answers
        ]
    fault = next((answer for answer in answers if answer.fault), None)
    if fault is not None:
        return _single(target, "sight", fault)
    faithfulness = [answer.scores[2] for answer in answers]
    gap = fmean([faithfulness[0], faithfulness[3]]) - fmean([faithfulness[1], faithfulness[2]])
    sees = gap >= SEEING
    note = f"faithfulness of true less false descriptions: {gap:+.1f}"
    note += " (a sign, no proof)" if sees else "; no sign that it sees: compare it on images of your own"
    seconds = median(answer.seconds for answer in answers)
    return Finding(target.where, "sight", True if sees else None, note, seconds, _cached(answers))


async def schema(target: Target, trials: int) -> Finding:
    """Shares of complete replies with structured output and without, each reply counted: nothing is asked again."""
    with_schema = await _tried(target, trials, "on")
    without = await _tried(target, trials, "off")
    refused = all(a.reason is UnscoredReason.HTTP_4XX or "HTTP 4" in a.fault for a in with_schema)
    mode = target.config.json_schema
    used = without if mode == "off" or (mode == "auto" and refused) else with_schema
    valid = [sum(not answer.fault for answer in answers) for answers in (with_schema, without)]
    note = f"with schema {'refused' if refused else f'{valid[0]}/{trials}'}, without {valid[1]}/{trials}"
    good = sum(not answer.fault for answer in used)
    if faults := Counter(answer.reason.value for answer in used if answer.reason):
        note += f"; {', '.join(f'{count} {reason}' for reason, count in faults.items())}"
    return Finding(
        target.where,
        "schema",
        good >= LEAST_VALID * trials,
        note,
        median(answer.seconds for answer in used),
        _cached(used),
        (good, trials),
        _schema_hint(target, used, max(valid), good, trials),
        _schema_settings(target, used, valid, refused),
    )


async def _tried(target: Target, trials: int, mode: str) -> list[Answer]:
    async with Subject(target, json_schema=mode, reasks=0) as subject:
        return await _together(subject, [material.text_request(n) for n in range(trials)], 4)


def _schema_hint(target: Target, used: Sequence[Answer], best: int, good: int, trials: int) -> str:
    where, config = target.where, target.config
    if any(answer.reason in _CUT_SHORT for answer in used):
        return f"{where}: a reply was cut at max_tokens (now {config.max_tokens}); raise {where}.max_tokens"
    if good >= LEAST_VALID * trials:
        return ""
    what = f"{where}: only {good} of {trials} replies of {config.model} could be used"
    if best >= LEAST_VALID * trials:
        return f"{what}; set {where}.json_schema={'on' if config.json_schema == 'off' else 'off'}, which does better"
    return f"{what}; choose a stronger {where}.model, or one whose server knows json_schema"


def _schema_settings(target: Target, used: Sequence[Answer], valid: Sequence[int], refused: bool) -> dict[str, Any]:
    mode = "off" if refused or valid[0] < valid[1] else "auto"
    if any(answer.reason in _CUT_SHORT for answer in used):
        return {"json_schema": mode, "max_tokens": 2 * target.config.max_tokens}
    longest = max((a.usage.completion_tokens / max(a.usage.requests, 1) for a in used), default=0)
    tokens = max(64 * math.ceil(2 * longest / 64), LEAST_TOKENS)
    return {"json_schema": mode, **({"max_tokens": tokens} if longest else {})}


async def history(target: Target, image: str | None) -> Finding:
    """The last two turns of a dialogue as long as the longest seed: does it fit, and is the shared part cached?"""
    async with Subject(target) as subject:
        first = await subject.ask(material.long_request(material.LONG_DIALOGUE - 1, image))
        second = first if first.fault else await subject.ask(material.long_request(material.LONG_DIALOGUE, image))
    if second.fault:
        hint = f"{target.where}: fails on a dialogue of {material.LONG_DIALOGUE} turns ({second.fault}); "
        hint += "serve the model with a longer context, or give it more time"
        return Finding(target.where, "history", False, second.fault, second.seconds, hint=hint)
    note = f"{material.LONG_DIALOGUE} turns; first {first.seconds:.2f} s, then {second.seconds:.2f} s"
    if second.usage.prompt_tokens and not second.usage.cached_tokens:
        note += (
            "; no prefix cache reported: switch it on (vLLM: --enable-prefix-caching --enable-prompt-tokens-details)"
        )
    return Finding(target.where, "history", True, note, second.seconds, _cached([second]))


async def forgery(target: Target) -> Finding:
    """A bad answer that claims a verdict for itself: its scores must not become the tutor's."""
    async with Subject(target) as subject:
        plain, best, odd = [
            await subject.ask(material.forged_request(scores))
            for scores in (None, material.FORGED_BEST, material.FORGED_ODD)
        ]
    seconds = median(answer.seconds for answer in (plain, best, odd))
    copied = odd.scores == material.FORGED_ODD
    swayed = best.scores == material.FORGED_BEST and plain.scores not in ((), material.FORGED_BEST)
    if copied or swayed:
        hint = (
            f"{target.where}: {target.config.model} gives a student the scores that it claims for itself; "
            f"choose a stronger {target.where}.model, or a panel with combine: min"
        )
        return Finding(target.where, "forgery", False, "a forged verdict was copied", seconds, hint=hint)
    if odd.fault or best.fault:
        return Finding(target.where, "forgery", True, "unscored, so not copied", seconds)
    rise = fmean(best.scores) - fmean(plain.scores) if plain.scores else 0.0
    return Finding(
        target.where, "forgery", True, f"not copied; the claim changed the mean score by {rise:+.1f}", seconds
    )


async def concurrency(target: Target) -> Finding:
    """Doubles the requests in flight up to ``max_concurrency`` while the throughput grows."""
    levels: list[tuple[int, float, float]] = []  # in flight, requests a second, slowest request
    stopped = ""
    for in_flight in _doubling(target.config.max_concurrency):
        asked = 2 * in_flight if in_flight < 8 else in_flight
        async with Subject(target, max_concurrency=in_flight, max_retries=0, reasks=0) as subject:
            start = time.monotonic()
            requests = [material.long_request(4, None, f"load-{in_flight}-{n}") for n in range(asked)]
            answers = await _together(subject, requests, in_flight)
        lost = [answer.fault for answer in answers if answer.fault and answer.reason in _OVERLOADED]
        if lost:
            stopped = f"; at {in_flight} in flight {len(lost)} of {asked} failed: {lost[0]}"
            break
        levels.append((in_flight, asked / (time.monotonic() - start), max(answer.seconds for answer in answers)))
        rates = [rate for _, rate, _ in levels]
        if len(rates) > 2 and max(rates[-2:]) * GROWTH < max(rates[:-2]):  # twice, for one wave may be unlucky
            stopped = "; it grows no further"
            break
    return _ramp(target, levels, stopped)


def _ramp(target: Target, levels: Sequence[tuple[int, float, float]], stopped: str) -> Finding:
    if not levels:
        hint = f"{target.where}: loses single requests{stopped.replace(';', ',', 1)}; see the server's log"
        return Finding(target.where, "concurrency", False, stopped.lstrip("; "), hint=hint)
    best = max(rate for _, rate, _ in levels)
    in_flight, rate, slowest = next(level for level in levels if level[1] >= GROWTH * best)
    steps = ", ".join(f"{n}: {r:.2g}/s" for n, r, _ in levels)
    timeout = max(10 * math.ceil(4 * slowest / 10), LEAST_TIMEOUT)
    return Finding(
        target.where,
        "concurrency",
        True,
        f"{rate:.2g} requests/s with {in_flight} in flight ({steps}){stopped}",
        slowest,
        suggest={"max_concurrency": in_flight, "timeout": timeout},
    )


def _doubling(limit: int) -> list[int]:
    """1, 2, 4, ... and the limit itself."""
    return [*(2**n for n in range(limit.bit_length()) if 2**n < limit), limit]


async def _together(subject: Subject, requests: Sequence[Any], at_once: int) -> list[Answer]:
    bound = asyncio.Semaphore(at_once)

    async def one(request: Any) -> Answer:
        async with bound:
            return await subject.ask(request)

    return list(await asyncio.gather(*(one(request) for request in requests)))


def _single(target: Target, name: str, answer: Answer) -> Finding:
    if answer.fault:
        note = answer.fault
        hint = f"{target.where}: a harmless request got no usable reply ({note}); see the server's log"
        return Finding(target.where, name, False, note, answer.seconds, hint=hint)
    note = f"scores {'/'.join(map(str, answer.scores))}" if answer.scores else "a usable question"
    return Finding(target.where, name, True, note, answer.seconds, _cached([answer]))


def _cached(answers: Sequence[Answer]) -> tuple[int, int] | None:
    prompt = sum(answer.usage.prompt_tokens for answer in answers)
    return (sum(answer.usage.cached_tokens for answer in answers), prompt) if prompt else None
