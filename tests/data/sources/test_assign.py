"""Dealing seeds to the three seed sets."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from pydantic import ValidationError

from steer_verl.data.drawn import drawn
from steer_verl.data.sources.assign import assign, check_disjoint
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.sources.settings import ShareSettings
from steer_verl.errors import DataError
from steer_verl.types import DialogueKind

COUNT = 4000


def seed(number: int, unsafe: bool | None) -> SourceSeed:
    name = str(number)
    return SourceSeed(id=f"s:{name}", question="What?", unsafe=unsafe, source="s", source_id=name, license="MIT")


def dealt(unsafe: bool | None, shares: ShareSettings) -> Counter[DialogueKind | None]:
    return Counter(assign(seed(n, unsafe), shares) for n in range(COUNT))


def close(count: int, share: float) -> bool:
    """Within five standard deviations."""
    return abs(count - COUNT * share) <= 5 * math.sqrt(COUNT * share * (1 - share))


def test_shares_are_kept() -> None:
    shares = ShareSettings(benign=0.3, obfuscated=0.2, red_team=0.5)
    safe, unsafe = dealt(False, shares), dealt(True, shares)
    assert set(safe) == {DialogueKind.BENIGN, None} and close(safe[DialogueKind.BENIGN], 0.3)
    assert close(unsafe[DialogueKind.OBFUSCATED], 0.2) and close(unsafe[DialogueKind.RED_TEAM], 0.5)
    assert close(unsafe[None], 0.3) and not unsafe[DialogueKind.BENIGN]
    assert dealt(True, ShareSettings())[None] == 0 and dealt(False, ShareSettings()) == {DialogueKind.BENIGN: COUNT}


@pytest.mark.parametrize(("unknown", "as_if"), [("unsafe", True), ("safe", False)])
def test_unknown_seeds_count_as_the_setting_says(unknown: str, as_if: bool) -> None:
    shares = ShareSettings(unknown=unknown)  # type: ignore[arg-type]
    assert [assign(seed(n, None), shares) for n in range(200)] == [assign(seed(n, as_if), shares) for n in range(200)]
    assert dealt(None, ShareSettings(unknown="leave_out")) == {None: COUNT}


def test_a_greater_share_keeps_what_it_had() -> None:
    small, great = (ShareSettings(obfuscated=s, red_team=s, benign=s) for s in (0.2, 0.45))
    for unsafe in (True, False):
        for n in range(500):
            had = assign(seed(n, unsafe), small)
            assert had is None or assign(seed(n, unsafe), great) is had


def test_lots_are_the_same_everywhere() -> None:
    """Fixed for good: a build that goes on after an update must deal as before."""
    assert drawn("kind", "vlguard", "train/1/instruction") == 0.4434588869101965
    assert drawn("a", "bc") != drawn("ab", "c") and 0 <= drawn() < 1 and 0 <= drawn("\ud800") < 1


def test_shares_of_more_than_all_are_refused() -> None:
    with pytest.raises(ValidationError, match="at most 1"):
        ShareSettings(obfuscated=0.6, red_team=0.5)


def test_disjointness_is_checked_and_counted() -> None:
    assert check_disjoint({"a": ["1", "2", "2"], "b": iter(["3"]), "c": []}) == {"a": 2, "b": 1, "c": 0}
    with pytest.raises(DataError, match="seed 2: in a and in c"):
        check_disjoint({"a": ["1", "2"], "b": ["3"], "c": ["4", "2"]})
