"""The whole matrix of faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl")

from tests.rollout.fault_matrix import Cell, Outcome, cells, faults_of, play
from tests.rollout.test_agent_loop import processor  # noqa: F401 - a fixture

_CLEAN: list[Outcome] = []


async def clean(processor: Any, folder: Path) -> Outcome:  # noqa: F811
    """The fault-free group, played once."""
    if not _CLEAN:
        _CLEAN.append(await play(None, processor, folder))
    return _CLEAN[0]


@pytest.mark.parametrize("cell", cells(), ids=lambda c: f"{c.reason}-{c.where}-{c.whole_group:d}-{c.for_ever:d}")
async def test_cell(cell: Cell, processor: Any, tmp_path: Path) -> None:  # noqa: F811
    without = await clean(processor, tmp_path / "clean")
    assert faults_of(cell, without, await play(cell, processor, tmp_path / "cell")) == []
