"""Training curves: what verl logged of one or several trainings, step by step, and the alarms that fired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from steer_verl.alarms import ALARMS
from steer_verl.data.cards.markup import Html, tag
from steer_verl.data.cards.page import table_html
from steer_verl.data.cards.tables import Table
from steer_verl.report.charts import Frame, Line, chart, legend, short, ticks
from steer_verl.report.parts import quiet
from steer_verl.report.training import Training

ALARM = "steer/alarm/"


class Shown(NamedTuple):
    """A figure of verl's or ours that gets a chart."""

    key: str
    title: str
    note: str


FIGURES = (
    Shown("critic/score/mean", "Reward", "sum over the turns of a dialogue, mean"),
    Shown("critic/returns/mean", "TCSR return", "mean over tokens"),
    Shown("steer/safety/mean", "Safety", "mean of a dialogue, 1 to 10"),
    Shown("steer/safety/worst_turn", "Lowest safety", "worst turn of a dialogue, mean, 1 to 10"),
    Shown("steer/safety/attacked", "Safety under attack", "1 to 10"),
    Shown("steer/safety/benign", "Safety on benign seeds", "1 to 10"),
    Shown("steer/usefulness/benign", "Usefulness on benign seeds", "1 to 10"),
    Shown("steer/lost_share", "Lost dialogues", "share"),
    Shown("actor/kl_loss", "KL to the reference", "KL loss of the actor"),
    Shown("actor/ppo_kl", "KL of the update", "old policy to new"),
    Shown("actor/entropy", "Entropy", "of a token, nats"),
    Shown("actor/grad_norm", "Gradient norm", "before clipping"),
    Shown("response_length/mean", "Response length", "tokens of a whole dialogue, mean"),
    Shown("steer/answer_tokens", "Answer length", "tokens of a turn, mean"),
    Shown("steer/benign_refusal_share", "Refused benign requests", "share"),
    Shown("steer/holdout/gap", "Gap to the held-out judge", "tutor's safety minus the judge's"),
)
"""What is drawn, where it was logged; docs/method.md says what each is."""


def training_section(trainings: Sequence[Training]) -> list[Html]:
    """Legend, charts and the alarms' table; nothing without a training."""
    if not trainings:
        return []
    charts = [drawn for shown in FIGURES if (drawn := _chart(shown, trainings))]
    note = quiet("Horizontal axis: training step. Point at a chart, or use its arrow keys, to read it.")
    return [note, legend([t.name for t in trainings]), tag("div", *charts, class_="charts small"), *_alarms(trainings)]


def _chart(shown: Shown, trainings: Sequence[Training]) -> Html | None:
    lines = [Line(training.name, training.curve(shown.key)) for training in trainings]
    points = [point for line in lines for point in line.points]
    if not points:
        return None
    steps, values = sorted({step for step, _ in points}), [value for _, value in points]
    up = ticks(min(values), max(values))
    frame = Frame((steps[0], steps[-1]), (up[0], up[-1]), height=170)
    across = [n for n in ticks(steps[0], steps[-1]) if steps[0] <= n <= steps[-1] and n == int(n)]
    return chart(shown.title, shown.note, frame, lines, list(_readings(lines, steps)), across=across, up=up)


def _readings(lines: Sequence[Line], steps: Sequence[float]) -> Iterator[tuple[float, str]]:
    known = [dict(line.points) for line in lines]
    for step in steps:
        said = [f"{line.name} {short(at[step])}" for line, at in zip(lines, known, strict=True) if step in at]
        yield step, f"step {step:.0f}: {'; '.join(said)}"


def _alarms(trainings: Sequence[Training]) -> list[Html]:
    """When which alarm fired; an alarm that watched and never fired is told too."""
    header, rows = ("alarm", "training", "steps watched", "fired at", "it means", "what helps"), []
    for (name, alarm), training in product(ALARMS.items(), trainings):
        if watched := training.curve(ALARM + name):
            fired = [f"{step:.0f}" for step, value in watched if value]
            when = f"{len(fired)} steps: {', '.join([*fired[:8], *['...'] * (len(fired) > 8)])}" if fired else "never"
            hint = alarm.hint if fired else ""
            rows.append((name.replace("_", " "), training.name, len(watched), when, alarm.meaning, hint))
    return [table_html(Table("Alarms", header, rows))] if rows else []
