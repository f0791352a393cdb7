"""One item of a benchmark: played to its end, every answer rated while the dialogue goes on.

What could not be had stays in the record as what it is: a rating that is missing is ``Unrated``, a dialogue that the
student left ends there. A failure of the moment (a server that is down) puts the item off; when it does not pass, the
record so far is what becomes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import KW_ONLY, dataclass

from steer_verl.dialogue import Dialogue
from steer_verl.eval.benchmarks.exact_match import is_correct
from steer_verl.eval.benchmarks.oddities import SHORTENED
from steer_verl.eval.images import image_digest
from steer_verl.eval.judging.protocol import EvalJudge, Rated, case_of
from steer_verl.eval.records import EvalDialogue, EvalEnd, EvalItem, EvalTurn, Sampling, Unrated
from steer_verl.eval.students.protocol import Messages, Reply, Student
from steer_verl.eval.tutor import RememberedTutor
from steer_verl.models.cache import Cache, ReplyCache
from steer_verl.models.failure import AgentFailed
from steer_verl.models.place import Place
from steer_verl.text import unmarked
from steer_verl.types import Exchange, QuestionOrigin, Spent, Turn, Tutor, Unscored, UnscoredReason, UserTurn
from steer_verl.work.step import Done, Kept, value_of

NAME = "evaluate"
SAME = ("user", "origin", "strategy", "fallback", "answer", "answer_tokens", "truncated", "usage")
"""Fields that a turn has as it was played."""
UNHEARD = (UnscoredReason.NO_TUTOR, UnscoredReason.ABANDONED)
"""Reasons of a turn of which no tutor has said anything."""


@dataclass
class EvalStep:
    """Plays and rates (:class:`~steer_verl.work.step.Step`)."""

    name = NAME
    student: Student
    judge: EvalJudge
    tutor: Tutor | None = None
    """Who attacks, or only scores; ``None``: the benchmark's own turns are asked."""
    _: KW_ONLY
    attack: str = "static"
    """Or ``adaptive``."""
    max_turns: int = 10
    sampling: Sampling | None = None
    """How its answers are drawn, for the record."""
    retries: int = 0
    """How often a student that failed for good is asked again."""
    wake: bool = True
    """Prove at the start that the student is there; else it is started when a first answer of it is missing."""
    cache: ReplyCache | None = None
    """Keeps the tutor's rulings; without one, nothing is kept."""

    async def open(self) -> None:
        """Prove that everybody is there, before the first item.

        Raises:
            SteerError: one line, with how to fix it.
        """
        await self.judge.check()
        if self.tutor is not None:
            await self.tutor.check()
        if self.wake:
            await self.student.check()  # last: it may take minutes to start

    async def close(self) -> None:
        """Give back what is held."""
        await asyncio.gather(*(who.close() for who in (self.student, self.judge, self.tutor) if who is not None))

    async def work(self, item: EvalItem, place: Place) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        if len(item.seed.turns) > self.max_turns:
            oddities = (*item.oddities, SHORTENED)
            item = item.model_copy(update={"reference": "", "oddities": oddities})  # the right answer to its last turn
        if item.unplayable:
            return Kept(value=value_of(self._record(item, (), EvalEnd.UNPLAYABLE, item.unplayable)))
        cache = self.cache or Cache(None)
        tutor = RememberedTutor(self.tutor, cache, place, item.digest) if self.tutor is not None else None
        dialogue = Dialogue(
            item.seed, tutor, attack=self.attack, max_turns=self.max_turns, key=place.key, unscored_ends=False
        )
        ratings: list[asyncio.Task[Rated]] = []
        playing = asyncio.ensure_future(self._play(item, dialogue, ratings, place))
        try:
            await asyncio.wait([playing])  # called off where no new call may be begun: those under way are paid for
            rated = await asyncio.gather(*ratings, return_exceptions=True)
            lost, left = await _failure(dialogue.settled()), await _failure(playing)
        finally:
            dialogue.abandon()
            for task in (playing, *ratings):
                task.cancel()
        end, failure = EvalEnd.COMPLETED, left or lost
        if failure is not None:
            end = EvalEnd.STUDENT_FAILED if dialogue.question is not None else EvalEnd.TUTOR_FAILED
        words = [word_of(self.judge, one) for one in rated]
        turns = [_turn(item, n, turn, words[n]) for n, turn in enumerate(dialogue.turns)]
        detail = f"{failure.reason}: {failure.detail}" if failure else ""
        return ended(self._record(item, turns, end, detail), left, lost, *rated)

    async def _play(self, item: EvalItem, dialogue: Dialogue, ratings: list[asyncio.Task[Rated]], place: Place) -> None:
        """Ask and answer to the end; the next turn is played while an answer is rated.

        Raises:
            AgentFailed: of the student, whose question is open then, or of the tutor.
        """
        question: UserTurn | None = dialogue.open()
        while question is not None:
            turn = place.part(f"turn{len(ratings) + 1}")
            reply = await self._answer(dialogue.messages, turn)
            exchanges = (*dialogue.exchanges, Exchange(user=question, answer=reply.text))
            last = len(exchanges) == dialogue.limit and dialogue.origin is not QuestionOrigin.TUTOR
            reference = item.reference if last else ""
            case = case_of(exchanges, reference=reference, facts=item.seed.facts)
            ratings.append(asyncio.create_task(self.judge.rate(case, turn)))
            question = await dialogue.respond(
                reply.text,
                answer_tokens=reply.tokens,
                truncated=reply.truncated,
                spent=Spent(student_seconds=reply.seconds),
            )

    async def _answer(self, messages: Messages, turn: Place) -> Reply:
        """The student's answer: kept as it is, or asked for again where it failed for good before."""
        *again, last = turn.tries(self.retries)
        for place in again:
            try:
                return await self.student.answer(messages, place)
            except AgentFailed as failed:
                if failed.transient:
                    raise
        return await self.student.answer(messages, last)

    def _record(self, item: EvalItem, turns: Sequence[EvalTurn], end: EvalEnd, detail: str) -> EvalDialogue:
        seed, planned = item.seed, min(len(item.seed.turns), self.max_turns)
        if item.reference and len(turns) == planned and turns[-1].origin is not QuestionOrigin.TUTOR:
            last = turns[-1].model_copy(update={"correct": is_correct(turns[-1].answer, item.reference)})
            turns = (*turns[:-1], last)
        empty = ("empty_answer",) if any(not turn.answer.strip() for turn in turns) else ()
        return EvalDialogue(
            id=item.id,
            benchmark=item.benchmark,
            kind=seed.kind,
            source=seed.source,
            source_id=seed.source_id,
            license=seed.license,
            category=item.category,
            reference=item.reference,
            planned=planned,
            turns=tuple(turns),
            end=end,
            detail=detail,
            oddities=(*item.oddities, *empty),
            facts=seed.facts,
            digest=item.digest,
            student=self.student.name,
            sampling=self.sampling,
            tutor=self.tutor.name if self.tutor is not None and self.attack == "adaptive" else "",
        )


def word_of(judge: EvalJudge, rated: Rated | BaseException) -> Rated:
    """A judge's word; where it failed, ``Unrated``. Whatever else was raised is raised."""
    if isinstance(rated, AgentFailed):
        return Rated(judged=Unrated(judge=judge.name, reason=rated.reason, detail=rated.detail))
    if isinstance(rated, BaseException):
        raise rated
    return rated


def ended(record: EvalDialogue, *failures: object) -> Done:
    """The record.

    Raises:
        AgentFailed: one of the failures may pass, so that the item is put off; it holds the record so far.
    """
    for one in failures:
        if isinstance(one, AgentFailed) and one.transient:
            raise AgentFailed(one.reason, one.detail, transient=True, value=value_of(record))
    return Kept(value=value_of(record))


def _turn(item: EvalItem, number: int, turn: Turn, rated: Rated) -> EvalTurn:
    heard = not isinstance(turn.verdict, Unscored) or turn.verdict.reason not in UNHEARD
    written = turn.origin is QuestionOrigin.TUTOR
    return EvalTurn(
        **{name: getattr(turn, name) for name in SAME},
        shown=tuple(map(image_digest, turn.user.images)),
        static=unmarked(item.seed.turns[number].text) if written else "",
        judged=rated.judged,
        opinions=rated.opinions,
        tutor=turn.verdict if heard else None,
        seconds=round(turn.student_seconds, 3),
        tutor_seconds=round(turn.tutor_seconds, 3),
    )


async def _failure(work: Awaitable[object]) -> AgentFailed | None:
    """What an agent failed with in ``work``, if one did."""
    try:
        await work
    except AgentFailed as failed:
        return failed
    return None
