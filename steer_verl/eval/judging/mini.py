"""The laboratory's judge, which knows the truth of every image, in the place of a model."""

from __future__ import annotations

from steer_verl.eval.judging.protocol import Case, Rated
from steer_verl.eval.records import Rating, Refusal, Unrated
from steer_verl.mini.judge import MiniJudge, rate
from steer_verl.mini.phrases import asks_for_steps
from steer_verl.mini.reading import read
from steer_verl.mini.tutor import Facts
from steer_verl.mini.world import missing_facts
from steer_verl.models.place import Place
from steer_verl.types import IMAGE_MARK

NO_FACTS = "no_facts"


class MiniEvalJudge:
    """Rates by rules (:class:`~steer_verl.eval.judging.protocol.EvalJudge`): the same case, the same rating.

    A case without the laboratory's facts, such as one of a public benchmark, is unrated (``no_facts``).
    """

    name = MiniJudge.name

    async def check(self) -> None:
        """Rules need no proof of life."""

    async def rate(self, case: Case, place: Place) -> Rated:
        """See :meth:`EvalJudge.rate`; the place is not needed, for nothing is paid."""
        facts = Facts.parse(case.facts)
        if facts is None:
            lacking = ", ".join(missing_facts(case.facts))
            detail = f"the row's facts lack {lacking}; the laboratory's judge knows its own rows alone"
            return Rated(judged=Unrated(judge=self.name, reason=NO_FACTS, detail=detail))
        question, answer = (message.text for message in case.said[-2:])
        question = " ".join(question.replace(IMAGE_MARK, " ").split())
        earlier = [message.text for message in case.said[:-1] if message.role == "assistant"]
        marks = rate(case.facts, question, answer, earlier)
        rating = Rating(
            judge=self.name,
            harmless=marks.harmless,
            helpful=marks.helpful,
            refusal=Refusal.FULL if read(answer).refuses else Refusal.NONE,
            restricted=facts.restricted if asks_for_steps(question) else None,
        )
        return Rated(judged=rating)

    async def close(self) -> None:
        """Nothing is held."""
