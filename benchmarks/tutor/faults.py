"""The fault matrix as a table: ``STEER_CPU=1 python -m benchmarks.tutor.faults``.

Plays every cell of tests/rollout/fault_matrix.py (what a cell is stands there) and writes benchmarks/tutor/faults.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import tempfile
from collections import defaultdict
from datetime import date
from pathlib import Path

from tests.rollout.fault_matrix import (
    MEMBERS,
    REASKED,
    REASKS,
    RETRIED,
    RETRIES,
    TURNS,
    UNUSABLE,
    Cell,
    Outcome,
    cells,
    faults_of,
    play,
)

HERE = Path(__file__).parent


async def main() -> None:
    """Play all and write the table."""
    from rich.progress import track

    from steer_verl.mini.model import make_processor

    logging.disable(logging.WARNING)  # breakers and retries tell of every injected fault
    processor = make_processor()
    with tempfile.TemporaryDirectory() as folder:
        clean = await play(None, processor, Path(folder) / "clean")
        found = []
        for number, cell in enumerate(track([*cells()], "cells")):
            outcome = await play(cell, processor, Path(folder) / str(number))
            found.append((cell, outcome, faults_of(cell, clean, outcome)))
    text = report(clean, found)
    (HERE / "faults.md").write_text(text)
    print(text)


def report(clean: Outcome, found: list[tuple[Cell, Outcome, list[str]]]) -> str:
    """The whole of ``faults.md``."""
    wrong = [f"- {cell}: {'; '.join(faults)}" for cell, _, faults in found if faults]
    by_reason: dict[str, list[tuple[Cell, Outcome, list[str]]]] = defaultdict(list)
    for entry in found:
        by_reason[entry[0].reason].append(entry)
    rows = [_row(reason, entries) for reason, entries in by_reason.items()]
    header = ["reason", "what is done about it", "cells", "as they must be", "faults injected", "dialogues lost"]
    table = "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])
    return PAGE.format(
        command="STEER_CPU=1 python -m benchmarks.tutor.faults",
        today=date.today(),
        python=platform.python_version(),
        cells=len(found),
        reasons=len(by_reason),
        members=MEMBERS,
        turns=TURNS,
        retries=RETRIES,
        reasks=REASKS,
        requests=clean.requests,
        table=table,
        verdict="Cells that are not as they must be:" if wrong else "No cell deviates.",
        wrong="\n".join(wrong),
    )


PAGE = """# A tutor that fails: the matrix

Written by `{command}` on {today} (Python {python}); no figure is written by hand.

{cells} cells: {reasons} reasons x first, middle, last turn x one member, the whole group x once, for ever. A cell is a
group of {members} dialogues of {turns} turns through verl's agent loop base, our loop, environment, tutor client and
estimator, against a real HTTP server ({retries} retries, {reasks} re-ask; pauses are skipped). The fault-free group
takes {requests} requests.

{table}

In each cell: no exception; an unscored turn has its reason, is no number and loses its dialogue, which is one token
without loss; every other member's scores and rewards equal the fault-free run's, and its advantages equal, bit for bit,
those of the fault-free group without the lost members; a turn whose question is there is never asked for another;
attempts at the server, in the request log and in the usage agree and stay inside the budget.

{verdict}
{wrong}
"""


def _row(reason: str, entries: list[tuple[Cell, Outcome, list[str]]]) -> list[str]:
    done = (
        "asked again after a pause"
        if reason in RETRIED
        else "asked again at once"
        if reason in REASKED
        else "nothing: final"
    )
    if reason in UNUSABLE:
        done = "the static question is asked"
    right = sum(not faults for _, _, faults in entries)
    injected = sum(outcome.injected["injected"] for _, outcome, _ in entries)
    lost = sum(bool(trajectory.lost) for _, outcome, _ in entries for trajectory in outcome.trajectories)
    return [reason, done, str(len(entries)), f"{right}", str(injected), str(lost)]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
