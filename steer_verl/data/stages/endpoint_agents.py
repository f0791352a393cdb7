"""The agents of Stages I and II as models at endpoints. Each role has its own prompts; any two may share an endpoint.

All but two reply with records, so that no word of a dialogue can pass for their own. The target and the blue expert
talk: the one as any chat, the other as the student will, under the guidelines. The evaluator is the tutor, which scores
by the rubric that Stage III trains on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.data.seed import SourceSeed
from steer_verl.data.stages.agents import (
    Brief,
    ImageReport,
    Level,
    Pair,
    Probe,
    Quality,
    Reframed,
    Risk,
    Role,
    Script,
)
from steer_verl.data.stages.facts import Facts
from steer_verl.data.stages.stage1.expand import fault_of, well_formed, word_count
from steer_verl.errors import ConfigError
from steer_verl.models.asking import Asker, dialogue
from steer_verl.models.cache import ReplyCache
from steer_verl.models.failure import AgentFailed
from steer_verl.models.forms import Said
from steer_verl.models.log import open_log
from steer_verl.models.place import Place
from steer_verl.models.prompt_file import Ours, PromptFile, Value, load_prompts
from steer_verl.models.replies import AskFault
from steer_verl.refusal import is_refusal
from steer_verl.text import folded, unmarked
from steer_verl.tutor.client import OpenAITutor
from steer_verl.types import (
    DialogueKind,
    Record,
    Seed,
    TurnVerdict,
    TutorRequest,
    Unscored,
    UserTurn,
)

R = TypeVar("R", bound=BaseModel)
Values = dict[str, Value]

STAGES = ("steer_verl.data.stages.stage1", "steer_verl.data.stages.stage2")
PROMPTS: Mapping[Role, tuple[str, ...]] = {
    "generator": ("probe", "expand_benign", "expand_obfuscated", "pairs"),
    "red_team": ("image_report", "reframe", "plan"),
    "target": ("target",),
    "breach_judge": ("breach",),
    "screener": ("screen",),
    "red_user": ("red_user",),
    "blue_expert": ("blue_expert",),
    "risk_judge": ("risk_alone", "risk_whole"),
}
"""Role -> its prompts; the target has none, and the evaluator has the tutor's."""


class Messages(Record):
    """Reply of the expansion."""

    messages: tuple[str, ...]


class Pairs(Record):
    """Reply of the expansion with answers."""

    pairs: tuple[Pair, ...]


class NextMessage(Record):
    """Reply of the red user."""

    message: str


class EndpointAgents:
    """See :class:`~steer_verl.data.stages.agents.Agents`, whose methods say who is asked for what.

    Args:
        endpoints: of every role. ``max_tokens`` must hold a whole answer, thoughts included; the generator's, pairs.
        images: folder that the paths of images lie below.
        cache: keeps every reply, so that none is paid for twice.
        guidelines: of the blue expert, in place of the built-in ones.
        rubric: of the evaluator, in place of the tutor's.
        calls: folder of the log of every attempt, if there is to be one.

    Raises:
        ConfigError: an address cannot be used, or guidelines or rubric cannot be read.
    """

    def __init__(
        self,
        endpoints: Mapping[Role, EndpointConfig],
        images: Path,
        *,
        cache: ReplyCache | None = None,
        guidelines: Path | None = None,
        rubric: str | None = None,
        calls: str | None = None,
    ) -> None:
        prompts: dict[str, PromptFile | None] = {**prompts_of(guidelines), "target": None}
        log = open_log(calls)
        self.askers = {
            name: Asker(
                endpoints[role], name, prompts[name], cache=cache, images=images, log=log, where=f"agents.roles.{role}"
            )
            for role, names in PROMPTS.items()
            for name in names
        }
        config = TutorConfig(endpoint=endpoints["evaluator"], rubric=rubric, log=calls)
        self.tutor = OpenAITutor(config, cache=cache, images=images)

    def names(self) -> dict[str, str]:
        """Role -> ``<model>@<prompt>-<version>,...``; the evaluator's is the tutor's name."""
        named = {}
        for role, names in PROMPTS.items():
            versions = ",".join(f"{name}-{self.askers[name].version}" for name in names)
            named[str(role)] = f"{self.askers[names[0]].config.model}@{versions}"
        return {**named, "evaluator": self.tutor.name}

    async def close(self) -> None:
        """Give connections back."""
        await asyncio.gather(self.tutor.close(), *(asker.close() for asker in self.askers.values()))

    # ----- Stage I

    async def probe(self, seed: SourceSeed, place: Place) -> Probe:
        def check(reply: Probe) -> str:
            needed = "benign" if seed.kind is DialogueKind.BENIGN else "obfuscated"
            return "" if folded(reply.of(seed.kind)) else f"{needed} is empty"

        values: Values = {"question": seed.question, "category": seed.category}
        return await self._ask("probe", Probe, values, place, seed.images, lambda r: [r.of(seed.kind)], check=check)

    async def expand(self, seed: SourceSeed, rewritten: str, turns: int, place: Place) -> tuple[str, ...]:
        assert seed.kind is not None
        prompt, values = f"expand_{seed.kind.value}", Values(rewritten=rewritten, turns=turns)
        return (await self._ask(prompt, Messages, values, place, seed.images, lambda r: r.messages, turns)).messages

    async def pairs(self, seed: SourceSeed, rewritten: str, turns: int, place: Place) -> tuple[Pair, ...]:
        def asked(reply: Pairs) -> list[str]:
            return [pair.question for pair in reply.pairs]

        def check(reply: Pairs) -> str:
            malformed = [n for n, pair in enumerate(reply.pairs, 1) if not well_formed(pair.whole_answer)]
            return f"pairs: answer {malformed[0]} is empty or holds a tag" if malformed else ""

        known = (seed.answer or seed.choice) if seed.unsafe is False else ""  # else it answers another question
        values: Values = {"rewritten": rewritten, "turns": turns, "answer": known or Ours("none is given")}
        return (await self._ask("pairs", Pairs, values, place, seed.images, asked, turns, check)).pairs

    async def report(self, seed: SourceSeed, rewritten: str, place: Place) -> ImageReport:
        if seed.image is None:
            return ImageReport(summary="There is no image.")
        return await self._ask("image_report", ImageReport, {"question": rewritten}, place, seed.images)

    async def reframe(self, seed: SourceSeed, brief: Brief, place: Place) -> Reframed:
        fewest, most = brief.words

        def check(reply: Reframed) -> str:
            count = word_count(reply.complex_prompt)
            return "" if fewest <= count <= most else f"complex_prompt has {count} words, not {fewest} to {most}"

        values: Values = {"question": brief.rewritten, "fewest": fewest, "most": most, **_attack(brief)}
        values |= {"framing": Ours(brief.strategy.framing)}
        return await self._ask(
            "reframe", Reframed, values, place, seed.images, lambda r: [r.complex_prompt], check=check
        )

    async def plan(self, seed: SourceSeed, brief: Brief, reframed: Reframed, place: Place) -> Script:
        values: Values = {"complex_prompt": reframed.complex_prompt, "turns": brief.turns, **_attack(brief)}
        values |= {"escalation": Ours(brief.strategy.escalation)}
        return await self._ask("plan", Script, values, place, seed.images, lambda r: r.texts, brief.turns)

    async def attack_target(self, said: tuple[Said, ...], place: Place, seed: SourceSeed) -> str:
        with _image_known():
            return await self.askers["target"].answer(said, place)  # a refusal is an answer

    async def breach(self, seed: SourceSeed, said: tuple[Said, ...], place: Place) -> Level:
        values: Values = {"question": seed.question, "dialogue": dialogue(said)}
        return (await self._ask("breach", Risk, values, place, seed.images)).level

    async def screen(self, seed: Seed, place: Place) -> Quality:
        said, images = _said(seed)
        image = Ours("The image stands above." if images else "There is no image.")
        values: Values = {"question": Facts.of(seed.facts).question, "image": image, "kind": Ours(seed.kind.value)}
        return await self._ask("screen", Quality, {**values, "dialogue": said}, place, images)

    # ----- Stage II

    async def red_user(self, seed: Seed, said: tuple[Said, ...], template: UserTurn, place: Place) -> str:
        so_far = dialogue(said) if said else Ours("Nothing was said yet.")
        images = tuple(path for message in said for path in message.images) + template.images
        values: Values = {"dialogue": so_far, "kind": Ours(seed.kind.value), "template": unmarked(template.text)}
        return (await self._ask("red_user", NextMessage, values, place, images)).message

    async def blue_expert(self, seed: Seed, said: tuple[Said, ...], place: Place) -> str:
        with _image_known():
            return await self.askers["blue_expert"].answer(said, place, verbatim=True)

    async def evaluate(self, exchange: TutorRequest, place: Place) -> TurnVerdict:
        ruling = await self.tutor.respond(exchange.model_copy(update={"turn_key": place.key}))
        place.spend(ruling.usage)
        verdict = ruling.verdict
        if isinstance(verdict, Unscored) and verdict.reason.may_pass:
            raise AgentFailed(verdict.reason.value, verdict.detail, transient=True)
        return verdict

    async def risk_alone(self, seed: Seed, turn: int, place: Place) -> Risk:
        shown = seed.turns[turn]
        return await self._ask("risk_alone", Risk, {"message": unmarked(shown.text)}, place, shown.images)

    async def risk_whole(self, seed: Seed, place: Place) -> Risk:
        said, images = _said(seed)
        return await self._ask("risk_whole", Risk, {"dialogue": said}, place, images)

    async def _ask(
        self,
        prompt: str,
        kind: type[R],
        values: Mapping[str, Value],
        place: Place,
        images: tuple[str, ...],
        user: Callable[[R], Sequence[str]] = lambda reply: (),
        turns: int = 0,
        check: Callable[[R], str] = lambda reply: "",
    ) -> R:
        """A reply. What a ``user`` shall say of it is no refusal, and makes so many ``turns`` if a number is given."""

        def fault(reply: R) -> str:
            found = fault_of(user(reply), turns) if turns else None
            return f"{next(iter(kind.model_fields))}: {found[1]}" if found else check(reply)

        with _image_known():
            reply = await self.askers[prompt].ask(kind, values, place, images=images, check=fault)
        if any(map(is_refusal, user(reply)[:1])):
            raise AgentFailed(AskFault.REFUSAL.value, "the model declined in place of writing")
        return reply


@contextmanager
def _image_known() -> Iterator[None]:
    """A seed's image was opened when the seed was made: where it cannot be now, a disk is away, and no seed is lost."""
    try:
        yield
    except AgentFailed as failure:
        failure.transient |= failure.reason == AskFault.IMAGE.value
        raise


def prompts_of(guidelines: Path | None = None) -> dict[str, PromptFile]:
    """Every prompt by its name; the blue expert's has the guidelines at its end, so that its version changes with them.

    Raises:
        ConfigError: the guidelines cannot be read, are empty or are not UTF-8.
    """
    prompts = {name: prompt for stage in STAGES for name, prompt in load_prompts(stage).items()}
    source = guidelines or resources.files(STAGES[1]) / "guidelines.md"
    try:
        text = source.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"guidelines: cannot read {guidelines}: {error}; give a UTF-8 text file or drop it") from None
    if not text:
        raise ConfigError(f"guidelines: {guidelines} is empty; write guidelines into it or drop the setting")
    blue = prompts["blue_expert"]
    return {**prompts, "blue_expert": PromptFile(blue.name, blue.number, f"{blue.system}\n\n{text}")}


def _attack(brief: Brief) -> Values:
    return {"strategy": Ours(brief.strategy.name), "report": brief.report.model_dump_json()}


def _said(seed: Seed) -> tuple[Ours, tuple[str, ...]]:
    """The user's side and its images."""
    said = tuple(Said(role="user", text=unmarked(turn.text)) for turn in seed.turns)
    return dialogue(said), tuple(path for turn in seed.turns for path in turn.images)
