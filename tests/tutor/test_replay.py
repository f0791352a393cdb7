"""Replaying stored dialogues with another tutor: exact where it agrees, and every change is counted."""

from __future__ import annotations

import random
from statistics import fmean

import pytest
from rich.console import Console

from steer_verl.cli.tutor_reports import print_replay
from steer_verl.config import RewardConfig, TcsrConfig
from steer_verl.rewards import trajectory_rewards
from steer_verl.tcsr import trajectory_return
from steer_verl.tutor.replay import rejudged, report, requests
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

LOST = Unscored(reason=UnscoredReason.BAD_JSON)
REWARD, TCSR = RewardConfig(), TcsrConfig()


def scored(safety: int) -> Verdict:
    return Verdict(scores=Scores(safety=safety, usefulness=safety, faithfulness=safety))


def played(*safety: int | None, uid: str = "u", rollout: int = 0) -> Trajectory:
    """A dialogue with these scores; ``None`` is an unscored turn."""
    turns = tuple(
        Turn(
            user=UserTurn(text="<image>question 1", images=("x.png",)) if n == 1 else UserTurn(text=f"question {n}"),
            origin=QuestionOrigin.SEED,
            answer=f"answer {n} of {uid}{rollout}",
            verdict=LOST if s is None else scored(s),
        )
        for n, s in enumerate(safety, 1)
    )
    return Trajectory(
        seed_id=f"seed {uid}",
        kind=DialogueKind.OBFUSCATED,
        facts={"colour": "red"},
        turns=turns,
        stop=StopReason.COMPLETED,
        step=3,
        uid=uid,
        rollout=rollout,
    )


def again(old: Trajectory, *safety: int | None) -> Trajectory:
    return rejudged(old, [LOST if s is None else scored(s) for s in safety])


def compared(pairs: list[tuple[Trajectory, Trajectory]]) -> dict:
    return report([old for old, _ in pairs], [new for _, new in pairs], REWARD, TCSR)


def test_the_requests_are_those_of_the_dialogue() -> None:
    trajectory = played(10, 8, 1)
    asked = requests(trajectory)
    assert [len(e.turns) for e in asked] == [0, 1, 2] and all(e.static_next_turn is None for e in asked)
    assert [e.answer for e in asked] == [turn.answer for turn in trajectory.turns]
    assert asked[2].turns == trajectory.turns[:2] and asked[2].user == trajectory.turns[2].user
    assert {(e.seed.id, e.seed.kind, e.seed.facts["colour"]) for e in asked} == {
        ("seed u", DialogueKind.OBFUSCATED, "red")
    }
    assert asked[0].seed.turns[0].images == ("x.png",)  # so that the form of the prompt is the one of the training
    assert len(requests(played(10))) == 1 and requests(played()) == []


def test_the_same_scores_change_nothing() -> None:
    rng = random.Random(0)
    old = [played(*[rng.randint(1, 10) for _ in range(3)], uid=str(n // 4), rollout=n) for n in range(16)]
    figures = compared([(t, t) for t in old])
    assert figures["return"]["difference"] == {"value": 0, "low": None, "high": None}, "equal draws prove nothing"
    assert figures["return"]["spearman"] == pytest.approx(1)
    assert figures["groups"]["groups"] == 4 and figures["groups"]["pairs"] == 24
    assert all(figures["groups"][name] == 0 for name in ("swapped", "tie_changed", "best_changed", "sign_changed"))
    assert figures["breaches"]["only_before"] == figures["breaches"]["only_now"] == 0
    assert all(axis["equal_share"] == 1 for axis in figures["scores"].values())


def test_a_stricter_tutor() -> None:
    old = [played(10, 8), played(4, 10, rollout=1)]
    figures = compared([(old[0], again(old[0], 4, 8)), (old[1], again(old[1], 1, 10))])
    safety = figures["scores"]["safety"]
    assert safety["before"] == 8 and safety["now"] == 5.75 and safety["difference"]["value"] == -2.25
    assert safety["equal_share"] == 0.5
    assert figures["breaches"] == {"threshold": 4, "both": 1, "only_before": 0, "only_now": 1, "neither": 0}
    expected = fmean(
        trajectory_return(trajectory_rewards(t, REWARD), TCSR) for t in (again(old[0], 4, 8), again(old[1], 1, 10))
    )
    assert figures["return"]["now"] == pytest.approx(expected)


def test_groups_that_swap_tie_and_change_their_sign() -> None:
    def group(uid: str, *pairs: tuple[int, int]) -> list[tuple[Trajectory, Trajectory]]:
        members = [(played(a, a, uid=uid, rollout=n), b) for n, (a, b) in enumerate(pairs)]
        return [(old, again(old, b, b)) for old, b in members]

    def counts(*groups: list[tuple[Trajectory, Trajectory]]) -> tuple[int, ...]:
        found = compared([pair for group in groups for pair in group])["groups"]
        return tuple(found[n] for n in ("groups", "pairs", "swapped", "tie_changed", "best_changed", "sign_changed"))

    swap, tie, alone = group("a", (9, 2), (5, 6)), group("b", (9, 5), (7, 5), (1, 1)), group("c", (9, 1))
    assert counts(swap) == (1, 1, 1, 0, 1, 2)
    assert counts(tie) == (1, 3, 0, 1, 0, 0)  # the best before is still among the best
    assert counts(alone) == (0, 0, 0, 0, 0, 0)
    assert counts(swap, tie, alone) == (2, 4, 1, 1, 1, 2)


@pytest.mark.parametrize("seed", range(10))
def test_group_figures_equal_a_slow_twin(seed: int) -> None:
    rng = random.Random(seed)
    old = [played(rng.randint(1, 4), rng.randint(1, 4), rollout=n) for n in range(6)]
    new = [again(t, rng.randint(1, 4), rng.randint(1, 4)) for t in old]

    def returns(trajectories: list[Trajectory]) -> list[float]:
        return [round(trajectory_return(trajectory_rewards(t, REWARD), TCSR), 9) for t in trajectories]

    a, b = returns(old), returns(new)
    swapped = sum((a[i] - a[j]) * (b[i] - b[j]) < 0 for i in range(6) for j in range(i))
    ties = sum((a[i] == a[j]) != (b[i] == b[j]) for i in range(6) for j in range(i))
    best = not {i for i in range(6) if a[i] == max(a)} & {i for i in range(6) if b[i] == max(b)}
    signs = sum(round(x - fmean(a), 8) * round(y - fmean(b), 8) < 0 for x, y in zip(a, b, strict=True))
    found = compared(list(zip(old, new, strict=True)))["groups"]
    assert (found["swapped"], found["tie_changed"], found["best_changed"], found["sign_changed"]) == (
        swapped,
        ties,
        best,
        signs,
    )


def test_unscored_turns_are_counted_and_never_compared() -> None:
    whole, gap, torn, lost = (
        played(10, 10),
        played(10, 10, uid="v"),
        played(10, None, uid="w"),
        played(None, uid="x"),
    )
    torn = torn.model_copy(update={"stop": StopReason.UNSCORED})  # as training leaves it
    figures = compared(
        [(whole, again(whole, 10, 10)), (gap, again(gap, 1, None)), (torn, again(torn, 10, 3)), (lost, lost)]
    )
    assert (figures["dialogues"], figures["compared"]) == (4, 2)  # whole, and the scored turn of torn
    assert (figures["unscored_before"], figures["unscored_now"]) == (2, 2)
    assert figures["unscored_reasons"] == {"bad_json": 2}
    assert figures["scores"]["safety"]["before"] == figures["scores"]["safety"]["now"] == 10


def test_nothing_to_compare_is_null_and_not_a_number() -> None:
    lost = played(None, uid="x")
    figures = compared([(lost, lost)])
    assert figures["return"]["before"] is None and figures["scores"]["safety"]["difference"]["value"] is None


def test_a_verdict_too_few_is_refused() -> None:
    verdicts: list[TurnVerdict] = [scored(1)]
    with pytest.raises(ValueError, match="zip"):
        rejudged(played(1, 2), verdicts)


def test_no_change_is_printed_without_an_interval(capsys: pytest.CaptureFixture[str]) -> None:
    same = played(3, 7, uid="a", rollout=0)
    print_replay(compared([(same, same)]), Console())
    assert "+0.000" in capsys.readouterr().out
