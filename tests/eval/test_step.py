"""One item through the step: who is asked what, what overlaps, and what a failure leaves in the record."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from steer_verl.eval.judging.protocol import Case, Rated
from steer_verl.eval.records import EvalDialogue, EvalEnd, Rating, Sampling, Unrated
from steer_verl.eval.rejudge import RejudgeStep
from steer_verl.eval.step import EvalStep
from steer_verl.eval.students.protocol import Messages, Reply
from steer_verl.models.failure import AgentFailed
from steer_verl.models.place import Place
from steer_verl.types import (
    Attack,
    AttackStrategy,
    NoAttack,
    NoAttackReason,
    Pending,
    QuestionOrigin,
    TutorRequest,
    TutorResponse,
    Unscored,
    UnscoredReason,
    Verdict,
)
from steer_verl.work.step import Done, Kept
from tests.eval.scripted import ScriptedJudge, ScriptedStudent, item
from tests.models.memory import Interrupted, MemoryCache
from tests.scripted import GOOD, ScriptedTutor, ruling

PLACE = Place("step/item")


def record(done: Done) -> EvalDialogue:
    assert isinstance(done, Kept)
    return EvalDialogue.model_validate(done.value, strict=False)


def failing(number: int, *, transient: bool) -> Any:
    def script(turn: int) -> Any:
        if turn == number:
            raise AgentFailed("timeout", "slow", transient=transient)
        return 3

    return script


async def test_every_turn_is_asked_in_its_history_and_rated_as_its_user_reads_it() -> None:
    student = ScriptedStudent(lambda t: f"<thinking>why {t}</thinking><answer>answer {t}</answer>")
    judge = ScriptedJudge(lambda t: t)
    done = record(await EvalStep(student, judge).work(item(3), PLACE))
    assert [len(asked) for asked in student.asked] == [1, 3, 5]
    assert student.asked[1][1] == "<thinking>why 1</thinking><answer>answer 1</answer>", "its own words stay in history"
    assert [[said.text for said in case.said][-2:] for case in judge.cases] == [
        [f"question {t}", f"answer {t}"] for t in (1, 2, 3)
    ], "the judge sees what a user reads"
    assert done.harmless == (1, 2, 3) and done.whole and done.end is EvalEnd.COMPLETED
    assert [turn.origin for turn in done.turns] == [QuestionOrigin.SEED, *[QuestionOrigin.STATIC] * 2]
    assert all(turn.tutor is None and not turn.static and turn.answer_tokens == 3 for turn in done.turns)


async def test_a_turn_is_rated_while_the_next_one_is_played() -> None:
    asked = [asyncio.Event() for _ in range(3)]

    class Waiting(ScriptedStudent):
        async def answer(self, messages: Messages, place: Place) -> Reply:
            asked[len(messages) // 2].set()
            return await super().answer(messages, place)

    class Slow(ScriptedJudge):
        async def rate(self, case: Case, place: Place) -> Rated:
            turn = len(case.said) // 2
            if turn < 3:
                await asked[turn].wait()  # never comes if the next question waits for this rating
            return await super().rate(case, place)

    step = EvalStep(Waiting(), Slow())
    done = record(await asyncio.wait_for(step.work(item(3), PLACE), 5))
    assert done.whole


async def test_a_rating_that_cannot_be_had_is_unrated_and_the_rest_stands() -> None:
    judge = ScriptedJudge(failing(2, transient=False))
    done = record(await EvalStep(ScriptedStudent(), judge).work(item(3), PLACE))
    assert done.harmless == (3, None, 3) and not done.whole and done.end is EvalEnd.COMPLETED
    assert done.turns[1].judged == Unrated(judge=judge.name, reason="timeout", detail="slow")


async def test_a_judge_that_is_down_puts_the_item_off_with_the_record_so_far() -> None:
    with pytest.raises(AgentFailed) as failed:
        await EvalStep(ScriptedStudent(), ScriptedJudge(failing(2, transient=True))).work(item(3), PLACE)
    assert failed.value.transient and failed.value.value is not None
    assert EvalDialogue.model_validate(failed.value.value, strict=False).harmless == (3, None, 3)


@pytest.mark.parametrize("transient", [False, True])
async def test_a_student_that_leaves_keeps_its_turns(transient: bool) -> None:
    script = failing(2, transient=transient)
    step = EvalStep(ScriptedStudent(lambda t: str(script(t))), ScriptedJudge())
    try:
        value = (await step.work(item(3), PLACE)).value
        assert not transient
    except AgentFailed as failed:
        assert transient
        value = failed.value
    left = EvalDialogue.model_validate(value, strict=False)
    assert left.end is EvalEnd.STUDENT_FAILED and len(left.turns) == 1 and left.harmless == (3, None, None)
    assert left.detail == "timeout: slow"


async def test_an_item_that_cannot_be_played_is_a_record_and_nobody_is_asked() -> None:
    student = ScriptedStudent()
    step = EvalStep(student, ScriptedJudge())
    done = record(await step.work(item(3, unplayable="picture missing", oddities=("image_missing",)), PLACE))
    assert done.end is EvalEnd.UNPLAYABLE and not done.turns and not student.asked
    assert done.harmless == (None, None, None) and done.oddities == ("image_missing",)


async def test_an_empty_answer_is_an_answer_and_an_oddity() -> None:
    done = record(
        await EvalStep(ScriptedStudent(lambda t: "" if t == 2 else "yes"), ScriptedJudge()).work(item(), PLACE)
    )
    assert done.oddities == ("empty_answer",) and done.whole


async def test_the_last_answer_is_compared_with_the_reference() -> None:
    student = ScriptedStudent(lambda t: "<thinking>4+8</thinking><answer>The answer is 12.</answer>")
    judge = ScriptedJudge()
    done = record(await EvalStep(student, judge).work(item(2, reference="12"), PLACE))
    assert [turn.correct for turn in done.turns] == [None, True]
    assert [case.reference for case in judge.cases] == ["", "12"], "it is no reference for an earlier turn"


@pytest.mark.parametrize(
    ("turns", "attack", "more", "told"),
    [
        (2, "static", {"max_turns": 1}, False),  # the question of the reference is never asked
        (2, "adaptive", {}, False),  # the tutor asked another one
        (1, "adaptive", {}, True),
        (2, "fallback", {}, True),  # the tutor gave none, and the seed's own was asked
    ],
)
async def test_a_reference_is_of_the_seeds_own_last_question_alone(
    turns: int, attack: str, more: dict[str, int], told: bool
) -> None:
    silent = TutorResponse(verdict=GOOD, attack=NoAttack(reason=NoAttackReason.ATTACK_MISSING))
    tutor = ScriptedTutor(lambda t, _: silent if attack == "fallback" else ruling(question=f"adaptive {t}"))
    judge, kind = ScriptedJudge(), "static" if attack == "static" else "adaptive"
    step = EvalStep(ScriptedStudent(lambda t: "12"), judge, None if kind == "static" else tutor, attack=kind, **more)
    done = record(await step.work(item(turns, reference="12"), PLACE))
    assert done.turns[-1].correct == (True if told else None) and done.whole
    again = ScriptedJudge()
    await RejudgeStep(again).work(done, PLACE)
    for asked in (judge, again):
        assert [case.reference for case in asked.cases] == [*[""] * (len(done.turns) - 1), "12" if told else ""]


async def test_the_tutor_writes_the_later_turns_and_the_benchmarks_own_stand_beside_them() -> None:
    tutor = ScriptedTutor(lambda t, _: ruling(question=f"adaptive {t}"))
    step = EvalStep(ScriptedStudent(), ScriptedJudge(), tutor, attack="adaptive")
    done = record(await step.work(item(3), PLACE))
    assert [turn.user.text for turn in done.turns] == ["question 1", "adaptive 0", "adaptive 1"]
    assert [turn.static for turn in done.turns] == ["", "question 2", "question 3"]
    assert [turn.strategy for turn in done.turns] == [None, AttackStrategy.DEEPEN, AttackStrategy.DEEPEN]
    assert all(turn.tutor == GOOD for turn in done.turns)


async def test_an_answer_that_the_tutor_cannot_score_is_rated_and_the_dialogue_goes_on() -> None:
    refused = Unscored(reason=UnscoredReason.TUTOR_REFUSAL)
    tutor = ScriptedTutor(lambda t, _: ruling(verdict=refused, question=None))
    step = EvalStep(ScriptedStudent(), ScriptedJudge(), tutor, attack="adaptive")
    done = record(await step.work(item(3), PLACE))
    assert done.whole and all(turn.tutor == refused for turn in done.turns)
    assert [turn.origin for turn in done.turns[1:]] == [QuestionOrigin.FALLBACK] * 2
    assert [turn.user.text for turn in done.turns] == [f"question {t}" for t in (1, 2, 3)]


@pytest.mark.parametrize(
    "lost",
    [
        TutorResponse(
            verdict=Unscored(reason=UnscoredReason.CONNECT), attack=NoAttack(reason=NoAttackReason.UNAVAILABLE)
        ),
        TutorResponse(verdict=GOOD, attack=NoAttack(reason=NoAttackReason.UNAVAILABLE)),
    ],
)
async def test_a_tutor_that_is_down_puts_the_item_off_and_asks_no_static_question_instead(lost: TutorResponse) -> None:
    cache = MemoryCache()
    student = ScriptedStudent(cache=cache)
    tutor = ScriptedTutor(lambda t, _: lost if t == 1 else ruling(question=f"adaptive {t}"))
    with pytest.raises(AgentFailed) as failed:
        await EvalStep(student, ScriptedJudge(), tutor, attack="adaptive", cache=cache).work(item(3), PLACE)
    left = EvalDialogue.model_validate(failed.value.value, strict=False)
    assert failed.value.transient and left.end is EvalEnd.TUTOR_FAILED and len(left.turns) == 2
    assert len(student.asked) == 2
    again = ScriptedTutor(lambda t, _: ruling(question=f"adaptive {t}"))
    step = EvalStep(student, ScriptedJudge(), again, attack="adaptive", cache=cache)
    done = record(await step.work(item(3), PLACE))
    assert done.whole and len(again.seen) == 2 and len(student.asked) == 3, "what was had is not asked again"


async def test_a_static_attack_with_a_tutor_is_scored_by_it() -> None:
    tutor = ScriptedTutor(lambda t, _: ruling(question="never asked"))
    done = record(await EvalStep(ScriptedStudent(), ScriptedJudge(), tutor, attack="static").work(item(3), PLACE))
    assert [turn.user.text for turn in done.turns] == [f"question {t}" for t in (1, 2, 3)]
    assert all(isinstance(turn.tutor, Verdict) and not turn.static for turn in done.turns)


@pytest.mark.parametrize("stop_after", range(6))
async def test_interrupted_anywhere_it_goes_on_and_asks_nobody_twice(stop_after: int) -> None:
    cache = MemoryCache(stop_after=stop_after)
    student = ScriptedStudent(cache=cache)
    tutor = ScriptedTutor(lambda t, _: ruling(question=f"adaptive {t}"))
    step = EvalStep(student, ScriptedJudge(), tutor, attack="adaptive", cache=cache)
    with pytest.raises(Interrupted):
        await step.work(item(3), PLACE)
    cache.stop_after, before = None, len(student.asked) + len(tutor.seen)
    done = record(await step.work(item(3), PLACE))
    assert done.whole and len(cache.kept) == 6
    assert len(student.asked) + len(tutor.seen) - before == 6 - stop_after, "only what was not kept is asked for"


async def test_a_fault_of_the_judge_is_no_rating() -> None:
    def broken(turn: int) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await EvalStep(ScriptedStudent(), ScriptedJudge(broken)).work(item(3), PLACE)


async def test_the_cap_on_turns_is_no_missing_turn() -> None:
    done = record(await EvalStep(ScriptedStudent(), ScriptedJudge(), max_turns=2).work(item(5), PLACE))
    assert done.planned == 2 and done.whole and isinstance(done.turns[-1].judged, Rating)
    assert done.oddities == ("shortened",)
    fits = record(await EvalStep(ScriptedStudent(), ScriptedJudge(), max_turns=5).work(item(5), PLACE))
    assert not fits.oddities


async def test_a_record_says_who_answered_how_and_who_attacked() -> None:
    drawn = Sampling(temperature=0.7, top_p=0.9, seed=3, max_tokens=256)
    tutor = ScriptedTutor(lambda t, _: ruling(question=f"adaptive {t}"))
    step = EvalStep(ScriptedStudent(), ScriptedJudge(), tutor, attack="adaptive", sampling=drawn)
    done = record(await step.work(item(2, digest="d", reference="12"), PLACE))
    assert (done.digest, done.reference, done.student) == ("d", "12", "scripted student")
    assert (done.sampling, done.tutor) == (drawn, "scripted")
    assert [turn.judged.judge for turn in done.turns] == ["scripted judge"] * 2
    scored = record(await EvalStep(ScriptedStudent(), ScriptedJudge(), tutor).work(item(2), PLACE))
    assert not scored.tutor and all(turn.tutor == GOOD for turn in scored.turns), "it wrote no question"


async def test_an_answer_that_failed_for_good_is_asked_for_at_a_place_of_its_own_and_once() -> None:
    class Failing(ScriptedStudent):
        places: ClassVar[list[str]] = []

        async def answer(self, messages: Messages, place: Place) -> Reply:
            self.places.append(place.key)
            if place.key.endswith("turn2") or place.key.endswith("retry1"):
                raise AgentFailed("content_filter", "the server's filter")
            return await super().answer(messages, place)

    student = Failing()
    assert record(await EvalStep(student, ScriptedJudge()).work(item(3), PLACE)).end is EvalEnd.STUDENT_FAILED
    student.places.clear()
    done = record(await EvalStep(student, ScriptedJudge(), retries=2).work(item(3), PLACE))
    assert done.whole and [key.removeprefix(f"{PLACE.key}/") for key in student.places] == [
        "turn1",
        "turn2",
        "turn2/retry1",
        "turn2/retry2",
        "turn3",
    ]


async def test_a_student_that_left_for_good_and_a_verdict_that_may_come_put_the_item_off() -> None:
    """The record so far says who left; nothing is final while something may still come."""
    down = TutorResponse(
        verdict=Unscored(reason=UnscoredReason.CONNECT), attack=Attack(question="next", strategy=AttackStrategy.DEEPEN)
    )

    class Early(ScriptedTutor):
        """Its question is there before its verdict."""

        def begin(self, request: TutorRequest) -> Pending:
            asked: asyncio.Future[Attack | NoAttack] = asyncio.get_running_loop().create_future()
            asked.set_result(down.attack)
            return Pending(asked, asyncio.ensure_future(self.respond(request)))

    student = ScriptedStudent(lambda t: str(failing(2, transient=False)(t)))
    with pytest.raises(AgentFailed) as failed:
        await EvalStep(student, ScriptedJudge(), Early(lambda t, _: down), attack="adaptive").work(item(3), PLACE)
    left = EvalDialogue.model_validate(failed.value.value, strict=False)
    assert failed.value.transient and failed.value.reason == "connect"
    assert left.end is EvalEnd.STUDENT_FAILED and left.detail.startswith("timeout") and len(left.turns) == 1


async def test_another_image_under_the_same_path_is_ruled_anew() -> None:
    cache, tutor = MemoryCache(), ScriptedTutor(lambda t, _: ruling(question=f"adaptive {t}"))
    step = EvalStep(ScriptedStudent(), ScriptedJudge(), tutor, attack="adaptive", cache=cache)
    for digest, asked in (("one", 3), ("one", 3), ("two", 6)):
        await step.work(item(3, digest=digest), PLACE)
        assert len(tutor.seen) == asked
