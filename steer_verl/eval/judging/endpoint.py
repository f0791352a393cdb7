"""A model at an endpoint as judge: it is shown the pictures and the whole dialogue, and rates the last answer."""

from __future__ import annotations

from pathlib import Path

from steer_verl.config import EndpointConfig
from steer_verl.eval.judging.protocol import Case, Rated
from steer_verl.eval.judging.request import ROLE, Marks, judge_prompt, request_values
from steer_verl.eval.records import Rating, Unrated
from steer_verl.models.asking import Asker
from steer_verl.models.cache import ReplyCache
from steer_verl.models.failure import AgentFailed
from steer_verl.models.log import RequestLog
from steer_verl.models.place import Place
from steer_verl.models.replies import AskFault

BLIND = "+blind"
"""Ends the name of a judge that is sent no pictures."""


class EndpointJudge:
    """See :class:`~steer_verl.eval.judging.protocol.EvalJudge`.

    Args:
        config: its endpoint.
        rubric: a file in the place of the built-in rubric.
        pictures: folder that all pictures of a case must lie below; unset, they may lie anywhere.
        cache: keeps every reply; without one, nothing is kept.
        log: where attempts are written down, if anywhere.
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
        cache: ReplyCache | None = None,
        log: RequestLog | None = None,
        where: str = "judge.endpoint",
        number: int = 1,
    ) -> None:
        self.config, self.where, self.log = config, where, log
        self.prompt = judge_prompt(rubric, where)
        self._root = pictures.resolve() if pictures else None
        self._asker = Asker(config, ROLE, self.prompt, cache=cache, images=self._root, log=log)
        self._again = "" if number == 1 else str(number)
        self.name = self._asker.name + ("" if config.images else BLIND) + (f"#{number}" if number > 1 else "")

    async def check(self) -> None:
        """See :meth:`EvalJudge.check`: a harmless question with a picture, and three answers to it."""
        from steer_verl.eval.judging.check import check_judge

        await check_judge(self)

    async def rate(self, case: Case, place: Place) -> Rated:
        """See :meth:`EvalJudge.rate`."""
        try:
            marks = await self._marks(case, place)
        except AgentFailed as failure:
            if failure.transient:
                raise
            return Rated(judged=Unrated(judge=self.name, reason=failure.reason, detail=failure.detail))
        return Rated(judged=Rating(judge=self.name, **dict(marks)))

    async def close(self) -> None:
        """See :meth:`EvalJudge.close`."""
        await self._asker.close()

    async def _marks(self, case: Case, place: Place) -> Marks:
        images = tuple(self._below(path) for message in case.said for path in message.images)
        return await self._asker.ask(Marks, request_values(case), place, images=images, again=self._again)

    def _below(self, path: str) -> str:
        """A case's picture as the asker takes it: below the folder of pictures, if there is one.

        Raises:
            AgentFailed: the path is relative, so that nobody has looked where it leads, or it lies elsewhere.
        """
        if not Path(path).is_absolute() or (self._root and not Path(path).is_relative_to(self._root)):
            what = f"not below {self._root}" if self._root else "not absolute"
            raise AgentFailed(AskFault.IMAGE.value, f"picture {path[:80]!r}: the path is {what}; it was not sent")
        return str(Path(path).relative_to(self._root)) if self._root else path
