"""The way of a seed: Stage I, the screen, and what the set that it serves asks for.

A stage asks agents and decides. It holds no state: worked again, it asks the same at the same places, and every reply
that was had before comes from the cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from steer_verl.data.seed import Made, SetName, SourceSeed
from steer_verl.data.stages.agents import Agents
from steer_verl.data.stages.judged import screened, selected
from steer_verl.data.stages.left import Left, stage
from steer_verl.data.stages.settings import StageSettings
from steer_verl.data.stages.stage1.expand import draw_turns, expanded, probed
from steer_verl.data.stages.stage1.perturb import is_drawn, perturbed
from steer_verl.data.stages.stage1.red_team import Attack, load_strategies
from steer_verl.data.stages.stage2.bootstrap import bootstrapped
from steer_verl.errors import DataError
from steer_verl.models.failure import AgentFailed
from steer_verl.models.place import Place
from steer_verl.models.replies import AskFault
from steer_verl.types import DialogueKind, Seed
from steer_verl.work.step import Done, Kept, Rejected, value_of

Ready = Callable[[], Awaitable[None]]


class MakeStep:
    """SourceSeed -> Made (:class:`~steer_verl.work.step.Step`).

    The step closes its agents. The seeds' images lie below ``images``; perturbed ones are written there.
    ``ready`` proves that the agents are there. Raises ``ConfigError``: the strategies cannot be read.
    """

    name = "dialogues"

    def __init__(self, agents: Agents, settings: StageSettings, images: Path, ready: Ready | None = None) -> None:
        self.agents, self.settings, self.images, self._ready = agents, settings, images, ready
        self.strategies = load_strategies(settings.red_team.strategies)

    async def open(self) -> None:
        """See :class:`~steer_verl.work.step.Step`."""
        if self._ready is not None:
            await self._ready()

    async def work(self, item: SourceSeed, place: Place) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        try:
            return Kept(value=value_of(await self._made(item, place)))
        except Left as left:
            return Rejected(stage=left.stage, reason=left.reason, detail=left.detail, value=left.value)

    async def close(self) -> None:
        """Close the agents."""
        await self.agents.close()

    async def _made(self, item: SourceSeed, place: Place) -> Made:
        side, settings = item.side, self.settings
        assert side is not None, "a seed that is dealt has a side"
        if side is not SetName.BENCH and is_drawn(item, settings.perturb):
            item = await self._perturbed(item)
        seed, answers = await self._dialogue(item, place)
        made = await screened(self.agents, Made(side=side, seed=seed), settings.screen, place)
        if side is SetName.SFT:
            return await bootstrapped(self.agents, made.seed, answers, settings.bootstrap, place)
        if side is SetName.RL:
            return await selected(self.agents, made, settings.select, place)
        return made

    async def _perturbed(self, item: SourceSeed) -> SourceSeed:
        with stage("perturb"):
            try:
                return await asyncio.to_thread(perturbed, item, self.images, self.settings.perturb)
            except DataError as error:
                raise AgentFailed(AskFault.IMAGE.value, str(error), transient=True) from None

    async def _dialogue(self, item: SourceSeed, place: Place) -> tuple[Seed, tuple[str, ...]]:
        """Stage I: the user's side, and the answers where they were written along with it."""
        rewrites = await probed(self.agents, item, place)
        if item.kind is not DialogueKind.RED_TEAM:
            return await expanded(self.agents, item, rewrites, self.settings.expand, place)
        turns = draw_turns(item.id, self.settings.expand.turn_weights)
        attack = Attack(self.agents, item, rewrites, turns, self.settings.red_team)
        return await attack.dialogue(self.strategies, place.part("red_team")), ()
