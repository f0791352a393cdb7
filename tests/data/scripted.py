"""Agents without a server for the tests of the stages: they say what they are told, and note what they are asked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from steer_verl.data.seed import Made, SetName, SourceSeed
from steer_verl.data.stages.agents import (
    Brief,
    ImageReport,
    Level,
    Pair,
    Probe,
    Quality,
    Reframed,
    Risk,
    Script,
    ScriptTurn,
)
from steer_verl.data.stages.make import MakeStep
from steer_verl.data.stages.settings import StageSettings
from steer_verl.models.forms import Said
from steer_verl.models.place import Place
from steer_verl.types import DialogueKind, Scores, Seed, TurnVerdict, TutorRequest, UserTurn, Verdict
from steer_verl.work.step import Done, Kept
from tests.models.memory import Bill

GOOD = "<thinking>A box.</thinking><answer>It is a box.</answer>"
PLAIN = StageSettings.model_validate({"perturb": {"share": 0}, "expand": {"pairs": 0}})
"""Nothing is drawn but the number of turns."""
TWO = [1, 0, 0, 0, 0, 0, 0, 0, 0]
"""Turn weights: every dialogue has two turns."""


def source(name: str = "1", image: str | None = "a.png", **more: Any) -> SourceSeed:
    """A seed of a source: benign and for the benchmark, which asks for Stage I alone."""
    fields = {
        "id": name,
        "question": "What is in the box?",
        "image": image,
        "category": "boxes",
        "source": "look-alikes",
        "source_id": f"row {name}",
        "license": "CC-BY-NC-4.0",
        "kind": DialogueKind.BENIGN,
        "side": SetName.BENCH,
        **more,
    }
    return SourceSeed.model_validate(fields)


def changed(settings: StageSettings = PLAIN, **sections: dict[str, Any]) -> StageSettings:
    """The settings with other values in some sections."""
    plain = settings.model_dump(mode="json")
    return StageSettings.model_validate({**plain, **{name: {**plain[name], **new} for name, new in sections.items()}})


async def make(
    agents: Any, item: SourceSeed, settings: StageSettings = PLAIN, images: Path = Path(), place: Place | None = None
) -> Done:
    """What becomes of a seed."""
    return await MakeStep(agents, settings, images).work(item, place or Bill(f"dialogues/{item.id}").place)


def made(done: Done) -> Made:
    """What is in an outcome, as whoever reads it back has it."""
    assert done.value is not None
    return Made.model_validate(done.value, strict=False)


def kept(done: Done) -> Seed:
    """The dialogue of a kept outcome."""
    assert isinstance(done, Kept), done
    return made(done).seed


def verdict(safety: int, usefulness: int) -> Verdict:
    """With the highest faithfulness but one."""
    return Verdict(scores=Scores(safety=safety, usefulness=usefulness, faithfulness=9))


def script(*texts: str) -> Script:
    """A plan of these turns."""
    turns = enumerate(texts, 1)
    return Script(turns=tuple(ScriptTurn(risk=min(5, number), user_prompt=text) for number, text in turns))


class ScriptedAgents:
    """See :class:`~steer_verl.data.stages.agents.Agents`.

    Args:
        answers: method -> what it gives: a value, an exception to raise, or what makes either of its arguments.

    Attributes:
        calls: every method that was asked, in order, with its place.
        heard: every method that was asked, in order, with its arguments.
    """

    def __init__(self, **answers: Any) -> None:
        assert answers.keys() <= ANSWERS.keys(), answers.keys() - ANSWERS.keys()
        self.answers = {**ANSWERS, **answers}
        self.calls: list[tuple[str, str]] = []
        self.heard: list[tuple[str, tuple[Any, ...]]] = []
        self.closed = False

    @property
    def asked(self) -> Counter[str]:
        """How often each method was."""
        return Counter(method for method, _ in self.calls)

    def heard_by(self, method: str) -> list[tuple[Any, ...]]:
        """The arguments of each asking."""
        return [arguments for name, arguments in self.heard if name == method]

    def _say(self, method: str, place: Place, *arguments: Any) -> Any:
        assert (method, place.key) not in self.calls, f"{method} is asked twice at {place.key}"
        self.calls.append((method, place.key))
        self.heard.append((method, arguments))
        answer = self.answers[method]
        answer = answer(*arguments) if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def probe(self, seed: SourceSeed, place: Place) -> Probe:
        return self._say("probe", place, seed)

    async def expand(self, seed: SourceSeed, rewritten: str, turns: int, place: Place) -> tuple[str, ...]:
        return tuple(self._say("expand", place, seed, rewritten, turns))

    async def pairs(self, seed: SourceSeed, rewritten: str, turns: int, place: Place) -> tuple[Pair, ...]:
        return tuple(self._say("pairs", place, seed, rewritten, turns))

    async def report(self, seed: SourceSeed, rewritten: str, place: Place) -> ImageReport:
        return self._say("report", place, seed, rewritten)

    async def reframe(self, seed: SourceSeed, brief: Brief, place: Place) -> Reframed:
        return self._say("reframe", place, seed, brief)

    async def plan(self, seed: SourceSeed, brief: Brief, reframed: Reframed, place: Place) -> Script:
        return self._say("plan", place, seed, brief, reframed)

    async def attack_target(self, said: tuple[Said, ...], place: Place, seed: SourceSeed) -> str:
        return self._say("attack_target", place, said)

    async def breach(self, seed: SourceSeed, said: tuple[Said, ...], place: Place) -> Level:
        return self._say("breach", place, seed, said)

    async def screen(self, seed: Seed, place: Place) -> Quality:
        return self._say("screen", place, seed)

    async def red_user(self, seed: Seed, said: tuple[Said, ...], template: UserTurn, place: Place) -> str:
        return self._say("red_user", place, said, template)

    async def blue_expert(self, seed: Seed, said: tuple[Said, ...], place: Place) -> str:
        return self._say("blue_expert", place, said)

    async def evaluate(self, exchange: TutorRequest, place: Place) -> TurnVerdict:
        return self._say("evaluate", place, exchange)

    async def risk_alone(self, seed: Seed, turn: int, place: Place) -> Risk:
        return Risk(level=self._say("risk_alone", place, turn))

    async def risk_whole(self, seed: Seed, place: Place) -> Risk:
        return Risk(level=self._say("risk_whole", place))

    def names(self) -> dict[str, str]:
        return {}

    async def close(self) -> None:
        self.closed = True


def _questions(turns: int) -> list[str]:
    return [f"Question {number}?" for number in range(1, turns + 1)]


ANSWERS: dict[str, Any] = {
    "probe": Probe(benign="What may be learnt from it?", obfuscated="What may be in it?"),
    "expand": lambda seed, rewritten, turns: _questions(turns),
    "pairs": lambda seed, rewritten, turns: [
        Pair(question=text, thinking="A box.", answer=f"Answer to {text}") for text in _questions(turns)
    ],
    "report": ImageReport(summary="a box"),
    "reframe": lambda seed, brief: Reframed(
        attack_vector="a lesson", rationale="r", complex_prompt=f"{brief.strategy.name}: how?"
    ),
    "plan": lambda seed, brief, reframed: script(*_questions(brief.turns)),
    "attack_target": lambda said: f"Answer {len(said)}.",
    "breach": 5,
    "screen": Quality(natural=5, grounded=5, reaches=5),
    "red_user": lambda said, template: f"Reworded: {template.text}",
    "blue_expert": GOOD,
    "evaluate": verdict(10, 10),
    "risk_alone": 1,
    "risk_whole": 5,
}
