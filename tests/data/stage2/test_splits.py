"""Which set a source seed serves: stable, in the wanted shares, public test sets never in training."""

from __future__ import annotations

from collections import Counter

import pytest

from steer_verl.data.stage2.settings import SplitSettings
from steer_verl.data.stage2.splits import SetName, split_of


def test_shares_are_what_the_settings_say() -> None:
    settings = SplitSettings(sft=6, rl=3, bench=1)
    count = 20_000
    found = Counter(split_of(f"s:{number}", "s", settings) for number in range(count))
    for name, share in ((SetName.SFT, 0.6), (SetName.RL, 0.3), (SetName.BENCH, 0.1)):
        assert abs(found[name] / count - share) < 4 * (share * (1 - share) / count) ** 0.5


def test_a_seed_keeps_its_side_when_the_benchmark_gets_a_source_of_its_own() -> None:
    plain, with_source = SplitSettings(), SplitSettings(bench_sources=("public-test",))
    for number in range(500):
        name = f"s:{number}"
        assert split_of(name, "s", plain) is split_of(name, "s", with_source)
        assert split_of(name, "public-test", with_source) is SetName.BENCH


def test_a_set_without_weight_gets_nothing() -> None:
    settings = SplitSettings(sft=1, rl=0, bench=0)
    assert {split_of(f"s:{number}", "s", settings) for number in range(500)} == {SetName.SFT}
    with pytest.raises(ValueError, match="sum to 0"):
        SplitSettings(sft=0, rl=0, bench=0)
