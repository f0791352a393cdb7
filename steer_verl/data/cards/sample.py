"""A stable sample: the same rows give the same dialogues, in whatever order they come, and a new row changes little."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

from steer_verl.data.drawn import drawn

T = TypeVar("T")


class Sampler(Generic[T]):
    """Keeps ``count`` items, spread evenly over groups: of each group those that a hash of their ids puts first.

    Memory: at most ``count`` items a group.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._groups: dict[Hashable, list[tuple[float, str, int, T]]] = {}
        self._offered = 0

    def offer(self, group: Hashable, id: str, item: T) -> None:
        """Show one item to the sampler."""
        self._offered += 1
        heap = self._groups.setdefault(group, [])
        heapq.heappush(heap, (-drawn("sample", id), id, -self._offered, item))
        if len(heap) > self.count:  # a heap gives up its smallest: the one that the hash puts last
            heapq.heappop(heap)

    def drawn(self) -> list[T]:
        """The sample, group after group in the order of their names; a small group leaves its place to the others."""
        ranked = {
            group: sorted(self._groups[group], key=lambda entry: entry[:3], reverse=True)
            for group in sorted(self._groups, key=str)
        }
        shares = dict.fromkeys(ranked, 0)
        left = self.count
        while left and (open_ := [group for group in ranked if shares[group] < len(ranked[group])]):
            for group in open_[:left]:
                shares[group] += 1
                left -= 1
        return [item for group, entries in ranked.items() for *_, item in entries[: shares[group]]]
