"""Everything that a run plays: the items of all its benchmarks, one after the other.

Reading begins anew with each call and gives the same items in the same order in every process, as long as the files
stay: a run that was killed, and the tasks of a cluster, find their places by the ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.dialogues import dialogue_items
from steer_verl.eval.benchmarks.questions import question_items
from steer_verl.eval.config import BenchmarkSettings
from steer_verl.eval.records import EvalItem


def items_of(benchmarks: Mapping[str, BenchmarkSettings], work: Path) -> Iterator[EvalItem]:
    """One item for each row of each benchmark, in order; ids are ``<benchmark>/<the row's own id>`` and unique.

    Memory does not grow with the files but for the ids.

    Args:
        benchmarks: name -> settings.
        work: folder for the re-encoded pictures of single-turn sets; several processes may share it.

    Raises:
        DataError: a file or a set is not there, its columns are another set's, or it has no row. Never for a row.
    """
    for name, settings in benchmarks.items():
        empty = True
        for item in islice(_items(name, settings, work), settings.limit):
            empty = False
            yield item
        if empty:
            place = settings.file or (settings.source and (settings.source.path or settings.source.dataset))
            raise DataError(f"benchmark {name}: no row to play in {place}; check the path, `split` and `only`")


def _items(name: str, settings: BenchmarkSettings, work: Path) -> Iterator[EvalItem]:
    read = dialogue_items(name, settings) if settings.file else question_items(name, settings, work)
    return (item for item in read if settings.only in (None, item.seed.kind))
