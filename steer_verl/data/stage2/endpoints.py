"""Stage II's agents as models at endpoints; each may have its own.

The red user and the risk judge reply with records, so that no word of a dialogue can pass for their own; the blue
expert talks as the student will, in a plain chat under the guidelines; the evaluator is the tutor, which scores by the
rubric that Stage III trains on.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from steer_verl.config import EndpointConfig, TutorConfig
from steer_verl.data.agents import Risk
from steer_verl.errors import ConfigError, DataError
from steer_verl.images import resolve_image
from steer_verl.models import prompt_file
from steer_verl.models.asking import Asker, dialogue
from steer_verl.models.cache import Cache
from steer_verl.models.failure import AgentFailed
from steer_verl.models.forms import Said
from steer_verl.models.log import RequestLog
from steer_verl.models.prompt_file import Ours, PromptFile, Value, load_prompts
from steer_verl.text import unmarked
from steer_verl.tutor import build_tutor
from steer_verl.types import (
    Record,
    Seed,
    TurnVerdict,
    TutorRequest,
    TutorResponse,
    Unscored,
    UnscoredReason,
    UserTurn,
    Verdict,
)
from steer_verl.work.step import Desk

PACKAGE = "steer_verl.data.stage2"


class NextMessage(Record):
    """What the red user replies."""

    message: str


class EndpointRedUser:
    """Writes the next user turn (:class:`~steer_verl.data.agents.RedUser`).

    Args:
        config: its endpoint.
        pictures: folder that the paths of pictures lie below.
        log: where attempts are written down, if anywhere.
    """

    def __init__(self, config: EndpointConfig, pictures: Path, *, log: RequestLog | None = None) -> None:
        self._asker = Asker(config, "red_user", _prompts()["red_user"], pictures=pictures, log=log)
        self.name = self._asker.name

    async def ask(self, seed: Seed, said: tuple[Said, ...], template: UserTurn, desk: Desk) -> str:
        """See :meth:`RedUser.ask`."""
        planned = unmarked(template.text)
        values: dict[str, Value] = {"dialogue": dialogue(said), "kind": Ours(seed.kind.value), "template": planned}
        reply = await self._asker.ask(NextMessage, values, desk, images=_images(said) + template.images)
        return reply.message

    async def close(self) -> None:
        """See :class:`~steer_verl.data.agents.Agent`."""
        await self._asker.close()


class EndpointBlueExpert:
    """Answers under the guidelines (:class:`~steer_verl.data.agents.BlueExpert`).

    Args:
        config: its endpoint; ``max_tokens`` must hold a whole answer, thoughts included.
        pictures: folder that the paths of pictures lie below.
        guidelines: a file in the place of the built-in one.
        log: where attempts are written down, if anywhere.

    Raises:
        ConfigError: the guidelines cannot be read.
    """

    def __init__(
        self,
        config: EndpointConfig,
        pictures: Path,
        *,
        guidelines: Path | None = None,
        log: RequestLog | None = None,
    ) -> None:
        self._asker = Asker(config, "blue_expert", blue_prompt(guidelines), pictures=pictures, log=log)
        self.name = self._asker.name

    async def answer(self, seed: Seed, said: tuple[Said, ...], desk: Desk) -> str:
        """See :meth:`BlueExpert.answer`."""
        return await self._asker.answer(said, desk, verbatim=True)

    async def close(self) -> None:
        """See :class:`~steer_verl.data.agents.Agent`."""
        await self._asker.close()


class EndpointRiskJudge:
    """Rates turns and dialogues (:class:`~steer_verl.data.agents.RiskJudge`); it sees the user's side alone.

    Args:
        config: its endpoint.
        pictures: folder that the paths of pictures lie below.
        log: where attempts are written down, if anywhere.
    """

    def __init__(self, config: EndpointConfig, pictures: Path, *, log: RequestLog | None = None) -> None:
        self._alone = Asker(config, "risk_alone", _prompts()["risk_alone"], pictures=pictures, log=log)
        self._whole = Asker(config, "risk_whole", _prompts()["risk_whole"], pictures=pictures, log=log)
        self.name = f"{self._alone.name}+{self._whole.name.partition('@')[2]}"

    async def alone(self, seed: Seed, turn: int, desk: Desk) -> Risk:
        """See :meth:`RiskJudge.alone`."""
        shown = seed.turns[turn]
        return await self._alone.ask(Risk, {"message": unmarked(shown.text)}, desk, images=shown.images)

    async def whole(self, seed: Seed, desk: Desk) -> Risk:
        """See :meth:`RiskJudge.whole`."""
        said = tuple(Said(role="user", text=unmarked(turn.text), images=turn.images) for turn in seed.turns)
        return await self._whole.ask(Risk, {"dialogue": dialogue(said)}, desk, images=_images(said))

    async def close(self) -> None:
        """See :class:`~steer_verl.data.agents.Agent`."""
        await self._alone.close()
        await self._whole.close()


class EndpointEvaluator:
    """The tutor as evaluator (:class:`~steer_verl.data.agents.Evaluator`): endpoint, rubric and panel as in training.

    Args:
        config: the tutor's section; its attacker is not asked.
        pictures: folder that the paths of pictures lie below.
        cache: keeps every reply, so that none is paid for twice.

    Raises:
        ConfigError: the rubric cannot be read, or an address cannot be used.
    """

    def __init__(self, config: TutorConfig, pictures: Path, *, cache: Cache | None = None) -> None:
        self._tutor = build_tutor(config, cache=cache)
        self._pictures = pictures.resolve()
        self.name = self._tutor.name

    async def score(self, exchange: TutorRequest, desk: Desk) -> TurnVerdict:
        """See :meth:`Evaluator.score`.

        Raises:
            AgentFailed: transient: the server could not be reached.
        """
        try:
            shown = self._shown(exchange, desk)
        except DataError as error:
            return Unscored(reason=UnscoredReason.IMAGE, detail=f"not sent: {error}")

        async def work() -> Verdict:
            ruling: TutorResponse = await self._tutor.respond(shown)
            desk.spend(ruling.usage)
            if isinstance(ruling.verdict, Unscored):
                raise _NoVerdict(ruling.verdict)
            return ruling.verdict

        try:
            return await desk.once(f"{self.name}/score", Verdict, work)
        except _NoVerdict as none:
            missing = none.verdict
            if missing.reason.may_pass:
                raise AgentFailed(missing.reason.value, missing.detail, transient=True) from None
            return missing

    async def close(self) -> None:
        """See :class:`~steer_verl.data.agents.Agent`."""
        await self._tutor.close()

    def _shown(self, exchange: TutorRequest, desk: Desk) -> TutorRequest:
        """The exchange with absolute paths and nothing to attack."""
        seed, turns = exchange.seed, exchange.turns
        changed = {
            "seed": seed.model_copy(update={"turns": tuple(map(self._found, seed.turns))}),
            "turns": tuple(turn.model_copy(update={"user": self._found(turn.user)}) for turn in turns),
            "user": self._found(exchange.user),
            "turn_key": exchange.turn_key or desk.place,
            "static_next_turn": None,
        }
        return exchange.model_copy(update=changed)

    def _found(self, turn: UserTurn) -> UserTurn:
        found = (str(resolve_image(name, root=self._pictures)) for name in turn.images)
        return turn.model_copy(update={"images": tuple(found)})


class _NoVerdict(Exception):
    """Carries an unscored verdict past the desk, which keeps results only."""

    def __init__(self, verdict: Unscored) -> None:
        super().__init__(verdict.detail)
        self.verdict = verdict


def blue_prompt(guidelines: Path | None = None) -> PromptFile:
    """The blue expert's prompt, with the guidelines at its end; its version changes with any word of either.

    Raises:
        ConfigError: the file cannot be read, is empty or is not UTF-8.
    """
    from importlib import resources

    prompt = _prompts()["blue_expert"]
    source = guidelines or resources.files(PACKAGE) / "guidelines.md"
    try:
        text = source.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"guidelines: cannot read {guidelines}: {error}; give a UTF-8 text file or drop it") from None
    if not text:
        raise ConfigError(f"guidelines: {guidelines} is empty; write guidelines into it or drop the setting")
    return PromptFile(prompt.name, prompt.number, f"{prompt.system}\n\n{text}")


def prompt_hashes(guidelines: Path | None = None) -> dict[str, str]:
    """Name -> version of every prompt of Stage II, for a manifest."""
    return prompt_file.prompt_hashes([*_prompts().values(), blue_prompt(guidelines)])


def _prompts() -> dict[str, PromptFile]:
    return dict(load_prompts(PACKAGE))


def _images(said: Iterable[Said]) -> tuple[str, ...]:
    return tuple(path for message in said for path in message.images)
