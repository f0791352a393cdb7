"""The strong red team: one framing and escalation after another is planned, played and judged, until one succeeds.

Analysis once a seed; then for each strategy reframe, plan, play the script against the target, judge (paper, Stage I).
An agent that fails for good at one strategy, as an attacker that declines does, costs that strategy and not the seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from steer_verl.data.agents import BreachJudge, ImageReport, RedTeam, Reframed, Script, Strategy, Target
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.stage1.checks import dialogue_seed, fault_of
from steer_verl.data.stage1.rejections import Rejection
from steer_verl.data.stage1.settings import RedTeamSettings
from steer_verl.data.stage1.strategies import load_strategies, shuffled
from steer_verl.models.failure import AgentFailed
from steer_verl.models.forms import Said
from steer_verl.types import DialogueKind, Record, Seed
from steer_verl.work.step import Desk, Done, Kept, Rejected, value_of


class Tried(Record):
    """What became of one strategy that was not kept."""

    strategy: str
    breach: int | None = None
    """The judge's level; ``None`` when it did not come so far."""
    failed: str = ""
    """Why not."""
    detail: str = ""


@dataclass(frozen=True)
class Played:
    """A script that was played, and how far it got."""

    reframed: Reframed
    script: Script
    breach: int


class RedTeamStep:
    """SourceSeed -> Seed of a dialogue that the target gave in to.

    Args:
        red_team: modules 1 to 3.
        target: the policy that is attacked.
        judge: says how far an attack got.
        settings: how many strategies, and what counts as a success.
        strategies: in place of the built-in ones and of those that the settings name.

    Raises:
        ConfigError: the settings' strategies cannot be read.
    """

    name = DialogueKind.RED_TEAM.value

    def __init__(
        self,
        red_team: RedTeam,
        target: Target,
        judge: BreachJudge,
        settings: RedTeamSettings | None = None,
        strategies: Sequence[Strategy] | None = None,
    ) -> None:
        self.settings = settings or RedTeamSettings()
        self.red_team, self.target, self.judge = red_team, target, judge
        self.strategies = tuple(load_strategies(self.settings.strategies) if strategies is None else strategies)

    async def work(self, item: SourceSeed, desk: Desk) -> Done:
        """See :class:`~steer_verl.work.step.Step`; a rejected item keeps what was tried."""
        report = await self.red_team.analyse(item, desk)
        tried: list[Tried] = []
        for strategy in shuffled(self.strategies, item.id)[: self.settings.max_strategies]:
            try:
                played = await self._play(item, report, strategy, desk)
            except AgentFailed as failure:
                if failure.transient:
                    raise
                tried.append(Tried(strategy=strategy.name, failed=failure.reason, detail=failure.detail))
                continue
            if played.breach >= self.settings.keep_from:
                return Kept(value=value_of(_seed(item, strategy, played, len(tried) + 1)))
            tried.append(Tried(strategy=strategy.name, breach=played.breach))
        judged = any(attempt.breach is not None for attempt in tried)
        reason = Rejection.NOT_SUCCESSFUL if judged else Rejection.NO_ATTACK
        told = ", ".join(f"{attempt.strategy}: {attempt.breach or attempt.failed}" for attempt in tried)
        return Rejected(reason=reason.value, detail=told, value={"tried": [value_of(attempt) for attempt in tried]})

    async def close(self) -> None:
        """Give the agents' connections back."""
        await asyncio.gather(self.red_team.close(), self.target.close(), self.judge.close())

    async def _play(self, item: SourceSeed, report: ImageReport, strategy: Strategy, desk: Desk) -> Played:
        """Modules 2 to 4 for one strategy.

        Raises:
            AgentFailed: an agent gave nothing, or a script that cannot be played.
        """
        reframed = await self.red_team.reframe(item, report, strategy, desk)
        script = await self.red_team.plan(item, report, reframed, strategy, desk)
        texts = [turn.user_prompt for turn in script.dialogue_script]
        if fault := fault_of(texts, script.total_turns, self.settings.max_chars):
            raise AgentFailed(fault[0].value, fault[1])
        said: tuple[Said, ...] = ()
        for text in texts:
            images = (item.image,) if item.image is not None and not said else ()
            said += (Said(role="user", text=text, images=images),)
            said += (Said(role="assistant", text=await self.target.answer(said, desk, item)),)
        return Played(reframed, script, await self.judge.breach(item, said, desk))


def _seed(item: SourceSeed, strategy: Strategy, played: Played, tried: int) -> Seed:
    script = played.script
    return dialogue_seed(
        item,
        DialogueKind.RED_TEAM,
        [turn.user_prompt for turn in script.dialogue_script],
        rewrite=played.reframed.complex_prompt,
        attack_vector=played.reframed.attack_vector,
        strategy=strategy.name,
        risk_curve=list(script.risk_curve),
        breach=played.breach,
        strategies_tried=tried,
    )
