"""Red-blue dialogues: a red user presses on, a blue expert answers as the student shall, an evaluator keeps the good.

Paper, Stage II: a dialogue is kept iff min_t safety_t >= tau_safe and mean_t usefulness_t >= tau_help. Playing stops as
soon as neither more turns nor better ones could bring that about; what was played so far stays in the outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from steer_verl.answer import parse_answer
from steer_verl.data.agents import BlueExpert, Evaluator, RedUser
from steer_verl.data.drawn import drawn
from steer_verl.data.rows import FOREIGN_MARKS
from steer_verl.data.stage2.settings import BootstrapSettings
from steer_verl.models.failure import AgentFailed
from steer_verl.models.forms import Said
from steer_verl.models.replies import AskFault
from steer_verl.refusal import is_refusal
from steer_verl.text import folded, neutralize, unmarked, visible
from steer_verl.types import (
    IMAGE_MARK,
    NoAttackReason,
    QuestionOrigin,
    Record,
    Seed,
    StopReason,
    Trajectory,
    Turn,
    TutorRequest,
    Unscored,
    UserTurn,
    Verdict,
)
from steer_verl.work.desk import DeskPart
from steer_verl.work.step import Desk, Done, Kept, Rejected, value_of

BEST = 10
"""Highest usefulness of a turn."""

ANSWER_ATTEMPTS = 2
"""A malformed answer is asked for once more."""

COMPLAINT = (
    "Your last message is not in the required form. Answer again: exactly one <thinking>...</thinking>, then exactly "
    "one <answer>...</answer>, nothing else around them, and no other tags."
)

_DECLINED = frozenset({AskFault.REFUSAL.value, AskFault.CONTENT_FILTER.value})
_UNUSABLE = frozenset(fault.value for fault in (AskFault.EMPTY, AskFault.BAD_JSON, AskFault.SCHEMA, AskFault.LENGTH))
"""With the others, the reasons of an agent that was reached and gave no turn: the seed's own is asked instead. Any
other failure of the red user, such as a picture that is gone, must not pass for a dialogue of static turns."""


class BootstrapReason(str, Enum):
    """Why Stage II rejects a dialogue; an agent that failed for good adds its own reason."""

    MALFORMED = "malformed"
    """The blue expert's answer was not in the student's format, twice."""
    UNSCORED = "unscored"
    """A turn could not be scored: it has no number, so that the dialogue can be neither good nor bad."""
    UNSAFE = "unsafe"
    """A turn's safety is below ``tau_safe``."""
    UNHELPFUL = "unhelpful"
    """The mean usefulness is, or can only end, below ``tau_help``."""


class Bootstrapped(Record):
    """A played dialogue beside the seed it came from."""

    seed: Seed
    trajectory: Trajectory
    unfinished: tuple[Said, ...] = ()
    """Of a rejected dialogue: what was said after its last turn, a malformed answer for instance."""


class BootstrapStep:
    """Plays one seed and filters it.

    Args:
        red: writes the later user turns.
        blue: answers.
        evaluator: scores every answer.
        settings: thresholds, share of static turns.
    """

    name = "bootstrap"

    def __init__(
        self, red: RedUser, blue: BlueExpert, evaluator: Evaluator, settings: BootstrapSettings | None = None
    ) -> None:
        self.red, self.blue, self.evaluator = red, blue, evaluator
        self.settings = settings or BootstrapSettings()

    async def work(self, item: Seed, desk: Desk) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        turns: list[Turn] = []
        for number in range(len(item.turns)):
            part, said = DeskPart(desk, f"turn{number + 1}"), said_in(turns)
            heard: tuple[Said, ...] = ()
            try:
                user, origin, fallback = await self._asked(item, turns, part)
                heard = (_said(user),)
                answer = await self._answered(item, said + heard, part)
                heard += (Said(role="assistant", text=answer),)
                if not _well_formed(answer):
                    return _rejected(BootstrapReason.MALFORMED.value, _cut(answer), item, turns, heard)
                verdict = await self.evaluator.score(_exchange(item, turns, user, answer, part), part)
            except AgentFailed as failure:
                if failure.transient:
                    raise
                return _rejected(failure.reason, failure.detail, item, turns, heard)
            turns.append(Turn(user=user, origin=origin, fallback=fallback, answer=answer, verdict=verdict))
            if rejection := self._verdict(item, turns):
                return rejection
        return Kept(value=value_of(_bootstrapped(item, turns, StopReason.COMPLETED)))

    async def close(self) -> None:
        """Close the agents."""
        for agent in (self.red, self.blue, self.evaluator):
            await agent.close()

    async def _asked(
        self, seed: Seed, turns: Sequence[Turn], desk: Desk
    ) -> tuple[UserTurn, QuestionOrigin, NoAttackReason | None]:
        """The next user turn, where it came from, and why it is the seed's own if the red user was to write it."""
        template = seed.turns[len(turns)]
        if not turns:
            return template, QuestionOrigin.SEED, None
        if drawn("static", seed.id, str(len(turns))) < self.settings.static_share:
            return template, QuestionOrigin.STATIC, None
        try:
            text = await self.red.ask(seed, said_in(turns, thoughts=False), template, desk)
        except AgentFailed as failure:
            if failure.transient or failure.reason not in _DECLINED | _UNUSABLE:
                raise
            declined = failure.reason in _DECLINED
            reason = NoAttackReason.ATTACK_REFUSED if declined else NoAttackReason.ATTACK_MISSING
            return template, QuestionOrigin.FALLBACK, reason
        text = neutralize(visible(text.replace(IMAGE_MARK, " "))).strip()
        if fault := self._fault(text, turns):
            return template, QuestionOrigin.FALLBACK, fault
        return template.with_text(text), QuestionOrigin.TUTOR, None

    def _fault(self, text: str, turns: Sequence[Turn]) -> NoAttackReason | None:
        """Why a turn of the red user cannot be asked."""
        if is_refusal(text):
            return NoAttackReason.ATTACK_REFUSED
        words = folded(text)
        repeated = words in {folded(turn.user.text) for turn in turns}
        too_long = len(text) > self.settings.max_question_chars
        return NoAttackReason.ATTACK_MISSING if not words or repeated or too_long else None

    async def _answered(self, seed: Seed, said: tuple[Said, ...], desk: Desk) -> str:
        """The blue expert's answer; one in another form is asked for again with a complaint, and may stay malformed."""
        answer = ""
        for attempt in range(ANSWER_ATTEMPTS):
            part = DeskPart(desk, "again") if attempt else desk
            answer = (await self.blue.answer(seed, said, part)).strip()
            if _well_formed(answer):
                break
            said = (*said, Said(role="assistant", text=answer), Said(role="user", text=COMPLAINT))
        return answer

    def _verdict(self, seed: Seed, turns: Sequence[Turn]) -> Rejected | None:
        """Why the dialogue cannot be kept any more."""
        last = turns[-1].verdict
        if isinstance(last, Unscored):
            return _rejected(BootstrapReason.UNSCORED.value, f"{last.reason.value}: {last.detail}", seed, turns)
        if last.scores.safety < self.settings.tau_safe:
            detail = f"turn {len(turns)}: safety {last.scores.safety} < {self.settings.tau_safe}"
            return _rejected(BootstrapReason.UNSAFE.value, detail, seed, turns)
        helpful = [turn.verdict.scores.usefulness for turn in turns if isinstance(turn.verdict, Verdict)]
        best = (sum(helpful) + BEST * (len(seed.turns) - len(turns))) / len(seed.turns)
        if best < self.settings.tau_help:
            detail = f"turn {len(turns)}: the mean usefulness is {best:.2f} at best, < {self.settings.tau_help:g}"
            return _rejected(BootstrapReason.UNHELPFUL.value, detail, seed, turns)
        return None


def said_in(turns: Sequence[Turn], *, thoughts: bool = True) -> tuple[Said, ...]:
    """A dialogue so far as messages; without ``thoughts`` an answer is what the user reads of it."""
    said: list[Said] = []
    for turn in turns:
        text = turn.answer if thoughts else parse_answer(turn.answer).answer
        said += [_said(turn.user), Said(role="assistant", text=text)]
    return tuple(said)


def _said(user: UserTurn) -> Said:
    """A user turn as a message: its words without marks, its pictures beside them."""
    return Said(role="user", text=unmarked(user.text), images=user.images)


def _exchange(seed: Seed, turns: Sequence[Turn], user: UserTurn, answer: str, desk: Desk) -> TutorRequest:
    place = f"{desk.place}/score"
    return TutorRequest(seed=seed, turns=tuple(turns), user=user, answer=answer, static_next_turn=None, turn_key=place)


def _well_formed(answer: str) -> bool:
    """In the student's format, and without a mark that verl's dataset would take for a picture, film or sound."""
    return parse_answer(answer).well_formed and not any(mark in answer for mark in (IMAGE_MARK, *FOREIGN_MARKS))


def _bootstrapped(
    seed: Seed, turns: Sequence[Turn], stop: StopReason, unfinished: tuple[Said, ...] = ()
) -> Bootstrapped:
    trajectory = Trajectory(
        seed_id=seed.id, kind=seed.kind, source=seed.source, turns=tuple(turns), stop=stop, facts=seed.facts
    )
    return Bootstrapped(seed=seed, trajectory=trajectory, unfinished=unfinished)


def _rejected(
    reason: str, detail: str, seed: Seed, turns: Sequence[Turn], unfinished: tuple[Said, ...] = ()
) -> Rejected:
    stop = StopReason.COMPLETED if len(turns) == len(seed.turns) else StopReason.ABORTED
    if reason == BootstrapReason.UNSCORED.value:
        stop = StopReason.UNSCORED
    return Rejected(reason=reason, detail=detail, value=value_of(_bootstrapped(seed, turns, stop, unfinished)))


def _cut(text: str) -> str:
    return " ".join(text.split())[:120]
