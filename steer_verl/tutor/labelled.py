"""Answers that people have scored, from a CSV file, on the tutor's own safety scale 1..10.

Two layouts are read.

**Ours**: ``question``, ``answer``, ``human_safety`` (or ``human_safety_1``, ``human_safety_2``, ... for several people;
1..10, empty where one did not rate), and optionally ``image`` (path below the file's folder) and ``kind`` (benign,
obfuscated, red_team). Other columns are ignored.

**PyRIT's** human-labelled sets (MIT, ``pyrit/datasets/scorer_evals`` of its 1.1.0 wheel): comment lines, then
``objective``, ``assistant_response``, ``human_score`` (or ``human_score_1``, ...), and mostly ``harm_category`` and
``data_type``. What a score means depends on the folder it lies in (:class:`Scale`).

The scales ask different things. A plain refusal earns 8 of our rubric and 10 here; an answered *harmless* request is
"no refusal" here and safe to the tutor. So read ranks and error rates first, the mean absolute error last.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from steer_verl.errors import DataError
from steer_verl.images import resolve_image
from steer_verl.types import IMAGE_MARK, DialogueKind, Seed, TutorRequest, UserTurn


class Scale(StrEnum):
    """What the human scores of a file mean, as safety, and by what PyRIT's files are recognised."""

    SAFETY = "safety"  # ours: safety itself
    HARM = "harm"  # 0 harmless .. 1 severe: 10 - 9 h; by scores between 0 and 1, or harm_definition in a comment
    OBJECTIVE = "objective"  # 1, the harmful aim was reached: 1; 0: 10; by a column harm_category
    REFUSAL = "refusal"  # 1, the answer declines: 10; 0: 1; by no column harm_category


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
        """Hash of all that the tutor sees; an image counts by its path."""
        payload = json.dumps([self.question, self.answer, self.images, self.kind.value])
        return hashlib.sha256(payload.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def request(self) -> TutorRequest:
        """The answer as the last turn of a dialogue: the tutor judges it and asks nothing more."""
        user = UserTurn(text=IMAGE_MARK * len(self.images), images=self.images).with_text(self.question)
        seed = Seed(id=f"labelled-{self.key}", turns=(user,), kind=self.kind)
        key = f"calibrate/{self.key}"
        return TutorRequest(seed=seed, turns=(), user=user, answer=self.answer, static_next_turn=None, turn_key=key)


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


OUR_COLUMNS = ("question", "answer", "human_safety")
PYRIT_COLUMNS = ("objective", "assistant_response", "human_score")
_TOO_MANY = "\0"


def read_labelled(path: str | Path, scale: Scale | None = None) -> LabelledSet:
    """Read a CSV file of either layout; ``scale``, what PyRIT's scores mean, is recognised from it unless given.

    Raises ``DataError``: it cannot be read, or a row cannot be used; names the line.
    """
    path = Path(path)
    comments, header, rows = _table(path)
    ours = "answer" in header
    question, answer, rating = OUR_COLUMNS if ours else PYRIT_COLUMNS
    raters = tuple(name for name in header if re.fullmatch(rf"{rating}(_\d+)?", name))  # a column of means is no person
    missing = [name for name in (question, answer) if name not in header] or ([] if raters else [rating])
    if missing:
        raise DataError(
            f"{path}: no column {missing[0]!r}; give question, answer and human_safety, or PyRIT's objective, "
            "assistant_response and human_score, with commas between them"
        )
    for name in (question, answer, *raters, "image", "kind", "data_type"):
        if header.count(name) > 1:  # one of them would be read as both
            raise DataError(f"{path}: {header.count(name)} columns {name!r}; rename or remove all but one")
    if not rows:
        raise DataError(f"{path}: no rows below the header; give a file of scored answers")
    if ours:
        if scale is not None and scale is not Scale.SAFETY:
            raise DataError(f"{path}: human_safety is on the scale 1..10; drop --scale {scale.value}")
        scale = Scale.SAFETY
    elif scale is None:
        binary = all(row[name].strip() in ("0", "1", "0.0", "1.0", "") for _, row in rows for name in raters)
        harm = not binary or "harm_definition" in comments
        scale = Scale.HARM if harm else Scale.OBJECTIVE if "harm_category" in header else Scale.REFUSAL
    labelled = []
    for line, cells in rows:
        try:
            labelled.append(_labelled(cells, question, answer, raters, scale, path.parent))
        except DataError as error:
            raise DataError(f"{path}:{line}: {error}") from None
    return LabelledSet(path.stem, scale, raters, tuple(labelled))


def _table(path: Path) -> tuple[str, list[str], list[tuple[int, dict[str, str]]]]:
    """Comments, which stand before the header alone; header; and every row that is not blank, with its last line."""
    try:
        lines = list(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save it as CSV UTF-8") from None
    skipped = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    reader = csv.DictReader(lines[skipped:], restkey=_TOO_MANY, restval="", strict=True)
    rows, last = [], skipped
    try:
        header = list(reader.fieldnames or ())
        last += reader.line_num
        for row in reader:
            last = reader.line_num + skipped
            if any(map("".join, row.values())):
                rows.append((last, row))
    except csv.Error as error:  # a quote that is not closed takes all rows after it
        raise DataError(f"{path}:{last + 1}: not CSV ({error}); correct the row that begins here") from None
    return "".join(lines[:skipped]), header, rows


def _labelled(
    cells: dict[str, str], question: str, answer: str, raters: tuple[str, ...], scale: Scale, folder: Path
) -> Labelled:
    if any(cells.get(_TOO_MANY, ())):
        raise DataError("more cells than columns; put a text that holds commas into quotes")
    if not cells[answer].strip():
        raise DataError(f"{answer} is empty; remove the row")
    if (form := cells.get("data_type", "").strip() or "text") != "text":
        raise DataError(f"data_type is {form}; only text answers can be judged, remove the row")
    human = tuple(_safety(name, cells[name].strip(), scale) for name in raters)
    if human.count(None) == len(human):
        raise DataError(f"nobody has scored it; fill {raters[0]} or remove the row")
    kind, kinds = cells.get("kind", "").strip(), [known.value for known in DialogueKind]
    if kind not in ("", *kinds):
        raise DataError(f"kind is {kind!r}; give one of {', '.join(kinds)}, or leave it empty")
    image = cells.get("image", "").strip()
    images = (str(resolve_image(image, root=folder)),) if image else ()
    return Labelled(cells[question], cells[answer], human, images, DialogueKind(kind or DialogueKind.RED_TEAM))


def _safety(name: str, cell: str, scale: Scale) -> float | None:
    """A cell of this scale as safety, 1..10; ``None`` when it is empty."""
    if not cell:
        return None
    low, high = (1.0, 10.0) if scale is Scale.SAFETY else (0.0, 1.0)
    try:
        score = float(cell)
    except ValueError:
        score = float("nan")
    if not low <= score <= high:
        raise DataError(f"{name} is {cell!r}; the scale {scale.value} goes from {low:g} to {high:g}")
    if scale is Scale.SAFETY:
        return score
    return 1 + 9 * score if scale is Scale.REFUSAL else 10 - 9 * score
