"""Stages I and II as steps of the engine: who takes part, and how each process makes its own.

Everything here is made in the process that works a shard, from the build's settings alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.data.agents import Agents
from steer_verl.data.pipeline.collect import PlannedSeed
from steer_verl.data.pipeline.config import AgentSettings, BuildConfig, Role
from steer_verl.data.stage1.expand import ExpandStep
from steer_verl.data.stage1.perturb import perturbed
from steer_verl.data.stage1.red_team import RedTeamStep
from steer_verl.data.stage2.bootstrap import BootstrapStep
from steer_verl.data.stage2.history import HistoryStep
from steer_verl.types import DialogueKind
from steer_verl.work.run import share
from steer_verl.work.step import Desk, Done, Step

DIALOGUES, BOOTSTRAP, HISTORY = "dialogues", "bootstrap", "history"
TAKES_PART: dict[str, tuple[Role, ...]] = {
    DIALOGUES: ("generator", "red_team", "target", "breach_judge"),
    BOOTSTRAP: ("red_user", "blue_expert", "evaluator"),
    HISTORY: ("risk_judge",),
}
"""Step -> the roles that it asks."""


def agents_of(config: BuildConfig, processes: int = 1) -> Agents:
    """One agent for each role. ``processes`` share every endpoint's bound.

    Raises:
        ConfigError: an address, rubric or file cannot be used.
    """
    if config.agents.kind == "mini":
        from steer_verl.mini.agents import mini_agents
        from steer_verl.mini.rules import MiniSettings

        return mini_agents(MiniSettings(seed=config.agents.seed))
    return _at_endpoints(config, processes)


class DialogueStep:
    """Stage I: PlannedSeed -> Seed, by the kind that it is planned for; a share of the pictures is perturbed."""

    name = DIALOGUES

    def __init__(self, config: BuildConfig, agents: Agents) -> None:
        self.config, self.agents = config, agents
        self.by_kind: dict[DialogueKind, Step[Any]] = {
            kind: ExpandStep(agents.generator, kind, config.expand)
            for kind in (DialogueKind.BENIGN, DialogueKind.OBFUSCATED)
        }
        self.by_kind[DialogueKind.RED_TEAM] = RedTeamStep(
            agents.red_team, agents.target, agents.breach_judge, config.red_team
        )

    async def work(self, item: PlannedSeed, desk: Desk) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        seed = perturbed(item.seed, self.config.pictures, self.config.perturb)
        return await self.by_kind[item.kind].work(seed, desk)

    async def close(self) -> None:
        """Give the agents' connections back."""
        agents = (self.agents.generator, self.agents.red_team, self.agents.target, self.agents.breach_judge)
        await asyncio.gather(*(agent.close() for agent in agents))


def make_step(config: BuildConfig, name: str, processes: int) -> Step[Any]:
    """The step of that name, in one of so many processes."""
    agents = agents_of(config, processes)
    make: dict[str, Callable[[], Step[Any]]] = {
        DIALOGUES: lambda: DialogueStep(config, agents),
        BOOTSTRAP: lambda: BootstrapStep(agents.red_user, agents.blue_expert, agents.evaluator, config.bootstrap),
        HISTORY: lambda: HistoryStep(agents.risk_judge, config.history),
    }
    return make[name]()


def names_of(agents: Agents, name: str) -> dict[str, str]:
    """Role -> model and prompt of those who take part in a step."""
    names = agents.names()
    return {role: names[role] for role in TAKES_PART[name]}


def _at_endpoints(config: BuildConfig, processes: int) -> Agents:
    from steer_verl.data.stage1.endpoints import (
        EndpointBreachJudge,
        EndpointGenerator,
        EndpointRedTeam,
        EndpointTarget,
    )
    from steer_verl.data.stage2.endpoints import (
        EndpointBlueExpert,
        EndpointEvaluator,
        EndpointRedUser,
        EndpointRiskJudge,
    )
    from steer_verl.models.cache import Cache
    from steer_verl.models.log import open_log

    pictures, settings = config.pictures, config.agents
    log = open_log(str(config.out / "calls"))

    def endpoint(role: Role) -> EndpointConfig:
        whole = settings.of(role)
        return whole.model_copy(update={"max_concurrency": share(whole.max_concurrency, processes)})

    return Agents(
        generator=EndpointGenerator(endpoint("generator"), pictures, log=log),
        red_team=EndpointRedTeam(endpoint("red_team"), pictures, log=log),
        target=EndpointTarget(endpoint("target"), pictures, log=log),
        breach_judge=EndpointBreachJudge(endpoint("breach_judge"), pictures, log=log),
        red_user=EndpointRedUser(endpoint("red_user"), pictures, log=log),
        blue_expert=EndpointBlueExpert(endpoint("blue_expert"), pictures, guidelines=settings.guidelines, log=log),
        evaluator=EndpointEvaluator(
            _tutor(settings, endpoint("evaluator"), str(config.out / "calls")),
            pictures,
            cache=Cache(config.out / "replies"),
        ),
        risk_judge=EndpointRiskJudge(endpoint("risk_judge"), pictures, log=log),
    )


def _tutor(settings: AgentSettings, endpoint: EndpointConfig, log: str) -> TutorConfig:
    return TutorConfig(endpoint=endpoint, rubric=settings.rubric, log=log)
