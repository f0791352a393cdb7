"""A finished evaluation on disk, and reading it back.

::

    out/run.json          who was evaluated on what by whom (RunAbout)
    out/dialogues.jsonl   every item of every benchmark, one EvalDialogue a line, sorted by id
    out/summary.json      the measures with intervals (steer_verl/eval/shape.py)
    out/summary.md        the same to be read

Images below the folder are written relative to it, and read as absolute paths: a folder that was moved is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from pydantic import Field, ValidationError, field_validator

from steer_verl.errors import DataError
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.records import EvalDialogue
from steer_verl.records import atomic, read_records, write_whole
from steer_verl.settings_error import dotted, reason
from steer_verl.types import Record, Usage, UserTurn

INSPECT_LOGS = (".eval", ".json")
"""Endings of Inspect's logs."""
READ_LOG = "steer_verl.eval.inspect.read:read_log"
"""By name: Inspect is an extra."""
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

    @field_validator("marks")
    @classmethod
    def _known(cls, marks: dict[str, float]) -> dict[str, float]:
        try:
            MarkSettings.model_validate(marks)
        except ValidationError as error:
            raise ValueError(_fault(error)) from None
        return marks

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


def read_run(path: Path | str) -> EvalRun:
    """Read a finished run: the folder of one, or a log of Inspect (``.eval``, ``.json``).

    Raises:
        DataError: it is none, or not finished, or cannot be read.
        ConfigError: it is a log, and the extra ``inspect`` is not installed.
    """
    folder = Path(path)
    if folder.suffix in INSPECT_LOGS and folder.is_file():
        run: EvalRun = resolve_name(READ_LOG)(folder)
        return run
    try:
        if not (folder / ABOUT).is_file():  # nor a pipe, which may never end
            raise FileNotFoundError
        about = RunAbout.model_validate_json((folder / ABOUT).read_bytes(), strict=False)
    except OSError:
        what = "no finished evaluation there"
        raise DataError(f"{folder}: {what}; give the `out` of `steer eval run`, or start it again to end it") from None
    except ValidationError as error:
        raise DataError(f"{folder / ABOUT}: {_fault(error)}; evaluate again") from None
    return EvalRun(folder, about, tuple(read_dialogues(folder / DIALOGUES)))


def _fault(error: ValidationError) -> str:
    """The first one, and where it is."""
    first = error.errors()[0]
    return ": ".join(filter(None, (dotted(first["loc"]), reason(first))))


def read_dialogues(path: Path) -> Iterator[EvalDialogue]:
    """The records of one file; a line that cannot be read is passed over, with a warning.

    Raises:
        DataError: it is not there, or not one of its lines is a record.
    """
    if not path.is_file():
        raise DataError(f"{path}: not there; start the evaluation again to end it")
    folder = path.parent.resolve()
    for row in read_records(path, EvalDialogue.model_validate_json, needed="an evaluated dialogue"):
        yield with_images(row, lambda image: str(folder / image))


def write_run(folder: Path, about: RunAbout, dialogues: Iterable[EvalDialogue]) -> EvalRun:
    """Write ``run.json`` and ``dialogues.jsonl``, each whole or not at all; sorted by id.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    rows = tuple(sorted(dialogues, key=lambda dialogue: dialogue.id))
    with atomic(folder / DIALOGUES) as stream:
        for row in rows:
            stream.write(f"{with_images(row, below(folder)).model_dump_json()}\n".encode())
    write_whole(folder / ABOUT, about.model_dump_json(indent=1) + "\n")
    return EvalRun(folder, about, rows)


def below(folder: Path) -> Callable[[str], str]:
    """Makes a path below ``folder`` relative to it; any other stays as it is."""
    root = folder.resolve()
    return lambda path: str(Path(path).relative_to(root)) if Path(path).is_relative_to(root) else path


def with_images(dialogue: EvalDialogue, path: Callable[[str], str]) -> EvalDialogue:
    """The dialogue with every path of an image changed."""
    if not any(turn.user.images for turn in dialogue.turns):
        return dialogue
    turns = (turn.model_copy(update={"user": with_paths(turn.user, path)}) for turn in dialogue.turns)
    return dialogue.model_copy(update={"turns": tuple(turns)})


def with_paths(user: UserTurn, path: Callable[[str], str]) -> UserTurn:
    """A user's turn with every path of an image changed."""
    return user.model_copy(update={"images": tuple(map(path, user.images))}) if user.images else user
