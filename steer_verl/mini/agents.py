"""Everybody who takes part in Stages I and II, played by the laboratory's rules: no endpoint, no network, no cost."""

from __future__ import annotations

from steer_verl.data.agents import Agents
from steer_verl.mini.bootstrap import MiniBlueExpert, MiniEvaluator, MiniRedUser, MiniRiskJudge
from steer_verl.mini.rules import MiniSettings
from steer_verl.mini.scripts import MiniBreachJudge, MiniGenerator, MiniRedTeam, MiniTarget


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
