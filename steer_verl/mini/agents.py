"""Everybody who takes part in Stages I and II, played by the laboratory's rules: no endpoint, no network, no cost."""

from __future__ import annotations

from dataclasses import dataclass, fields

from steer_verl.data.agents import (
    BlueExpert,
    BreachJudge,
    Evaluator,
    Generator,
    RedTeam,
    RedUser,
    RiskJudge,
    Target,
)
from steer_verl.mini.bootstrap import MiniBlueExpert, MiniEvaluator, MiniRedUser, MiniRiskJudge
from steer_verl.mini.rules import MiniSettings
from steer_verl.mini.scripts import MiniBreachJudge, MiniGenerator, MiniRedTeam, MiniTarget


@dataclass(frozen=True)
class Agents:
    """One agent for each role."""

    generator: Generator
    red_team: RedTeam
    target: Target
    breach_judge: BreachJudge
    red_user: RedUser
    blue_expert: BlueExpert
    evaluator: Evaluator
    risk_judge: RiskJudge

    def names(self) -> dict[str, str]:
        """Role -> name of its agent, as a manifest has them."""
        return {role.name: getattr(self, role.name).name for role in fields(self)}


def mini_agents(settings: MiniSettings | None = None) -> Agents:
    """The rule agents. They can be pickled, so that they work in any process."""
    settings = settings or MiniSettings()
    return Agents(
        generator=MiniGenerator(settings),
        red_team=MiniRedTeam(settings),
        target=MiniTarget(settings),
        breach_judge=MiniBreachJudge(settings),
        red_user=MiniRedUser(settings),
        blue_expert=MiniBlueExpert(settings),
        evaluator=MiniEvaluator(settings),
        risk_judge=MiniRiskJudge(settings),
    )
