"""A model at an endpoint as judge: it is shown the pictures and the whole dialogue, and rates the last answer.

What it means by its numbers is a rubric: ours (rubric.md), or a file of the user's in its place. The form of request
and reply stays: everything said stands quoted, and a rating must carry its request's id (steer_verl/data/asking.py).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from steer_verl.config import EndpointConfig
from steer_verl.data.asking import Asker, dialogue
from steer_verl.data.prompt_file import Ours, PromptFile, Value, load_prompts, pasted
from steer_verl.data.replies import AskFault
from steer_verl.data.work.step import AgentFailed, Desk
from steer_verl.errors import ConfigError
from steer_verl.eval.judging.protocol import Case, Rated
from steer_verl.eval.records import Harmless, Helpful, Rating, Refusal, Unrated
from steer_verl.transport.ledger import Ledger
from steer_verl.types import Record

PACKAGE = "steer_verl.eval.judging"
ROLE = "judge"
BLIND = "+blind"
"""Ends the name of a judge that is sent no pictures."""


class Marks(Record):
    """What the model replies, in this order."""

    harmless: Harmless
    helpful: Helpful
    refusal: Refusal
    why: str = ""


class EndpointJudge:
    """See :class:`~steer_verl.eval.judging.protocol.EvalJudge`.

    Args:
        config: its endpoint.
        rubric: a file in the place of the built-in rubric.
        pictures: folder that all pictures of a case must lie below; unset, they may lie anywhere.
        ledger: where attempts are written down, if anywhere.
        where: its place in the configuration, for messages.
        number: of several judges with the same model and rubric, which one; from 1.

    Raises:
        ConfigError: the rubric cannot be read, or the address cannot be used.
    """

    def __init__(
        self,
        config: EndpointConfig,
        *,
        rubric: Path | None = None,
        pictures: Path | None = None,
        ledger: Ledger | None = None,
        where: str = "judge.endpoint",
        number: int = 1,
    ) -> None:
        self.config, self.where, self.prompt = config, where, judge_prompt(rubric, where)
        self._root = pictures.resolve() if pictures else None
        self._asker = Asker(config, ROLE, self.prompt, pictures=self._root, ledger=ledger)
        self._again = "" if number == 1 else str(number)
        self.name = self._asker.name + ("" if config.images else BLIND) + (f"#{number}" if number > 1 else "")

    async def check(self) -> None:
        """See :meth:`EvalJudge.check`: a harmless exchange with a picture, and one with a useless answer."""
        from steer_verl.eval.judging.check import check_judge

        await check_judge(self)

    async def rate(self, case: Case, desk: Desk) -> Rated:
        """See :meth:`EvalJudge.rate`."""
        try:
            marks = await self._marks(case, desk)
        except AgentFailed as failure:
            if failure.transient:
                raise
            return Rated(judged=Unrated(judge=self.name, reason=failure.reason, detail=failure.detail))
        return Rated(judged=Rating(judge=self.name, **dict(marks)))

    async def close(self) -> None:
        """See :meth:`EvalJudge.close`."""
        await self._asker.close()

    async def _marks(self, case: Case, desk: Desk) -> Marks:
        images = tuple(self._below(path) for message in case.said for path in message.images)
        return await self._asker.ask(Marks, request_values(case), desk, images=images, again=self._again)

    def _below(self, path: str) -> str:
        """A case's picture as the asker takes it: below the folder of pictures, if there is one.

        Raises:
            AgentFailed: the path is relative, so that nobody has looked where it leads, or it lies elsewhere.
        """
        if not Path(path).is_absolute() or (self._root and not Path(path).is_relative_to(self._root)):
            what = f"not below {self._root}" if self._root else "not absolute"
            raise AgentFailed(AskFault.PICTURE.value, f"picture {path[:80]!r}: the path is {what}; it was not sent")
        return str(Path(path).relative_to(self._root)) if self._root else path


def request_values(case: Case) -> dict[str, Value]:
    """What fills the blanks of the judge's request."""
    reference = "The benchmark names no right answer."
    if case.reference:
        reference = f"The right answer, as the benchmark has it:\n{pasted(case.reference)}"
    turn = sum(message.role == "user" for message in case.said)
    return {"dialogue": dialogue(case.said), "reference": Ours(reference), "turn": turn}


def judge_prompt(rubric: Path | None = None, where: str = "judge.endpoint") -> PromptFile:
    """The judge's prompt, with the rubric at its end; its version changes with any word of either.

    Raises:
        ConfigError: the file cannot be read, is empty or is not UTF-8.
    """
    prompt = load_prompts(PACKAGE)["judge"]
    source, place = rubric or resources.files(PACKAGE) / "rubric.md", where.replace("endpoint", "rubric")
    try:
        text = source.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: cannot read {rubric}: {error}; give a UTF-8 text file or drop it") from None
    if not text:
        raise ConfigError(f"{place}: {rubric} is empty; write a rubric into it or drop the setting")
    return PromptFile(prompt.name, prompt.number, f"{prompt.system}\n\n{text}", prompt.request)
