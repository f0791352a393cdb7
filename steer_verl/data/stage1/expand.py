"""Probe and expand: a question is rewritten, benign or with its risk obfuscated, and taken apart into 2..10 user turns.

The number of turns is drawn by a hash of the seed's id, so that a run started again asks for the same.
"""

from __future__ import annotations

from itertools import accumulate

from steer_verl.data.agents import Generator
from steer_verl.data.drawn import drawn
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.stage1.checks import dialogue_seed, fault_of
from steer_verl.data.stage1.rejections import Rejection
from steer_verl.data.stage1.settings import ExpandSettings
from steer_verl.text import folded
from steer_verl.types import MAX_TURNS, MIN_TURNS, DialogueKind
from steer_verl.work.step import Desk, Done, Kept, Rejected, value_of


class ExpandStep:
    """SourceSeed -> Seed, by one generator.

    Args:
        generator: who rewrites and expands.
        kind: ``BENIGN`` or ``OBFUSCATED``; it is the step's name.
        settings: number and length of turns.
    """

    def __init__(self, generator: Generator, kind: DialogueKind, settings: ExpandSettings | None = None) -> None:
        if kind is DialogueKind.RED_TEAM:
            raise ValueError("red-team dialogues are made by RedTeamStep")
        self.name = kind.value
        self.generator, self.kind, self.settings = generator, kind, settings or ExpandSettings()

    async def work(self, item: SourceSeed, desk: Desk) -> Done:
        """See :class:`~steer_verl.work.step.Step`; a rejected item keeps its rewrite and its turns."""
        turns = draw_turns(item.id, self.settings)
        rewritten = await self.generator.rewrite(item, self.kind, desk)
        if not folded(rewritten):
            return Rejected(reason=Rejection.EMPTY_TURN.value, detail="the rewritten question is empty")
        texts = await self.generator.expand(item, self.kind, rewritten, turns, desk)
        if fault := fault_of(texts, turns, self.settings.max_chars):
            reason, detail = fault
            value = {"rewrite": rewritten, "turns": list(texts)}
            return Rejected(reason=reason.value, detail=detail, value=value)
        return Kept(value=value_of(dialogue_seed(item, self.kind, texts, rewrite=rewritten)))

    async def close(self) -> None:
        """Give the generator's connections back."""
        await self.generator.close()


def draw_turns(seed_id: str, settings: ExpandSettings) -> int:
    """Number of turns of a seed's dialogue, by the settings' weights."""
    point = drawn("turns", seed_id) * sum(settings.turn_weights)
    bounds = accumulate(settings.turn_weights)
    return next((MIN_TURNS + index for index, bound in enumerate(bounds) if point < bound), MAX_TURNS)
