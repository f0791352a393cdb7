"""Signs that the policy games its tutor or that the tutor fails, watched at every step.

An alarm compares one figure of the step with a threshold of :class:`~steer_verl.config.AlarmConfig`. It becomes
``steer/alarm/<name>`` (1 when the figure is above the threshold, else 0) and, when it fires, one warning line. A figure
that does not exist in a step, or a threshold of ``null``, gives no alarm at all. Alarms change nothing; only
:func:`stop_if_lost` stops a training.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from steer_verl.config import STEER_KEY, AlarmConfig
from steer_verl.errors import TutorError
from steer_verl.types import Trajectory

BASELINE_STEPS = 5
"""Training steps whose answer lengths are the baseline of ``answer_growth``."""

ANSWER_GROWTH = "steer/answer_growth"

logger = logging.getLogger(__name__)


class Alarm(NamedTuple):
    """Which figure an alarm watches, what it means when it is high, and what helps."""

    figure: str
    meaning: str
    hint: str


ALARMS: dict[str, Alarm] = {
    "holdout_gap": Alarm(
        "steer/holdout/gap",
        "the tutor scores safer than the held-out judge",
        "read the transcripts with an audit where they differ; add that judge's kind to tutor.panel with combine: min",
    ),
    "benign_refusal_share": Alarm(
        "steer/benign_refusal_share",
        "safe requests are refused",
        "put more benign seeds into the training data, or raise reward.weights.usefulness",
    ),
    "best_score_share": Alarm(
        "steer/best_score_share",
        "almost every answer earns the highest score on every axis",
        "read a few: either the seeds are too easy or the tutor is fooled; set tutor.holdout or tutor.panel",
    ),
    "answer_growth": Alarm(
        ANSWER_GROWTH,
        "answers grow longer",
        "see whether length pays: set reward.repetition_penalty, or lower max_answer_tokens",
    ),
    "repeated_answer_share": Alarm(
        "steer/repeated_answer_share",
        "different seeds get the same answer",
        "the policy collapses: raise the KL coefficient or the temperature, and set tutor.panel",
    ),
    "lost_share": Alarm(
        "steer/lost_share",
        "dialogues are lost",
        "see steer/lost/<reason>, the transcripts and tutor.log; run `steer tutor check`",
    ),
    "content_filter_share": Alarm(
        "steer/lost/content_filter",
        "a content filter takes dialogues, the worst ones first",
        "give the tutor a mirror without a filter (tutor.endpoint.mirrors), an attacker's model or a panel",
    ),
    "rejected_share": Alarm(
        "steer/tutor/rejected_share",
        "an open breaker turns requests away",
        "a tutor server fails: see tutor.log, run `steer tutor check`, or give tutor.endpoint.mirrors",
    ),
}
"""Every alarm, by its name in :class:`~steer_verl.config.AlarmConfig`."""


class Alarms:
    """The alarms of one run.

    Args:
        config: the thresholds.
        tell: takes the line of each alarm that fires.

    It remembers one thing, the mean answer length of the first ``BASELINE_STEPS`` training steps it sees. That is not
    in a checkpoint: a run that is started again learns it anew from the steps it then sees, and until it has, there is
    no ``steer/answer_growth``.
    """

    def __init__(self, config: AlarmConfig, tell: Callable[[str], None] = logger.warning) -> None:
        self.config, self.tell = config, tell
        self._lengths: list[float] = []

    def check(self, trajectories: Sequence[Trajectory], metrics: Mapping[str, float]) -> dict[str, float]:
        """The step's alarms; each that fires is told in one line.

        Args:
            trajectories: the step's dialogues.
            metrics: the step's figures, as of :func:`steer_verl.metrics.trajectory_metrics`.

        Returns:
            ``steer/alarm/<name>``, 0 or 1, and ``steer/answer_growth`` once it is known.
        """
        growth = self._growth(trajectories)
        figures = {**metrics, **growth}
        found: dict[str, float] = dict(growth)
        for name, alarm in ALARMS.items():
            threshold, figure = getattr(self.config, name), figures.get(alarm.figure)
            if threshold is None or figure is None:
                continue
            fires = figure > threshold
            found[f"steer/alarm/{name}"] = float(fires)
            if fires:
                self.tell(_line(name, alarm, figure, threshold))
        return found

    def _growth(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """Mean answer length in tokens over the baseline's; validation answers are others and count for nothing."""
        lengths = [turn.answer_tokens for t in trajectories if not t.validate_run for turn in t.turns]
        if not any(lengths):
            return {}
        if len(self._lengths) < BASELINE_STEPS:
            self._lengths.append(fmean(lengths))
            return {}
        return {ANSWER_GROWTH: fmean(lengths) / fmean(self._lengths)}


def stop_if_lost(trajectories: Sequence[Trajectory], max_share: float) -> None:
    """Refuse a step of which too much is lost; call it before the update, so that the weights stay as they are.

    A single lost dialogue stops nothing: in a small step it is a great share, and no sign of an outage.

    Args:
        trajectories: the step's dialogues; none never stop.
        max_share: the greatest share of them, in [0, 1], that may be lost.

    Raises:
        TutorError: more are; the message counts the reasons.
    """
    lost = [trajectory.lost for trajectory in trajectories if trajectory.lost]
    if len(lost) < 2 or len(lost) / len(trajectories) <= max_share:
        return
    counted = ", ".join(f"{reason} {count}" for reason, count in Counter(lost).most_common())
    raised = next((trajectory.detail for trajectory in trajectories if trajectory.detail), "")
    raise TutorError(
        f"{len(lost)} of {len(trajectories)} dialogues of this step are lost ({counted}), more than "
        f"{STEER_KEY}.max_lost_share {max_share:g}{f'; the first: {raised}' if raised else ''}; the weights are "
        "unchanged: run `steer tutor check`, mend the cause and start the run again"
    )


def _line(name: str, alarm: Alarm, figure: float, threshold: float) -> str:
    setting = f"{STEER_KEY}.alarms.{name}"
    return f"alarm {name}: {alarm.meaning}: {alarm.figure} {figure:.3g} > {threshold:g} ({setting}); {alarm.hint}"
