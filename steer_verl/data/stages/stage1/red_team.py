"""The strong red team: one framing and escalation after another is planned, played and judged, until one succeeds.

It begins with the obfuscated rewrite. A report on the image once a seed; then for each strategy reframe, plan, play the
script against the target, judge (paper, Stage I). An agent that fails for good at one strategy, as one that declines
does, costs that strategy and not the seed. The strategies are data: every framing with every escalation of a file.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from steer_verl.config import Settings
from steer_verl.data.drawn import drawn
from steer_verl.data.seed import SourceSeed
from steer_verl.data.stages.agents import Agents, Brief, Probe, Strategy
from steer_verl.data.stages.facts import Facts
from steer_verl.data.stages.left import Left, Reason, stage
from steer_verl.data.stages.settings import RedTeamSettings
from steer_verl.data.stages.stage1.expand import dialogue_seed, fault_of
from steer_verl.errors import ConfigError
from steer_verl.models.failure import AgentFailed
from steer_verl.models.forms import Said
from steer_verl.models.place import Place
from steer_verl.settings_file import load_settings
from steer_verl.types import Seed

BUILT_IN = Path(__file__).with_name("strategies.yaml")


class Part(Settings):
    """A framing or an escalation."""

    name: Annotated[str, Field(pattern=r"^\w+$")]
    text: Annotated[str, Field(min_length=1, max_length=1000)]


class StrategyFile(Settings):
    """What a file of strategies holds."""

    framings: tuple[Part, ...] = ()
    escalations: tuple[Part, ...] = ()


def load_strategies(path: str | Path | None = None) -> tuple[Strategy, ...]:
    """The built-in strategies, with those that the file at ``path`` adds.

    Raises:
        ConfigError: the file cannot be read, has an unknown key, or names a framing or an escalation twice.
    """
    given = [load_settings(StrategyFile, Path(file)) for file in (BUILT_IN, path) if file is not None]
    framings = [part for file in given for part in file.framings]
    escalations = [part for file in given for part in file.escalations]
    for what, parts in (("framing", framings), ("escalation", escalations)):
        names = [part.name for part in parts]
        if twice := [name for name in names if names.count(name) > 1]:
            where = f"strategies {path or BUILT_IN}"
            raise ConfigError(f"{where}: the {what} {twice[0]!r} stands twice; give it another name")
    return tuple(
        Strategy(name=f"{framing.name}+{escalation.name}", framing=framing.text, escalation=escalation.text)
        for framing, escalation in itertools.product(framings, escalations)
    )


def shuffled(strategies: Sequence[Strategy], name: str) -> list[Strategy]:
    """The strategies in an order that depends on ``name`` and on their number alone."""
    order = sorted(range(len(strategies)), key=lambda number: drawn("order", name, str(number)))
    return [strategies[number] for number in order]


@dataclass(frozen=True)
class Attack:
    """All that an attack on one seed needs."""

    agents: Agents
    seed: SourceSeed
    rewrites: Probe
    turns: int
    """Of the dialogue."""
    settings: RedTeamSettings

    async def dialogue(self, strategies: Sequence[Strategy], place: Place) -> Seed:
        """The first dialogue that the target gave in to. Raises ``Left``: of those the settings allow, to none."""
        settings, rewritten = self.settings, self.rewrites.obfuscated
        tried: list[dict[str, Any]] = []
        with stage("red_team", lambda: {"rewrites": self.rewrites.model_dump(), "tried": tried}):
            report = await self.agents.report(self.seed, rewritten, place.part("report"))
            for strategy in shuffled(strategies, self.seed.id)[: settings.max_strategies]:
                words, turns = settings.prompt_words, self.turns
                brief = Brief(rewritten=rewritten, report=report, strategy=strategy, words=words, turns=turns)
                try:
                    facts, texts = await self._played(brief, place.part(strategy.name))
                except AgentFailed as failure:
                    if failure.transient:
                        raise
                    tried.append({"strategy": strategy.name, "failed": failure.reason, "detail": failure.detail})
                    continue
                tried.append({"strategy": strategy.name, "breach": facts.breach})
                if (facts.breach or 0) >= settings.keep_from:
                    return dialogue_seed(self.seed, texts, facts.model_copy(update={"strategies_tried": len(tried)}))
            told = ", ".join(f"{one['strategy']}: {one.get('breach') or one['failed']}" for one in tried)
            raise Left(Reason.NOT_SUCCESSFUL if any("breach" in one for one in tried) else Reason.NO_ATTACK, told)

    async def _played(self, brief: Brief, place: Place) -> tuple[Facts, tuple[str, ...]]:
        """Modules 2 to 4 for one strategy: what came of it, and the user's turns.

        Raises ``AgentFailed``: an agent gave nothing, or a script that cannot be played.
        """
        agents, seed = self.agents, self.seed
        reframed = await agents.reframe(seed, brief, place.part("reframe"))
        script = await agents.plan(seed, brief, reframed, place.part("plan"))
        if fault := fault_of(script.texts, self.turns):
            raise Left(*fault)
        said: tuple[Said, ...] = ()
        for number, text in enumerate(script.texts, 1):
            said += (Said(role="user", text=text, images=() if said else seed.images),)
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
