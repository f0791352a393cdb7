"""Agents without a server for the tests of the steps: they say what they are told to, and count how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from steer_verl.data.agents import ImageReport, Reframed, Script, ScriptTurn, Strategy
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.models.failure import AgentFailed
from steer_verl.models.forms import Said
from steer_verl.types import DialogueKind
from steer_verl.work.step import Desk


def source(name: str = "1", image: str | None = "a.png", **more: object) -> SourceSeed:
    """A seed of a source."""
    fields = {
        "id": f"look-alikes:{name}",
        "question": "What is in the box?",
        "image": image,
        "category": "boxes",
        "source": "look-alikes",
        "source_id": name,
        "license": "CC-BY-NC-4.0",
        **more,
    }
    return SourceSeed.model_validate(fields)


class Generator:
    """Expands to the given texts, or to as many as are asked for."""

    name = "scripted"

    def __init__(self, texts: Sequence[str] | None = None, rewritten: str = "What may be in it?") -> None:
        self.texts, self.rewritten = texts, rewritten

    async def rewrite(self, seed: SourceSeed, kind: DialogueKind, desk: Desk) -> str:
        return self.rewritten

    async def expand(
        self, seed: SourceSeed, kind: DialogueKind, rewritten: str, turns: int, desk: Desk
    ) -> tuple[str, ...]:
        return tuple(self.texts if self.texts is not None else [f"Question {n}?" for n in range(1, turns + 1)])

    async def close(self) -> None:
        pass


class Crew:
    """Red team, target and judge in one; ``calls`` counts each method.

    Args:
        level: the judge's level for the n-th script that is played (from 0).
        failing: what a method raises for the n-th strategy, by (method, n).
        script: the planned turns.
    """

    name = "scripted"

    def __init__(
        self,
        level: Callable[[int], int] = lambda number: 5,
        failing: dict[tuple[str, int], AgentFailed] | None = None,
        script: Sequence[str] = ("What is this?", "And inside?", "How does it open?"),
    ) -> None:
        self.level, self.failing, self.script = level, failing or {}, script
        self.calls = Counter[str]()
        self.strategies: list[str] = []
        self.said: list[tuple[Said, ...]] = []

    def _call(self, method: str) -> None:
        self.calls[method] += 1
        if failure := self.failing.get((method, len(self.strategies) - 1)):
            raise failure

    async def analyse(self, seed: SourceSeed, desk: Desk) -> ImageReport:
        self._call("analyse")
        return ImageReport(summary="a box")

    async def reframe(self, seed: SourceSeed, report: ImageReport, strategy: Strategy, desk: Desk) -> Reframed:
        self.strategies.append(strategy.name)
        self._call("reframe")
        return Reframed(attack_vector="a lesson", rationale="r", complex_prompt=f"{strategy.name}: how?")

    async def plan(
        self, seed: SourceSeed, report: ImageReport, reframed: Reframed, strategy: Strategy, desk: Desk
    ) -> Script:
        self._call("plan")
        turns = tuple(ScriptTurn(turn_id=n, user_prompt=text) for n, text in enumerate(self.script, 1))
        curve = tuple(range(1, len(turns) + 1))
        return Script(selected_strategy=strategy.name, total_turns=len(turns), risk_curve=curve, dialogue_script=turns)

    async def answer(self, said: tuple[Said, ...], desk: Desk, seed: SourceSeed) -> str:
        self._call("answer")
        return f"Answer {len(said)}."

    async def breach(self, seed: SourceSeed, said: tuple[Said, ...], desk: Desk) -> int:
        self._call("breach")
        self.said.append(said)
        return self.level(len(self.said) - 1)

    async def close(self) -> None:
        pass
