"""The strong red team: one framing and escalation after another is planned, played and judged, until one succeeds.

It begins with the obfuscated rewrite. A report on the image once a seed; then for each strategy reframe, plan, play the
script against the target, judge (paper, Stage I). An agent that fails for good at one strategy, as one that declines
does, costs that strategy and not the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steer_verl.data.seed import SourceSeed
from steer_verl.data.stages.agents import Agents, Brief, ImageReport, Probe, Strategy
from steer_verl.data.stages.facts import Facts
from steer_verl.data.stages.left import Left, Reason, stage
from steer_verl.data.stages.stage1.checks import Draft, dialogue_seed, fault_of
from steer_verl.data.stages.stage1.settings import RedTeamSettings
from steer_verl.data.stages.stage1.strategies import shuffled
from steer_verl.models.failure import AgentFailed
from steer_verl.models.forms import Said
from steer_verl.models.place import Place
from steer_verl.types import DialogueKind


@dataclass(frozen=True)
class Attack:
    """All that an attack on one seed needs."""

    agents: Agents
    seed: SourceSeed
    rewrites: Probe
    turns: int
    """Of the dialogue."""
    settings: RedTeamSettings

    async def draft(self, strategies: Sequence[Strategy], place: Place) -> Draft:
        """The first dialogue that the target gave in to.

        Raises:
            Left: none did, of as many strategies as the settings allow.
        """
        tried: list[dict[str, Any]] = []
        place = place.part("red_team")
        with stage("red_team", lambda: {"rewrites": self.rewrites.model_dump(), "tried": tried}):
            report = await self.agents.report(self.seed, self.rewrites.obfuscated, place.part("report"))
            for strategy in shuffled(strategies, self.seed.id)[: self.settings.max_strategies]:
                try:
                    facts, texts = await self._played(self._brief(report, strategy), place.part(strategy.name))
                except AgentFailed as failure:
                    if failure.transient:
                        raise
                    tried.append({"strategy": strategy.name, "failed": failure.reason, "detail": failure.detail})
                    continue
                if facts.breach is not None and facts.breach >= self.settings.keep_from:
                    facts = facts.model_copy(update={"strategies_tried": len(tried) + 1})
                    return Draft(dialogue_seed(self.seed, DialogueKind.RED_TEAM, texts, facts))
                tried.append({"strategy": strategy.name, "breach": facts.breach})
            told = ", ".join(f"{one['strategy']}: {one.get('breach') or one['failed']}" for one in tried)
            raise Left(Reason.NOT_SUCCESSFUL if any("breach" in one for one in tried) else Reason.NO_ATTACK, told)

    async def _played(self, brief: Brief, place: Place) -> tuple[Facts, tuple[str, ...]]:
        """Modules 2 to 4 for one strategy: what came of it, and the user's turns.

        Raises:
            AgentFailed: an agent gave nothing, or a script that cannot be played.
        """
        agents, seed = self.agents, self.seed
        reframed = await agents.reframe(seed, brief, place.part("reframe"))
        script = await agents.plan(seed, brief, reframed, place.part("plan"))
        if fault := fault_of(script.texts, self.turns):
            raise AgentFailed(fault[0].value, fault[1])
        said: tuple[Said, ...] = ()
        for number, text in enumerate(script.texts, 1):
            images = (seed.image,) if seed.image is not None and not said else ()
            said += (Said(role="user", text=text, images=images),)
            answer = await agents.attack_target(said, place.part(f"target{number}"), seed)
            said += (Said(role="assistant", text=answer),)
        facts = Facts(
            rewrites=self.rewrites,
            strategy=brief.strategy.name,
            attack_vector=reframed.attack_vector,
            complex_prompt=reframed.complex_prompt,
            risk_curve=tuple(turn.risk for turn in script.turns),
            breach=await agents.breach(seed, said, place.part("breach")),
        )
        return facts, script.texts

    def _brief(self, report: ImageReport, strategy: Strategy) -> Brief:
        words, rewritten = self.settings.prompt_words, self.rewrites.obfuscated
        return Brief(rewritten=rewritten, report=report, strategy=strategy, words=words, turns=self.turns)
