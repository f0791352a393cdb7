"""Deals seeds to the three seed sets of Stage I: disjoint by construction, and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from steer_verl.data.drawn import drawn
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.sources.settings import ShareSettings
from steer_verl.errors import DataError
from steer_verl.types import DialogueKind

_COUNTS_AS = {"unsafe": True, "safe": False, "leave_out": None}


def assign(seed: SourceSeed, shares: ShareSettings) -> DialogueKind | None:
    """The set that a seed belongs to; ``None`` leaves it out.

    It depends on the seed's id and on what its source says of it, and on nothing else: not on other seeds, their order
    or the machine. A greater share takes more seeds and keeps those that it had.
    """
    unsafe = seed.unsafe if seed.unsafe is not None else _COUNTS_AS[shares.unknown]
    if unsafe is None:
        return None
    place = drawn("kind", seed.source, seed.source_id)
    if not unsafe:
        return DialogueKind.BENIGN if place < shares.benign else None
    if place < shares.obfuscated:
        return DialogueKind.OBFUSCATED
    return DialogueKind.RED_TEAM if place >= 1 - shares.red_team else None  # from the other end: both may grow


def check_disjoint(sets: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """How many ids each set has, if no id is in two sets.

    Args:
        sets: name of a set -> ids of its seeds. An id that stands several times in one set is counted once.

    Raises:
        DataError: an id is in two sets.
    """
    owner: dict[str, str] = {}
    counts = dict.fromkeys(sets, 0)
    for name, ids in sets.items():
        for item in ids:
            first = owner.get(item)
            if first is None:
                owner[item] = name
                counts[name] += 1
            elif first != name:
                raise DataError(f"seed {item}: in {first} and in {name}; build the sets again in a new folder")
    return counts
