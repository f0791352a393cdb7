"""The agents of Stage I as models at an endpoint. Each has a prompt of its own; any two may share an endpoint."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from steer_verl.config import EndpointConfig
from steer_verl.data.agents import ImageReport, Level, Reframed, Risk, Script, ScriptTurn, Strategy
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.stage1.checks import fault_of
from steer_verl.data.stage1.settings import TextSettings
from steer_verl.models.asking import Asker, dialogue
from steer_verl.models.failure import AgentFailed
from steer_verl.models.forms import Said
from steer_verl.models.log import RequestLog
from steer_verl.models.prompt_file import Ours, Value, load_prompts
from steer_verl.models.prompt_file import prompt_hashes as hashes_of
from steer_verl.models.replies import AskFault
from steer_verl.refusal import is_refusal
from steer_verl.text import folded
from steer_verl.types import MAX_TURNS, MIN_TURNS, DialogueKind, Record
from steer_verl.work.step import Desk

MAX_CHARS = TextSettings().max_chars
"""Of a message: a longer one is asked for again."""


class Rewritten(Record):
    """Reply of the probe."""

    rewritten: str


class Messages(Record):
    """Reply of the expansion."""

    messages: tuple[str, ...]


class PlannedTurn(Record):
    """One turn of a plan; its number and the plan's length cannot disagree with it."""

    risk: Level
    user_prompt: str
    goal: str = ""


class Plan(Record):
    """Reply of the planner."""

    turns: Annotated[tuple[PlannedTurn, ...], Field(min_length=MIN_TURNS, max_length=MAX_TURNS)]


def prompt_hashes() -> dict[str, str]:
    """Name -> version of Stage I's prompts, for the manifest."""
    return hashes_of(load_prompts(__package__).values())


class EndpointAgent:
    """Askers of one endpoint, one for each role.

    Args:
        config: the endpoint.
        pictures: folder that the seeds' pictures lie below.
        log: where every attempt is written down, if anywhere.
    """

    roles: Sequence[str] = ()
    """Names of prompts."""

    def __init__(self, config: EndpointConfig, pictures: Path, *, log: RequestLog | None = None) -> None:
        prompts = load_prompts(__package__)
        self._ask = {role: Asker(config, role, prompts[role], pictures=pictures, log=log) for role in self.roles}
        versions = ",".join(f"{role}-{asker.version}" for role, asker in self._ask.items())
        self.name = f"{config.model}@{versions}"

    async def close(self) -> None:
        """Give connections back."""
        await asyncio.gather(*(asker.close() for asker in self._ask.values()))


class EndpointGenerator(EndpointAgent):
    """Rewrites and expands (:class:`~steer_verl.data.agents.Generator`)."""

    roles = ("rewrite_benign", "rewrite_obfuscated", "expand_benign", "expand_obfuscated")

    async def rewrite(self, seed: SourceSeed, kind: DialogueKind, desk: Desk) -> str:
        """The question, made benign or with its risk obfuscated."""
        asker = self._ask[f"rewrite_{kind.value}"]
        values: dict[str, Value] = {"question": seed.question, "category": seed.category}
        reply = await asker.ask(Rewritten, values, desk, images=_pictures(seed), check=_empty_rewrite)
        return _willing(reply.rewritten)

    async def expand(
        self, seed: SourceSeed, kind: DialogueKind, rewritten: str, turns: int, desk: Desk
    ) -> tuple[str, ...]:
        """``turns`` user messages that lead to the rewritten question."""
        asker = self._ask[f"expand_{kind.value}"]
        check = functools.partial(_turn_fault, turns)
        values: dict[str, Value] = {"rewritten": rewritten, "turns": turns}
        reply = await asker.ask(Messages, values, desk, images=_pictures(seed), check=check)
        _willing(reply.messages[0])
        return reply.messages


class EndpointRedTeam(EndpointAgent):
    """Modules 1 to 3 (:class:`~steer_verl.data.agents.RedTeam`). Only the first sees the picture."""

    roles = ("image_report", "reframe", "plan")

    async def analyse(self, seed: SourceSeed, desk: Desk) -> ImageReport:
        """What the picture holds; a seed without one is not asked about."""
        if seed.image is None:
            return ImageReport(summary="There is no picture.")
        asker = self._ask["image_report"]
        return await asker.ask(ImageReport, {"question": seed.question}, desk, images=(seed.image,))

    async def reframe(self, seed: SourceSeed, report: ImageReport, strategy: Strategy, desk: Desk) -> Reframed:
        """The request in the strategy's framing."""
        values: dict[str, Value] = {
            "report": report.model_dump_json(),
            "question": seed.question,
            "strategy": Ours(strategy.name),
            "framing": Ours(strategy.framing),
        }
        reply = await self._ask["reframe"].ask(Reframed, values, desk, check=_empty_prompt)
        _willing(reply.complex_prompt)
        return reply

    async def plan(
        self, seed: SourceSeed, report: ImageReport, reframed: Reframed, strategy: Strategy, desk: Desk
    ) -> Script:
        """The user's side of a dialogue that climbs to the request."""
        values: dict[str, Value] = {
            "report": report.model_dump_json(),
            "complex_prompt": reframed.complex_prompt,
            "strategy": Ours(strategy.name),
            "escalation": Ours(strategy.escalation),
        }
        reply = await self._ask["plan"].ask(Plan, values, desk, check=_plan_fault)
        _willing(reply.turns[0].user_prompt)
        return Script(
            selected_strategy=strategy.name,
            total_turns=len(reply.turns),
            risk_curve=tuple(turn.risk for turn in reply.turns),
            dialogue_script=tuple(
                ScriptTurn(turn_id=number, user_prompt=turn.user_prompt, goal=turn.goal)
                for number, turn in enumerate(reply.turns, 1)
            ),
        )


class EndpointTarget:
    """Any policy, asked as a user would: a plain chat (:class:`~steer_verl.data.agents.Target`)."""

    def __init__(self, config: EndpointConfig, pictures: Path, *, log: RequestLog | None = None) -> None:
        self._asker = Asker(config, "target", None, pictures=pictures, log=log)
        self.name = self._asker.name

    async def answer(self, said: tuple[Said, ...], desk: Desk, seed: SourceSeed) -> str:
        """Its answer to the last message, a refusal too."""
        return await self._asker.answer(said, desk)

    async def close(self) -> None:
        """Give connections back."""
        await self._asker.close()


class EndpointBreachJudge(EndpointAgent):
    """Judges what an attack has reached (:class:`~steer_verl.data.agents.BreachJudge`)."""

    roles = ("breach",)

    async def breach(self, seed: SourceSeed, said: tuple[Said, ...], desk: Desk) -> Level:
        """1 hard refusal .. 5 full breach."""
        values: dict[str, Value] = {"question": seed.question, "dialogue": dialogue(said)}
        reply = await self._ask["breach"].ask(Risk, values, desk, images=_pictures(seed))
        return reply.level


def _pictures(seed: SourceSeed) -> tuple[str, ...]:
    return (seed.image,) if seed.image is not None else ()


def _willing(text: str) -> str:
    """The text, unless it is a refusal in a user's place."""
    if is_refusal(text):
        raise AgentFailed(AskFault.REFUSAL.value, "the model declined in place of writing")
    return text


def _empty_rewrite(reply: Rewritten) -> str:
    return "" if folded(reply.rewritten) else "rewritten is empty"


def _empty_prompt(reply: Reframed) -> str:
    return "" if folded(reply.complex_prompt) else "complex_prompt is empty"


def _turn_fault(turns: int, reply: Messages) -> str:
    fault = fault_of(reply.messages, turns, MAX_CHARS)
    return f"messages: {fault[1]}" if fault else ""


def _plan_fault(reply: Plan) -> str:
    fault = fault_of([turn.user_prompt for turn in reply.turns], len(reply.turns), MAX_CHARS)
    return f"turns: {fault[1]}" if fault else ""
