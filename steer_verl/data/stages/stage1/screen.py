"""Which dialogues are good enough to be played, learnt from or measured with.

The paper scores and filters its pools and does not publish by what rule. This is ours: one request for each dialogue,
three marks from 1 to 5, and all three must be at least ``keep_from``.
"""

from __future__ import annotations

from steer_verl.data.seed import Made
from steer_verl.data.stages.agents import Agents
from steer_verl.data.stages.facts import Facts, with_facts
from steer_verl.data.stages.left import Left, Reason, stage
from steer_verl.data.stages.stage1.settings import ScreenSettings
from steer_verl.models.place import Place
from steer_verl.work.step import value_of


async def screened(agents: Agents, made: Made, settings: ScreenSettings, place: Place) -> Made:
    """The dialogue with its marks.

    Raises:
        Left: one of them is too low.
    """
    if not settings.on:
        return made
    with stage("screen", lambda: value_of(made)):
        quality = await agents.screen(made.seed, place.part("screen"))
        made = with_facts(made, Facts(quality=quality))
        marks = quality.model_dump()
        lowest = min(marks, key=lambda name: int(marks[name]))
        if marks[lowest] < settings.keep_from:
            raise Left(_REASONS[lowest], ", ".join(f"{name} {mark}" for name, mark in marks.items()))
    return made


_REASONS = {"natural": Reason.NOT_NATURAL, "grounded": Reason.NOT_GROUNDED, "reaches": Reason.NOT_REACHING}
