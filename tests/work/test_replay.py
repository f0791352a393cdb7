"""Agents that never say the same twice, endpoints that fail, and kills between any two writes: nothing is ever mixed.

The endpoint is the real one down to the sending of a request. What comes back is drawn; every answer quotes what it is
an answer to, so that an answer that stands beside the verdict on another one is seen.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steer_verl.config import BreakerConfig, EndpointConfig
from steer_verl.models.asking import Asker
from steer_verl.models.cache import ReplyCache
from steer_verl.models.failure import AgentFailed, Cause, Failure, failed
from steer_verl.models.forms import Said
from steer_verl.models.place import Place
from steer_verl.models.prompt_file import PromptFile
from steer_verl.models.request import Reply
from steer_verl.models.server import Server
from steer_verl.types import Record, UnscoredReason, Usage
from steer_verl.work import outcomes as outcomes_module
from steer_verl.work.job import Job
from steer_verl.work.manifest import account
from steer_verl.work.outcomes import read_outcomes
from steer_verl.work.run import run
from steer_verl.work.shards import Shards
from steer_verl.work.step import Done, Kept, Outcome, Rejected, WorkSettings
from steer_verl.work.store import Store
from tests.models.replies import prompt_text
from tests.work.scripted import Thing, things

COUNT, TURNS = 5, 2
WORK = WorkSettings(in_flight=3, tries=20, pause=0.0, dead_after=10_000, shards=2, grace=0.0)
ENDPOINT = EndpointConfig(
    base_url="http://127.0.0.1:9/v1", model="m", api_key_env="", max_retries=0, breaker=BreakerConfig(failures=10**6)
)
FATES = ("good", "good", "good", "timeout", "filtered", "refusal", "prose")
JUDGE = PromptFile("judge", 1, "Judge.", "The answer:\n{{answer}}")
STATIC = "the question as it stands in the set"


class Verdict(Record):
    """What the judge replies."""

    of: str
    """The answer that it was shown."""
    number: int


class Killed(BaseException):
    """The process has been killed here."""


class World:
    """Whoever is asked, and whatever happens to the process.

    Attributes:
        kill_at: writes after which the process is killed; ``None``: it lives.
        sent: requests so far.
        kept: digests of all replies that were on disk when the cache had kept them.
    """

    def __init__(self, fates: list[str]) -> None:
        self.fates = iter(fates)
        self.kill_at: int | None = None
        self.torn = False
        self.sent = 0
        self.kept: set[str] = set()
        self.closed = False
        """Nobody is to be asked any more."""

    async def send(self, body: Mapping[str, Any], key: str) -> Reply | Failure:
        """In the place of :meth:`Server.send`."""
        self.alive()
        assert not self.closed and key not in self.kept, "a reply that was kept is asked for again"
        self.sent += 1
        fate = next(self.fates, "good")
        if fate == "timeout":
            return failed(Cause.UNREACHABLE, UnscoredReason.TIMEOUT, "late")
        if fate == "filtered":
            return failed(Cause.FILTERED, UnscoredReason.CONTENT_FILTER, "flagged")
        usage = Usage(requests=1, completion_tokens=1)
        if fate == "refusal":
            return Reply(content="", refusal=f"I decline, {self.sent}", usage=usage)
        if fate == "prose" or "response_format" not in body:
            return Reply(content=f"words {self.sent} to ({body['messages'][-1]['content'][-200:]})", usage=usage)
        text = prompt_text(dict(body))
        nonce, shown = re.findall(r"secret id is (\w+)", text)[-1], re.findall(r"^> (.*)$", text, re.M)[0]
        return Reply(content=json.dumps({"id": nonce, "of": shown, "number": self.sent}), usage=usage)

    def alive(self) -> None:
        """One more step on the way to the kill."""
        if self.kill_at is not None and self.kill_at <= 0:
            raise Killed

    def write(self) -> None:
        """Something is about to be written."""
        self.alive()
        if self.kill_at is not None:
            self.kill_at -= 1


@contextmanager
def living_in(world: World) -> Iterator[None]:
    """Every write and every request of this process is the world's."""
    do, close, keep, append = Store._do, Store.close, Store.keep, outcomes_module.append

    async def send(self: Server, body: Mapping[str, Any], key: str, *_: Any, **__: Any) -> Reply | Failure:
        return await world.send(body, key)

    def doing(self: Store, query: str, *values: Any) -> Any:
        if query.split()[0] in ("INSERT", "UPDATE", "DELETE", "COMMIT"):
            world.write()
        return do(self, query, *values)

    def keeping(self: Store, item: str, name: str, value: bytes) -> None:
        keep(self, item, name, value)
        world.kept.add(name.split()[-1])

    def appending(path: Path, record: Any) -> int:
        try:
            world.write()
        except Killed:
            if world.torn:
                with path.open("ab") as file:
                    file.write(record.model_dump_json().encode()[:30])
            raise
        return append(path, record)

    def closing(self: Store) -> None:
        self._db.close() if world.kill_at is not None and world.kill_at <= 0 else close(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Server, "send", send)
        patch.setattr(Store, "_do", doing)
        patch.setattr(Store, "keep", keeping)
        patch.setattr(Store, "close", closing)
        patch.setattr(outcomes_module, "append", appending)
        yield


class ChainStep:
    """Two turns: a question, an answer to it, a verdict on the answer. A question that is refused is asked as it is."""

    name = "chain"

    def __init__(self, processes: int, cache: ReplyCache) -> None:
        self.asker, self.answerer = (
            Asker(ENDPOINT, "ask", None, cache=cache),
            Asker(ENDPOINT, "answer", None, cache=cache),
        )
        self.judge = Asker(ENDPOINT, "judge", JUDGE, cache=cache)

    async def work(self, item: Thing, place: Place) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        turns = []
        for number in range(TURNS):
            part = place.part(f"turn {number}")
            question = await self._question(f"ask on {item.id} {number}", part)
            answer = await self.answerer.answer((Said(role="user", text=question),), part)
            verdict = await self.judge.ask(Verdict, {"answer": answer}, part)
            turns.append({"question": question, "answer": answer, **verdict.model_dump()})
            if verdict.number % 11 == 0:
                return Rejected(reason="bad", stage="judge", value={"turns": turns})
        return Kept(value={"turns": turns})

    async def _question(self, wanted: str, part: Place) -> str:
        try:
            return await self.asker.answer((Said(role="user", text=wanted),), part, verbatim=True)
        except AgentFailed as failure:
            if failure.transient or failure.reason != "refusal":
                raise
            return STATIC


def chain(folder: Path) -> Job[Thing]:
    return Job("chain", folder, ChainStep, partial(things, COUNT), WORK, source="five things")


def ends(folder: Path) -> dict[str, Outcome]:
    """Item -> its outcome, of which there is one at most; every turn in it holds together."""
    found = list(read_outcomes(folder))
    result = {outcome.id: outcome for outcome in found}
    assert len(result) == len(found)
    for outcome in found:
        for turn in (outcome.done.value or {}).get("turns", ()):
            assert turn["of"] == turn["answer"], "an answer stands beside the verdict on another one"
            assert f"({turn['question']})" in turn["answer"] or turn["answer"].startswith("I decline")
    return result


def kept_texts(folder: Path, item: str) -> str:
    """All replies that the cache has for an item."""
    with Shards(folder, "chain", WORK) as shards:
        store = shards.store_of(item)
        assert store is not None
        names = [row[0] for row in store._do("SELECT name FROM reply WHERE item = ?", item)]
        replies = [json.loads(store.reply(item, name) or b"") for name in names]
        return "\n".join(reply.get("content", "") for reply in replies)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    fates=st.lists(st.sampled_from(FATES), max_size=60),
    kills=st.lists(st.integers(0, 70), max_size=4),
    torn=st.booleans(),
)
def test_whatever_fails_and_whenever_it_is_killed_every_item_ends_once_and_holds_together(
    fates: list[str], kills: list[int], torn: bool
) -> None:
    world = World(fates)
    world.torn = torn
    with tempfile.TemporaryDirectory() as name, living_in(world):
        folder = Path(name)
        for kill_at in kills:
            world.kill_at = kill_at
            with suppress(Killed):
                run(chain(folder), {"m": 1})
            world.kill_at = None
            before = ends(folder)
        found = run(chain(folder), {"m": 1})
        done = ends(folder)
        assert found.complete and set(done) == {thing.id for thing in things(COUNT)}
        assert not kills or before.items() <= done.items(), "what has ended has ended"
        for item, outcome in done.items():
            texts = kept_texts(folder, item)
            for turn in (outcome.done.value or {}).get("turns", ()):
                assert turn["question"] in (*texts.splitlines(), STATIC) and str(turn["number"]) in texts
        world.closed = True
        again = run(chain(folder), {"m": 2}, accept_changes=True)
        assert {item: one.done for item, one in ends(folder).items()} == {item: one.done for item, one in done.items()}
        assert again.usage == found.usage and account(folder).earlier == [{"m": 1}]
