"""One figure of the comparison: a row of benchmarks/rollout.md."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """``ours`` and ``other`` in ``unit``; ``demand`` is what ``ours``, or the ratio, must keep."""

    what: str
    unit: str
    ours: float
    other: float | None
    demand: str
    met: bool
    other_is: str = "verl's ToolAgentLoop"

    @property
    def ratio(self) -> float | None:
        """Ours over the other."""
        return self.ours / self.other if self.other else None

    def as_dict(self) -> dict[str, Any]:
        """For the part's JSON."""
        return asdict(self)
