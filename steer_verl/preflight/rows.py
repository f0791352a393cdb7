"""The data files: there, readable, every row bound for our agent loop, images in place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from steer_verl.config import STEER_KEY, section_of
from steer_verl.data.rows.check import Rules, check_file
from steer_verl.data.rows.schema import RlRow
from steer_verl.data.rows.verl import columns_of, rows_of_table
from steer_verl.data.sources.sets import Refused
from steer_verl.errors import MAX_MESSAGE, DataError
from steer_verl.mini.tutor import Facts
from steer_verl.names import AGENT_LOOP
from steer_verl.text import one_line
from steer_verl.types import MIN_TURNS

LOOP_KEY = "actor_rollout_ref.rollout.agent.default_agent_loop"
VALIDATION = "data.val_files"
PATTERN = frozenset("*?[")
"""verl gives paths to ``datasets.load_dataset`` (utils/dataset/rl_dataset.py), which takes these for a pattern."""
SAMPLE = 64
"""Rows of a file whose seed is parsed and whose images are decoded; names and paths are checked in every row."""


def data_files(config: Any) -> list[tuple[str, Path]]:
    """(config key, path) of every data file; verl takes a path or a list of them."""
    found = []
    for key in ("train_files", "val_files"):
        value = config.data.get(key)
        paths = [value] if isinstance(value, str) else list(value or [])
        found += [(f"data.{key}", Path(path)) for path in paths]
    return found


def rows(config: Any) -> Iterator[str]:
    """Lines for missing files and for rows that cannot be trained on; a file's words may stand in them."""
    if not config.data.get("train_files"):
        yield "data.train_files is not set; give a parquet file of `steer data convert`"
    for key, path in data_files(config):
        if not path.is_file():
            gone = f"{key}: {path.resolve()} does not exist; write it with `steer data convert`, or set {key}"
            yield one_line(gone, MAX_MESSAGE)
            continue
        if PATTERN & set(str(path)):
            yield one_line(
                f"{key}: {path}: verl reads * ? [ in a path as a pattern; rename the file or folder", MAX_MESSAGE
            )
        try:
            yield from (one_line(line, MAX_MESSAGE) for line in _file(config, key, path))
        except DataError as error:
            yield str(error)


def _file(config: Any, key: str, path: Path) -> Iterator[str]:
    yield from _first_of_many(_agent_names(path, config.actor_rollout_ref.rollout.agent.default_agent_loop))
    lost = list(_first_of_many(_lost_images(path)))
    yield from lost or _first_of_many(_unsound(path, config))
    if key != VALIDATION or _validates(config.trainer):
        yield from _first_of_many(_wrong_split(path, validation=key == VALIDATION))


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


def _lost_images(path: Path) -> Iterator[str]:
    for number, images in enumerate(_column(path, "images") or [], start=1):
        for image in images if isinstance(images, list) else []:
            if isinstance(image, str) and not os.path.isfile(image):
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


def _first_of_many(problems: Iterator[str]) -> Iterator[str]:
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
