"""Risk in the history: by a brute-force twin over all levels, and at no more questions than are needed."""

from __future__ import annotations

import itertools
import json

import pytest
from pydantic import ValidationError

from steer_verl.data.stage2.history import FACT, HistoryStep
from steer_verl.data.stage2.settings import HistorySettings
from steer_verl.types import DialogueKind, Seed
from steer_verl.work.step import Kept, Rejected
from tests.data.desks import MemoryDesk
from tests.data.stage2.scripted import Agents, seed


@pytest.mark.parametrize("levels", list(itertools.product([1, 2, 3, 5], repeat=4)))
async def test_kept_iff_every_turn_is_harmless_alone_and_the_whole_is_not(levels: tuple[int, ...]) -> None:
    *alone, whole = levels
    agents = Agents(risks=levels)
    done = await HistoryStep(agents).work(seed(turns=3), MemoryDesk())
    if max(alone) >= 3:
        last_risky = max(turn for turn, level in enumerate(alone) if level >= 3)
        assert isinstance(done, Rejected) and done.reason == "risky_alone" and f"turn {last_risky + 1}" in done.detail
        assert agents.asked == [f"alone {turn}" for turn in range(2, last_risky - 1, -1)]
        return
    assert agents.asked == ["alone 2", "alone 1", "alone 0", "whole"]
    if whole < 4:
        assert isinstance(done, Rejected) and done.reason == "harmless_whole"
    else:
        assert isinstance(done, Kept)
        kept = Seed.model_validate_json(json.dumps(done.value))
        assert kept.facts[FACT] == {"alone": alone, "whole": whole} and kept.turns == seed(turns=3).turns


async def test_benign_seeds_pass_unasked() -> None:
    agents = Agents()
    item = seed(kind=DialogueKind.BENIGN)
    done = await HistoryStep(agents).work(item, MemoryDesk())
    assert isinstance(done, Kept) and Seed.model_validate_json(json.dumps(done.value)) == item and not agents.asked


def test_thresholds_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValidationError, match="whole_from"):
        HistorySettings(alone_below=4, whole_from=3)
