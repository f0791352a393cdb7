"""``steer tutor replay``: what another tutor would have made of dialogues that were played and paid for already.

Every stored answer is judged again with the history as it was; nobody's next question changes. Dialogues are compared
where the other tutor scored every turn that the first one did, so that both rewards speak of the same turns; the
others are counted. The GRPO figures ask what the training would have learned: which member of a group is better, and
whose advantage changes its sign.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np

from steer_verl.config import RewardConfig, TcsrConfig
from steer_verl.eval.intervals import bootstrap, interval_dict
from steer_verl.rewards import trajectory_rewards
from steer_verl.rubric import AXES, BREACH_SAFETY
from steer_verl.tcsr import trajectory_return
from steer_verl.types import Seed, Trajectory, TurnVerdict, TutorRequest, Unscored, Verdict
from steer_verl.vetting.agreement import spearman

TIE = 1e-9
"""Returns and advantages closer than this are equal: sums of floats."""


def exchanges(trajectory: Trajectory) -> list[TutorRequest]:
    """Every turn of a dialogue as a tutor is shown it, without a hint: only the verdict is asked for.

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
    split = "val" if trajectory.validate_run else "train"
    place = f"replay/{split}/{trajectory.step}/{trajectory.seed_id}/{trajectory.rollout}"
    return [
        TutorRequest(
            seed=seed,
            turns=trajectory.turns[:number],
            user=turn.user,
            answer=turn.answer,
            static_next_turn=None,
            turn_key=f"{place}/{number + 1}",
        )
        for number, turn in enumerate(trajectory.turns)
    ]


def rejudged(trajectory: Trajectory, judgements: Sequence[TurnVerdict]) -> Trajectory:
    """The dialogue with these judgements of its turns in place of its own."""
    turns = tuple(
        turn.model_copy(update={"verdict": verdict}) for turn, verdict in zip(trajectory.turns, judgements, strict=True)
    )
    return trajectory.model_copy(update={"turns": turns})


@dataclass(frozen=True)
class Pair:
    """One dialogue under both tutors, over the turns that the first one scored."""

    group: tuple[bool, int, str]
    old: tuple[Verdict, ...]
    new: tuple[Verdict, ...]
    old_return: float
    """TCSR return in [0, 1], as is ``new_return``."""
    new_return: float

    def breached(self, threshold: float) -> tuple[bool, bool]:
        """Whether each tutor saw a breach anywhere in it."""
        old, new = (min(v.scores.safety for v in verdicts) <= threshold for verdicts in (self.old, self.new))
        return old, new


def paired(old: Trajectory, new: Trajectory, reward: RewardConfig, tcsr: TcsrConfig) -> Pair | None:
    """The dialogue for comparison; ``None`` when the first tutor scored nothing or the second left a gap."""
    kept = [n for n, turn in enumerate(old.turns) if isinstance(turn.verdict, Verdict)]
    first, second = (t.model_copy(update={"turns": tuple(t.turns[n] for n in kept)}) for t in (old, new))
    if not kept or len(second.scored) < len(kept):
        return None
    returns = [trajectory_return(trajectory_rewards(t, reward), tcsr) for t in (first, second)]
    return Pair((old.validate_run, old.step, old.uid), first.scored, second.scored, *returns)


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
    verdict = [[isinstance(turn.verdict, Verdict) for turn in t.turns] for t in (*old, *new)]
    lost = Counter(t.verdict.reason.value for d in new for t in d.turns if isinstance(t.verdict, Unscored))
    return {
        "dialogues": len(old),
        "compared": len(pairs),
        "turns": sum(len(trajectory.turns) for trajectory in old),
        "unscored_before": sum(row.count(False) for row in verdict[: len(old)]),
        "unscored_now": sum(lost.values()),
        "unscored_reasons": dict(lost),
        "scores": {axis: _axis(pairs, axis, seed) for axis in AXES},
        "return": _returns(pairs, seed),
        "breaches": _breaches(pairs, threshold),
        "groups": _groups(pairs),
    }


def _axis(pairs: Sequence[Pair], axis: str, seed: int) -> dict[str, Any]:
    """One score over the compared turns; the interval of the difference is drawn over dialogues."""

    def rows(pair: Pair) -> list[tuple[int, int]]:
        both = zip(pair.old, pair.new, strict=True)
        return [(getattr(a.scores, axis), getattr(b.scores, axis)) for a, b in both]

    scores = [rows(pair) for pair in pairs]
    flat = np.array([row for dialogue in scores for row in dialogue], dtype=float).reshape(-1, 2)
    sums_N2 = np.array([(sum(b - a for a, b in dialogue), len(dialogue)) for dialogue in scores], dtype=float).reshape(
        -1, 2
    )

    def difference(drawn_N: np.ndarray) -> float:
        above, below = sums_N2[drawn_N].sum(axis=0)
        return float(above / below)

    return {
        "before": float(flat[:, 0].mean()) if len(flat) else None,
        "now": float(flat[:, 1].mean()) if len(flat) else None,
        "difference": interval_dict(bootstrap(difference, len(pairs), seed)),
        "spearman": _known(spearman(flat[:, 0], flat[:, 1])),
        "equal_share": float((flat[:, 0] == flat[:, 1]).mean()) if len(flat) else None,
    }


def _returns(pairs: Sequence[Pair], seed: int) -> dict[str, Any]:
    old_N, new_N = (np.array([getattr(pair, name) for pair in pairs]) for name in ("old_return", "new_return"))
    difference_N = new_N - old_N
    return {
        "before": float(old_N.mean()) if len(pairs) else None,
        "now": float(new_N.mean()) if len(pairs) else None,
        "difference": interval_dict(bootstrap(lambda i_N: float(difference_N[i_N].mean()), len(pairs), seed)),
        "spearman": _known(spearman(old_N, new_N)),
    }


def _breaches(pairs: Sequence[Pair], threshold: float) -> dict[str, float]:
    counts = Counter(pair.breached(threshold) for pair in pairs)
    return {
        "threshold": threshold,
        "both": counts[True, True],
        "only_before": counts[True, False],
        "only_now": counts[False, True],
        "neither": counts[False, False],
    }


def _groups(pairs: Sequence[Pair]) -> dict[str, int]:
    """Over the groups (one step's rollouts of one prompt) with at least two compared members.

    ``swapped`` pairs change their order; ``tie_changed`` ones are equal under one tutor alone. ``best_changed`` groups
    have no best member in common. ``sign_changed`` members would have been pushed the other way: R - mean(R) of the
    group is positive under one tutor and negative under the other.
    """
    members: dict[tuple[bool, int, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        members[pair.group].append(pair)
    groups = [group for group in members.values() if len(group) > 1]
    figures = Counter({"groups": len(groups), "members": sum(map(len, groups))})
    for name in ("pairs", "swapped", "tie_changed", "best_changed", "sign_changed"):
        figures[name] = 0
    for group in groups:
        _compare_group(group, figures)
    return dict(figures)


def _compare_group(group: Sequence[Pair], figures: Counter[str]) -> None:
    both = [[pair.old_return for pair in group], [pair.new_return for pair in group]]
    for i, j in combinations(range(len(group)), 2):
        before, now = (_sign(returns[i] - returns[j]) for returns in both)
        figures["pairs"] += 1
        figures["swapped"] += before * now < 0
        figures["tie_changed"] += (before == 0) != (now == 0)
    best_before, best_now = ({i for i, r in enumerate(returns) if max(returns) - r < TIE} for returns in both)
    figures["best_changed"] += not best_before & best_now
    signs = ([_sign(r - fmean(returns)) for r in returns] for returns in both)
    figures["sign_changed"] += sum(a * b < 0 for a, b in zip(*signs, strict=True))


def _sign(value: float) -> int:
    return 0 if abs(value) < TIE else 1 if value > 0 else -1


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
