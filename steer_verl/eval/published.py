"""The paper's published figures (published.json, with notes on their oddities), in percent and without intervals.

Its benchmark files and its judge's words are not public: a set of the same name is not the same dialogues.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path

from steer_verl.eval.benchmarks.oddities import SHORTENED
from steer_verl.eval.config import MarkSettings
from steer_verl.types import Record

MODELS = ("3B base", "3B SFT", "3B full", "7B base", "7B SFT", "7B full")
"""Of the methods that the paper measures, those that stand beside ours row by row."""

PASSES = ("harmless_pass", "helpful_pass")
"""The measures of the tables, in the order of their cells."""


class Table(Record):
    """Passes by method and benchmark."""

    benchmarks: tuple[str, ...]
    """Names as in our recipes, in the paper's order."""
    rows: dict[str, tuple[tuple[float, float], ...]]
    """Method -> cells (:data:`PASSES`) of each benchmark, then the paper's own average."""

    def cells(self, benchmark: str | None) -> dict[str, tuple[float, float]]:
        """Method -> its cell of a benchmark, or with ``None`` the average; nothing for a benchmark it does not have."""
        names = (*self.benchmarks, None)
        return {row: cells[names.index(benchmark)] for row, cells in self.rows.items()} if benchmark in names else {}


class Published(Record):
    """The whole file."""

    notes: tuple[str, ...]
    sizes: dict[str, int]
    """Multi-turn benchmark -> dialogues."""
    single_turn: Table
    multi_turn: Table
    ablations: Table
    """Of the 3B model, on the multi-turn benchmarks."""
    survival: dict[str, dict[str, dict[int, float]]]
    """Multi-turn benchmark -> model -> turn -> S in percent; level from turn 8 on."""


@cache
def tables() -> Published:
    """Everything that was published."""
    return Published.model_validate_json(Path(__file__).with_name("published.json").read_bytes(), strict=False)


def table(*, single: bool) -> Table:
    """The results on single questions, or on dialogues."""
    return tables().single_turn if single else tables().multi_turn


def comparable(marks: MarkSettings) -> bool:
    """Whether figures under these thresholds can stand beside the paper's: how far survival is followed is free."""
    return marks.model_copy(update={"horizon": MarkSettings().horizon}) == MarkSettings()


def whole(oddities: Collection[str]) -> bool:
    """Whether figures of dialogues with these oddities can: the paper's were played to their ends."""
    return SHORTENED not in oddities


def passes(benchmarks: Collection[str], measure: str, *, single: bool) -> dict[str, float]:
    """Model (of :data:`MODELS`) -> published pass of a benchmark, in which every item has one turn (``single``), or the
    mean over several: nothing unless they are exactly the five."""
    found = table(single=single)
    if measure not in PASSES or (len(benchmarks) > 1 and set(benchmarks) != set(found.benchmarks)):
        return {}
    cells = found.cells(None if len(benchmarks) > 1 else next(iter(benchmarks)))
    return {name: cells[name][PASSES.index(measure)] for name in MODELS if name in cells}


def survival(benchmark: str) -> dict[str, dict[int, float]]:
    """Model -> turn -> S in percent; nothing for a benchmark without a published curve."""
    return tables().survival.get(benchmark, {})
