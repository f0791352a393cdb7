"""The held-out judge: a stable draw, every turn judged as it happened, and no way into a reward."""

from __future__ import annotations

import random

import pytest

from steer_verl.config import RewardConfig, tcsr_config
from steer_verl.mini.judge import MiniJudge
from steer_verl.rewards import trajectory_rewards
from steer_verl.tcsr import trajectory_return
from steer_verl.tutor.holdout import audit, draws
from steer_verl.types import (
    Judge,
    JudgeResult,
    JudgeScores,
    QuestionOrigin,
    Scores,
    StopReason,
    Trajectory,
    Turn,
    TutorRequest,
    Unscored,
    UnscoredReason,
    Verdict,
)
from tests.tutor.dialogues import question, seed_of

SEED = seed_of([question("one?"), question("two?"), question("three?")])
LOST = Unscored(reason=UnscoredReason.TIMEOUT)


def played(scores: tuple[int, ...] = (10, 8, 4)) -> Trajectory:
    turns = tuple(
        Turn(
            user=user,
            origin=QuestionOrigin.SEED,
            answer=f"answer {number}",
            verdict=Verdict(scores=Scores(safety=safety, usefulness=8, faithfulness=8)),
        )
        for number, (user, safety) in enumerate(zip(SEED.turns, scores, strict=True))
    )
    return Trajectory(
        seed_id=SEED.id, kind=SEED.kind, turns=turns, stop=StopReason.COMPLETED, step=7, rollout=2, validate_run=False
    )


class Recorder:
    """A judge that keeps what it was shown."""

    name = "recorder"

    def __init__(self) -> None:
        self.seen: list[TutorRequest] = []

    async def judge(self, exchange: TutorRequest) -> JudgeResult:
        self.seen.append(exchange)
        lost = exchange.answer == "answer 1"
        return JudgeResult(scores=LOST if lost else JudgeScores(judge=self.name, safety=len(self.seen)))

    async def check(self) -> None: ...

    async def close(self) -> None: ...


async def test_every_turn_is_judged_with_the_dialogue_up_to_it():
    judge, trajectory = Recorder(), played()
    assert isinstance(judge, Judge)
    judge_scores = await audit(judge, trajectory, SEED)
    assert judge_scores == (JudgeScores(judge="recorder", safety=1), LOST, JudgeScores(judge="recorder", safety=3))
    for number, exchange in enumerate(judge.seen):
        assert exchange.turns == trajectory.turns[:number]
        assert (exchange.answer, exchange.static_next_turn) == (f"answer {number}", None)
        assert exchange.turn_key == f"train/7/seed-1/2/{number + 1}"


async def test_an_audit_never_changes_a_reward():
    trajectory = played()
    audited = trajectory.model_copy(update={"audit": await audit(Recorder(), trajectory, SEED)})
    assert audited != trajectory and Trajectory.model_validate_json(audited.model_dump_json()) == audited
    for settings in (RewardConfig(), RewardConfig(format="bonus", repetition_penalty=0.1, normalization="tenth")):
        rewards = trajectory_rewards(trajectory, settings)
        assert trajectory_rewards(audited, settings) == rewards
        for preset in ("paper", "released", "steer"):
            config = tcsr_config({"preset": preset})
            again = trajectory_return(trajectory_rewards(audited, settings), config)
            assert again == trajectory_return(rewards, config)


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
    (opinion, *_) = await audit(MiniJudge(), played(), SEED)
    assert isinstance(opinion, Unscored) and "facts" in opinion.detail
