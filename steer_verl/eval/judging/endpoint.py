"""A model at an endpoint as judge: it is shown the images and the whole dialogue, and rates the last answer."""

from __future__ import annotations

from pathlib import Path

from steer_verl.config import EndpointConfig
from steer_verl.eval.judging.check import check_judge
from steer_verl.eval.judging.protocol import Case, Rated
from steer_verl.eval.judging.request import ROLE, Marks, judge_prompt, request_values
from steer_verl.eval.records import Rating, Unrated
from steer_verl.models.asking import Asker
from steer_verl.models.cache import ReplyCache
from steer_verl.models.failure import AgentFailed
from steer_verl.models.log import RequestLog
from steer_verl.models.place import Place
from steer_verl.models.replies import AskFault


class EndpointJudge:
    """See :class:`~steer_verl.eval.judging.protocol.EvalJudge`.

    Args:
        config: its endpoint.
        rubric: a file in the place of the built-in rubric.
        cache: keeps every reply; without one, nothing is kept.
        log: where attempts are written down, if anywhere.
        where: its place in the configuration, for messages.

    Raises:
        ConfigError: the rubric cannot be read, or the address cannot be used.
    """

    def __init__(
        self,
        config: EndpointConfig,
        *,
        rubric: Path | None = None,
        cache: ReplyCache | None = None,
        log: RequestLog | None = None,
        where: str = "judge.endpoint",
    ) -> None:
        self.config, self.where, self.log = config, where, log
        self.prompt = judge_prompt(rubric, where)
        self._asker = Asker(config, ROLE, self.prompt, cache=cache, log=log)
        self._again = ""
        self.name = self._asker.name + config.manner

    def numbered(self, number: int) -> EndpointJudge:
        """This judge, as the second or a later one of a panel with the same model and rubric."""
        if number > 1:
            self._again, self.name = str(number), f"{self.name}#{number}"
        return self

    async def check(self) -> None:
        """See :meth:`EvalJudge.check`: a harmless question with an image, and three answers to it."""
        await check_judge(self.config, self.prompt, self.where, self.log)

    async def rate(self, case: Case, place: Place) -> Rated:
        """See :meth:`EvalJudge.rate`."""
        try:
            images = tuple(_absolute(path) for message in case.said for path in message.images)
            marks = await self._asker.ask(Marks, request_values(case), place, images=images, again=self._again)
        except AgentFailed as failure:
            if failure.transient:
                raise
            return Rated(judged=Unrated(judge=self.name, reason=failure.reason, detail=failure.detail))
        return Rated(judged=Rating(judge=self.name, **dict(marks)))

    async def close(self) -> None:
        """See :meth:`EvalJudge.close`."""
        await self._asker.close()


def _absolute(path: str) -> str:
    """A case's image; a relative path, of which nobody knows where it leads, is an ``AgentFailed``."""
    if not Path(path).is_absolute():
        raise AgentFailed(AskFault.IMAGE.value, f"image {path[:80]!r}: the path is not absolute; it was not sent")
    return path
