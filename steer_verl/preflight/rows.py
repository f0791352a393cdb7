"""The data files: there, readable, every row bound for our agent loop, images in place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from os.path import expanduser
from pathlib import Path
from typing import Any

from pyarrow.lib import ArrowException

from steer_verl.config import STEER_KEY, section_of
from steer_verl.data.rows.check import Rules, check_file
from steer_verl.data.rows.schema import RlRow
from steer_verl.data.rows.verl import VerlRow, columns_of, read_verl_row, rows_of_table
from steer_verl.data.sources.sets import Refused
from steer_verl.errors import MAX_MESSAGE, DataError
from steer_verl.mini.tutor import Facts
from steer_verl.names import AGENT_LOOP
from steer_verl.preflight.openings import row_count
from steer_verl.text import one_line
from steer_verl.types import MIN_TURNS

LOOP_KEY = "actor_rollout_ref.rollout.agent.default_agent_loop"
TRAINING, VALIDATION = "data.train_files", "data.val_files"
VERLS_FOLDERS = ("trainer.default_local_dir", "trainer.rollout_data_dir", "trainer.validation_data_dir")
PATTERN = frozenset("*?[")
"""verl gives paths to ``datasets.load_dataset`` (utils/dataset/rl_dataset.py), which takes these for a pattern."""
SAMPLE = 64
"""Rows of a file whose seed is parsed and whose images are decoded; names and paths are checked in every row."""


def data_files(config: Any) -> list[tuple[str, Path]]:
    """(config key, path) of every data file; verl takes a path or a list of them."""
    found = []
    for key in (TRAINING, VALIDATION):
        value = section_of(config, key)
        paths = [value] if isinstance(value, str) else list(value or [])
        found += [(key, Path(path)) for path in paths if path]
    return found


def folders(config: Any) -> Iterator[str]:
    """Folders that a run writes to: the first of their parents that is there takes a folder, and no ``~`` is left."""
    ours = [f"{STEER_KEY}.{name}" for name in ("transcripts", "cache", "tutor.log")]
    for key in (*VERLS_FOLDERS, *ours):
        if not isinstance(wanted := section_of(config, key), str):
            continue
        if wanted.startswith("~") and key not in ours:  # no shell turns the one of key=~/folder into it either
            yield one_line(f"{key}: {wanted}: verl would make a folder named ~; write $HOME in its place", MAX_MESSAGE)
            continue
        there = Path(expanduser(wanted)).absolute()
        while not there.exists():
            there = there.parent
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            what = "cannot be written" if there.is_dir() else "is a file"
            yield one_line(f"{key}: {wanted}: {there} {what}; name a folder that you may write to", MAX_MESSAGE)


def rows(config: Any) -> Iterator[str]:
    """Lines for missing files and for rows that cannot be trained on; a file's words may stand in them."""
    files = data_files(config)
    for key, why in ((TRAINING, ""), (VALIDATION, ", and verl opens one even where it validates nothing")):
        if all(name != key for name, _ in files):
            yield f"{key} is not set{why}; give a parquet file of `steer data convert`"
    for key, path in files:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            gone = f"{key}: {path.resolve()} {what}; write a file with `steer data convert`, or set {key}"
            yield one_line(gone, MAX_MESSAGE)
            continue
        if path.suffix != ".parquet":  # verl tells a file's form by its name
            yield one_line(f"{key}: {path}: no .parquet file; write one with `steer data convert`", MAX_MESSAGE)
            continue
        if PATTERN & set(str(path)):
            yield one_line(
                f"{key}: {path}: verl reads * ? [ in a path as a pattern; rename the file or folder", MAX_MESSAGE
            )
        try:
            yield from (one_line(line, MAX_MESSAGE) for line in _file(config, key, path))
        except DataError as error:
            yield str(error)
    yield from _too_few(config, files)


def shared_ids(config: Any) -> Iterator[str]:
    """One line for each file that is played and has seed ids of an earlier row: it works, but perhaps not as meant."""
    first: dict[str, tuple[Path, int]] = {}
    for key, path in data_files(config):
        if key != VALIDATION or _validates(config.trainer):
            yield from first_of_many(_known_ids(key, path, first))


def _known_ids(key: str, path: Path, first: dict[str, tuple[Path, int]]) -> Iterator[str]:
    for number, _, dialogue in _dialogues(path):
        if not dialogue:
            continue
        name = dialogue["metadata"]["question_id"]
        if name in first:
            other, earlier = first[name]
            same = (
                f"{key}: {path}: row {number}: seed id {name!r} is that of row {earlier} of {other} too, so that both "
                "have the same random numbers and one name in logs, and a validation may tell of what is trained on; "
                "give each dialogue an id of its own"
            )
            yield one_line(same, MAX_MESSAGE)
        else:
            first[name] = path, number


def _too_few(config: Any, files: list[tuple[str, Path]]) -> Iterator[str]:
    """Files that make no batch: verl ends with a division by zero, once the models are loaded (trainer_base.py:450)."""
    try:
        counts = {key: sum(row_count(path) for name, path in files if name == key) for key, _ in files}
    except (ArrowException, OSError):
        return  # told of each file
    most, batch = config.data.get("train_max_samples", -1), config.data.train_batch_size
    count = counts.get(TRAINING, batch)
    if (kept := min(count, most) if most > 0 else count) < batch:
        yield (
            f"{TRAINING}: {kept} rows are fewer than data.train_batch_size={batch}, so that an epoch would have no "
            "step; lower it, or give more rows"
        )
    if counts.get(VALIDATION) == 0:
        yield f"{VALIDATION}: no rows, of which verl makes no batch; give a file with at least one"


def _file(config: Any, key: str, path: Path) -> Iterator[str]:
    yield from first_of_many(_agent_names(path, config.actor_rollout_ref.rollout.agent.default_agent_loop))
    lost = list(first_of_many(_lost_images(path)))
    yield from lost or first_of_many(_unsound(path, config))
    if key != VALIDATION or _validates(config.trainer):
        yield from first_of_many(_wrong_split(path, validation=key == VALIDATION))


def _validates(trainer: Any) -> bool:
    """Whether a validation file is ever played (verl wants one in any case)."""
    return bool(trainer.test_freq > 0 or trainer.get("val_before_train", True) or trainer.get("val_only"))


def _wrong_split(path: Path, validation: bool) -> Iterator[str]:
    """Rows whose label takes a validation for training, or the reverse: verl itself tells a loop of neither."""
    label, purpose = ("val", "validation") if validation else ("train", "training")
    hint = f"--split {label}"
    for number, info in enumerate(_column(path, "extra_info") or [], start=1):
        split = (info.get("split") if isinstance(info, dict) else None) or "train"
        if (split != "train") != validation:
            yield (
                f"{path}: row {number}: extra_info.split is {split!r} in a file for {purpose}, so that it would be "
                f"played and logged as the other; write the file with `steer data convert {hint}`, or set "
                f"extra_info.split={label}"
            )


def _agent_names(path: Path, default_loop: str) -> Iterator[str]:
    """Rows for another loop; a column beats the default (verl, experimental/agent_loop/agent_loop.py:610)."""
    hint = f"write the file with `steer data convert`, or set {LOOP_KEY}={AGENT_LOOP}"
    names = _column(path, "agent_name")
    if names is None:
        if default_loop != AGENT_LOOP:
            yield f"{path}: row 1: no agent_name, so verl would silently run {default_loop}; {hint}"
        return
    for number, name in enumerate(names, start=1):
        if name is None:
            yield f"{path}: row {number}: agent_name is empty, which beats the default; set it to {AGENT_LOOP}"
        elif name != AGENT_LOOP:
            yield f"{path}: row {number}: agent_name is {name!r}; set it to {AGENT_LOOP}"


def _dialogues(path: Path) -> Iterator[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
    """(number from 1, row, its dialogue as an RL row) of every row; what holds no dialogue has an empty one."""
    for number, row in rows_of_table(path, "extra_info", VerlRow.model_fields):
        if not isinstance(row, Refused):  # the data checks tell what is broken
            yield number, row, read_verl_row(row)[0] or {}


def _lost_images(path: Path) -> Iterator[str]:
    for number, row, dialogue in _dialogues(path):
        opening = row.get("images")  # what verl opens; later turns have theirs in the dialogue alone
        named = (*(opening if isinstance(opening, list) else ()), *dialogue.get("images", ()))
        for image in dict.fromkeys(image for image in named if isinstance(image, str)):
            if not os.path.isfile(image):
                yield (
                    f"{path}: row {number}: image {image} does not exist on this machine; "
                    "write the file again here with `steer data convert`, or put the images there"
                )


def _unsound(path: Path, config: Any) -> Iterator[str]:
    """What the data checks find in a sample; the agent's name has had its own check."""
    embedded = section_of(config, f"{STEER_KEY}.tutor.kind") == "mini"
    single = section_of(config, f"{STEER_KEY}.max_turns") == 1  # single questions are meant
    for checked in islice(check_file(path, Rules(min_turns=1 if single else MIN_TURNS), form=RlRow), SAMPLE):
        yield from (str(problem) for problem in checked.problems if problem.field != "agent_name")
        if embedded and checked.seed is not None and Facts.parse(checked.seed.facts) is None:
            yield (
                f"{path}: row {checked.row}: has no facts of the miniature world, and its tutor knows no other; "
                "set actor_rollout_ref.rollout.custom.steer.tutor.kind=openai"
            )


def first_of_many(problems: Iterator[str]) -> Iterator[str]:
    """The first problem, and how many more of its kind there are."""
    first = next(problems, None)
    if first is not None:
        more = sum(1 for _ in problems)
        yield f"{first} ({more} more like it)" if more else first


def _column(path: Path, name: str) -> list[Any] | None:
    """One column as a list, or ``None`` when the file has none of that name.

    Raises:
        DataError: not a parquet file.
    """
    if name not in columns_of(path):
        return None
    rows = rows_of_table(path, name, (name,))
    return [None if isinstance(row, Refused) else row[name] for _, row in rows]  # the data checks tell what is broken
