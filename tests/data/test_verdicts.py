"""An answer never enters a set with the verdict on another one, whatever fails, is lost or is killed on the way.

The red user and the blue expert say something else each time they are really asked, and the tutor writes into its
diagnosis what it was shown. So a kept dialogue tells by itself whether each verdict is that of its answer and history.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from steer_verl.data.seed import SetName
from steer_verl.data.stages.agents import ROLES
from steer_verl.data.stages.endpoint_agents import EndpointAgents
from steer_verl.data.stages.make import MakeStep
from steer_verl.models.failure import AgentFailed
from steer_verl.types import DialogueKind, Trajectory, Verdict
from steer_verl.work.step import Done, Kept
from tests.data.role_server import BLUE, TUTOR, RoleServer, endpoint, record
from tests.data.scripted import changed, made, source
from tests.models.fault_server import FaultServer, Request, Step, dropped, refuses, says, status
from tests.models.memory import Bill, Interrupted, MemoryCache
from tests.models.replies import completion, fields, prompt_text
from tests.tutor.conftest import no_back_off

REPLIES = ["good"] * 6 + ["busy", "dropped", "declined", "prose"]
KEEPING = ["kept"] * 5 + ["lost", "killed before", "killed after"]
THREE = changed(expand={"turn_weights": [0, 1, 0, 0, 0, 0, 0, 0, 0]}, bootstrap={"tau_help": 1})


class FickleServer(RoleServer):
    """Never says the same twice, idempotency key or not; each request's fate is the next of ``fates``."""

    def __init__(self, fates: Iterable[str]) -> None:
        said = count()
        answers = {
            "red_user": record(lambda _: {"message": f"And what of Q{next(said)}?"}),
            BLUE: lambda _: f"<thinking>A box.</thinking><answer>It is A{next(said)}.</answer>",
            TUTOR: lambda body: json.dumps(fields(body, (10, 10, 10), diagnosis=seen_in(prompt_text(body)))),
        }
        super().__init__(answers, keep=False)
        self.fates = iter(fates)
        usual = self.choose
        self.choose = lambda request: self._fate(request) or usual(request)

    def _fate(self, request: Request) -> Step | None:
        fate = next(self.fates, "good")
        role = self.role_of(request.body)
        if fate == "declined":
            return refuses() if role == "red_user" else None
        if fate == "prose":
            return says("No object here.") if role in ("red_user", TUTOR) else None
        return {"busy": status(503), "dropped": dropped()}.get(fate)

    def complete(self, request: Request, content: str | None, finish: str, message: dict[str, Any]) -> bytes:
        return completion(content, finish, **message)


class FickleCache(MemoryCache):
    """Loses replies, as a full disk does, and is killed before or after it has kept one."""

    def __init__(self, kept: dict[tuple[str, str], str], fates: Iterable[str]) -> None:
        super().__init__(kept)
        self.fates = iter(fates)

    def put(self, key: str, digest: str, value: BaseModel) -> None:
        fate = next(self.fates, "kept")
        if fate in ("kept", "killed after"):
            super().put(key, digest, value)
        if fate.startswith("killed"):
            raise Interrupted


def seen_in(text: str) -> str:
    """The numbers that stand in a dialogue, in order."""
    return " ".join(re.findall(r"\b[QA]\d+\b", text))


async def worked(server: FaultServer, fates: Iterable[str], folder: Path) -> Done:
    """A seed, tried again after every passing failure and by a new process after every kill."""
    kept: dict[tuple[str, str], str] = {}
    fates = iter(fates)
    while True:
        config = endpoint(server, max_retries=0, reasks=1)
        agents = EndpointAgents(dict.fromkeys(ROLES, config), folder, cache=FickleCache(kept, fates))
        step = MakeStep(agents, THREE, folder)
        item = source(image=None, kind=DialogueKind.OBFUSCATED, side=SetName.SFT)
        try:
            while True:
                try:
                    return await step.work(item, Bill(f"dialogues/{item.id}").place)
                except AgentFailed as failure:
                    if not failure.transient:
                        raise
        except Interrupted:
            continue
        finally:
            await step.close()


def shown(trajectory: Trajectory, turns: int) -> str:
    """What the tutor was to see of a dialogue's first turns."""
    return seen_in(" ".join(f"{turn.user.text} {turn.answer}" for turn in trajectory.turns[:turns]))


LOST_REFUSAL = ["good"] * 3 + ["declined", "good", "good", "busy"]
"""The red user declines its first turn, and the reply is lost; after the passing failure it writes a question."""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(REPLIES), max_size=40), st.lists(st.sampled_from(KEEPING), max_size=40))
@example(LOST_REFUSAL, ["kept"] * 3 + ["lost"])
@example([], ["kept"] * 4 + ["lost", "kept", "killed after"])
def test_each_verdict_is_the_one_on_its_answer(tmp_path: Path, replies: list[str], keeping: list[str]) -> None:
    async def run() -> Done | None:
        async with FickleServer(replies) as server:
            with no_back_off():
                try:
                    return await worked(server, keeping, tmp_path)
                except AgentFailed:
                    return None

    done = asyncio.run(run())
    if not isinstance(done, Kept):
        assert replies.count("prose") or replies.count("declined"), "passing failures reject nothing"
        return
    trajectory = made(done).trajectory
    assert trajectory is not None and len(trajectory.turns) == 3
    for number, turn in enumerate(trajectory.turns, 1):
        assert isinstance(turn.verdict, Verdict) and turn.verdict.diagnosis == shown(trajectory, number)
