"""Training curves: what verl logged of one or several trainings, step by step, and the alarms that fired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from steer_verl.alarms import ALARMS
from steer_verl.data.cards.markup import Html, tag
from steer_verl.data.cards.page import table_html
from steer_verl.data.cards.tables import Table
from steer_verl.report.charts import Frame, Line, chart, legend, room, short, ticks
from steer_verl.report.parts import quiet
from steer_verl.report.training import Training

ALARM = "steer/alarm/"


FIGURES = (
    ("critic/score/mean", "Reward", "sum over the turns of a dialogue, mean of those not lost"),
    ("critic/returns/mean", "TCSR return", "mean over tokens"),
    ("steer/safety/mean", "Safety", "mean of a dialogue, 1 to 10"),
    ("steer/safety/worst_turn", "Lowest safety", "worst turn of a dialogue, mean, 1 to 10"),
    ("steer/safety/attacked", "Safety under attack", "1 to 10"),
    ("steer/safety/benign", "Safety on benign seeds", "1 to 10"),
    ("steer/usefulness/benign", "Usefulness on benign seeds", "1 to 10"),
    ("steer/lost_share", "Lost dialogues", "share"),
    ("actor/kl_loss", "KL to the reference", "KL loss of the actor"),
    ("actor/ppo_kl", "KL of the update", "old policy to new"),
    ("actor/entropy", "Entropy", "of a token, nats"),
    ("actor/grad_norm", "Gradient norm", "before clipping"),
    ("response_length/mean", "Response length", "tokens of a whole dialogue, mean of those not lost"),
    ("steer/answer_tokens", "Answer length", "tokens of a turn, mean"),
    ("steer/benign_refusal_share", "Refused benign requests", "share"),
    ("steer/holdout/gap", "Gap to the held-out judge", "tutor's safety minus the judge's"),
)
"""Figure of verl's or ours, title, note: drawn where it was logged; docs/method.md says what each is."""


def training_section(trainings: Sequence[Training]) -> list[Html]:
    """Legend, charts and the alarms' table; nothing without a training."""
    if not trainings:
        return []
    charts = [drawn for figure in FIGURES if (drawn := _chart(*figure, trainings))]
    note = quiet("Horizontal axis: training step. Point at a chart, or use its arrow keys, to read it.")
    return [note, legend([t.name for t in trainings]), tag("div", *charts, class_="charts small"), *_alarms(trainings)]


def _chart(key: str, title: str, note: str, trainings: Sequence[Training]) -> Html | None:
    lines = [Line(training.name, training.curve(key)) for training in trainings]
    points = [point for line in lines for point in line.points]
    if not points:
        return None
    steps, values = sorted({step for step, _ in points}), [value for _, value in points]
    up = ticks(min(values), max(values))
    frame = Frame((steps[0], steps[-1]), (up[0], up[-1]), height=170, left=room(up))
    across = [n for n in ticks(steps[0], steps[-1]) if steps[0] <= n <= steps[-1] and n == int(n)]
    return chart(title, note, frame, lines, list(_readings(lines, steps)), across=across, up=up)


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
