"""Every role of Stages I and II on one server, and seeds that are made there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from steer_verl.data.seed import SetName, SourceSeed
from steer_verl.data.stages.agents import ROLES
from steer_verl.data.stages.endpoint_agents import EndpointAgents
from steer_verl.data.stages.make import MakeStep
from steer_verl.data.stages.settings import StageSettings
from steer_verl.models.hosts import hosts
from steer_verl.types import DialogueKind, Usage
from steer_verl.work.step import Done
from tests.data.role_server import RoleServer, endpoint
from tests.data.samples import picture
from tests.data.scripted import TWO, changed
from tests.models.memory import Bill, MemoryCache
from tests.models.replies import prompt_text
from tests.tutor.conftest import no_back_off

SHORT = changed(expand={"turn_weights": TWO})
RED_TEAM = DialogueKind.RED_TEAM


class Laboratory:
    """A server, agents on it, and what they make of seeds."""

    def __init__(self, server: RoleServer, agents: EndpointAgents, images: Path) -> None:
        self.server, self.agents, self.images = server, agents, images
        self.usage: dict[str, Usage] = {}

    async def make(self, item: SourceSeed, settings: StageSettings = SHORT) -> Done:
        bill = Bill(f"dialogues/{item.id}")
        try:
            return await MakeStep(self.agents, settings, self.images).work(item, bill.place)
        finally:
            self.usage[item.id] = bill.usage

    def bodies(self, role: str) -> list[str]:
        """What each request to a role said."""
        return [prompt_text(body) for body in self.server.bodies if self.server.role_of(body) == role]


@contextlib.asynccontextmanager
async def laboratory(
    images: Path, server: RoleServer | None = None, cache: MemoryCache | None = None, **settings: Any
) -> AsyncIterator[Laboratory]:
    """All roles on one server."""
    picture(images / "a.png")
    async with server or RoleServer(level=lambda _: 5) as server:
        config = endpoint(server, **settings)
        agents = EndpointAgents(dict.fromkeys(ROLES, config), images, cache=cache)
        try:
            with no_back_off():
                yield Laboratory(server, agents, images)
        finally:
            await agents.close()
            assert not hosts().by_url, "every connection is given back"


WAYS: list[dict[str, Any]] = [
    {"kind": RED_TEAM, "side": SetName.SFT},
    {"kind": DialogueKind.OBFUSCATED, "side": SetName.RL},
    {"kind": DialogueKind.BENIGN, "side": SetName.SFT},
]
