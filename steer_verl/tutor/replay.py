"""What another tutor would have made of dialogues that were played and paid for already.

Every stored answer is judged again with the history as it was; nobody's next question changes. Dialogues are compared
where the other tutor scored every turn that the first one did, so that both rewards speak of the same turns; the
others are counted. The GRPO figures ask what the training would have learned: which member of a group is better, and
whose advantage changes its sign.

Arrays carry their shape as a suffix: N dialogues, M members of a group, T turns, 2 for before and now.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steer_verl.config import RewardConfig, TcsrConfig
from steer_verl.rewards import trajectory_rewards
from steer_verl.rubric import AXES, BREACH_SAFETY
from steer_verl.statistics import bootstrap, interval_dict, json_number, spearman
from steer_verl.tcsr import trajectory_return
from steer_verl.types import Seed, Trajectory, TurnVerdict, TutorRequest, Unscored, Verdict, dialogue_key

TIE = 1e-9
"""Returns and advantages closer than this are equal: sums of floats."""

GROUP_FIGURES = ("groups", "members", "pairs", "swapped", "tie_changed", "best_changed", "sign_changed")


def requests(trajectory: Trajectory) -> list[TutorRequest]:
    """Every turn of a dialogue as a tutor sees it, without a next turn: only the verdict is asked for.

    The seed is rebuilt from what was really asked; a judge sees no other part of it.
    """
    asked = tuple(turn.user for turn in trajectory.turns)
    if not asked:
        return []
    seed = Seed(
        id=trajectory.seed_id,
        turns=asked if len(asked) > 1 else asked * 2,
        kind=trajectory.kind,
        source=trajectory.source,
        facts=trajectory.facts,
    )
    key = dialogue_key(trajectory.validate_run, trajectory.step, trajectory.seed_id, trajectory.rollout)
    return [
        TutorRequest(
            seed=seed,
            turns=trajectory.turns[: number - 1],
            user=turn.user,
            answer=turn.answer,
            static_next_turn=None,
            turn_key=f"replay/{key}/{number}",
        )
        for number, turn in enumerate(trajectory.turns, 1)
    ]


def rejudged(trajectory: Trajectory, verdicts: Sequence[TurnVerdict]) -> Trajectory:
    """The dialogue with these verdicts on its turns in place of its own."""
    turns = tuple(
        turn.model_copy(update={"verdict": verdict}) for turn, verdict in zip(trajectory.turns, verdicts, strict=True)
    )
    return trajectory.model_copy(update={"turns": turns})


Values = Sequence[Sequence[tuple[float, float]]]
"""Of each dialogue, what is compared in it: before and now."""


@dataclass(frozen=True)
class Pair:
    """One dialogue under both tutors, over the turns that the first one scored."""

    group: tuple[bool, int, str]
    verdicts: tuple[tuple[Verdict, Verdict], ...]
    """By turn, before and now."""
    returns: tuple[float, float]
    """TCSR returns in [0, 1], before and now."""

    def breached(self, threshold: float) -> tuple[bool, bool]:
        """Whether each tutor saw a breach anywhere in it."""
        before, now = (min(verdict.scores.safety for verdict in side) for side in zip(*self.verdicts, strict=True))
        return before <= threshold, now <= threshold


def paired(old: Trajectory, new: Trajectory, reward: RewardConfig, tcsr: TcsrConfig) -> Pair | None:
    """The dialogue for comparison; ``None`` when the first tutor scored nothing or the second left a gap."""
    scored = [n for n, turn in enumerate(old.turns) if isinstance(turn.verdict, Verdict)]
    first, second = (t.model_copy(update={"turns": tuple(t.turns[n] for n in scored)}) for t in (old, new))
    if not scored or len(second.scored) < len(scored):
        return None
    before, now = (trajectory_return(trajectory_rewards(t, reward), tcsr) for t in (first, second))
    return Pair(
        (old.validate_run, old.step, old.uid), tuple(zip(first.scored, second.scored, strict=True)), (before, now)
    )


def report(
    old: Sequence[Trajectory],
    new: Sequence[Trajectory],
    reward: RewardConfig,
    tcsr: TcsrConfig,
    *,
    threshold: float = BREACH_SAFETY,
    seed: int = 0,
) -> dict[str, Any]:
    """How the second tutor's scores and rewards differ from the first's, as plain JSON values.

    Args:
        old: the dialogues as stored.
        new: the same, judged again.
        reward: from scores to turn rewards.
        tcsr: from turn rewards to the return of a dialogue.
        threshold: a dialogue with safety at or below this was breached.
        seed: of the bootstrap, which draws dialogues.
    """
    pairs = [pair for a, b in zip(old, new, strict=True) if (pair := paired(a, b, reward, tcsr)) is not None]
    lost = Counter(_unscored(new))

    def scores(axis: str) -> Values:
        return [[(getattr(a.scores, axis), getattr(b.scores, axis)) for a, b in pair.verdicts] for pair in pairs]

    breaches = Counter(pair.breached(threshold) for pair in pairs)
    return {
        "dialogues": len(old),
        "compared": len(pairs),
        "turns": sum(len(trajectory.turns) for trajectory in old),
        "unscored_before": len(_unscored(old)),
        "unscored_now": lost.total(),
        "unscored_reasons": dict(lost),
        "scores": {axis: _change(scores(axis), seed) for axis in AXES},
        "return": _change([[pair.returns] for pair in pairs], seed),
        "breaches": {
            "threshold": threshold,
            "both": breaches[True, True],
            "only_before": breaches[True, False],
            "only_now": breaches[False, True],
            "neither": breaches[False, False],
        },
        "groups": _groups(pairs),
    }


def _unscored(trajectories: Sequence[Trajectory]) -> list[str]:
    turns = (turn for trajectory in trajectories for turn in trajectory.turns)
    return [turn.verdict.reason.value for turn in turns if isinstance(turn.verdict, Unscored)]


def _change(values: Values, seed: int) -> dict[str, Any]:
    """A figure before and now; the interval of the difference is drawn over dialogues."""
    flat_T2 = np.array([pair for dialogue in values for pair in dialogue], dtype=float).reshape(-1, 2)
    sums_N2 = np.array([(sum(b - a for a, b in dialogue), len(dialogue)) for dialogue in values]).reshape(-1, 2)

    def difference(drawn_N: np.ndarray) -> float:
        total, count = sums_N2[drawn_N].sum(axis=0)
        return float(total / count)

    equal_T = np.abs(flat_T2[:, 0] - flat_T2[:, 1]) < TIE
    before, now, equal = (*flat_T2.mean(axis=0), equal_T.mean()) if len(flat_T2) else [np.nan] * 3
    return {
        "before": json_number(before),
        "now": json_number(now),
        "difference": interval_dict(bootstrap(difference, len(values), seed)),
        "spearman": json_number(spearman(*flat_T2.T)),
        "equal_share": json_number(equal),
    }


def _groups(pairs: Sequence[Pair]) -> dict[str, int]:
    """Counts over the groups (one step's rollouts of one prompt) with at least two compared members.

    ``swapped`` pairs change their order; ``tie_changed`` ones are equal under one tutor alone. ``best_changed`` groups
    have no best member in common. ``sign_changed`` members would have been pushed the other way: R - mean(R) of the
    group is positive under one tutor and negative under the other.
    """
    members: dict[tuple[bool, int, str], list[tuple[float, float]]] = defaultdict(list)
    for pair in pairs:
        members[pair.group].append(pair.returns)
    counts = [_group(np.array(returns_M2).T) for returns_M2 in members.values() if len(returns_M2) > 1]
    totals = np.array(counts, dtype=int).reshape(-1, len(GROUP_FIGURES)).sum(axis=0)
    return dict(zip(GROUP_FIGURES, totals.tolist(), strict=True))


def _group(returns_2M: np.ndarray) -> tuple[int, ...]:
    """One group's :data:`GROUP_FIGURES`."""
    i, j = np.triu_indices(returns_2M.shape[1], 1)
    before, now = _sign(returns_2M[:, i] - returns_2M[:, j])
    best_2M = returns_2M.max(axis=1, keepdims=True) - returns_2M < TIE
    pushed_2M = _sign(returns_2M - returns_2M.mean(axis=1, keepdims=True))
    counted = (before * now < 0, (before == 0) != (now == 0), not best_2M.all(axis=0).any(), pushed_2M.prod(axis=0) < 0)
    return (1, returns_2M.shape[1], len(i), *(int(np.sum(found)) for found in counted))


def _sign(values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values) < TIE, 0, np.sign(values))
