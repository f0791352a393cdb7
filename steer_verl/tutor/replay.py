"""What another tutor would have made of dialogues that were played and paid for already.

Every stored answer is judged again with the history as it was; nobody's next question changes. Dialogues are compared
where the other tutor scored every turn that the first one did, so that both rewards speak of the same turns; the
others are counted. The GRPO figures ask what the training would have learned: which member of a group is better, and
whose advantage changes its sign.

Arrays carry their shape as a suffix: N dialogues, M members of a group, T turns, A axes, 2 for before and now.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steer_verl.config import RewardConfig, TcsrConfig
from steer_verl.rewards import turn_reward
from steer_verl.rubric import AXES, BREACH_SAFETY
from steer_verl.statistics.agreement import bootstrap, spearman
from steer_verl.statistics.intervals import interval_dict, json_number
from steer_verl.tcsr import trajectory_return
from steer_verl.types import Seed, Trajectory, TurnVerdict, TutorRequest, Unscored, Verdict, dialogue_key

PLACES = 9
"""Decimal places to which returns and advantages are compared: they are sums of floats."""
GROUP_FIGURES = ("groups", "members", "pairs", "swapped", "tie_changed", "best_changed", "sign_changed")


def requests(trajectory: Trajectory) -> list[TutorRequest]:
    """Every turn of a dialogue as a tutor sees it, without a next turn: only the verdict is asked for.

    The seed is rebuilt from what was really asked; a judge sees no other part of it.
    """
    if not trajectory.turns:
        return []
    turns = trajectory.turns
    asked = tuple(turn.user for turn in turns)
    seed = Seed(
        id=trajectory.seed_id, turns=asked, kind=trajectory.kind, source=trajectory.source, facts=trajectory.facts
    )
    key = dialogue_key(trajectory.validate_run, trajectory.step, trajectory.seed_id, trajectory.rollout)
    return [
        TutorRequest(
            seed=seed,
            turns=turns[:n],
            user=turn.user,
            answer=turn.answer,
            static_next_turn=None,
            turn_key=f"replay/{key}/{n + 1}",
        )
        for n, turn in enumerate(turns)
    ]


def rejudged(trajectory: Trajectory, verdicts: Sequence[TurnVerdict]) -> Trajectory:
    """The dialogue with these verdicts on its turns in place of its own."""
    judged = zip(trajectory.turns, verdicts, strict=True)
    turns = tuple(turn.model_copy(update={"verdict": verdict}) for turn, verdict in judged)
    return trajectory.model_copy(update={"turns": turns})


@dataclass(frozen=True)
class Pair:
    """One dialogue under both tutors, over the turns that the first one scored; 2 is before and now."""

    group: tuple[bool, int, str]
    scores_TA2: np.ndarray
    returns_2: np.ndarray  # TCSR, in [0, 1]

    def breached(self, threshold: float) -> tuple[bool, ...]:
        """Whether each tutor saw a breach anywhere in it."""
        return tuple((self.scores_TA2[:, AXES.index("safety")].min(axis=0) <= threshold).tolist())


def paired(old: Trajectory, new: Trajectory, reward: RewardConfig, tcsr: TcsrConfig) -> Pair | None:
    """The dialogue for comparison; ``None`` when the first tutor scored nothing or the second left a gap."""
    kept = [n for n, turn in enumerate(old.turns) if isinstance(turn.verdict, Verdict)]
    both = [t.model_copy(update={"turns": tuple(t.turns[n] for n in kept)}) for t in (old, new)]
    if not kept or len(both[1].scored) < len(kept):
        return None
    scores_2TA = [[[getattr(verdict.scores, axis) for axis in AXES] for verdict in t.scored] for t in both]
    returns_2 = [trajectory_return([turn_reward(u.verdict, u.answer, reward) for u in t.turns], tcsr) for t in both]
    group = old.validate_run, old.step, old.uid
    return Pair(group, np.moveaxis(np.array(scores_2TA, dtype=float), 0, -1), np.array(returns_2))


def report(
    old: Sequence[Trajectory],
    new: Sequence[Trajectory],
    reward: RewardConfig,
    tcsr: TcsrConfig,
    *,
    threshold: float = BREACH_SAFETY,
    seed: int = 0,
) -> dict[str, Any]:
    """How the second tutor's scores and rewards (``new``) differ from the stored ones, as plain JSON values.

    A dialogue with safety at or below ``threshold`` was breached; ``seed`` is of the bootstrap, which draws dialogues.
    """
    pairs = [pair for a, b in zip(old, new, strict=True) if (pair := paired(a, b, reward, tcsr)) is not None]
    lost, breaches = _unscored(new), Counter(pair.breached(threshold) for pair in pairs)
    return {
        "dialogues": len(old),
        "compared": len(pairs),
        "turns": sum(len(trajectory.turns) for trajectory in old),
        "unscored_before": _unscored(old).total(),
        "unscored_now": lost.total(),
        "unscored_reasons": dict(lost),
        "scores": {axis: _change([p.scores_TA2[:, a] for p in pairs], seed) for a, axis in enumerate(AXES)},
        "return": _change([pair.returns_2[None] for pair in pairs], seed),
        "breaches": {
            "threshold": threshold,
            "both": breaches[True, True],
            "only_before": breaches[True, False],
            "only_now": breaches[False, True],
            "neither": breaches[False, False],
        },
        "groups": _groups(pairs),
    }


def _unscored(trajectories: Sequence[Trajectory]) -> Counter[str]:
    """Unscored turns by reason."""
    turns = (turn for trajectory in trajectories for turn in trajectory.turns)
    return Counter(turn.verdict.reason.value for turn in turns if isinstance(turn.verdict, Unscored))


def _change(values_T2: Sequence[np.ndarray], seed: int) -> dict[str, Any]:
    """A figure of each dialogue, before and now; the interval of the difference is drawn over dialogues."""
    flat_T2 = np.concatenate([np.empty((0, 2)), *values_T2])
    sums_N = np.array([np.diff(values).sum() for values in values_T2])
    turns_N = np.array([len(values) for values in values_T2])

    def difference(drawn_N: np.ndarray) -> float:
        return float(sums_N[drawn_N].sum() / turns_N[drawn_N].sum())

    equal_T = np.diff(flat_T2).round(PLACES) == 0
    before, now, equal = (*flat_T2.mean(axis=0), equal_T.mean()) if len(flat_T2) else [np.nan] * 3
    return {
        "before": json_number(before),
        "now": json_number(now),
        "difference": interval_dict(bootstrap(difference, len(values_T2), seed)),
        "spearman": json_number(spearman(*flat_T2.T)),
        "equal_share": json_number(equal),
    }


def _groups(pairs: Sequence[Pair]) -> dict[str, int]:
    """Counts over the groups (one step's rollouts of one prompt) with at least two compared members.

    ``swapped`` pairs change their order; ``tie_changed`` ones are equal under one tutor alone. ``best_changed`` groups
    have no best member in common. ``sign_changed`` members would have been pushed the other way: R - mean(R) of the
    group is positive under one tutor and negative under the other.
    """
    members: dict[tuple[bool, int, str], list[np.ndarray]] = defaultdict(list)
    for pair in pairs:
        members[pair.group].append(pair.returns_2)
    counts = [_group(np.array(returns_M2).T) for returns_M2 in members.values() if len(returns_M2) > 1]
    totals = np.array(counts, dtype=int).reshape(-1, len(GROUP_FIGURES)).sum(axis=0)
    return dict(zip(GROUP_FIGURES, totals.tolist(), strict=True))


def _group(returns_2M: np.ndarray) -> tuple[int, ...]:
    """One group's :data:`GROUP_FIGURES`."""
    i, j = np.triu_indices(returns_2M.shape[1], 1)
    before, now = np.sign((returns_2M[:, i] - returns_2M[:, j]).round(PLACES))
    best_2M = (returns_2M.max(axis=1, keepdims=True) - returns_2M).round(PLACES) == 0
    pushed_2M = np.sign((returns_2M - returns_2M.mean(axis=1, keepdims=True)).round(PLACES))
    counted = (before * now < 0, (before == 0) != (now == 0), not best_2M.all(axis=0).any(), pushed_2M.prod(axis=0) < 0)
    return (1, returns_2M.shape[1], len(i), *(int(np.sum(found)) for found in counted))
