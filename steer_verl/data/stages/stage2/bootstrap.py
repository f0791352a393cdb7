"""Red-blue dialogues: a red user presses on, a blue expert answers as the student shall, an evaluator keeps the good.

Paper, Stage II: a dialogue is kept iff min_t safety_t >= tau_safe and mean_t usefulness_t >= tau_help. Playing stops as
soon as neither more turns nor better ones could bring that about; what was played so far stays in the outcome.
A dialogue that the generator wrote with its answers is not played: its answers are scored and filtered alike.
"""

from __future__ import annotations

from steer_verl.answer import parse_answer
from steer_verl.data.drawn import drawn
from steer_verl.data.duplicates import normalised
from steer_verl.data.seed import Made, SetName
from steer_verl.data.stages.agents import Agents
from steer_verl.data.stages.left import Left, Reason, stage
from steer_verl.data.stages.settings import BootstrapSettings
from steer_verl.data.stages.stage1.expand import MAX_CHARS, well_formed
from steer_verl.models.failure import AgentFailed
from steer_verl.models.forms import Said
from steer_verl.models.place import Place
from steer_verl.models.replies import AskFault, tidy
from steer_verl.refusal import is_refusal
from steer_verl.text import folded, one_line, unmarked
from steer_verl.types import (
    NoAttackReason,
    QuestionOrigin,
    Seed,
    StopReason,
    Trajectory,
    Turn,
    TutorRequest,
    Unscored,
    UserTurn,
    Verdict,
)
from steer_verl.work.step import value_of

BEST = 10
"""Highest usefulness of a turn."""
COMPLAINT = (
    "Your last message is not in the required form. Answer again: exactly one <thinking>...</thinking>, then exactly "
    "one <answer>...</answer>, nothing else around them, and no other tags."
)
DECLINED = (AskFault.REFUSAL, AskFault.CONTENT_FILTER)
UNUSABLE = (AskFault.EMPTY, AskFault.BAD_JSON, AskFault.SCHEMA, AskFault.LENGTH)
NO_TURN: dict[str, NoAttackReason] = {
    **dict.fromkeys(DECLINED, NoAttackReason.ATTACK_REFUSED),
    **dict.fromkeys(UNUSABLE, NoAttackReason.ATTACK_MISSING),
}
"""How a red user fails that was reached and gave no turn: the seed's own is asked instead. Any other failure of his,
such as an image that is gone, must not pass for a dialogue of static turns."""

Asked = tuple[UserTurn, QuestionOrigin, NoAttackReason | None]
"""A user turn, where it came from, and why it is the seed's own if the red user was to write it."""


async def bootstrapped(
    agents: Agents, seed: Seed, answers: tuple[str, ...], settings: BootstrapSettings, place: Place
) -> Made:
    """The dialogue as it was played, or as it was written with its ``answers``. Raises ``Left``: it is not kept."""
    play = _Play(agents, seed, answers, settings)
    place = place.part("bootstrap")
    with stage("bootstrap", lambda: value_of(play.made())):
        for number in range(len(seed.turns)):
            await play.turn(place.part(f"turn{number + 1}"))
    return play.made()


class _Play:
    """One dialogue on its way."""

    def __init__(self, agents: Agents, seed: Seed, answers: tuple[str, ...], settings: BootstrapSettings) -> None:
        self.agents, self.seed, self.answers, self.settings = agents, seed, answers, settings
        self.turns: list[Turn] = []
        self.heard: list[Said] = []
        """Of the turn that is not closed."""

    async def turn(self, place: Place) -> None:
        """Play one turn, score it, and see whether the dialogue can still be kept."""
        user, origin, fallback = await self._asked(place)
        self.heard = [_said(user)]
        answer = self.answers[len(self.turns)] if self.answers else await self._answered(place)
        self.heard.append(Said(role="assistant", text=answer))
        if not well_formed(answer):
            raise Left(Reason.MALFORMED, one_line(answer, 120))
        asked = TutorRequest(seed=self.seed, turns=tuple(self.turns), user=user, answer=answer, static_next_turn=None)
        verdict = await self.agents.evaluate(asked, place.part("score"))
        self.turns.append(Turn(user=user, origin=origin, fallback=fallback, answer=answer, verdict=verdict))
        self.heard = []
        self._filter(verdict)

    def made(self) -> Made:
        """What was played so far."""
        unscored = bool(self.turns) and isinstance(self.turns[-1].verdict, Unscored)
        whole = len(self.turns) == len(self.seed.turns)
        stop = StopReason.UNSCORED if unscored else StopReason.COMPLETED if whole else StopReason.ABORTED
        seed = self.seed
        trajectory = Trajectory(
            seed_id=seed.id, kind=seed.kind, source=seed.source, turns=tuple(self.turns), stop=stop, facts=seed.facts
        )
        return Made(side=SetName.SFT, seed=seed, trajectory=trajectory, unfinished=tuple(self.heard))

    async def _asked(self, place: Place) -> Asked:
        """The next user turn."""
        number = len(self.turns)
        template = self.seed.turns[number]
        own = (template, QuestionOrigin.STATIC if number else QuestionOrigin.SEED, None)
        if self.answers or drawn("static", self.seed.id, str(number)) < self.settings.static_share:
            return own
        said = self._so_far(thoughts=False)
        try:
            text = await self.agents.red_user(self.seed, said, template, place.part("red"))
        except AgentFailed as failure:
            if failure.transient or failure.reason not in NO_TURN:
                raise
            return template, QuestionOrigin.FALLBACK, NO_TURN[failure.reason]
        text = tidy(text)
        if not number and text == unmarked(template.text):
            return own
        if fault := self._fault(text):
            return template, QuestionOrigin.FALLBACK, fault
        return template.with_text(text), QuestionOrigin.TUTOR, None

    def _fault(self, text: str) -> NoAttackReason | None:
        """Why a turn of the red user cannot be asked."""
        if is_refusal(text):
            return NoAttackReason.ATTACK_REFUSED
        repeated = normalised(text) in {normalised(turn.user.text) for turn in self.turns}
        return NoAttackReason.ATTACK_MISSING if not folded(text) or repeated or len(text) > MAX_CHARS else None

    async def _answered(self, place: Place) -> str:
        """The blue expert's answer; a malformed one is asked for once more with a complaint, and may stay so."""
        said = (*self._so_far(), *self.heard)
        answer = (await self.agents.blue_expert(self.seed, said, place.part("blue"))).strip()
        if well_formed(answer):
            return answer
        said = (*said, Said(role="assistant", text=answer), Said(role="user", text=COMPLAINT))
        return (await self.agents.blue_expert(self.seed, said, place.part("blue_again"))).strip()

    def _so_far(self, *, thoughts: bool = True) -> tuple[Said, ...]:
        """The closed turns as messages; without ``thoughts`` an answer is what the user reads of it."""
        said: list[Said] = []
        for turn in self.turns:
            text = turn.answer if thoughts else parse_answer(turn.answer).answer
            said += [_said(turn.user), Said(role="assistant", text=text)]
        return tuple(said)

    def _filter(self, last: Verdict | Unscored) -> None:
        """Raise ``Left`` when the dialogue cannot be kept any more."""
        number, settings = len(self.turns), self.settings
        if isinstance(last, Unscored):
            raise Left(Reason.UNSCORED, f"{last.reason.value}: {last.detail}")
        if last.scores.safety < settings.tau_safe:
            raise Left(Reason.UNSAFE, f"turn {number}: safety {last.scores.safety} < {settings.tau_safe}")
        helpful = [turn.verdict.scores.usefulness for turn in self.turns if isinstance(turn.verdict, Verdict)]
        best = (sum(helpful) + BEST * (len(self.seed.turns) - number)) / len(self.seed.turns)
        if best < settings.tau_help:
            detail = f"the mean usefulness is {best:.2f} at best, < {settings.tau_help:g}"
            raise Left(Reason.UNHELPFUL, f"turn {number}: {detail}")


def _said(user: UserTurn) -> Said:
    """A user turn as a message: its words without marks, its images beside them."""
    return Said(role="user", text=unmarked(user.text), images=user.images)
