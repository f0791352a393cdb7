"""The fault matrix as a table: ``STEER_CPU=1 python -m benchmarks.tutor.faults``.

Plays every cell of tests/rollout/fault_matrix.py (what a cell is stands there) and writes benchmarks/tutor/faults.md.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks import pages
from tests.rollout.fault_matrix import (
    MEMBERS,
    REASKED,
    REASKS,
    RETRIED,
    RETRIES,
    TURNS,
    UNUSABLE,
    cells,
    faults_of,
    play,
)

PAGE = """\
{cells} cells: {reasons} reasons x first, middle, last turn x one member, the whole group x once, for ever. A cell is a
group of {members} dialogues of {turns} turns through verl's agent loop base, our loop, environment, tutor client and
estimator, against a real HTTP server ({retries} retries, {reasks} re-ask; pauses are skipped). The fault-free group
takes {requests} requests.

{table}

In each cell: no exception; an unscored turn has its reason, is no number and loses its dialogue, which is one token
without loss; every other member's scores and rewards equal the fault-free run's, and its advantages equal, bit for bit,
those of the fault-free group without the lost members; a turn whose question is there is never asked for another;
attempts at the server, in the request log and in the usage agree and stay inside the budget.

{verdict}"""


async def main() -> None:
    """Play all and write the table."""
    from rich.progress import track

    from steer_verl.mini.model import make_processor

    logging.disable(logging.WARNING)  # breakers and retries tell of every injected fault
    processor = make_processor()
    rows: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        clean = await play(None, processor, Path(folder) / "clean")
        for number, cell in enumerate(track([*cells()], "cells")):
            outcome = await play(cell, processor, Path(folder) / str(number))
            faults = faults_of(cell, clean, outcome)
            lost = sum(bool(trajectory.lost) for trajectory in outcome.trajectories)
            counts = (1, not faults, outcome.injected["injected"], lost)
            rows[cell.reason] = [sum(pair) for pair in zip(rows[cell.reason], counts, strict=True)]
            wrong += [f"- {cell}: {'; '.join(faults)}"] if faults else []
    header = ["reason", "what is done about it", "cells", "as they must be", "faults injected", "dialogues lost"]
    page = PAGE.format(
        cells=sum(counts[0] for counts in rows.values()),
        reasons=len(rows),
        members=MEMBERS,
        turns=TURNS,
        retries=RETRIES,
        reasks=REASKS,
        requests=clean.requests,
        table=pages.table(header, ([reason, done(reason), *counts] for reason, counts in rows.items())),
        verdict="\n".join(["Cells that are not as they must be:\n", *wrong]) if wrong else "No cell deviates.",
    )
    said = pages.written("STEER_CPU=1 python -m benchmarks.tutor.faults")
    pages.write(Path(__file__).with_suffix(".md"), "# A tutor that fails: the matrix", said, page)


def done(reason: str) -> str:
    """What the client does about a failure."""
    if reason in UNUSABLE:
        return "the static question is asked"
    return (
        "asked again after a pause"
        if reason in RETRIED
        else "asked again at once"
        if reason in REASKED
        else "nothing: final"
    )


if __name__ == "__main__":
    asyncio.run(main())
