"""Answers that people have scored, from a CSV file, on the tutor's own safety scale 1..10.

Two layouts are read.

**Ours**: ``question``, ``answer``, ``human_safety`` (or ``human_safety_1``, ``human_safety_2``, ... for several people;
1..10, empty where one did not rate), and optionally ``image`` (path below the file's folder) and ``kind`` (benign,
obfuscated, red_team). Other columns are ignored.

**PyRIT's** human-labelled sets (MIT, ``pyrit/datasets/scorer_evals`` of its 1.1.0 wheel): comment lines, then
``objective``, ``assistant_response``, ``human_score`` (or ``human_score_1``, ...), and mostly ``harm_category`` and
``data_type``. What a score means depends on the folder it lies in:

============= ============================== =========================================== ==========================
scale         human score                    safety                                      told by
============= ============================== =========================================== ==========================
``harm``      0 harmless .. 1 severe         10 - 9 h: 0 -> 10, .5 -> 5.5, .75 -> 3.25   scores between 0 and 1, or
                                                                                         ``harm_definition``
``objective`` 1: the harmful aim was reached 1 -> 1, 0 -> 10                             ``harm_category``
``refusal``   1: the answer declines         1 -> 10, 0 -> 1                             no ``harm_category``
============= ============================== =========================================== ==========================

The scales ask different things. A plain refusal earns 8 of our rubric and 10 here; an answered *harmless* request is
"no refusal" here and safe to the tutor. So read ranks and error rates first, the mean absolute error last.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from steer_verl.errors import DataError
from steer_verl.images import resolve_image
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed, TutorRequest, UserTurn


class Scale(str, Enum):
    """What the human scores of a file mean."""

    SAFETY = "safety"
    HARM = "harm"
    OBJECTIVE = "objective"
    REFUSAL = "refusal"

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest score that may stand in the file."""
        return (1.0, 10.0) if self is Scale.SAFETY else (0.0, 1.0)

    def safety(self, score: float) -> float:
        """A score of this scale as safety, 1..10."""
        if self is Scale.SAFETY:
            return score
        return 1 + 9 * score if self is Scale.REFUSAL else 10 - 9 * score


@dataclass(frozen=True)
class Labelled:
    """One scored answer. ``human``: safety (1..10) by each person, ``None`` where one did not rate."""

    question: str
    answer: str
    human: tuple[float | None, ...]
    images: tuple[str, ...] = ()
    kind: DialogueKind = DialogueKind.RED_TEAM

    @property
    def key(self) -> str:
        """Hash of all that the tutor is shown; a picture counts by its path."""
        shown = json.dumps([self.question, self.answer, self.images, self.kind.value])
        return hashlib.sha256(shown.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def exchange(self) -> TutorRequest:
        """The answer as the last turn of a dialogue: it is judged, and nothing more is asked."""
        user = UserTurn(text=IMAGE_MARK * len(self.images), images=self.images).with_text(self.question)
        seed = Seed(id=f"labelled-{self.key}", turns=(user, user), kind=self.kind)
        return TutorRequest(
            seed=seed, turns=(), user=user, answer=self.answer, static_next_turn=None, turn_key=f"calibrate/{self.key}"
        )


@dataclass(frozen=True)
class LabelledSet:
    """A file of scored answers."""

    name: str
    scale: Scale
    raters: tuple[str, ...]
    rows: tuple[Labelled, ...]

    @property
    def ratings_RN(self) -> np.ndarray:
        """Safety by rater and row, NaN where one did not rate."""
        return np.array([row.human for row in self.rows], dtype=float).reshape(len(self.rows), -1).T


Row = tuple[int, dict[str, str]]
"""Number of the line on which it ends, and its cells."""

_TOO_MANY = "\0"


def read_labelled(path: str | Path, scale: Scale | None = None) -> LabelledSet:
    """Read a file of either layout.

    Args:
        path: CSV, UTF-8.
        scale: what PyRIT's scores mean; told from the file unless given.

    Raises:
        DataError: it cannot be read, or a row cannot be used; names the line.
    """
    path = Path(path)
    comments, header, rows = _table(path)
    ours = "answer" in header
    question, answer, prefix = (
        ("question", "answer", "human_safety") if ours else ("objective", "assistant_response", "human_score")
    )
    raters = tuple(name for name in header if name == prefix or name.startswith(f"{prefix}_"))
    if missing := [name for name in (question, answer) if name not in header] or ([] if raters else [prefix]):
        raise DataError(
            f"{path}: no column {missing[0]!r}; give question, answer and human_safety, or PyRIT's objective, "
            "assistant_response and human_score"
        )
    if not rows:
        raise DataError(f"{path}: no rows below the header; give a file of scored answers")
    if ours and scale not in (None, Scale.SAFETY):
        raise DataError(f"{path}: human_safety is on the scale 1..10; drop --scale {scale.value if scale else ''}")
    told = Scale.SAFETY if ours else scale or _guess(comments, header, rows, raters)
    labelled = tuple(_row(path, row, question, answer, raters, told) for row in rows)
    return LabelledSet(path.stem, told, raters, labelled)


def _table(path: Path) -> tuple[str, list[str], list[Row]]:
    """Comment lines before the header, the header, and the rows that are not blank.

    Only lines before the header are comments: an answer may well hold a line that begins with ``#``.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save it as CSV UTF-8") from None
    lines = io.StringIO(text, newline="")
    comments, start, skipped = "", 0, 0
    while (line := lines.readline()).startswith("#"):
        comments, start, skipped = comments + line, lines.tell(), skipped + 1
    lines.seek(start)
    reader = csv.DictReader(lines, restkey=_TOO_MANY, restval="")
    try:
        rows = [(reader.line_num + skipped, row) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num + skipped}: not CSV ({error}); mend the line") from None
    for number, row in rows:
        if any(row.pop(_TOO_MANY, ())):
            raise DataError(f"{path}:{number}: more cells than columns; put a text that holds commas into quotes")
    return comments, list(reader.fieldnames or []), [row for row in rows if any(row[1].values())]


def _guess(comments: str, header: list[str], rows: list[Row], raters: tuple[str, ...]) -> Scale:
    binary = all(row[name].strip() in ("0", "1", "0.0", "1.0", "") for _, row in rows for name in raters)
    if not binary or "harm_definition" in comments:
        return Scale.HARM
    return Scale.OBJECTIVE if "harm_category" in header else Scale.REFUSAL


def _row(path: Path, row: Row, question: str, answer: str, raters: tuple[str, ...], scale: Scale) -> Labelled:
    number, cells = row
    where = f"{path}:{number}"
    if not cells[answer].strip():
        raise DataError(f"{where}: {answer} is empty; remove the row")
    if (form := cells.get("data_type", "").strip() or "text") != "text":
        raise DataError(f"{where}: data_type is {form}; only text answers can be judged, remove the row")
    human = tuple(_score(where, name, cells[name].strip(), scale) for name in raters)
    if not any(score is not None for score in human):
        raise DataError(f"{where}: nobody has scored it; fill {raters[0]} or remove the row")
    images = tuple(_images(where, cells.get("image", "").strip(), path.parent))
    return Labelled(cells[question], cells[answer], human, images, _kind(where, cells.get("kind", "").strip()))


def _score(where: str, name: str, cell: str, scale: Scale) -> float | None:
    if not cell:
        return None
    low, high = scale.ends
    try:
        score = float(cell)
    except ValueError:
        score = float("nan")
    if not low <= score <= high:
        raise DataError(f"{where}: {name} is {cell!r}; the scale {scale.value} goes from {low:g} to {high:g}")
    return scale.safety(score)


def _images(where: str, cell: str, root: Path) -> Iterator[str]:
    if cell:
        try:
            yield str(resolve_image(cell, root=root))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None


def _kind(where: str, cell: str) -> DialogueKind:
    try:
        return DialogueKind(cell) if cell else DialogueKind.RED_TEAM
    except ValueError:
        names = ", ".join(kind.value for kind in DialogueKind)
        raise DataError(f"{where}: kind is {cell!r}; give one of {names}, or leave it empty") from None
