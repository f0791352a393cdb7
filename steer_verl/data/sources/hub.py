"""Tables of the ``datasets`` library: downloaded by name, or saved by it in a folder.

Rows are read as Arrow has them. Images stay bytes that nobody has decoded, so that they go through our own door.
A library that is missing, or cannot load what is asked for, is a :class:`DataError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_verl.data.sources.sets import Origin, Refused
from steer_verl.data.sources.tables import BATCH, Table, records
from steer_verl.errors import DataError, install_command
from steer_verl.text import one_line


@dataclass
class DatasetTable(Table):
    """One split of a dataset that lies memory-mapped on disk."""

    dataset: Any = None

    def heads(self) -> list[set[str]]:
        return [set(self.dataset.column_names)]

    def rows(self, wanted: set[str]) -> Iterator[tuple[int, dict[str, Any] | Refused]]:
        names = [name for name in self.dataset.column_names if name in wanted]
        number = 0
        for batch in self.dataset.select_columns(names).with_format("arrow").iter(BATCH):
            for row in records(batch):
                number += 1
                yield number, row
            self.part = number / len(self.dataset)


def hub_tables(name: str, config: str | None, split: str | None, images: Path | None) -> Iterator[Table]:
    """The splits of a dataset, of all its configs unless one is named; each is loaded when it is its turn."""
    # files that the library has downloaded or unpacked lie here; rows may name them by absolute paths
    root = images or Path(name if Path(name).is_dir() else _library(name).config.HF_CACHE_HOME)
    for one in [config] if config else _loaded(name, "get_dataset_config_names"):
        loaded = _loaded(name, "load_dataset", one, split=split)
        yield from _tables(name, loaded, "" if one == "default" else one, split, root)


def is_saved(folder: Path) -> bool:
    """Whether ``datasets`` saved this folder (``save_to_disk``)."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def saved_tables(folder: Path, config: str | None, split: str | None, images: Path | None) -> Iterator[Table]:
    """The splits of a saved folder."""
    loaded = _loaded(str(folder), "load_from_disk")
    if isinstance(loaded, dict) and split is not None:
        if split not in loaded:
            raise DataError(f"{folder}: no split {split}; it has {', '.join(loaded)}")
        loaded = loaded[split]
    yield from _tables(str(folder), loaded, config or "", split or folder.name, images or folder)


def _tables(name: str, loaded: Any, config: str, split: str | None, root: Path) -> Iterator[Table]:
    for key, dataset in (loaded if isinstance(loaded, dict) else {split or "": loaded}).items():
        part = "/".join(part for part in (config, str(key)) if part)
        yield DatasetTable(f"{name}[{part}]", Origin(config, str(key)), root, dataset=dataset)


def _library(name: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(f"dataset {name}: no `datasets` library: {install_command('data')}") from None
    return datasets


def _loaded(name: str, function: str, *arguments: Any, **options: Any) -> Any:
    try:
        return getattr(_library(name), function)(name, *arguments, **options)
    except DataError:
        raise
    except Exception as error:  # it passes on whatever the network, the hub or a file made fail
        what = f"{type(error).__name__}: {one_line((str(error).splitlines() or [''])[0])}"
        raise DataError(f"dataset {name}: {what}; check name, config and split, or give `path`") from error
