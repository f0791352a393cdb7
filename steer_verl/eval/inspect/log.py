"""Our runs as logs of Inspect, and logs of Inspect as runs.

:func:`write_log` keeps everything: what :func:`read_log` makes of such a log equals the run. Anybody's log can be read
(steer_verl/eval/inspect/foreign.py). Few samples are in memory at a time, whichever way it goes.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalError,
    EvalLog,
    EvalSample,
    EvalSpec,
    read_eval_log,
    read_eval_log_sample_summaries,
    read_eval_log_samples_by_id,
)
from inspect_ai.model import GenerateConfig, ModelConfig, ModelOutput, ModelUsage

from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.draft import label
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.inspect.archive import created, write_archive
from steer_verl.eval.inspect.foreign import about_of, absent, dialogue_of, sampling_of
from steer_verl.eval.inspect.images import shown
from steer_verl.eval.inspect.messages import conversation, images
from steer_verl.eval.inspect.scores import RECORD, record_in, score_of, told_of
from steer_verl.eval.records import EvalDialogue, EvalEnd
from steer_verl.eval.runs import EvalRun, RunAbout
from steer_verl.text import one_line, unmarked

JUDGE = "steer_judge"
"""Name of the score."""
BATCH = 16
"""Samples that are read at once."""
MAX_MEMBER = 2**30
"""Bytes of a sample; a log that holds a larger one is not unpacked."""


def write_log(run: EvalRun, path: Path) -> None:
    """Write a run as a ``.eval`` log: one sample for each dialogue, with the images of all its messages.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    about, marks = run.about, run.about.mark_settings
    spec = EvalSpec(
        created=created(about.date),
        task="steer_eval",
        task_args={"attack": about.attack, "benchmarks": about.benchmarks},
        dataset=EvalDataset(name=", ".join(run.benchmarks)),
        model=one_line(about.student or about.name),
        model_roles=dict(_roles(about)),
        model_generate_config=_sampling(run.dialogues),
        config=EvalConfig(),
        metadata={RECORD: about.model_dump(mode="json")},
    )
    write_archive(path, spec, (sample_of(dialogue, spec.model, marks) for dialogue in run.dialogues))


def sample_of(dialogue: EvalDialogue, model: str, marks: MarkSettings) -> EvalSample:
    """A dialogue as a sample. The first question is its input, without the image, which stands in the messages."""
    held: dict[str, str] = {}
    said = conversation(dialogue.turns, shown(held), model, told_of)
    tokens = sum(turn.answer_tokens for turn in dialogue.turns)
    failed = EvalError(message=dialogue.detail or dialogue.end.value, traceback="", traceback_ansi="")
    output = ModelOutput(model=model)
    if dialogue.turns:
        last = dialogue.turns[-1]
        output = ModelOutput.from_content(model, last.answer, "max_tokens" if last.truncated else "stop")
    return EvalSample(
        id=label(dialogue.id) or "dialogue",
        epoch=1,
        input=unmarked(dialogue.turns[0].user.text) if dialogue.turns else dialogue.detail,
        target=dialogue.reference,
        messages=said,
        output=output,
        scores={JUDGE: score_of(dialogue, held, marks)},
        metadata=metadata_of(dialogue),
        model_usage={model: ModelUsage(output_tokens=tokens, total_tokens=tokens)},
        total_time=sum(turn.seconds for turn in dialogue.turns),
        error=None if dialogue.end is EvalEnd.COMPLETED else failed,
    )


def metadata_of(dialogue: EvalDialogue) -> dict[str, Any]:
    """What a sample is sorted and filtered by."""
    told = {
        "benchmark": dialogue.benchmark,
        "category": dialogue.category,
        "kind": dialogue.kind.value,
        "planned": dialogue.planned,
        "played": len(dialogue.turns),
        "end": dialogue.end.value,
        "source": dialogue.source,
        "license": dialogue.license,
        "oddities": list(dialogue.oddities),
    }
    return {name: value for name, value in told.items() if value not in ("", [])}


def read_log(path: Path | str) -> EvalRun:
    """A log of Inspect (``.eval`` or ``.json``) as a run; its folder is the log.

    A dialogue that was not begun, or whose sample ended in an error, is one of which answers are missing.

    Raises:
        DataError: it is no log, holds no sample, or cannot be read.
    """
    path = Path(path)
    try:
        header = read_eval_log(path, header_only=True)
        missing = Counter((str(name), epoch) for name in _planned(header) for epoch in _epochs(header))
        dialogues = []
        for sample in _samples(path):
            missing[str(sample.id), sample.epoch] = 0
            dialogues.append(_dialogue(sample, header.eval))
        told = (header.eval.metadata or {}).get(RECORD)
        about = RunAbout.model_validate(told, strict=False) if told else None
    except DataError:
        raise
    except Exception as error:  # whatever a foreign file makes of a reader
        why = one_line(f"{type(error).__name__}: {error}")
        raise DataError(f"{path}: cannot be read as a log of Inspect ({why}); give a .eval or .json log") from None
    if about is None:
        lost = [key for key, count in missing.items() if count]
        known = {dialogue.benchmark for dialogue in dialogues}
        dialogues += [absent(name, epoch, header.eval, header.status, known) for name, epoch in lost]
        dialogues.sort(key=lambda dialogue: dialogue.id)
        about = about_of(header.eval, dialogues)
    if not dialogues:
        raise DataError(f"{path}: a log without samples; run the evaluation again")
    return EvalRun(path, about, tuple(dialogues))


def _dialogue(sample: EvalSample, spec: EvalSpec) -> EvalDialogue:
    told = [score.metadata or {} for score in (sample.scores or {}).values()]
    ours = record_in([*told, sample.metadata], images(sample.messages))
    if ours is not None and RECORD not in (spec.metadata or {}):  # of our task, which does not know the sampling
        return ours.model_copy(update={"sampling": sampling_of(spec)})
    return ours or dialogue_of(sample, spec)


def _samples(path: Path) -> Iterator[EvalSample]:
    """The samples in the order of the log, their attachments in place."""
    if path.suffix != ".eval":
        yield from read_eval_log(path, resolve_attachments=True).samples or []
        return
    with zipfile.ZipFile(path) as archive:
        if any(member.file_size > MAX_MEMBER for member in archive.infolist()):
            raise DataError(f"{path}: a sample of more than {MAX_MEMBER} bytes; it is not unpacked")
    keys = ((one.id, one.epoch) for one in read_eval_log_sample_summaries(path))
    while batch := list(islice(keys, BATCH)):
        yield from read_eval_log_samples_by_id(path, batch, resolve_attachments=True)


def _planned(header: EvalLog) -> list[str | int]:
    return list(header.eval.dataset.sample_ids or [])


def _epochs(header: EvalLog) -> range:
    return range(1, 1 + (header.eval.config.epochs or 1))


def _roles(about: RunAbout) -> Iterator[tuple[str, ModelConfig]]:
    yield "grader", ModelConfig(model=one_line(about.judge))
    if about.tutor:
        yield "tutor", ModelConfig(model=one_line(about.tutor))


def _sampling(dialogues: Iterable[EvalDialogue]) -> GenerateConfig:
    """How answers were drawn, where all of them were drawn the same way and it is known."""
    known = {dialogue.sampling for dialogue in dialogues}
    drawn = known.pop() if len(known) == 1 else None
    return GenerateConfig(**drawn.model_dump(exclude_defaults=False)) if drawn else GenerateConfig()
