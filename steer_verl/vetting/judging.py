"""Judging many stored answers: at most so many at once, every verdict kept at once, none paid for twice.

Verdicts lie in a folder of JSON lines (:mod:`steer_verl.append_log`), each under the tutor's identity and the answer's
key. What could not be scored is not kept: the next run asks for it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from steer_verl import append_log
from steer_verl.errors import DataError
from steer_verl.types import Record, TurnVerdict, Tutor, TutorRequest, Unscored, Usage, Verdict


class Judged(Record):
    """One kept verdict."""

    tutor: str
    """``Identity.key`` of who gave it."""
    key: str
    """Which answer it is for."""
    verdict: Verdict
    seconds: float
    usage: Usage = Usage()


class Judgements:
    """The kept verdicts of one tutor.

    Args:
        folder: where they are kept; made at the first verdict.
        tutor: ``Identity.key``; verdicts of other tutors in the folder are passed over.

    Raises:
        DataError: a line in the folder cannot be read; names it.
    """

    def __init__(self, folder: Path, tutor: str) -> None:
        self.folder, self.tutor = folder, tutor
        self.kept: dict[str, Judged] = {}
        for path in append_log.files(folder):
            for judged in _read(path):
                if judged.tutor == tutor:
                    self.kept[judged.key] = judged

    def keep(self, key: str, verdict: Verdict, seconds: float, usage: Usage) -> None:
        """Write one verdict."""
        self.kept[key] = Judged(tutor=self.tutor, key=key, verdict=verdict, seconds=seconds, usage=usage)
        append_log.append(append_log.own_file(self.folder), self.kept[key])

    def usage(self, keys: Mapping[str, object]) -> Usage:
        """What the verdicts of these answers cost, whenever they were given."""
        return sum((judged.usage for key, judged in self.kept.items() if key in keys), Usage())


def exchange_key(exchange: TutorRequest) -> str:
    """16 hex digits over what a tutor may see of an exchange to judge its answer; earlier scores are no part of it."""
    seed, history = exchange.seed, [(turn.user, turn.answer) for turn in exchange.turns]
    words = [(user.text, user.images, answer) for user, answer in [*history, (exchange.user, exchange.answer)]]
    seen = json.dumps([seed.id, seed.kind.value, seed.facts, words], sort_keys=True)
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


def _read(path: Path) -> Iterator[Judged]:
    for number, line in append_log.whole_lines(path):
        try:
            yield Judged.model_validate_json(line)
        except ValidationError as error:
            what = error.errors()[0]["msg"]
            raise DataError(f"{path}:{number}: not a kept verdict ({what}); remove the line") from None


async def judge_all(
    tutor: Tutor,
    exchanges: Mapping[str, TutorRequest],
    store: Judgements,
    at_once: int,
    on_done: Callable[[TurnVerdict], None] = lambda verdict: None,
) -> dict[str, TurnVerdict]:
    """The verdict of every exchange, by its key; only those without a kept verdict are asked for.

    Args:
        tutor: proved usable first (``Tutor.check``) when there is anything to ask.
        exchanges: by key; each without a hint, so that nothing but the verdict is asked for.
        store: where verdicts come from and go to.
        at_once: most exchanges in flight.
        on_done: called after each verdict, a kept one included.

    Raises:
        TutorError: the tutor cannot be used at all.
    """
    found: dict[str, TurnVerdict] = {}
    for key in exchanges:
        if key in store.kept:
            found[key] = store.kept[key].verdict
            on_done(found[key])
    waiting = iter([key for key in exchanges if key not in found])
    if len(found) < len(exchanges):
        await tutor.check()

    async def work() -> None:
        for key in waiting:
            ruling = await tutor.respond(exchanges[key])
            found[key] = ruling.verdict
            if not isinstance(ruling.verdict, Unscored):
                store.keep(key, ruling.verdict, ruling.seconds, ruling.usage)
            on_done(ruling.verdict)

    workers = [asyncio.ensure_future(work()) for _ in range(min(at_once, len(exchanges) - len(found)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return found
