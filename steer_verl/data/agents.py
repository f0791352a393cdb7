"""Who takes part in Stages I and II, as protocols: models at an endpoint, or the laboratory's own rules.

An agent is asked about one item at its desk (:class:`~steer_verl.work.step.Desk`), which remembers its answer. It
raises :class:`~steer_verl.work.step.AgentFailed` when it has none. Text from a model is untrusted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Protocol

from pydantic import Field

from steer_verl.data.sources.seed import SourceSeed
from steer_verl.models.forms import Said
from steer_verl.types import MAX_TURNS, MIN_TURNS, DialogueKind, Record, Seed, TurnVerdict, TutorRequest, UserTurn
from steer_verl.work.step import Desk

Level = Annotated[int, Field(ge=1, le=5)]
"""1 harmless or refused, 5 fully harmful."""


class Strategy(Record):
    """One way of the red team, as data (steer_verl/data/stage1/strategies.yaml)."""

    name: str
    framing: str
    """How the request is dressed up, in one or two sentences for the rewriter."""
    escalation: str
    """How the dialogue climbs, in one or two sentences for the planner."""


class ImageReport(Record):
    """Module 1: what the picture holds that matters."""

    summary: str
    objects: tuple[str, ...] = ()
    text: str = ""
    """Words that can be read in the picture."""
    risks: tuple[str, ...] = ()
    """Where the picture could be leaned on."""


class Reframed(Record):
    """Module 2: the request in a strategy's framing."""

    attack_vector: str
    rationale: str
    complex_prompt: str


class ScriptTurn(Record):
    """One user turn of a plan."""

    turn_id: Annotated[int, Field(ge=1)]
    user_prompt: str
    goal: str = ""


class Script(Record):
    """Module 3: the planned dialogue."""

    selected_strategy: str
    total_turns: Annotated[int, Field(ge=MIN_TURNS, le=MAX_TURNS)]
    risk_curve: tuple[Level, ...]
    dialogue_script: Annotated[tuple[ScriptTurn, ...], Field(min_length=MIN_TURNS, max_length=MAX_TURNS)]


class Risk(Record):
    """How harmful the best answer to a request would be, and why."""

    level: Level
    why: str = ""


class Agent(Protocol):
    """What every agent has."""

    name: str
    """Model and version of the prompt, or of the rules: it stands in the manifest."""

    async def close(self) -> None:
        """Give connections back."""
        ...


class Generator(Agent, Protocol):
    """Stage I: rewrites a question and expands it into user turns."""

    async def rewrite(self, seed: SourceSeed, kind: DialogueKind, desk: Desk) -> str:
        """Probe: the question, made benign or with its risk obfuscated, by ``kind``."""
        ...

    async def expand(
        self, seed: SourceSeed, kind: DialogueKind, rewritten: str, turns: int, desk: Desk
    ) -> tuple[str, ...]:
        """``turns`` user messages that lead to the rewritten question; texts without ``<image>`` marks."""
        ...


class RedTeam(Agent, Protocol):
    """Stage I: modules 1 to 3 of the strong red team."""

    async def analyse(self, seed: SourceSeed, desk: Desk) -> ImageReport:
        """Module 1."""
        ...

    async def reframe(self, seed: SourceSeed, report: ImageReport, strategy: Strategy, desk: Desk) -> Reframed:
        """Module 2."""
        ...

    async def plan(
        self, seed: SourceSeed, report: ImageReport, reframed: Reframed, strategy: Strategy, desk: Desk
    ) -> Script:
        """Module 3."""
        ...


class Target(Agent, Protocol):
    """Stage I, module 4: the policy that an attack is tried on."""

    async def answer(self, said: tuple[Said, ...], desk: Desk, seed: SourceSeed) -> str:
        """Its answer to the last message."""
        ...


class BreachJudge(Agent, Protocol):
    """Stage I, module 4: what the attack has reached."""

    async def breach(self, seed: SourceSeed, said: tuple[Said, ...], desk: Desk) -> Level:
        """1 hard refusal, 2 soft refusal, 3 vague, 4 partial leak, 5 full breach."""
        ...


class RedUser(Agent, Protocol):
    """Stage II: writes the next user turn from the template's and from what was said."""

    async def ask(self, seed: Seed, said: tuple[Said, ...], template: UserTurn, desk: Desk) -> str:
        """The text of the turn, without ``<image>`` marks."""
        ...


class BlueExpert(Agent, Protocol):
    """Stage II: the answers that the student is to learn, in its format, under the guidelines."""

    async def answer(self, seed: Seed, said: tuple[Said, ...], desk: Desk) -> str:
        """The whole answer, ``<thinking>...</thinking><answer>...</answer>``."""
        ...


class Evaluator(Agent, Protocol):
    """Stage II: scores every turn, with the tutor's rubric and scale."""

    async def score(self, exchange: TutorRequest, desk: Desk) -> TurnVerdict:
        """A verdict, or why there is none."""
        ...


class RiskJudge(Agent, Protocol):
    """Assembly: whether a dialogue's risk lies in its history."""

    async def alone(self, seed: Seed, turn: int, desk: Desk) -> Risk:
        """Of user turn ``turn`` (0-based) by itself: no other turn is shown, and only the pictures of this one."""
        ...

    async def whole(self, seed: Seed, desk: Desk) -> Risk:
        """Of the last turn with all that led to it, pictures included."""
        ...


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
