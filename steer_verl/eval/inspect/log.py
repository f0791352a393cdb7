"""Our runs as logs of Inspect, and logs of Inspect as runs.

:func:`write_log` keeps everything: what :func:`read_log` makes of such a log equals the run. Anybody's log can be read
(steer_verl/eval/inspect/foreign.py). Few samples are in memory at a time, whichever way it goes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from itertools import islice, product
from pathlib import Path

from inspect_ai.log import (
    EvalError,
    EvalSample,
    EvalSpec,
    read_eval_log,
    read_eval_log_sample_summaries,
    read_eval_log_samples_by_id,
)
from inspect_ai.model import GenerateConfig, ModelConfig

from steer_verl.errors import DataError
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.inspect.archive import sample_of, write_archive
from steer_verl.eval.inspect.foreign import about_of, absent, dialogue_of, sampling_of
from steer_verl.eval.inspect.messages import images
from steer_verl.eval.inspect.scores import RECORD, record_in, score_of, told_of
from steer_verl.eval.records import EvalDialogue, EvalEnd
from steer_verl.eval.runs import EvalRun, RunAbout
from steer_verl.text import one_line

JUDGE = "steer_judge"
"""Name of the score."""
SHOWN = ("benchmark", "category", "kind", "planned", "end", "source", "license", "oddities")
"""What samples are sorted and filtered by, besides the turns that were played."""
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
    model = one_line(about.student or about.name)
    roles = {"grader": about.judge} | ({"tutor": about.tutor} if about.tutor else {})
    write_archive(
        path,
        (_sample(dialogue, model, marks) for dialogue in run.dialogues),
        task="steer_eval",
        dataset=", ".join(run.benchmarks),
        model=model,
        date=about.date,
        task_args={"attack": about.attack, "benchmarks": about.benchmarks},
        model_roles={role: ModelConfig(model=one_line(who)) for role, who in roles.items()},
        model_generate_config=_drawn(run.dialogues),
        metadata={RECORD: about.model_dump(mode="json")},
    )


def read_log(path: Path | str) -> EvalRun:
    """A log of Inspect (``.eval`` or ``.json``) as a run; its folder is the log.

    A sample that was planned and is not there is a dialogue of which every answer is missing.

    Raises:
        DataError: it is no log, holds no sample, or cannot be read.
    """
    path = Path(path)
    try:
        header = read_eval_log(path, header_only=True)
        spec, told = header.eval, (header.eval.metadata or {}).get(RECORD)
        about = RunAbout.model_validate(told, strict=False) if told else None
        found = {(str(sample.id), sample.epoch): _dialogue(sample, spec) for sample in _samples(path)}
    except DataError:
        raise
    except Exception as error:  # whatever a foreign file makes of a reader
        why = one_line(f"{type(error).__name__}: {error}")
        raise DataError(f"{path}: cannot be read as a log of Inspect ({why}); give a .eval or .json log") from None
    dialogues = list(found.values())
    if about is None:
        known = {dialogue.benchmark for dialogue in dialogues}
        planned = product(map(str, spec.dataset.sample_ids or []), range(1, 1 + (spec.config.epochs or 1)))
        dialogues += [absent(*key, spec, header.status, known) for key in planned if key not in found]
        dialogues.sort(key=lambda dialogue: dialogue.id)
        about = about_of(spec, dialogues)
    if not dialogues:
        raise DataError(f"{path}: a log without samples; run the evaluation again")
    return EvalRun(path, about, tuple(dialogues))


def _sample(dialogue: EvalDialogue, model: str, marks: MarkSettings) -> EvalSample:
    failed = EvalError(message=dialogue.detail or dialogue.end.value, traceback="", traceback_ansi="")
    shown = dialogue.model_dump(mode="json", include=set(SHOWN), exclude_defaults=True)
    return sample_of(
        dialogue.id,
        dialogue.turns,
        told_of,
        lambda held: {JUDGE: score_of(dialogue, held, marks)},
        model=model,
        detail=dialogue.detail,
        target=dialogue.reference,
        metadata={**shown, "played": len(dialogue.turns)},
        total_time=sum(turn.seconds for turn in dialogue.turns),
        error=None if dialogue.end is EvalEnd.COMPLETED else failed,
    )


def _dialogue(sample: EvalSample, spec: EvalSpec) -> EvalDialogue:
    told = [score.metadata or {} for score in reversed((sample.scores or {}).values())]  # the newest score counts
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


def _drawn(dialogues: Iterable[EvalDialogue]) -> GenerateConfig:
    """How answers were drawn, where all were drawn the same way and it is known."""
    known = {dialogue.sampling for dialogue in dialogues}
    drawn = known.pop() if len(known) == 1 else None
    return GenerateConfig(**drawn.model_dump()) if drawn else GenerateConfig()
