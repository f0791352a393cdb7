"""Which set a source seed serves: decided by a hash of where it comes from, before anything is paid for it.

All that is made of one source seed is on the same side, whatever its kind, and a seed keeps its side when others come
or go.
"""

from __future__ import annotations

from enum import Enum

from steer_verl.data.drawn import drawn
from steer_verl.data.stage2.settings import SplitSettings


class SetName(str, Enum):
    """The three sets, in the order in which they are filled: what is like something in one leaves those after it."""

    BENCH = "bench"
    RL = "rl"
    SFT = "sft"


def split_of(cluster: str, source: str, settings: SplitSettings) -> SetName:
    """The set that a source seed serves.

    Args:
        cluster: id of the source seed, or of the first seed of its near-duplicates, so that all of them go together.
        source: the public set that it belongs to.
        settings: weights, and the sources that serve the benchmark alone.
    """
    if source in settings.bench_sources:
        return SetName.BENCH
    place = drawn("split", cluster) * (settings.bench + settings.rl + settings.sft)
    if place < settings.bench:
        return SetName.BENCH
    return SetName.RL if place < settings.bench + settings.rl else SetName.SFT
