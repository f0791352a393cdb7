"""``steer transcripts``: what a training run's own dialogues say, step by step."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from steer_verl.console import stdout
from steer_verl.errors import DataError
from steer_verl.types import Trajectory, Verdict

SHOWN_TURNS = 10


@dataclass(frozen=True)
class StepSummary:
    """The dialogues of one training step."""

    step: int
    dialogues: int
    safety: tuple[float | None, ...]
    """Mean safety (1..10) of the scored answers at turn 1, 2, ...; ``None`` where no answer was scored."""
    ended: dict[str, int]
    """Dialogues by how they ended; a lost one by its reason."""
    tutor_seconds: float
    """Mean seconds of one ruling."""
    unscored: float
    """Share of answers without scores, 0..1."""


def summarize_steps(trajectories: Iterable[Trajectory]) -> list[StepSummary]:
    """One summary per training step, in order; validation dialogues are left out."""
    by_step: dict[int, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        if not trajectory.validate_run:
            by_step[trajectory.step].append(trajectory)
    return [_summarize(step, played) for step, played in sorted(by_step.items())]


def _summarize(step: int, played: Sequence[Trajectory]) -> StepSummary:
    turns = [turn for trajectory in played for turn in trajectory.turns]
    longest = max((len(trajectory.turns) for trajectory in played), default=0)
    return StepSummary(
        step=step,
        dialogues=len(played),
        safety=tuple(_safety_at(i, played) for i in range(longest)),
        ended=dict(Counter(f"lost ({one.lost})" if one.lost else one.stop.value for one in played)),
        tutor_seconds=sum(turn.tutor_seconds for turn in turns) / max(len(turns), 1),
        unscored=sum(not isinstance(turn.verdict, Verdict) for turn in turns) / max(len(turns), 1),
    )


def _safety_at(index: int, played: Sequence[Trajectory]) -> float | None:
    judged = [trajectory.turns[index].verdict for trajectory in played if len(trajectory.turns) > index]
    scores = [verdict.scores.safety for verdict in judged if isinstance(verdict, Verdict)]
    return sum(scores) / len(scores) if scores else None


def print_summary(folder: Path) -> None:
    """Print the table of ``folder`` on stdout.

    Raises:
        DataError: it holds no transcripts.
    """
    from rich.table import Table

    from steer_verl.transcripts import read_transcripts

    steps = summarize_steps(read_transcripts(folder))
    if not steps:
        raise DataError(f"{folder}: no transcripts; give the folder of rollout.custom.steer.transcripts")
    widest = min(max(len(step.safety) for step in steps), SHOWN_TURNS)
    table = Table(title="safety (1-10) by turn", title_justify="left", box=None)
    for header in ("step", "dialogues", *(f"t{i + 1}" for i in range(widest)), "ended", "tutor s", "unscored"):
        table.add_column(header, justify="left" if header == "ended" else "right")
    for step in steps:
        table.add_row(*_cells(step, widest))
    stdout().print(table)


def _cells(step: StepSummary, widest: int) -> list[str]:
    safety = [f"{value:.1f}" if value is not None else "-" for value in step.safety[:widest]]
    ended = ", ".join(f"{how} {count}" for how, count in sorted(step.ended.items()))
    tail = [ended, f"{step.tutor_seconds:.3f}", f"{100 * step.unscored:.1f} %"]
    return [str(step.step), str(step.dialogues), *safety, *[""] * (widest - len(safety)), *tail]
