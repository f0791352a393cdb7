"""A panel: the tutor's scores combined with those of further judges, so that a policy must please all of them.

Everyone is asked at the same time. Each score is combined on its own, over those who gave it: a guard model speaks of
safety alone. ``min`` is the safe choice, because a trick that fools one judge then earns nothing; the mean of a fooled
judge and an honest one still pays for the trick. The attack is the tutor's alone.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Literal

from steer_verl.dialogue import begin, following
from steer_verl.rubric import AXES, locked
from steer_verl.types import (
    Judge,
    JudgeResult,
    JudgeScores,
    Pending,
    Scores,
    TurnVerdict,
    Tutor,
    TutorRequest,
    TutorResponse,
    Unscored,
    UnscoredReason,
    Verdict,
)

COMBINE: dict[str, Callable[[Sequence[int]], float]] = {"min": min, "median": median, "mean": fmean}


class PanelTutor:
    """A tutor (``steer_verl.types.Tutor``) whose verdicts are a panel's.

    Args:
        tutor: judges, and attacks.
        judges: judge beside it.
        combine: of each score over all who gave it; a half is rounded down.
        quorum: an answer with fewer members' scores, the tutor's included, is unscored; ``None``: all must score, save
            those whose content filter took the answer.
    """

    def __init__(
        self,
        tutor: Tutor,
        judges: Sequence[Judge],
        *,
        combine: Literal["min", "median", "mean"] = "min",
        quorum: int | None = None,
    ) -> None:
        self.tutor, self.judges = tutor, tuple(judges)
        self.members: tuple[Tutor | Judge, ...] = (tutor, *self.judges)
        self.combine = combine
        self.quorum = quorum
        names = ", ".join(member.name for member in self.members)
        self.name = f"{combine} of {quorum or len(self.members)}/{len(self.members)}: {names}"

    async def respond(self, request: TutorRequest) -> TutorResponse:
        """See :class:`~steer_verl.types.Tutor`; seconds are those of the slowest member."""
        return await self.begin(request).response

    def begin(self, request: TutorRequest) -> Pending:
        """See :class:`~steer_verl.types.EarlyTutor`: the question is the tutor's, as soon as it has it."""
        own = begin(self.tutor, request)
        return Pending(own.question, following(own, self._combined(request, own)))

    async def _combined(self, request: TutorRequest, own: Pending) -> TutorResponse:
        start = time.monotonic()
        judging = asyncio.gather(*(judge.judge(request) for judge in self.judges))
        try:
            response, judge_results = await asyncio.gather(own.response, judging)
        finally:
            judging.cancel()
        result = result_of(self.tutor.name, response)
        names = [member.name for member in self.members]
        parts = [part.scores for part in (result, *judge_results)]
        diagnosis = response.verdict.diagnosis if isinstance(response.verdict, Verdict) else ""
        return TutorResponse(
            verdict=combined(names, parts, COMBINE[self.combine], self.quorum, diagnosis),
            attack=response.attack,
            seconds=time.monotonic() - start,
            usage=sum((part.usage for part in judge_results), result.usage),
        )

    async def check(self) -> None:
        """Check every member, one after the other.

        Raises:
            TutorError: the first that cannot be used.
        """
        for member in self.members:
            await member.check()

    async def close(self) -> None:
        """Close every member, also when one of them fails to."""
        results = await asyncio.gather(*(member.close() for member in self.members), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result


class TutorJudge:
    """A tutor that is only asked for scores (``steer_verl.types.Judge``)."""

    def __init__(self, tutor: Tutor) -> None:
        self.tutor, self.name = tutor, tutor.name

    async def judge(self, request: TutorRequest) -> JudgeResult:
        """Its verdict; without a hint no tutor attacks."""
        response = await self.tutor.respond(request.model_copy(update={"static_next_turn": None}))
        return result_of(self.name, response)

    async def check(self) -> None:
        """The tutor's own check, of its scores alone where it has one."""
        await getattr(self.tutor, "check_scores", self.tutor.check)()

    async def close(self) -> None:
        """Close the tutor."""
        await self.tutor.close()


def result_of(name: str, response: TutorResponse) -> JudgeResult:
    """What a response says of the answer, as one member's part."""
    verdict = response.verdict
    if isinstance(verdict, Unscored):
        return JudgeResult(scores=verdict, usage=response.usage)
    return JudgeResult(scores=JudgeScores(judge=name, **verdict.scores.model_dump()), usage=response.usage)


def combined(
    names: Sequence[str],
    parts: Sequence[JudgeScores | Unscored],
    combine: Callable[[Sequence[int]], float],
    quorum: int | None,
    diagnosis: str = "",
) -> TurnVerdict:
    """The panel's verdict.

    Args:
        names: the members', in order; the tutor is the first.
        parts: what each of them said.
        combine: two or more integers 1..10 to one number; a half is rounded down.
        quorum: members that must have scored; ``None``: all whose content filter did not take the answer. What one
            filter takes, the others are asked about before it is lost: filters take the worst answers.
        diagnosis: kept with the verdict.

    Returns:
        A verdict that holds every opinion, or the first missing member's reason when too few scored or no one is left
        who gave some score.
    """
    judge_scores = tuple(part for part in parts if isinstance(part, JudgeScores))
    given = {axis: [value for o in judge_scores if (value := getattr(o, axis)) is not None] for axis in AXES}
    if quorum is None:
        taken = [part for part in parts if isinstance(part, Unscored) and part.reason is UnscoredReason.CONTENT_FILTER]
        quorum = max(1, len(parts) - len(taken))
    if len(judge_scores) < quorum or not all(given.values()):
        return _unscored(names, parts, len(judge_scores), quorum)
    scores = Scores(**{axis: math.ceil(combine(values) - 0.5) for axis, values in given.items()})
    return Verdict(scores=locked(scores), diagnosis=diagnosis, judge_scores=judge_scores)


def _unscored(names: Sequence[str], parts: Sequence[JudgeScores | Unscored], scored: int, quorum: int) -> Unscored:
    for name, part in zip(names, parts, strict=True):
        if isinstance(part, Unscored):
            detail = f"{name}: {part.detail} ({scored} of {len(parts)} scored, {quorum} must)"
            return Unscored(reason=part.reason, detail=detail)
    return Unscored(reason=UnscoredReason.SCHEMA, detail=f"none of {', '.join(names)} gave every score")
