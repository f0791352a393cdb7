"""Seeds -> the parquet file that verl's dataset reads (utils/dataset/rl_dataset.py), and what became of their file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from steer_verl.data.rows.check import DEFAULT_RULES, Checked, Rules, check_file
from steer_verl.data.rows.flaws import Problem
from steer_verl.data.rows.schema import RlRow
from steer_verl.data.rows.verl import DATA_SOURCE, verl_row
from steer_verl.errors import DataError
from steer_verl.images import Change
from steer_verl.records import atomic
from steer_verl.types import IMAGE_MARK, MARKS, Seed, UserTurn

KEPT_PROBLEMS = 50
"""Problems kept for printing; all of them are counted, and a report file holds all of them."""
UNKNOWN = "unknown"
"""Stands for a kind or a licence that a row does not tell."""
BATCH = 512

_WHOLE = Seed(id="", turns=(UserTurn(text=IMAGE_MARK, images=("",)), UserTurn(text="")))
"""Has every field, so that the columns' types are those of its row."""


@dataclass
class Report:
    """What became of a file."""

    rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    text_only: int = 0
    """Good rows without an image."""
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

    measured: int = 0
    """Rows whose tokens were counted for a student."""
    tokens: int = 0
    longest: tuple[int, int] = (0, 0)
    """(tokens, row)."""

    @property
    def good_rows(self) -> int:
        return self.rows - self.bad_rows

    def add(self, checked: Checked) -> None:
        """Count one row."""
        self.rows += 1
        self.measured += checked.tokens > 0
        self.tokens += checked.tokens
        self.longest = max(self.longest, (checked.tokens, checked.row), key=lambda pair: pair[0])
        if (told := checked.told) is None:
            self.bad_rows += 1
            self._complain(checked.problems)
            return
        self.kinds[told.kind or UNKNOWN] += 1
        self.turns[len(told.asked)] += 1
        self.licenses[told.license or UNKNOWN] += 1
        self.text_only += not checked.images
        self.played = self.played and told.form != "sft"
        for image in checked.images:
            for change in image.changes:
                self.changed.setdefault(change, {})[image.name] = None

    def overlap(self, problems: Sequence[Problem]) -> None:
        """Count what a good row shares with another file, if anything."""
        self.shared_rows += bool(problems)
        self._complain(problems)

    def _complain(self, problems: Sequence[Problem]) -> None:
        self.problem_count += len(problems)
        self.problems += problems[: KEPT_PROBLEMS - len(self.problems)]


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
        DataError: no seed at all, or a system prompt that holds a mark.
    """
    if mark := next((mark for mark in MARKS if mark in (system_prompt or "")), ""):
        what = f"holds {mark}, which verl would take for an image, a video or a sound"
        raise DataError(f"system prompt: {what}; remove it")
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, count = pa.Table.from_pylist([verl_row(_WHOLE, 0, split=split)]).schema, 0
    rows = (
        verl_row(seed, number, split=split, data_source=data_source, system_prompt=system_prompt)
        for number, seed in enumerate(seeds)
    )
    with atomic(path) as stream, pq.ParquetWriter(stream, schema) as writer:
        while batch := list(islice(rows, BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
            count += len(batch)
        if not count:
            raise DataError(f"{path}: no row to write; nothing was written")
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
    """Check a JSONL file and write its good rows, if any; with a bad row nothing is written unless ``skip_bad``.

    ``on_row`` hears of every row, good or bad, as it is checked.

    Raises:
        DataError: the source cannot be read or holds no row.
    """
    report = Report()

    def good() -> Iterator[Seed]:
        for checked in check_file(source, rules, form=RlRow):
            report.add(checked)
            on_row(checked)
            if (seed := checked.seed) is not None:
                yield seed
        if report.bad_rows and not (skip_bad and report.good_rows):
            raise _Rejected

    with suppress(_Rejected):
        write_parquet(good(), target, split=split, data_source=data_source, system_prompt=system_prompt)
    return report


def load_seeds(path: Path | str, *, rules: Rules = DEFAULT_RULES) -> list[Seed]:
    """All dialogues of a file of RL or bench rows, checked, image paths absolute.

    Raises:
        DataError: the first problem, and how many there are.
    """
    report, seeds = Report(), []
    for checked in check_file(Path(path), rules):
        report.add(checked)
        if (seed := checked.seed) is not None:
            seeds.append(seed)
    if report.problems:
        raise DataError(f"{report.problems[0]} ({report.problem_count} problems; `steer data check {path}` lists them)")
    if not seeds:
        raise DataError(f"{path}: no row; give a file with at least one dialogue")
    return seeds


class _Rejected(Exception):
    """The source has bad rows, so that the target is not wanted."""
