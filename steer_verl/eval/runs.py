"""A finished evaluation on disk, and reading it back.

::

    out/run.json          who was evaluated on what by whom (RunAbout)
    out/dialogues.jsonl   every item of every benchmark, one EvalDialogue a line, sorted by id
    out/summary.json      the measures with intervals (steer_verl/eval/shape.py)
    out/summary.md        the same to be read
    out/work/             the records by which a killed run goes on (steer_verl/work)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from steer_verl.errors import DataError
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.records import EvalDialogue
from steer_verl.records import atomic, read_records, write_whole
from steer_verl.types import Record, Usage

ABOUT, DIALOGUES, SUMMARY, SUMMARY_PAGE = "run.json", "dialogues.jsonl", "summary.json", "summary.md"


class RunAbout(Record):
    """What a run was."""

    name: str
    """What tables call its student."""
    student: str
    """The student's identity: model, decoding."""
    judge: str
    tutor: str = ""
    """Who attacked; empty for static questions."""
    attack: str
    benchmarks: dict[str, dict[str, Any]]
    """Benchmark -> its settings, as in the configuration."""
    marks: dict[str, float] = Field(default_factory=dict)
    """Thresholds, as of :class:`~steer_verl.eval.config.MarkSettings`."""
    calibration: dict[str, Any] | None = None
    """The judge's known errors, as ``steer eval calibrate`` wrote them."""
    usage: Usage = Usage()
    """Of all calls that cost anything."""
    seconds: float = 0.0
    """That items were at work, each for itself."""
    date: str = ""
    version: str = ""

    @property
    def mark_settings(self) -> MarkSettings:
        """The thresholds."""
        return MarkSettings.model_validate(self.marks)


@dataclass(frozen=True)
class EvalRun:
    """A finished evaluation."""

    folder: Path
    about: RunAbout
    dialogues: tuple[EvalDialogue, ...]

    @property
    def name(self) -> str:
        """What tables call its student."""
        return self.about.name

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """The subsets, in the order of the configuration."""
        return tuple(self.about.benchmarks)

    def subset(self, benchmark: str) -> tuple[EvalDialogue, ...]:
        """The dialogues of one benchmark."""
        return tuple(dialogue for dialogue in self.dialogues if dialogue.benchmark == benchmark)


def read_run(folder: Path | str) -> EvalRun:
    """Read a finished run.

    Raises:
        DataError: it is none, or not finished, or cannot be read.
    """
    folder = Path(folder)
    try:
        about = RunAbout.model_validate_json((folder / ABOUT).read_bytes(), strict=False)
    except OSError:
        what = "no finished evaluation there"
        raise DataError(f"{folder}: {what}; give the `out` of `steer eval run`, or start it again to end it") from None
    except ValidationError as error:
        raise DataError(f"{folder / ABOUT}: {error.errors()[0]['msg']}; evaluate again") from None
    return EvalRun(folder, about, tuple(read_dialogues(folder / DIALOGUES)))


def read_dialogues(path: Path) -> Iterable[EvalDialogue]:
    """The records of one file; a line that cannot be read is passed over, with a warning.

    Raises:
        DataError: it is not there, or not one of its lines is a record.
    """
    if not path.is_file():
        raise DataError(f"{path}: not there; start the evaluation again to end it")
    yield from read_records(path, EvalDialogue.model_validate_json, needed="an evaluated dialogue")


def write_run(folder: Path, about: RunAbout, dialogues: Iterable[EvalDialogue]) -> EvalRun:
    """Write ``run.json`` and ``dialogues.jsonl``, each whole or not at all; sorted by id."""
    rows = tuple(sorted(dialogues, key=lambda dialogue: dialogue.id))
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / DIALOGUES) as stream:
        stream.writelines(f"{row.model_dump_json()}\n".encode() for row in rows)
    write_whole(folder / ABOUT, about.model_dump_json(indent=1) + "\n")
    return EvalRun(folder, about, rows)
