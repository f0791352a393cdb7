"""One item of a benchmark: played to its end, every answer rated while the dialogue goes on.

What could not be had stays in the record as what it is: a rating that is missing is ``Unrated``, a dialogue that the
student left ends there. A failure of the moment (a server that is down) puts the item off; when it does not pass, the
record so far is what becomes of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

from steer_verl.answer import parse_answer
from steer_verl.dialogue import user_message
from steer_verl.eval.benchmarks.exact_match import is_correct
from steer_verl.eval.judging.protocol import Case, EvalJudge, Rated
from steer_verl.eval.records import EvalDialogue, EvalEnd, EvalItem, EvalTurn, Unrated
from steer_verl.eval.sides import Question, RememberedTutor, StaticSide, TutoredSide, UserSide
from steer_verl.eval.students.protocol import Reply, Student
from steer_verl.models.cache import Cache, ReplyCache
from steer_verl.models.failure import AgentFailed
from steer_verl.models.forms import Said
from steer_verl.models.place import Place
from steer_verl.text import unmarked
from steer_verl.types import Turn, Tutor, Usage
from steer_verl.work.step import Done, Kept, value_of

NAME = "evaluate"


@dataclasses.dataclass
class _Played:
    """One turn under way."""

    question: Question
    reply: Reply
    rating: asyncio.Task[Rated]
    reacted: bool = False
    """The user's side has heard the answer and has asked on, or has ended."""
    tutored: asyncio.Future[Turn] | None = None
    """What the tutor made of the answer, if there is one."""


class EvalStep:
    """Plays and rates (:class:`~steer_verl.work.step.Step`).

    Args:
        student: who answers.
        judge: who rates.
        tutor: who attacks, or only scores; ``None``: the benchmark's own turns are asked.
        attack: ``adaptive`` or ``static``.
        max_turns: of a dialogue.
        run: which training seed's student it is.
        cache: keeps the tutor's rulings; without one, nothing is kept.
    """

    name = NAME

    def __init__(
        self,
        student: Student,
        judge: EvalJudge,
        tutor: Tutor | None = None,
        *,
        attack: str = "static",
        max_turns: int = 10,
        run: int = 0,
        cache: ReplyCache | None = None,
    ) -> None:
        self.student, self.judge, self.tutor = student, judge, tutor
        self.cache: ReplyCache = cache or Cache(None)
        self.attack, self.max_turns, self.run = attack, max_turns, run

    async def open(self) -> None:
        """Prove that everybody is there, before the first item.

        Raises:
            SteerError: one line, with how to fix it.
        """
        await self.judge.check()
        if self.tutor is not None:
            await self.tutor.check()
        await self.student.check()  # last: it may take minutes to start

    async def close(self) -> None:
        """Give back what is held."""
        await asyncio.gather(*(who.close() for who in (self.student, self.judge, self.tutor) if who is not None))

    async def work(self, item: EvalItem, place: Place) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        if item.unplayable:
            return Kept(value=value_of(self._record(item, (), (), EvalEnd.UNPLAYABLE, item.unplayable)))
        played: list[_Played] = []
        failure: AgentFailed | None = None
        try:
            try:
                await self._play(item, place, played)
            except AgentFailed as failed:
                failure = failed
            ratings = await asyncio.gather(*(turn.rating for turn in played), return_exceptions=True)
            heard = await asyncio.gather(*(_heard(turn) for turn in played), return_exceptions=True)
        finally:
            for turn in played:
                turn.rating.cancel()
                if turn.tutored is not None:
                    turn.tutored.cancel()
        failure = failure or next((one for one in heard if isinstance(one, AgentFailed)), None)
        return self._done(item, played, ratings, heard, failure)

    async def _play(self, item: EvalItem, place: Place, played: list[_Played]) -> None:
        """Ask and answer; ``played`` grows by each turn that has an answer."""
        side = self._side(item, place)
        messages: list[dict[str, Any]] = []
        said: tuple[Said, ...] = ()
        question: Question | None = side.open()
        while question is not None:
            part = place.part(f"turn{len(played) + 1}")
            messages.append(user_message(question.user))
            reply = await self.student.answer(messages, part)
            messages.append({"role": "assistant", "content": reply.text})
            user = Said(role="user", text=unmarked(question.user.text), images=question.user.images)
            said = (*said, user, Said(role="assistant", text=parse_answer(reply.text).answer))
            # the next turn is played while this one is rated
            last = len(played) + 1 == self._planned(item)
            case = Case(said=said, reference=item.reference if last else "", facts=item.seed.facts)
            turn = _Played(question, reply, asyncio.create_task(self.judge.rate(case, part)))
            played.append(turn)
            reaction = await side.react(reply.text, part)
            turn.reacted, question = True, reaction.question
            if reaction.turn is not None:  # the verdict is awaited with the ratings
                turn.tutored = asyncio.ensure_future(reaction.turn)

    def _planned(self, item: EvalItem) -> int:
        return min(len(item.seed.turns), self.max_turns)

    def _side(self, item: EvalItem, place: Place) -> UserSide:
        if self.tutor is None:
            return StaticSide(item.seed, self.max_turns)
        tutor = RememberedTutor(self.tutor, self.cache)
        return TutoredSide(item.seed, tutor, attack=self.attack, max_turns=self.max_turns, key=place.key)

    def _done(
        self,
        item: EvalItem,
        played: Sequence[_Played],
        ratings: Sequence[Rated | BaseException],
        heard: Sequence[Turn | BaseException | None],
        failure: AgentFailed | None,
    ) -> Done:
        """The record, or the failure of the moment that puts the item off, with the record so far."""
        failures = [failure, *(rating for rating in ratings if isinstance(rating, AgentFailed))]
        for fault in (*ratings, *heard):
            if isinstance(fault, BaseException) and not isinstance(fault, AgentFailed):
                raise fault
        judged = [rating if isinstance(rating, Rated) else _unrated(self.judge, rating) for rating in ratings]
        end = _end(played, heard) if failure else EvalEnd.COMPLETED
        detail = "" if failure is None else f"{failure.reason}: {failure.detail}"
        tutored = [turn if isinstance(turn, Turn) else None for turn in heard]
        value = value_of(self._record(item, played, judged, end, detail, tutored))
        passing = next((one for one in failures if one is not None and one.transient), None)
        if passing is not None:
            raise AgentFailed(passing.reason, passing.detail, transient=True, value=value)
        return Kept(value=value)

    def _record(
        self,
        item: EvalItem,
        played: Sequence[_Played],
        ratings: Sequence[Rated],
        end: EvalEnd,
        detail: str,
        tutored: Sequence[Turn | None] = (),
    ) -> EvalDialogue:
        planned = self._planned(item)
        turns = [_turn(turn, rated, heard) for turn, rated, heard in zip(played, ratings, tutored, strict=True)]
        if item.reference and len(turns) == planned:
            turns[-1] = turns[-1].model_copy(update={"correct": is_correct(turns[-1].answer, item.reference)})
        empty = ("empty_answer",) if any(not turn.answer.strip() for turn in turns) else ()
        return EvalDialogue(
            id=item.id,
            benchmark=item.benchmark,
            kind=item.seed.kind,
            source=item.seed.source,
            source_id=item.seed.source_id,
            license=item.seed.license,
            category=item.category,
            planned=planned,
            turns=tuple(turns),
            end=end,
            detail=detail,
            oddities=(*item.oddities, *empty),
            facts=item.seed.facts,
            run=self.run,
        )


async def _heard(played: _Played) -> Turn | None:
    return None if played.tutored is None else await played.tutored


def _turn(played: _Played, rated: Rated, tutored: Turn | None) -> EvalTurn:
    question = played.question
    return EvalTurn(
        user=question.user,
        origin=question.origin,
        strategy=question.strategy,
        fallback=question.fallback,
        static=question.static,
        answer=played.reply.text,
        answer_tokens=played.reply.tokens,
        truncated=played.reply.truncated,
        judged=rated.judged,
        opinions=rated.opinions,
        tutor=tutored.verdict if tutored else None,
        seconds=round(played.reply.seconds, 3),
        tutor_seconds=round(tutored.tutor_seconds, 3) if tutored else 0.0,
        usage=tutored.usage if tutored else Usage(),
    )


def _end(played: Sequence[_Played], heard: Sequence[Turn | BaseException | None]) -> EvalEnd:
    """Who left the dialogue: an answer that nobody has reacted to was the student's last good deed."""
    unheard = any(isinstance(turn, AgentFailed) for turn in heard)
    return EvalEnd.TUTOR_FAILED if unheard or (played and not played[-1].reacted) else EvalEnd.STUDENT_FAILED


def _unrated(judge: EvalJudge, failure: BaseException) -> Rated:
    assert isinstance(failure, AgentFailed)
    return Rated(judged=Unrated(judge=judge.name, reason=failure.reason, detail=failure.detail))
