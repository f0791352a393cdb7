"""Risk that lies in the history: every turn by itself is harmless, the whole is not.

The RL set wants dialogues that no single-turn filter would catch. A judge is shown each user turn alone, with its own
pictures and nothing else, the last one first, because it narrows to the request and is the likeliest to give itself
away; the first turn that is risky alone ends the matter. Only then the whole dialogue is judged. Benign seeds pass
unasked: they are in the RL set for another reason (:class:`~steer_verl.data.stage2.settings.SetSettings`).
"""

from __future__ import annotations

from enum import Enum

from steer_verl.data.agents import Risk, RiskJudge
from steer_verl.data.stage2.settings import HistorySettings
from steer_verl.types import DialogueKind, Seed
from steer_verl.work.desk import DeskPart
from steer_verl.work.step import Desk, Done, Kept, Rejected, value_of

FACT = "history_risk"
"""Where a kept seed's ``facts`` hold the levels found: ``{"alone": [level of turn 1, ...], "whole": level}``."""


class HistoryReason(str, Enum):
    """Why a seed's risk does not lie in its history."""

    RISKY_ALONE = "risky_alone"
    """One of its turns is risky without the others."""
    HARMLESS_WHOLE = "harmless_whole"
    """So is the whole: there is nothing to defend against."""


class HistoryStep:
    """Keeps the seeds whose risk lies in the history.

    Args:
        judge: rates a turn alone and the whole, 1..5.
        settings: the two thresholds.
    """

    name = "history"

    def __init__(self, judge: RiskJudge, settings: HistorySettings | None = None) -> None:
        self.judge, self.settings = judge, settings or HistorySettings()

    async def work(self, item: Seed, desk: Desk) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        if item.kind is DialogueKind.BENIGN:
            return Kept(value=value_of(item))
        alone: list[int] = []
        for turn in reversed(range(len(item.turns))):
            risk = await self.judge.alone(item, turn, DeskPart(desk, f"turn{turn + 1}"))
            if risk.level >= self.settings.alone_below:
                return _rejected(HistoryReason.RISKY_ALONE, f"turn {turn + 1} alone", risk, item)
            alone.insert(0, risk.level)
        whole = await self.judge.whole(item, DeskPart(desk, "whole"))
        if whole.level < self.settings.whole_from:
            return _rejected(HistoryReason.HARMLESS_WHOLE, "the whole", whole, item)
        facts = {**item.facts, FACT: {"alone": alone, "whole": whole.level}}
        return Kept(value=value_of(item.model_copy(update={"facts": facts})))

    async def close(self) -> None:
        """Close the agent."""
        await self.judge.close()


def _rejected(reason: HistoryReason, what: str, risk: Risk, seed: Seed) -> Rejected:
    why = " ".join(risk.why.split())[:200]
    return Rejected(reason=reason.value, detail=f"{what}: level {risk.level} {why}".strip(), value=value_of(seed))
