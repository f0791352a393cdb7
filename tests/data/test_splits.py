"""Which set the seeds of a cluster serve: in the wanted shares, and stable when a weight changes elsewhere."""

from __future__ import annotations

from collections import Counter

import pytest

from steer_verl.data.drawn import drawn
from steer_verl.data.seed import SetName
from steer_verl.data.sources.settings import SplitSettings

LOTS = [drawn("side", f"cluster-{number}") for number in range(20_000)]


def test_shares_are_what_the_settings_say() -> None:
    found = Counter(map(SplitSettings(sft=6, rl=3, bench=1).side, LOTS))
    for name, share in ((SetName.SFT, 0.6), (SetName.RL, 0.3), (SetName.BENCH, 0.1)):
        assert abs(found[name] / len(LOTS) - share) < 4 * (share * (1 - share) / len(LOTS)) ** 0.5


def test_weights_need_not_sum_to_one_and_shift_no_more_than_they_say() -> None:
    plain, scaled, more = (
        SplitSettings(sft=7, rl=2, bench=1),
        SplitSettings(sft=70, rl=20, bench=10),
        SplitSettings(sft=6, rl=3, bench=1),
    )
    assert [plain.side(lot) for lot in LOTS] == [scaled.side(lot) for lot in LOTS]
    moved = {(plain.side(lot), more.side(lot)) for lot in LOTS if plain.side(lot) is not more.side(lot)}
    assert moved == {(SetName.SFT, SetName.RL)}


def test_a_set_without_weight_gets_nothing() -> None:
    settings = SplitSettings(sft=1, rl=0, bench=0)
    assert {settings.side(lot) for lot in LOTS} == {SetName.SFT}
    with pytest.raises(ValueError, match="sum to 0"):
        SplitSettings(sft=0, rl=0, bench=0)
