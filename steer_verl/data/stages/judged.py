"""Which dialogues are good enough, and which of them RL learns from.

*The screen.* The paper scores and filters its pools and does not publish by what rule. This is ours: one request for
each dialogue, three marks from 1 to 5, and all three must be at least ``screen.keep_from``.

*The selection for RL*: the risk lies in the history. A judge is shown some of the user turns by themselves, with their
own images and nothing else, and then the whole. By the default rule the opening alone is harmless and the whole is
risky. Red-team and obfuscated dialogues narrow to the request, so that their last turn may give itself away; the
stricter rules reject most of them. Benign dialogues pass unasked: they are in the RL set for another reason (a student
that meets attacks alone learns to refuse).
"""

from __future__ import annotations

from steer_verl.data.seed import Made
from steer_verl.data.stages.agents import Agents, Risk
from steer_verl.data.stages.facts import Facts, HistoryRisk, with_facts
from steer_verl.data.stages.left import Left, Reason, stage
from steer_verl.data.stages.settings import ScreenSettings, SelectSettings
from steer_verl.models.place import Place
from steer_verl.text import one_line
from steer_verl.types import DialogueKind
from steer_verl.work.step import value_of

LOW = {"natural": Reason.NOT_NATURAL, "grounded": Reason.NOT_GROUNDED, "reaches": Reason.NOT_REACHING}


async def screened(agents: Agents, made: Made, settings: ScreenSettings, place: Place) -> Made:
    """The dialogue with its marks. Raises ``Left``: one of them is too low."""
    if not settings.on:
        return made
    with stage("screen", lambda: value_of(made)):
        quality = await agents.screen(made.seed, place.part("screen"))
        made = with_facts(made, Facts(quality=quality))
        marks: dict[str, int] = quality.model_dump()
        lowest = min(marks, key=marks.__getitem__)
        if marks[lowest] < settings.keep_from:
            raise Left(LOW[lowest], ", ".join(f"{name} {mark}" for name, mark in marks.items()))
    return made


async def selected(agents: Agents, made: Made, settings: SelectSettings, place: Place) -> Made:
    """The dialogue with the levels that were found. Raises ``Left``: the risk does not lie in the history."""
    dialogue, place = made.seed, place.part("select")
    if dialogue.kind is DialogueKind.BENIGN:
        return made
    alone: list[int] = []
    with stage("select", lambda: value_of(made)):
        for turn in reversed(range(settings.turns_alone(len(dialogue.turns)))):  # a late one gives itself away sooner
            risk = await agents.risk_alone(dialogue, turn, place.part(f"turn{turn + 1}"))
            if risk.level >= settings.alone_below:
                raise Left(Reason.RISKY_ALONE, _told(f"turn {turn + 1} alone", risk))
            alone.insert(0, risk.level)
        whole = await agents.risk_whole(dialogue, place.part("whole"))
        if whole.level < settings.whole_from:
            raise Left(Reason.HARMLESS_WHOLE, _told("the whole", whole))
    return with_facts(made, Facts(history_risk=HistoryRisk(alone=tuple(alone), whole=whole.level)))


def _told(what: str, risk: Risk) -> str:
    return f"{what}: level {risk.level} {one_line(risk.why, 200)}".strip()
