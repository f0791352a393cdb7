"""Turn rewards: the range, the options of the configuration, and that what was not scored is never a number."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from steer_verl.config import REWARD_PRESETS, RewardConfig, ScoreWeights, tcsr_config
from steer_verl.errors import UnscoredError
from steer_verl.rewards import (
    repeated_trigram_share,
    trajectory_rewards,
    turn_reward,
    weighted_score,
)
from steer_verl.rubric import locked, most_useful
from steer_verl.tcsr import returns_to_go, shape_rewards, trajectory_return
from steer_verl.types import (
    DialogueKind,
    QuestionOrigin,
    Scores,
    StopReason,
    Trajectory,
    Turn,
    TurnVerdict,
    Unscored,
    UnscoredReason,
    UserTurn,
    Verdict,
)

GOOD_FORM = "<thinking>a red cube</thinking><answer>It is a red cube.</answer>"
BAD_FORM = "It is a red cube."
UNSCORED = Unscored(reason=UnscoredReason.TIMEOUT)


def verdict(safety: int, usefulness: int, faithfulness: int) -> Verdict:
    return Verdict(scores=Scores(safety=safety, usefulness=usefulness, faithfulness=faithfulness))


def played(*judgements: TurnVerdict, answer: str = GOOD_FORM) -> Trajectory:
    turns = tuple(
        Turn(user=UserTurn(text="What is it?"), origin=QuestionOrigin.STATIC, answer=answer, verdict=verdict)
        for verdict in judgements
    )
    return Trajectory(seed_id="s", kind=DialogueKind.RED_TEAM, turns=turns, stop=StopReason.COMPLETED)


def test_unit_fills_the_whole_range_and_tenth_does_not() -> None:
    unit, tenth = RewardConfig(), RewardConfig(normalization="tenth")
    assert turn_reward(verdict(1, 1, 1), "", unit) == 0.0
    assert turn_reward(verdict(10, 10, 10), "", unit) == 1.0
    assert turn_reward(verdict(1, 1, 1), "", tenth) == pytest.approx(0.1)
    assert turn_reward(verdict(10, 10, 10), "", tenth) == pytest.approx(1.0)


def test_weights_are_normalised_and_name_their_score() -> None:
    only_safety = ScoreWeights(safety=5, usefulness=0, faithfulness=0)
    assert weighted_score(Scores(safety=7, usefulness=1, faithfulness=1), only_safety) == 7
    default = weighted_score(Scores(safety=10, usefulness=5, faithfulness=1), ScoreWeights())
    assert default == pytest.approx(0.4 * 10 + 0.4 * 5 + 0.2 * 1)
    scaled = ScoreWeights(safety=8, usefulness=8, faithfulness=4)
    assert weighted_score(Scores(safety=10, usefulness=5, faithfulness=1), scaled) == pytest.approx(default)


@pytest.mark.parametrize("normalization", ["unit", "tenth"])
@pytest.mark.parametrize("form", ["off", "gate", "bonus"])
@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0])
def test_every_reward_is_in_the_unit_interval_and_rises_with_every_score(
    normalization: str, form: str, penalty: float
) -> None:
    config = RewardConfig(normalization=normalization, format=form, repetition_penalty=penalty)  # type: ignore[arg-type]
    for answer in (GOOD_FORM, BAD_FORM, "", "no no no " * 50):
        for scores in itertools.product((1, 4, 8, 10), repeat=3):
            reward = turn_reward(verdict(*scores), answer, config)
            assert 0 <= reward <= 1
            for axis in range(3):
                raised = tuple(10 if i == axis else s for i, s in enumerate(scores))
                assert turn_reward(verdict(*raised), answer, config) >= reward


def test_the_format_gates_or_counts_half() -> None:
    best = verdict(10, 10, 10)
    assert turn_reward(best, BAD_FORM, RewardConfig(format="off")) == 1
    assert turn_reward(best, BAD_FORM, RewardConfig(format="gate")) == 0
    assert turn_reward(best, GOOD_FORM, RewardConfig(format="gate")) == 1
    assert turn_reward(best, BAD_FORM, RewardConfig(format="bonus")) == 0.5
    assert turn_reward(verdict(1, 1, 1), GOOD_FORM, RewardConfig(format="bonus")) == 0.5


def test_preset_released_is_half_of_the_released_formula() -> None:
    """max(0, format + weighted / 10 - 0.2 * share) lies in [0, 2] (METHOD.md); ours is half of it."""
    config = RewardConfig(**REWARD_PRESETS["released"])
    for answer, form in ((GOOD_FORM, 1), (BAD_FORM, 0), ("go on and on " * 20, 0)):
        for scores in itertools.product((1, 6, 10), repeat=3):
            given = locked(verdict(*scores).scores)  # as the released rubric demands of its tutor
            weighted = 0.4 * given.safety + 0.4 * given.usefulness + 0.2 * given.faithfulness
            formula = max(0.0, form + weighted / 10 - 0.2 * repeated_trigram_share(answer))
            assert turn_reward(verdict(*scores), answer, config) == pytest.approx(formula / 2)


@pytest.mark.parametrize("safety", range(1, 11))
def test_no_tutors_score_earns_more_usefulness_than_its_safety_allows(safety: int) -> None:
    for usefulness in range(1, 11):
        earned = turn_reward(verdict(safety, usefulness, 10), GOOD_FORM, RewardConfig())
        kept = turn_reward(verdict(safety, min(usefulness, most_useful(safety)), 10), GOOD_FORM, RewardConfig())
        assert earned == kept


def test_repeated_trigrams() -> None:
    assert repeated_trigram_share("") == repeated_trigram_share("two words") == 0
    assert repeated_trigram_share("all words differ here today") == 0
    assert repeated_trigram_share("a b c a b c") == pytest.approx(1 / 4)  # abc bca cab abc
    assert repeated_trigram_share("no " * 102) == pytest.approx(0.99)
    assert repeated_trigram_share("Red cube here, red CUBE here,") == pytest.approx(1 / 4)
    assert repeated_trigram_share("\u6211\u4e0d\u77e5\u9053" * 30) == pytest.approx(114 / 118)  # no space between words
    assert repeated_trigram_share("\u8fd9\u662f\u4e00\u6735 red flower") == 0


def test_what_was_not_scored_is_never_a_number() -> None:
    with pytest.raises(UnscoredError, match="timeout"):
        turn_reward(UNSCORED, GOOD_FORM, RewardConfig())
    for lost in (played(verdict(10, 10, 10), UNSCORED), played(UNSCORED), played()):
        lost = lost.model_copy(update={"stop": StopReason.UNSCORED})
        assert trajectory_rewards(lost, RewardConfig()) == [], "no part of a lost dialogue is paid for"
    cut = played(verdict(10, 10, 10)).model_copy(update={"stop": StopReason.TOKEN_BUDGET})
    assert trajectory_rewards(cut, RewardConfig()) == [1.0], "the policy used up its own budget"
    with pytest.raises(UnscoredError):
        trajectory_return([], tcsr_config(None))


def test_the_scalar_is_the_mean_shaped_return_that_training_would_see() -> None:
    rng = random.Random(0)
    for shaping in ("prefix", "trajectory", "none"):
        for _ in range(200):
            rewards = [rng.random() for _ in range(rng.randint(1, 10))]
            config = tcsr_config({"shaping": shaping, "alpha": rng.random()})
            row, count = torch.tensor([rewards], dtype=torch.float64), torch.tensor([len(rewards)])
            wanted = returns_to_go(shape_rewards(row, count, config.alpha, shaping), count, "mean")[0, 0]
            assert trajectory_return(rewards, config) == pytest.approx(float(wanted), abs=1e-12)
    assert trajectory_return([1.0] * 4, tcsr_config({"preset": "paper"})) == 1.0
