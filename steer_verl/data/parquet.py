"""Seeds -> the parquet file that verl's dataset reads (utils/dataset/rl_dataset.py), and back.

One row is one dialogue. ``prompt`` and ``images`` hold the opening turn only, for verl's own length filter; the whole
seed travels to the agent loop as one JSON string, ``extra_info.seed``, which spares it the merging of struct types.
``extra_info.interaction_kwargs.rest_messages`` repeats the later turns in the layout that other readers know.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from steer_verl.data.rows import rest_messages
from steer_verl.data.validate import AGENT_NAME, DEFAULT_RULES, Checked, Problem, Rules, check_file, check_jsonl
from steer_verl.errors import DataError
from steer_verl.images import Change
from steer_verl.types import IMAGE_MARK, Seed

if TYPE_CHECKING:
    import pyarrow as pa

DATA_SOURCE = "steer"
KEPT_PROBLEMS = 50
"""Problems kept for printing; all of them are counted, and a report file holds all of them."""
UNKNOWN = "unknown"
"""Stands for a kind or a licence that a row does not tell."""
BATCH = 512


@dataclass
class Report:
    """What became of a file."""

    rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    bad_rows: int = 0
    shared_rows: int = 0
    """Good by themselves, but in another file too."""
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)
    """The first :data:`KEPT_PROBLEMS`."""
    changed: dict[Change, dict[str, None]] = field(default_factory=dict)
    """What models see otherwise than it lies in the file -> the images, each once, in their order."""
    played: bool = True
    """Whether all models see them so; an SFT trainer opens the files of its rows by itself."""

    @property
    def good_rows(self) -> int:
        return self.rows - self.bad_rows

    def add(self, checked: Checked) -> None:
        """Count one row."""
        self.rows += 1
        if checked.told is not None:
            self.kinds[checked.told.kind or UNKNOWN] += 1
            self.turns[checked.told.turns] += 1
            self.licenses[checked.told.license or UNKNOWN] += 1
            self.played = self.played and checked.played
            for path, changes in checked.changes.items():
                for change in changes:
                    self.changed.setdefault(change, {})[path] = None
            return
        self.bad_rows += 1
        self._complain(checked.problems)

    def overlap(self, problems: Sequence[Problem]) -> None:
        """Count what a good row shares with another file, if anything."""
        self.shared_rows += bool(problems)
        self._complain(problems)

    def _complain(self, problems: Sequence[Problem]) -> None:
        self.problem_count += len(problems)
        self.problems += problems[: KEPT_PROBLEMS - len(self.problems)]


def verl_row(
    seed: Seed, index: int, *, split: str, data_source: str = DATA_SOURCE, system_prompt: str | None = None
) -> dict[str, Any]:
    """One row of verl's parquet. Image paths go in as they are: make them absolute first."""
    opening = seed.turns[0]
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return {
        "data_source": data_source,
        "agent_name": AGENT_NAME,
        "prompt": [*system, {"role": "user", "content": opening.text}],
        "images": list(opening.images),
        "ability": "dialogue_safety",
        "reward_model": {"style": "steer", "ground_truth": seed.kind.value},
        "extra_info": {
            "index": index,
            "split": split,
            "question_id": seed.id,
            "kind": seed.kind.value,
            "seed": seed.model_dump_json(),
            "interaction_kwargs": {"rest_messages": rest_messages(seed)},
        },
    }


def write_parquet(
    seeds: Iterable[Seed],
    path: Path,
    *,
    split: str = "train",
    data_source: str = DATA_SOURCE,
    system_prompt: str | None = None,
) -> int:
    """Write checked seeds, atomically: the file appears whole or not at all. Returns the rows written.

    Raises:
        DataError: no seed at all, or a system prompt that holds a picture mark.
    """
    if system_prompt and IMAGE_MARK in system_prompt:
        raise DataError(f"system prompt: holds {IMAGE_MARK}, which would take the first picture; remove it")
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, count, batch = _schema(), 0, []
    with atomic(path) as stream, pq.ParquetWriter(stream, schema) as writer:
        for count, seed in enumerate(seeds, start=1):
            batch.append(verl_row(seed, count - 1, split=split, data_source=data_source, system_prompt=system_prompt))
            if len(batch) == BATCH:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch.clear()
        if not count:
            raise DataError(f"{path}: no row to write; nothing was written")
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, schema))
    return count


def convert(
    source: Path,
    target: Path,
    *,
    rules: Rules = DEFAULT_RULES,
    skip_bad: bool = False,
    on_row: Callable[[Checked], None] = lambda checked: None,
    split: str = "train",
    data_source: str = DATA_SOURCE,
    system_prompt: str | None = None,
) -> Report:
    """Check a JSONL file and write its good rows; with any bad row nothing is written unless ``skip_bad``.

    ``on_row`` hears of every row, good or bad, as it is checked.

    Raises:
        DataError: the source cannot be read or holds no good row.
    """
    report = Report()

    def good() -> Iterator[Seed]:
        for checked in check_jsonl(source, rules):
            report.add(checked)
            on_row(checked)
            if checked.seed is not None:
                yield checked.seed
        if report.bad_rows and not skip_bad:
            raise _Rejected

    try:
        write_parquet(good(), target, split=split, data_source=data_source, system_prompt=system_prompt)
    except _Rejected:
        return report
    return report


def load_seeds(path: Path | str, *, rules: Rules = DEFAULT_RULES) -> list[Seed]:
    """All seeds of a parquet or JSONL file, checked, image paths absolute.

    Raises:
        DataError: the first problem, and how many there are.
    """
    report, seeds = Report(), []
    for checked in check_file(Path(path), rules):
        report.add(checked)
        if checked.seed is not None:
            seeds.append(checked.seed)
    if report.problems:
        raise DataError(f"{report.problems[0]} ({report.problem_count} problems; `steer data check {path}` lists them)")
    if not seeds:
        raise DataError(f"{path}: no row; give a file with at least one dialogue")
    return seeds


class _Rejected(Exception):
    """The source has bad rows, so that the target is not wanted."""


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name only when its writing ends well; its folder is made when it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _schema() -> pa.Schema:
    import pyarrow as pa

    messages = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    extra_info = {
        "index": pa.int64(),
        "split": pa.string(),
        "question_id": pa.string(),
        "kind": pa.string(),
        "seed": pa.string(),
        "interaction_kwargs": pa.struct({"rest_messages": messages}),
    }
    return pa.schema(
        {
            "data_source": pa.string(),
            "agent_name": pa.string(),
            "prompt": messages,
            "images": pa.list_(pa.string()),
            "ability": pa.string(),
            "reward_model": pa.struct({"style": pa.string(), "ground_truth": pa.string()}),
            "extra_info": pa.struct(extra_info),
        }
    )
