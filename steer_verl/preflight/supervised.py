"""Stage II before a model is loaded: what verl's SFT trainer would stop at hours in, or never say at all.

It loads the model before it looks at its data, ends at the first row that is too long, divides by the steps of an epoch
that may have none, and saves no student where its epochs end before its steps do (trainer/sft_trainer.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pyarrow.lib import ArrowException

from steer_verl.config import section_of
from steer_verl.data.rows.check import Rules, check_file
from steer_verl.data.rows.flaws import Problem
from steer_verl.data.rows.played import UNFORMED, SftRow
from steer_verl.data.rows.tokens import StudentTokens
from steer_verl.errors import MAX_MESSAGE, ConfigError, DataError
from steer_verl.preflight.openings import row_count, told
from steer_verl.preflight.rows import SAMPLE, TRAINING, VALIDATION, data_files, first_of_many
from steer_verl.preflight.student import context_of, seeing, source_of, trained_tower
from steer_verl.text import one_line

SPLIT = "ulysses_sequence_parallel_size"
"""Key of ``engine``: GPUs that share a row."""
WEIGHTS = "hf_model"
"""What ``checkpoint.save_contents`` calls the folder that Stage III begins at."""


def student(config: Any) -> Iterator[str]:
    """Lines for a model that is not there, cannot see, or cannot hold the longest row."""
    try:
        settings = seeing(config.model, "model")
    except ConfigError as error:
        yield str(error)
        return
    yield from trained_tower(config.model, "model", settings)
    limit, longest = context_of(settings), config.data.max_length
    if limit is not None and longest > limit:
        yield f"model.path: the model's context is {limit} tokens but a row may have {longest}; lower data.max_length"


def steps(config: Any) -> Iterator[str]:
    """Batches that cannot be cut, epochs without a step, and students that would not be saved."""
    data, trainer, gpus = config.data, config.trainer, parallel(config)
    batch, own = data.train_batch_size, data.train_batch_size // gpus
    if batch % gpus or not own:
        yield f"data.train_batch_size={batch} cannot be shared by {gpus} GPUs; give a multiple of {gpus}"
        return
    micro, held = data.micro_batch_size_per_gpu, data.max_token_len_per_gpu * config.engine.get(SPLIT, 1)
    if data.use_dynamic_bsz and held < data.max_length:
        yield (
            f"data.max_token_len_per_gpu: a micro-batch holds {held} tokens, and a row may have "
            f"data.max_length={data.max_length}; verl stops at the first row that does not fit: raise the one or lower "
            "the other"
        )
    elif not data.use_dynamic_bsz and own % micro:
        yield f"data.micro_batch_size_per_gpu={micro} does not divide the {own} rows of a GPU's batch; give a divisor"
    for key in ("save_freq", "test_freq"):
        if trainer[key] == 0:
            yield f"trainer.{key}=0: verl divides by it at the first step; -1 is never"
    for key in (TRAINING, VALIDATION):
        if (rows := _count(config, key)) is not None and rows // gpus < own:
            yield f"{key}: {rows} rows make no batch of data.train_batch_size={batch}; lower it, or give more rows"
        elif rows is not None and key == TRAINING and (wanted := trainer.total_training_steps):
            made = rows // gpus // own * trainer.total_epochs
            often = trainer.save_freq
            saved = often == "after_each_epoch" or (often > 0 and made % often == 0)
            if made < wanted and not saved:
                yield (
                    f"trainer.total_training_steps={wanted}: {trainer.total_epochs} epochs of {rows} rows end after "
                    f"{made} steps, and verl does not save the student there; raise trainer.total_epochs, or lower it"
                )


def parallel(config: Any) -> int:
    """GPUs that share a batch; those that share a row count once."""
    gpus = config.trainer.nnodes * config.trainer.n_gpus_per_node
    return int(max(1, gpus // config.engine.get(SPLIT, 1)))


def _count(config: Any, key: str) -> int | None:
    """Rows of a key's files that are trained on; ``None`` where there are none, or :func:`rows` tells of them."""
    files = [path for name, path in data_files(config) if name == key]
    try:
        found = sum(map(row_count, files))
    except (ArrowException, OSError):
        return None
    most = config.data.get("train_max_samples" if key == TRAINING else "val_max_samples", -1)
    return (min(found, most) if most > 0 else found) if files else None


def rows(config: Any) -> Iterator[str]:
    """Lines for missing files, and for rows that cannot be learnt."""
    files = data_files(config)
    if all(key != TRAINING for key, _ in files):
        yield f"{TRAINING} is not set; give a parquet file of `steer data build`"
    measure = None
    try:
        measure = _measure(config) if any(path.is_file() for _, path in files) else None
    except ConfigError as error:
        yield one_line(f"model.path: no row can be measured ({error})", MAX_MESSAGE)
    for key, path in files:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            yield one_line(f"{key}: {path.resolve()} {what}; write a file with `steer data build`", MAX_MESSAGE)
        elif ours(config):
            try:
                yield from first_of_many(str(one) for one in _problems(key, path, measure) if not _may_stand(one))
            except DataError as error:
                yield one_line(f"{key}: {error}", MAX_MESSAGE)
            except (ArrowException, OSError):
                yield f"{key}: {path} cannot be read as parquet; write it with `steer data build`"


def unlike(config: Any) -> Iterator[str]:
    """Lines for what can be trained on, but perhaps was not meant; of the rows, the first :data:`SAMPLE` of a file."""
    if config.model.get("trust_remote_code"):
        yield "model.trust_remote_code: no code of a model's is run here, so that no row was measured"
    if WEIGHTS not in config.checkpoint.save_contents:
        yield f"checkpoint.save_contents lacks {WEIGHTS}, the folder that Stage III's model.path takes; add it"
    for _, path in data_files(config) if ours(config) else ():
        checked = islice(check_file(path, Rules(min_turns=1), form=SftRow), SAMPLE)
        yield from first_of_many(str(one) for row in checked for one in row.problems if _may_stand(one))


def ours(config: Any) -> bool:
    """Whether verl's own dataset reads the messages of our files."""
    return config.data.messages_key == "messages" and not section_of(config, "data.custom_cls.path")


def _measure(config: Any) -> StudentTokens | None:
    """Whoever measures the rows; none where :func:`student` or :func:`unlike` tells why not.

    Raises:
        ConfigError: tokenizer or processor cannot be loaded.
    """
    try:
        seeing(config.model, "model")
    except ConfigError:
        return None  # told by student
    if config.model.get("trust_remote_code"):
        return None
    source, cut = source_of(config.model), config.data.truncation != "error"
    measure = StudentTokens(source, 10**9 if cut else config.data.max_length)
    if not measure.sees:
        raise ConfigError(f"the processor of {source} cannot be loaded; transformers may be too old for this model")
    return measure


def _problems(key: str, path: Path, measure: StudentTokens | None) -> Iterator[Problem]:
    checked = check_file(path, Rules(min_turns=1, student=measure), form=SftRow)
    for row in told(checked, row_count(path), f"rows of {key}"):
        yield from row.problems


def _may_stand(problem: Problem) -> bool:
    return problem.what == UNFORMED or problem.field == "id"
