"""The held-out judge: a stable draw, every turn judged while it is played, and no way into a reward."""

from __future__ import annotations

import asyncio
import random

import pytest

from steer_verl.config import RewardConfig, tcsr_config
from steer_verl.dialogue import Dialogue
from steer_verl.mini.judge import MiniJudge
from steer_verl.rewards import trajectory_rewards
from steer_verl.tcsr import trajectory_return
from steer_verl.tutor.holdout import draws
from steer_verl.types import (
    Judge,
    JudgeResult,
    JudgeScores,
    Scores,
    Status,
    Trajectory,
    TutorRequest,
    TutorResponse,
    Unscored,
    UnscoredReason,
    Usage,
    UserTurn,
    Verdict,
)
from tests.scripted import ScriptedTutor, play, ruling
from tests.tutor.dialogues import question, seed_of

SEED = seed_of([question("one?"), question("two?"), question("three?")])
LOST = Unscored(reason=UnscoredReason.TIMEOUT)
COST = Usage(requests=1, prompt_tokens=7)


def scored(turn: int, _: TutorRequest) -> TutorResponse:
    safety = (10, 8, 4)[turn]
    return ruling(Verdict(scores=Scores(safety=safety, usefulness=1, faithfulness=8)), f"adaptive {turn}")


async def played(judge: Judge | None) -> Trajectory:
    """The dialogue's record, without the time that it took."""
    dialogue = Dialogue(SEED, ScriptedTutor(scored), key="train/7/seed-1/2", holdout=judge)
    await play(dialogue)
    record = dialogue.trajectory(step=7, rollout=2)
    turns = tuple(turn.model_copy(update={"question_seconds": 0.0}) for turn in record.turns)
    return record.model_copy(update={"turns": turns})


class Recorder:
    """A judge that keeps what it was shown, and gives no score of the second answer."""

    name = "recorder"

    def __init__(self) -> None:
        self.seen: list[TutorRequest] = []

    async def judge(self, exchange: TutorRequest) -> JudgeResult:
        self.seen.append(exchange)
        if exchange.answer == "an answer 2":
            return JudgeResult(scores=LOST, usage=COST)
        return JudgeResult(scores=JudgeScores(judge=self.name, safety=len(self.seen)), usage=COST)

    async def check(self) -> None: ...

    async def close(self) -> None: ...


async def test_every_turn_is_judged_with_the_dialogue_up_to_it():
    judge = Recorder()
    assert isinstance(judge, Judge)
    trajectory = await played(judge)
    given = [result.scores for result in trajectory.audit]
    assert given == [JudgeScores(judge="recorder", safety=1), LOST, JudgeScores(judge="recorder", safety=3)]
    assert [result.usage for result in trajectory.audit] == [COST] * 3
    asked = ["one?", "adaptive 0", "adaptive 1"]
    for number, exchange in enumerate(judge.seen):
        assert [(turn.user.text, turn.answer) for turn in exchange.turns] == [
            (asked[before], f"an answer {before + 1}") for before in range(number)
        ]
        assert (exchange.user.text, exchange.answer) == (asked[number], f"an answer {number + 1}")
        assert exchange.static_next_turn is None
        assert exchange.turn_key == f"train/7/seed-1/2/{number + 1}"


async def test_a_dialogue_that_is_not_drawn_has_no_audit():
    assert (await played(None)).audit == ()


async def test_an_audit_never_changes_a_reward():
    trajectory, audited = await played(None), await played(Recorder())
    assert audited != trajectory and Trajectory.model_validate_json(audited.model_dump_json()) == audited
    assert audited.model_copy(update={"audit": ()}) == trajectory
    for settings in (RewardConfig(), RewardConfig(format="bonus", repetition_penalty=0.1, normalization="tenth")):
        rewards = trajectory_rewards(trajectory, settings)
        assert len(rewards) == 3 and trajectory_rewards(audited, settings) == rewards
        for preset in ("paper", "released", "steer"):
            config = tcsr_config({"preset": preset})
            again = trajectory_return(trajectory_rewards(audited, settings), config)
            assert again == trajectory_return(rewards, config)


class Gated(Recorder):
    """A judge that thinks until it is let go; then it fails as it is told to."""

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__()
        self.gate, self.fault = asyncio.Event(), fault

    async def judge(self, exchange: TutorRequest) -> JudgeResult:
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return await super().judge(exchange)


async def test_no_question_waits_for_the_judge_and_the_record_does():
    judge = Gated()
    dialogue = Dialogue(SEED, ScriptedTutor(scored), holdout=judge)
    asked: UserTurn | None = dialogue.open()
    while asked is not None:
        asked = await asyncio.wait_for(dialogue.respond("words"), 5)
    assert judge.seen == []
    record = asyncio.ensure_future(dialogue.settled())
    await asyncio.sleep(0)
    assert not record.done()
    judge.gate.set()
    await record
    assert [isinstance(result.scores, JudgeScores) for result in dialogue.trajectory().audit] == [True] * 3


async def test_a_judge_that_raises_costs_the_dialogue_nothing():
    judge = Gated(RuntimeError("no judge today"))
    judge.gate.set()
    trajectory = await played(judge)
    assert trajectory.status is Status.COMPLETE and len(trajectory.scored) == 3
    for result in trajectory.audit:
        assert isinstance(result.scores, Unscored) and "no judge today" in result.scores.detail


async def test_an_abandoned_dialogue_has_no_audit_that_is_not_there():
    dialogue = Dialogue(SEED, ScriptedTutor(scored), holdout=Gated())
    dialogue.open()
    await dialogue.respond("words")
    dialogue.abandon()
    await asyncio.sleep(0)
    (result,) = [played.audit for played in dialogue._played]
    assert result is not None and result.cancelled()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_the_draw_is_stable_and_of_the_share(share):
    rng = random.Random(0)
    places = [(rng.randint(0, 500), f"seed-{rng.randint(0, 300)}", rng.randint(0, 4)) for _ in range(4000)]
    drawn = [draws(share, *place) for place in places]
    assert drawn == [draws(share, *place) for place in places]
    assert abs(sum(drawn) / len(drawn) - share) < 0.03
    assert all(draws(0.6, *place) for place, on in zip(places, drawn, strict=True) if on and share < 0.6)


def test_the_draw_is_the_same_in_every_process():
    assert [n for n in range(20) if draws(0.3, n, "seed-1", 0)] == [1, 7, 12, 14, 19]


async def test_without_facts_the_laboratorys_judge_gives_no_score():
    (result, *_) = (await played(MiniJudge())).audit
    assert isinstance(result.scores, Unscored) and "facts" in result.scores.detail
