"""A stable sample: the same rows give the same dialogues, in whatever order they come, and a new row changes little."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Sampler(Generic[T]):
    """Keeps ``count`` items, spread evenly over groups: of each group those whose ids' digests are smallest.

    Memory: at most ``count`` items a group.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._groups: dict[Hashable, list[tuple[int, str, int, T]]] = {}
        self._offered = 0

    def offer(self, group: Hashable, id: str, item: T) -> None:
        """Show one item to the sampler."""
        self._offered += 1
        if not self.count:
            return
        heap = self._groups.setdefault(group, [])
        entry = (-_rank(id), id, -self._offered, item)  # a heap gives up its smallest: the largest digest
        if len(heap) < self.count:
            heapq.heappush(heap, entry)
        elif entry[:3] > heap[0][:3]:
            heapq.heapreplace(heap, entry)

    def drawn(self) -> list[T]:
        """The sample, group after group in the order of their names; a small group leaves its place to the others."""
        ranked = {
            group: sorted(heap, key=lambda entry: entry[:3], reverse=True) for group, heap in self._groups.items()
        }
        shares = dict.fromkeys(ranked, 0)
        left = self.count
        while left and (open_ := [g for g in sorted(ranked, key=str) if shares[g] < len(ranked[g])]):
            for group in open_[:left]:
                shares[group] += 1
                left -= 1
        return [item for group in sorted(ranked, key=str) for *_, item in ranked[group][: shares[group]]]


def _rank(id: str) -> int:
    return int.from_bytes(hashlib.sha256(id.encode("utf-8", "replace")).digest()[:8], "big")
