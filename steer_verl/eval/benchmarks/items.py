"""Everything that a run plays: the items of all its benchmarks, one after the other.

Reading begins anew with each call and gives the same items in the same order in every process, as long as the files
stay: a run that was killed, and the tasks of a cluster, find their places by the ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path

from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.dialogues import dialogue_items
from steer_verl.eval.benchmarks.questions import question_items
from steer_verl.eval.config import BenchmarkSettings
from steer_verl.eval.records import EvalItem
from steer_verl.types import Seed


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


def item_digest(seed: Seed, reference: str, *, image: Callable[[str], str] | None = None) -> str:
    """What a dialogue is, wherever it lies: its kind, the right answer, and of each turn the text and its images.

    Args:
        seed: the user's side; its images must be there.
        reference: the right answer of the last turn; empty for none.
        image: path -> what the image is known by; unset, the sha256 of the file's bytes.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: an image is not there any more.
    """
    turns = [[turn.text, [*map(image or _file_digest, turn.images)]] for turn in seed.turns]
    return _digest(seed.kind.value, reference, turns)


def _items(name: str, settings: BenchmarkSettings, work: Path) -> Iterator[EvalItem]:
    read = dialogue_items(name, settings) if settings.file else question_items(name, settings, work)
    image = cache(_file_digest) if settings.file else _pixels
    for item in read:
        if settings.only in (None, item.seed.kind):
            digest = item_digest(item.seed, item.reference, image=image)
            if item.unplayable:  # its id, for several broken lines are several items; the reason's words, not its paths
                digest = _digest(digest, item.id.removeprefix(f"{name}/"), item.oddities)
            yield item.model_copy(update={"digest": digest})


def _digest(*content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _pixels(path: str) -> str:
    """Of an image in a store, which is named by its pixels: its bytes differ from one version of Pillow to another."""
    return Path(path).stem


def _file_digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
