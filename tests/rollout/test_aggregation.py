"""Several batches a step (``parameter_sync_step`` > 1): verl combines our figures by the words in their names."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import fmean

import pytest

pytest.importorskip("verl")

from verl.trainer.ppo.v1.utils import MetricsAggregator

from steer_verl.config import AlarmConfig
from steer_verl.dashboard import time_metrics
from steer_verl.metrics import trajectory_metrics
from steer_verl.types import (
    AttackStrategy,
    DialogueKind,
    JudgeResult,
    JudgeScores,
    QuestionOrigin,
    Scores,
    StopReason,
    Trajectory,
    Turn,
    Unscored,
    UnscoredReason,
    Usage,
    UserTurn,
    Verdict,
)

TURNS = 4


def played(rng: random.Random, seed_id: str, benign: bool, lost: UnscoredReason | None) -> Trajectory:
    """A dialogue with everything that a figure is made of. Turns and tokens are alike, so that a mean over turns is one
    over dialogues."""
    turns = []
    for number in range(TURNS):
        judges = tuple(JudgeScores(judge=f"j{n}", safety=rng.randint(1, 10)) for n in range(3))
        scores = Scores(safety=rng.randint(1, 10), usefulness=rng.randint(1, 10), faithfulness=rng.randint(1, 10))
        verdict = Verdict(scores=scores, diagnosis="", judge_scores=judges)
        turns.append(
            Turn(
                user=UserTurn(text="?"),
                origin=rng.choice([QuestionOrigin.TUTOR, QuestionOrigin.FALLBACK]),
                strategy=rng.choice(list(AttackStrategy)),
                answer=f"answer {rng.random()}",
                answer_tokens=rng.randint(1, 9),
                truncated=rng.random() < 0.5,
                verdict=Unscored(reason=lost) if lost and number == 0 else verdict,
                tutor_seconds=rng.random(),
                student_seconds=rng.random(),
                own_seconds=rng.random(),
                prompt_tokens=100,
                cached_tokens=rng.randint(0, 100),
                usage=Usage(
                    requests=9,
                    rejected=rng.randint(0, 1),
                    prompt_tokens=50,
                    cached_tokens=rng.randint(0, 50),
                    completion_tokens=rng.randint(1, 9),
                    cost=rng.random(),
                ),
            )
        )
    return Trajectory(
        seed_id=seed_id,
        kind=DialogueKind.BENIGN if benign else DialogueKind.RED_TEAM,
        turns=tuple(turns),
        stop=rng.choice(list(StopReason)),
        audit=tuple(JudgeResult(scores=JudgeScores(judge="h", safety=rng.randint(1, 10))) for _ in turns),
    )


def batch(rng: random.Random, dialogues: int, reasons: Sequence[UnscoredReason]) -> list[Trajectory]:
    """As many benign seeds as others, and one lost turn for each reason."""
    lost = [*reasons, *[None] * (dialogues - len(reasons))]
    return [played(rng, f"s{rng.random()}", n % 2 == 0, lost[n]) for n in range(dialogues)]


def aggregated(batches: list[list[Trajectory]]) -> dict[str, float]:
    """As ``PPOTrainer.step`` combines a step's batches (trainer/ppo/v1/trainer_base.py:544-558)."""
    aggregator = MetricsAggregator()
    for part in batches:
        figures = {**trajectory_metrics(part), **time_metrics(part, None, 0.0)}
        aggregator.add_step_metrics(figures, sample_count=len(part))
    found: dict[str, float] = aggregator.get_aggregated_metrics()
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_batches_of_a_step_give_the_figures_of_all_their_dialogues(seed: int) -> None:
    """Batches of one composition: where a mean has fewer turns or dialogues under it, verl's weights do not know."""
    rng = random.Random(seed)
    reasons = rng.sample(list(UnscoredReason), 2)
    batches = [batch(rng, 8, reasons) for _ in range(3)]
    whole = [trajectory for part in batches for trajectory in part]
    wanted = {**trajectory_metrics(whole), **time_metrics(whole, None, 0.0)}
    found = aggregated(batches)
    assert found.keys() == wanted.keys()
    per_attempt = "steer/tutor/rejected_share"  # of attempts, which differ
    for name in sorted(wanted.keys() - {per_attempt}):
        if "safety" in name or "usefulness" in name or "faithfulness" in name or "score_share" in name:
            continue  # over scored turns: below
        assert found[name] == pytest.approx(wanted[name]), name


@pytest.mark.parametrize("sizes", [(8, 8, 8), (4, 8, 12)])
def test_sums_and_extremes_are_exact_and_means_weigh_dialogues(sizes: tuple[int, ...]) -> None:
    rng = random.Random(3)
    batches = [batch(rng, size, []) for size in sizes]
    whole, found = [trajectory for part in batches for trajectory in part], aggregated(batches)
    wanted, parts = trajectory_metrics(whole), [trajectory_metrics(part) for part in batches]
    exact = {"steer/total_dialogues", "steer/total_turns", "steer/tutor/total_cost", "steer/holdout/total_audited"}
    assert exact == {name for name in wanted if "total" in name}
    for name in (*exact, "steer/panel/disagreement_max", "steer/safety/worst_turn", "steer/safety/mean"):
        assert found[name] == pytest.approx(wanted[name]), name
    for name in wanted.keys() - exact - {"steer/panel/disagreement_max"}:
        weighted = sum(part[name] * size for part, size in zip(parts, sizes, strict=True)) / sum(sizes)
        assert found[name] == pytest.approx(weighted), name


def test_a_batch_without_a_reason_or_a_strategy_counts_as_a_share_of_zero() -> None:
    rng = random.Random(1)
    found = aggregated([batch(rng, 4, [UnscoredReason.TIMEOUT]), batch(rng, 4, [])])
    assert found["steer/unscored/timeout"] == pytest.approx(1 / (8 * TURNS))
    assert fmean(found[f"steer/strategy/{s.value}"] for s in AttackStrategy) == pytest.approx(1 / len(AttackStrategy))


def test_no_name_that_an_alarm_gives_is_read_as_an_extreme_or_a_sum() -> None:
    aggregator = MetricsAggregator()
    for name in AlarmConfig.model_fields:
        assert aggregator._get_aggregation_type(f"steer/alarm/{name}") == "weighted_avg", name
