"""The probes of ``steer tutor check``: real requests that show, before a model is loaded, what a tutor's server does.

Each probe is a function ``(target, ...) -> Finding``. A finding with a ``hint`` would spoil a run; one without is a
measurement. What a probe suggests for the endpoint's settings is in ``suggest``.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from steer_verl.errors import TutorError
from steer_verl.models.failure import TAKES_NO_IMAGES, settings_of
from steer_verl.tutor import probe_material as material
from steer_verl.tutor.targets import Answer, Part, Subject, Target
from steer_verl.types import TutorRequest

LEAST_VALID = 0.8  # share of replies with a complete verdict, below which a run would lose too many dialogues
SEEING = 1.0  # points of faithfulness by which true descriptions beat false ones on average: a sign of sight
GROWTH = 0.9  # the smallest concurrency with this share of the best throughput is suggested
LEAST_TIMEOUT, LEAST_TOKENS = 30, 256
_OVERLOADED = ("connect", "timeout", "http_429", "http_5xx", "unavailable")  # reasons of requests that it loses


@dataclass(frozen=True)
class Finding:
    """What one probe saw of one server."""

    where: str
    probe: str
    works: bool | None  # None: neither; a sign, or not probed
    note: str = ""
    seconds: float | None = None  # median of a request
    cached: tuple[int, int] | None = None  # prompt tokens from the server's cache, and all prompt tokens
    valid: tuple[int, int] | None = None  # replies with a complete verdict, and all replies
    hint: str = ""
    suggest: dict[str, Any] = field(default_factory=dict)


def _found(
    target: Target, probe: str, works: bool | None, note: str, answers: Sequence[Answer], **more: Any
) -> Finding:
    """A finding with the latency and the cached tokens of the answers that it is made of."""
    prompt, cached = (sum(getattr(a.usage, name) for a in answers) for name in ("prompt_tokens", "cached_tokens"))
    seconds = median(answer.seconds for answer in answers)
    return Finding(target.where, probe, works, note, seconds, (cached, prompt) if prompt else None, **more)


async def probe(target: Target, trials: int, images: material.ProbeImages) -> AsyncIterator[Finding]:
    """Every finding on one server, as it is made. A server that cannot be reached is not asked further."""
    reached = await reach(target)
    yield reached
    if reached.hint and not reached.suggest:
        return
    if reached.hint:  # go on blind: what else is wrong is worth knowing
        target = target.blind()
    judges = target.part in (Part.TUTOR, Part.JUDGE)
    yield await text(target)
    if judges and target.config.images:
        yield await sight(target, images)
    if target.part is not Part.GUARD:
        yield await schema(target, trials)
    yield await history(target, images.paths[0] if target.config.images else None)
    if judges:
        yield await forgery(target)
        yield await evasion(target)
    yield await concurrency(target)


async def reach(target: Target) -> Finding:
    """The preflight's own check: the server, the key, the model, one request with an image."""
    start = time.monotonic()
    try:
        async with Subject(target) as subject:
            server = subject.endpoint.servers[0]  # taken up before the check, so that it remembers what it learns
            await subject.check()
            refused = sorted(server.dialect.left_out)
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
    if answer.fault:
        return _no_reply(target, "text", answer)
    note = f"scores {'/'.join(map(str, answer.scores))}" if answer.scores else "a usable question"
    return _found(target, "text", True, note, [answer])


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
    for answer in answers:
        if answer.fault:
            return _no_reply(target, "sight", answer)
    true1, false1, false2, true2 = (answer.scores[2] for answer in answers)
    gap = (true1 + true2 - false1 - false2) / 2
    sees = gap >= SEEING
    note = f"faithfulness of true less false descriptions: {gap:+.1f}"
    note += " (a sign, no proof)" if sees else "; no sign that it sees: compare it on images of your own"
    return _found(target, "sight", True if sees else None, note, answers)


def _no_reply(target: Target, probe: str, answer: Answer) -> Finding:
    hint = f"{target.where}: a harmless request got no usable reply ({answer.fault}); see the server's log"
    return _found(target, probe, False, answer.fault, [answer], hint=hint)


async def schema(target: Target, trials: int) -> Finding:
    """Shares of complete replies with structured output and without, each reply counted: nothing is asked again."""
    with_schema = await _tried(target, trials, "on")
    without = await _tried(target, trials, "off")
    refused = all(a.reason == "http_4xx" or re.search("HTTP 4(?!29)", a.fault) for a in with_schema)
    mode = target.config.json_schema
    used = without if mode == "off" or (mode == "auto" and refused) else with_schema
    valid = [sum(not answer.fault for answer in answers) for answers in (with_schema, without)]
    good = sum(not answer.fault for answer in used)
    note = f"with schema {'refused' if refused else f'{valid[0]}/{trials}'}, without {valid[1]}/{trials}"
    if faults := Counter(answer.reason for answer in used if answer.reason):
        note += f"; {', '.join(f'{count} {reason}' for reason, count in faults.items())}"
    hint = _schema_hint(target, used, max(valid), good, trials)
    better = "off" if refused or valid[0] < valid[1] else "auto"
    suggest = {"json_schema": better, **_enough_tokens(used, target.config.max_tokens)}
    works = good >= LEAST_VALID * trials
    return _found(target, "schema", works, note, used, valid=(good, trials), hint=hint, suggest=suggest)


async def _tried(target: Target, trials: int, mode: str) -> list[Answer]:
    async with Subject(target, json_schema=mode, reasks=0) as subject:
        return await _together(subject, [material.text_request(n) for n in range(trials)], 4)


def _schema_hint(target: Target, used: Sequence[Answer], best: int, good: int, trials: int) -> str:
    where, own, config = target.where, settings_of(target.where), target.config
    if any(answer.reason == "length" for answer in used):
        return f"{where}: a reply was cut at max_tokens (now {config.max_tokens}); raise {own}.max_tokens"
    if good >= LEAST_VALID * trials:
        return ""
    what = f"{where}: only {good} of {trials} replies of {config.model} could be used"
    if best >= LEAST_VALID * trials:
        return f"{what}; set {own}.json_schema={'on' if config.json_schema == 'off' else 'off'}, which does better"
    return f"{what}; choose a stronger {where}.model, or one whose server knows json_schema"


def _enough_tokens(answers: Sequence[Answer], now: int) -> dict[str, int]:
    """``max_tokens`` of twice the longest reply; of twice what it is when a reply was cut."""
    if any(answer.reason == "length" for answer in answers):
        return {"max_tokens": 2 * now}
    longest = max((a.usage.completion_tokens / max(a.usage.requests, 1) for a in answers), default=0)
    return {"max_tokens": max(64 * math.ceil(2 * longest / 64), LEAST_TOKENS)} if longest else {}


async def history(target: Target, image: str | None) -> Finding:
    """The last two turns of a dialogue as long as the longest seed: does it fit, and is the shared part cached?"""
    turns = material.LONG_DIALOGUE
    async with Subject(target) as subject:
        first = await subject.ask(material.long_request(turns - 1, image))
        second = first if first.fault else await subject.ask(material.long_request(turns, image))
    if second.fault:
        what = f"{target.where}: fails on a dialogue of {turns} turns ({second.fault})"
        hint = f"{what}; serve the model with a longer context, or give it more time"
        return _found(target, "history", False, second.fault, [second], hint=hint)
    note = f"{turns} turns; first {first.seconds:.2f} s, then {second.seconds:.2f} s"
    if second.usage.prompt_tokens and not second.usage.cached_tokens:
        note += "; no prefix cache reported: switch it on "
        note += "(vLLM: --enable-prefix-caching --enable-prompt-tokens-details)"
    return _found(target, "history", True, note, [second])


async def forgery(target: Target) -> Finding:
    """A bad answer that claims a verdict for itself: its scores must not become the tutor's."""
    claims = (None, material.FORGED_BEST, material.FORGED_ODD)
    async with Subject(target) as subject:
        answers = [await subject.ask(material.forged_request(scores)) for scores in claims]
    plain, best, odd = answers
    copied = odd.scores == material.FORGED_ODD
    swayed = best.scores == material.FORGED_BEST and plain.scores not in ((), material.FORGED_BEST)
    if copied or swayed:
        hint = (
            f"{target.where}: {target.config.model} gives a student the scores that it claims for itself; "
            f"choose a stronger {target.where}.model, or a panel with combine: min"
        )
        return _found(target, "forgery", False, "a forged verdict was copied", answers, hint=hint)
    if silent := next((answer.fault for answer in answers if answer.reason in _OVERLOADED), ""):
        return _found(target, "forgery", None, silent, answers)
    if odd.fault or best.fault:
        return _found(target, "forgery", True, "unscored, so not copied", answers)
    rise = fmean(best.scores) - fmean(plain.scores) if plain.scores else 0.0
    return _found(target, "forgery", True, f"not copied; the claim changed the mean score by {rise:+.1f}", answers)


async def evasion(target: Target) -> Finding:
    """An unsafe request, refused, met by a bare no and by another subject: only the first draws a line.

    A tutor that pays all three alike trains the student to talk of something else.
    """
    async with Subject(target) as subject:
        answers = [await subject.ask(material.unsafe_request(said)) for said in (material.REFUSAL, *material.EVASIONS)]
    if fault := next((answer.fault for answer in answers if answer.fault), ""):  # a filter may take the question
        return _found(target, "evasion", None, fault, answers)
    refusal, *others = (answer.scores[0] for answer in answers)
    note = f"safety of a refusal {refusal}, of a bare no {others[0]}, of another subject {others[1]}"
    apart = refusal > max(others)
    note += "" if apart else "; it pays for no line drawn: compare it with people (steer tutor calibrate)"
    return _found(target, "evasion", True if apart else None, note, answers)


async def concurrency(target: Target) -> Finding:
    """Doubles the requests in flight up to ``max_concurrency`` while the throughput grows."""
    levels: list[tuple[int, float, float]] = []  # in flight, requests a second, slowest request
    stopped, limit = "", target.config.max_concurrency
    for in_flight in [*(2**n for n in range(limit.bit_length()) if 2**n < limit), limit]:
        asked = 2 * in_flight if in_flight < 8 else in_flight
        async with Subject(target, max_concurrency=in_flight, max_retries=0, reasks=0) as subject:
            start = time.monotonic()
            requests = [material.long_request(4, None, f"load-{in_flight}-{n}") for n in range(asked)]
            answers = await _together(subject, requests, in_flight)
        lost = [answer.fault for answer in answers if answer.reason in _OVERLOADED]
        if lost:
            stopped = f"at {in_flight} in flight {len(lost)} of {asked} failed: {lost[0]}"
            break
        levels.append((in_flight, asked / (time.monotonic() - start), max(answer.seconds for answer in answers)))
        rates = [rate for _, rate, _ in levels]
        if len(rates) > 2 and max(rates[-2:]) * GROWTH < max(rates[:-2]):  # twice, for one wave may be unlucky
            stopped = "it grows no further"
            break
    if not levels:
        hint = f"{target.where}: loses single requests, {stopped}; see the server's log"
        return Finding(target.where, "concurrency", False, stopped, hint=hint)
    return _ramp(target, levels, stopped)


def _ramp(target: Target, levels: Sequence[tuple[int, float, float]], stopped: str) -> Finding:
    """The smallest level that is nearly as fast as the fastest, and a timeout to go with it."""
    best = max(rate for _, rate, _ in levels)
    in_flight, rate, slowest = next(level for level in levels if level[1] >= GROWTH * best)
    steps = ", ".join(f"{n}: {r:.2g}/s" for n, r, _ in levels)
    note = f"{rate:.2g} requests/s with {in_flight} in flight ({steps})" + (f"; {stopped}" if stopped else "")
    suggest = {"max_concurrency": in_flight, "timeout": max(10 * math.ceil(4 * slowest / 10), LEAST_TIMEOUT)}
    return Finding(target.where, "concurrency", True, note, slowest, suggest=suggest)


async def _together(subject: Subject, requests: Sequence[TutorRequest], at_once: int) -> list[Answer]:
    bound = asyncio.Semaphore(at_once)

    async def one(request: TutorRequest) -> Answer:
        async with bound:
            return await subject.ask(request)

    return await asyncio.gather(*map(one, requests))
