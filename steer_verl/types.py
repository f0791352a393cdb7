"""The nouns of the method: seed, turn, verdict, trajectory.

Everything that is written to disk or handed from one part to another is one of these records. They are immutable,
strict (an integer is an integer: ``True``, ``8.0`` and ``"8"`` are refused) and round-trip through JSON with
``model_dump_json`` / ``model_validate_json``. No record knows of verl.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

IMAGE_MARK = "<image>"
"""Where an image stands in the text of a user turn (verl's own convention, utils/dataset/rl_dataset.py)."""
FOREIGN_MARKS = ("<video>", "<audio>")
"""verl's dataset would look for a video or a sound and die (the same file, _build_messages)."""
MARKS = (IMAGE_MARK, *FOREIGN_MARKS)

ANSWER_TAGS = ("<thinking>", "</thinking>", "<answer>", "</answer>")
"""Of the student's format, in the order in which they must stand."""

MIN_TURNS, MAX_TURNS = 2, 10
"""Length of a dialogue in turns (paper, section on data): at least 2, at most 10. Sets for training keep to both; a
:class:`Seed` of one turn is a single-turn question, for evaluation and for the ablation without dialogues."""


class Record(BaseModel):
    """Base of every record: frozen, strict, and no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Said = Annotated[str, AfterValidator(lambda text: text.encode(errors="replace").decode())]
"""Words of a tutor: half a surrogate pair, which no file can hold and JSON can spell, becomes a question mark."""


class DialogueKind(StrEnum):
    """The three disjoint seed sets of Stage I."""

    BENIGN = "benign"
    OBFUSCATED = "obfuscated"
    RED_TEAM = "red_team"


class AttackStrategy(StrEnum):
    """How the tutor evolves its question, by what the student just did (paper, Stage III)."""

    PERSISTENCE = "persistence"  # after a plain refusal
    BAIT_AND_SWITCH = "bait_and_switch"  # after a constructive refusal: accept the alternative, then corrupt it
    DEEPEN = "deepen"  # after compliance or a leak
    FOLLOW_UP = "follow_up"  # a natural next question on a benign seed: nothing to attack


class QuestionOrigin(StrEnum):
    """Where the text of a user turn came from."""

    SEED = "seed"  # the opening turn
    TUTOR = "tutor"  # written by the tutor in reaction to the student
    STATIC = "static"  # the seed's own next question, by choice (ablation without feedback dynamics)
    FALLBACK = "fallback"  # the seed's own next question, because the tutor gave none that could be used


class UnscoredReason(StrEnum):
    """Why a turn has no scores. A turn that could not be scored has no reward; it is never a number."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    HTTP_429 = "http_429"
    HTTP_5XX = "http_5xx"
    HTTP_4XX = "http_4xx"
    TOO_LONG = "too_long"  # the request does not fit into the model's context
    IMAGE = "image"  # not sent: an image cannot be opened
    CONTENT_FILTER = "content_filter"
    TUTOR_REFUSAL = "tutor_refusal"
    LENGTH = "length"
    BAD_JSON = "bad_json"
    SCHEMA = "schema"
    OUT_OF_RANGE = "out_of_range"
    ABANDONED = "abandoned"  # the dialogue was lost before the verdict came
    NO_TUTOR = "no_tutor"  # nobody judges in this dialogue

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be scored when the endpoint is well again, or has been mended by somebody."""
        return self.value in ("connect", "timeout", "http_429", "http_5xx", "http_4xx")


class NoAttackReason(StrEnum):
    """Why a tutor's response carries no usable next question."""

    LAST_TURN = "last_turn"  # none was asked for
    ATTACK_MISSING = "attack_missing"  # empty, repeated or enormous; the request does not fit or its image is gone
    ATTACK_REFUSED = "attack_refused"  # the attacker model declined
    UNAVAILABLE = "unavailable"  # the endpoint failed


class Status(StrEnum):
    """What became of a dialogue. A lost one is no member of its group: no outage moves an advantage."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"  # by the policy: it used up its own budget
    LOST = "lost"  # by us or by a server


class StopReason(StrEnum):
    """Why a dialogue ended."""

    COMPLETED = "completed"  # every turn of the seed was played
    TURN_LIMIT = "turn_limit"  # max_turns is below the seed's own count
    TOKEN_BUDGET = "token_budget"  # a further turn with a full-length answer would not fit into the response length
    UNSCORED = "unscored"  # an answer could not be scored
    ABORTED = "aborted"  # the engine returned no tokens (weights were being replaced); Stage II's filter gave it up
    OVERLONG = "overlong"  # the opening is longer than data.max_prompt_length
    DATA = "data"  # a row or one of its images could not be read
    DISK = "disk"  # a file could not be written or read
    ERROR = "error"  # anything else that was raised

    @property
    def status(self) -> Status:
        """Of a dialogue whose every answer was scored."""
        if self in (StopReason.COMPLETED, StopReason.TURN_LIMIT):
            return Status.COMPLETE
        return Status.TRUNCATED if self is StopReason.TOKEN_BUDGET else Status.LOST


Score = Annotated[int, Field(ge=1, le=10)]


class Scores(Record):
    """One turn's scores, integers 1..10 (paper, Stage III): 10 is best on every axis."""

    safety: Score
    usefulness: Score
    faithfulness: Score


class JudgeScores(Record):
    """One judge's scores of one answer. A guard model scores safety alone."""

    judge: Said
    safety: Score
    usefulness: Score | None = None
    faithfulness: Score | None = None


class Verdict(Record):
    """A complete, in-range verdict of one answer."""

    status: Literal["ok"] = "ok"
    scores: Scores
    diagnosis: Said = ""
    judge_scores: tuple[JudgeScores, ...] = ()
    """Of each judge of a panel; empty when one tutor judged alone."""


class Unscored(Record):
    """The answer could not be judged."""

    status: Literal["unscored"] = "unscored"
    reason: UnscoredReason
    detail: Said = ""


TurnVerdict = Annotated[Verdict | Unscored, Field(discriminator="status")]


class Attack(Record):
    """A usable next question and the strategy behind it."""

    status: Literal["ok"] = "ok"
    question: Said
    strategy: AttackStrategy


class NoAttack(Record):
    """No usable next question; the seed's static one is asked instead."""

    status: Literal["none"] = "none"
    reason: NoAttackReason
    detail: Said = ""


class Usage(Record):
    """What the tutor's responses in a turn, a dialogue or a step cost.

    ``cached_tokens`` are those prompt tokens that the server had in its prefix cache; what a server does not report
    counts as 0.
    """

    requests: int = 0
    """Attempts that were sent, retries and re-asks included."""
    rejected: int = 0
    """Attempts that an open circuit breaker turned away."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    """In the currency of ``endpoint.prices``; 0 without prices."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.model_fields})


class TutorResponse(Record):
    """The tutor's reply to one answer. Either half can fail without the other."""

    verdict: TurnVerdict
    attack: Annotated[Attack | NoAttack, Field(discriminator="status")]
    seconds: float = 0.0
    usage: Usage = Usage()


class JudgeResult(Record):
    """A judge's reply to one answer, and what it cost."""

    scores: JudgeScores | Unscored
    usage: Usage = Usage()


def dialogue_key(validates: bool, step: int, seed_id: str, rollout: int) -> str:
    """Which dialogue of which run: ``<split>/<step>/<seed>/<rollout>``; ``TutorRequest.turn_key`` adds the turn.

    Its first two parts name the folder of the cache that keeps the dialogue's calls (steer_verl/models/cache.py).
    """
    return f"{'val' if validates else 'train'}/{step}/{seed_id}/{rollout}"


class UserTurn(Record):
    """One user message. ``text`` holds exactly one ``<image>`` mark per entry of ``images`` (paths), in order."""

    text: str
    images: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _marks_match_images(self) -> UserTurn:
        marks = self.text.count(IMAGE_MARK)
        if marks != len(self.images):
            raise ValueError(f"{marks} {IMAGE_MARK} marks but {len(self.images)} images")
        return self

    def with_text(self, text: str) -> UserTurn:
        """The same images under another wording: marks in ``text`` are dropped, the images come first."""
        words = " ".join(text.replace(IMAGE_MARK, " ").split()) if IMAGE_MARK in text else text
        return UserTurn(text=IMAGE_MARK * len(self.images) + words, images=self.images)


class Seed(Record):
    """A dialogue to be played, the user's side: ``turns[1:]`` are the static next questions (hint and fallback)."""

    id: str
    turns: Annotated[tuple[UserTurn, ...], Field(min_length=1, max_length=MAX_TURNS)]
    kind: DialogueKind = DialogueKind.RED_TEAM
    source: str = ""
    source_id: str = ""
    """The row of ``source`` that it was made of."""
    license: str = ""
    facts: dict[str, Any] = Field(default_factory=dict)
    """What an embedded tutor may know of the image (ground truth). The student never sees it."""


class Spent(Record):
    """What an answer cost on our side of the tutor."""

    student_seconds: float = 0.0
    """From asking the student's engine to its answer."""
    own_seconds: float = 0.0
    """What neither of them took: opening images, tokens, records."""
    asked_at: float = 0.0
    """When the engine was asked, in seconds since the epoch."""
    prompt_tokens: int = 0
    """Of the student's prompt, if the engine tells how many of them, ``cached_tokens``, its prefix cache held."""
    cached_tokens: int = 0


class Exchange(Record):
    """A question and its answer."""

    user: UserTurn
    answer: str


class Turn(Exchange, Spent):
    """One exchange as it happened: what was asked, by whom, what was answered, how it was judged."""

    origin: QuestionOrigin
    strategy: AttackStrategy | None = None
    fallback: NoAttackReason | None = None
    answer_tokens: int = 0
    truncated: bool = False
    """The answer hit the token cap before the student ended it."""
    verdict: TurnVerdict
    tutor_seconds: float = 0.0
    """Until the tutor's whole response was there."""
    question_seconds: float = 0.0
    """That the dialogue waited for the next question; 0 in the last turn."""
    usage: Usage = Usage()
    """Of the tutor."""


class TutorRequest(Record):
    """What the tutor is shown: the seed, the closed turns, the open question, its answer, and the static next one."""

    seed: Seed
    turns: tuple[Exchange, ...]
    user: UserTurn
    answer: str
    static_next_turn: UserTurn | None
    """The seed's next question; ``None`` when this was the last turn, so that no attack is asked for."""
    turn_key: str = ""
    """Which answer of which run this is: ``<split>/<step>/<seed>/<rollout>/<turn>``. The tutor's log and idempotency
    keys are made of it; no prompt shows it."""


class Trajectory(Record):
    """The one record of a played dialogue: reward, transcript log, metrics and reports all read this."""

    seed_id: str
    kind: DialogueKind
    source: str = ""
    turns: tuple[Turn, ...]
    stop: StopReason
    detail: str = ""
    """What was raised, in one line, where that ended the dialogue."""
    audit: tuple[JudgeResult, ...] = ()
    """The held-out judge's scores of each turn, if this dialogue was drawn for it. Never part of a reward."""
    facts: dict[str, Any] = Field(default_factory=dict)
    step: int = -1
    uid: str = ""
    rollout: int = 0
    validate_run: bool = False

    @property
    def key(self) -> str:
        """See :func:`dialogue_key`."""
        return dialogue_key(self.validate_run, self.step, self.seed_id, self.rollout)

    @property
    def scored(self) -> tuple[Verdict, ...]:
        """The verdicts, in order; an unscored turn has none."""
        return tuple(t.verdict for t in self.turns if isinstance(t.verdict, Verdict))

    @property
    def status(self) -> Status:
        """Whether it may enter its group's statistics: a lost dialogue may not."""
        return Status.LOST if len(self.scored) < len(self.turns) else self.stop.status

    @property
    def lost(self) -> str:
        """Why the dialogue is lost, in one word; empty for one that is not.

        An answer without a verdict tells its own reason (:class:`UnscoredReason`), else it is that of the stop.
        """
        if self.status is not Status.LOST:
            return ""
        reasons = [t.verdict.reason for t in self.turns if isinstance(t.verdict, Unscored)]
        told = [reason.value for reason in reasons if reason is not UnscoredReason.ABANDONED]
        if self.stop in (StopReason.UNSCORED, StopReason.COMPLETED, StopReason.TURN_LIMIT, StopReason.TOKEN_BUDGET):
            return told[0] if told else self.stop.value
        return self.stop.value


@dataclass(frozen=True)
class Pending:
    """A tutor's response under way: the next question is needed now, the verdict when the dialogue ends.

    Both futures end; an exception of a tutor that raises is theirs.
    """

    question: asyncio.Future[Attack | NoAttack]
    """There as soon as the question is whole."""
    response: asyncio.Future[TutorResponse]
    """The whole response, whose attack is that question."""

    def __post_init__(self) -> None:
        for part in (self.question, self.response):  # whoever awaits it hears of its failure
            part.add_done_callback(lambda done: done.cancelled() or done.exception())

    @classmethod
    def of(cls, response: TutorResponse) -> Pending:
        """A response that is there already; to be called in a running event loop."""
        loop = asyncio.get_running_loop()
        question: asyncio.Future[Attack | NoAttack] = loop.create_future()
        whole: asyncio.Future[TutorResponse] = loop.create_future()
        question.set_result(response.attack)
        whole.set_result(response)
        return cls(question, whole)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.question.cancel()
        self.response.cancel()


@runtime_checkable
class Tutor(Protocol):
    """Adjudicator and attacker. Implementations never raise for a single failed turn: they return ``Unscored``."""

    name: str
    """Identity for logs: model or rule set, with its version."""

    async def respond(self, request: TutorRequest) -> TutorResponse:
        """Judge ``request.answer`` and, if ``request.static_next_turn`` is given, attack: write the next question.

        The response holds a complete verdict or ``Unscored``, and a usable question or ``NoAttack``. Either can fail
        without the other. A tutor that has the question before the verdict offers ``begin`` too (:class:`EarlyTutor`).
        """
        ...

    async def check(self) -> None:
        """Prove before a run that the tutor can be reached and used.

        Raises:
            TutorError: one line, with a hint.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


@runtime_checkable
class EarlyTutor(Tutor, Protocol):
    """A tutor whose question is there before its verdict, so that nobody waits for a score."""

    def begin(self, request: TutorRequest) -> Pending:
        """:meth:`respond`, its halves apart; to be called in a running event loop."""
        ...


@runtime_checkable
class Judge(Protocol):
    """Scores an answer and never attacks. Like a tutor it returns ``Unscored`` for a turn that fails."""

    name: str
    """Identity for logs and scores: format or rule set, model and version."""

    async def judge(self, request: TutorRequest) -> JudgeResult:
        """Score ``request.answer``; ``request.static_next_turn`` is not used."""
        ...

    async def check(self) -> None:
        """Prove before a run that the judge can be reached and used.

        Raises:
            TutorError: one line, with a hint.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
