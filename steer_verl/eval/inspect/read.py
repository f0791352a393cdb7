"""Logs of Inspect as runs: ours come back as they were, and of anybody's multi-turn log all that it says is read.

The messages between user and assistant are the turns. Marks of a turn are read where a score names them
(steer_verl/eval/inspect/scores.py); else the turn is unrated, every figure shows what it could have been, and
``steer eval rejudge`` can have it rated. Few samples are in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any

from inspect_ai.log import (
    EvalSample,
    EvalSpec,
    read_eval_log,
    read_eval_log_sample_summaries,
    read_eval_log_samples_by_id,
)
from inspect_ai.model import ChatMessage, ModelConfig

from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.draft import label
from steer_verl.eval.inspect.messages import exchanges, images
from steer_verl.eval.inspect.scores import NOT_RATED, RECORD, TURNS, ratings_in, record_in, with_ratings
from steer_verl.eval.records import EvalDialogue, EvalEnd, EvalTurn, Sampling, Unrated
from steer_verl.eval.runs import EvalRun, RunAbout
from steer_verl.models.request import encodable
from steer_verl.text import one_line
from steer_verl.types import MAX_TURNS, DialogueKind, QuestionOrigin

EXACT, ITEM = "steer_exact_match", "item"
"""Of our task: in an evaluation's metadata, the benchmarks whose last answers are compared with references; in a
sample's, the item that is played."""
SCORERS = "scorers"
"""The span of a sample's events that begins once it is played."""
LENGTHS = ("message", "turn")
"""Limits of a sample that end it as planned."""
NO_MARKS = "its score names no marks of a turn"
BATCH = 16
"""Samples that are read at once; large ones are read one by one."""
MAX_BYTES = 2**29
"""Of a sample; a log that holds a larger one is not unpacked."""


def read_log(path: Path | str) -> EvalRun:
    """A log of Inspect (``.eval`` or ``.json``) as a run; its folder is the log.

    A sample that was planned and is not there is a dialogue of which every answer is missing.

    Raises:
        DataError: it is no log, holds no sample, or cannot be read.
    """
    path = Path(path)
    try:
        run = _run(path)
    except DataError:
        raise
    except Exception as error:  # whatever a foreign file makes of a reader
        why = one_line(f"{type(error).__name__}: {error}")
        raise DataError(f"{path}: cannot be read as a log of Inspect ({why}); give a .eval or .json log") from None
    if not run.dialogues:
        raise DataError(f"{path}: a log without samples; run the evaluation again")
    return run


def _run(path: Path) -> EvalRun:
    header = read_eval_log(path, header_only=True)
    spec, told, rescored = header.eval, (header.eval.metadata or {}).get(RECORD), False
    about = RunAbout.model_validate(told, strict=False) if told else None
    found: dict[tuple[int | str, int], EvalDialogue] = {}
    for sample in _samples(path):
        found[sample.id, sample.epoch] = _dialogue(sample, spec)
        rescored |= any(RECORD in told or TURNS in told for told in _told(sample))
    dialogues = list(found.values())
    if about is None:
        planned = product(spec.dataset.sample_ids or [], range(1, 1 + (spec.config.epochs or 1)))
        missing = [key for key in planned if key not in found]
        dialogues = _named([*dialogues, *_absent(missing, spec, header.status, dialogues)])
        about = _about(spec, dialogues)
    elif rescored:  # by inspect score
        about = about.model_copy(update={"judge": _about(spec, dialogues).judge, "calibration": None})
    return EvalRun(path, about, tuple(dialogues))


def _samples(path: Path) -> Iterator[EvalSample]:
    """The samples in the order of the log, their attachments in place."""
    if path.suffix != ".eval":
        yield from read_eval_log(path, resolve_attachments=True).samples or []
        return
    with zipfile.ZipFile(path) as archive:
        sizes = sorted(member.file_size for member in archive.infolist())
    if sizes[-1] > MAX_BYTES:
        raise DataError(f"{path}: a sample of {sizes[-1]} bytes, more than {MAX_BYTES}; it is not unpacked")
    keys = ((one.id, one.epoch) for one in read_eval_log_sample_summaries(path))
    while batch := list(islice(keys, BATCH if sum(sizes[-BATCH:]) <= MAX_BYTES else 1)):
        yield from read_eval_log_samples_by_id(path, batch, resolve_attachments=True)


def _told(sample: EvalSample) -> list[dict[str, Any]]:
    """What its scores say besides their values, the newest one first."""
    return [score.metadata or {} for score in reversed((sample.scores or {}).values())]


def _dialogue(sample: EvalSample, spec: EvalSpec) -> EvalDialogue:
    told = _told(sample)
    ours = record_in([*told, sample.metadata], images(sample.messages))
    if ours is None:
        return _foreign(sample, spec)
    if RECORD not in (spec.metadata or {}):  # of our task, which does not know the sampling
        ours = ours.model_copy(update={"sampling": _sampling(spec)})
    newest = next((one for one in told if RECORD in one or TURNS in one), {})
    newer = ratings_in(sample.scores or {}, len(ours.turns)) if RECORD not in newest else None
    return with_ratings(ours, newer) if newer else ours


def _foreign(sample: EvalSample, spec: EvalSpec) -> EvalDialogue:
    """A sample of anybody's log, with whatever marks its scores name."""
    found = played(
        sample.id,
        sample.epoch,
        sample.messages,
        sample.metadata,
        benchmark=_text(sample.metadata, "benchmark") or _benchmark(spec),
        student=one_line(spec.model),
        error=_why_ended(sample),
        cut=_cut(sample),
    )
    item = sample.metadata.get(ITEM)  # of our task, before it had a record
    digest = _text(item, "digest") if isinstance(item, dict) else ""
    if not digest and (spec.config.epochs or 1) > 1:
        digest = _digest(sample)
    found = found.model_copy(update={"sampling": _sampling(spec), "digest": digest})
    judge = one_line(", ".join(sample.scores or {}))
    marked = [len(one[TURNS]) for one in _told(sample) if isinstance(one.get(TURNS), list)]
    why = f"its score has marks of {marked[0]} turns, the dialogue has {len(found.turns)}" if marked else NO_MARKS
    unrated = Unrated(judge=judge, reason=NOT_RATED, detail=why)
    return with_ratings(found, ratings_in(sample.scores or {}, len(found.turns)) or [unrated] * len(found.turns))


def _why_ended(sample: EvalSample) -> str:
    """In a line; nothing where it came to its end."""
    if sample.error or not sample.limit:
        return one_line(sample.error.message) if sample.error else ""
    return one_line(f"met its limit: {sample.limit.type} {sample.limit.limit:g}")


def _cut(sample: EvalSample) -> bool:
    """Whether it failed, or met a limit, before it was played to its end, and not in its scorer. A limit of messages or
    turns is how long a task means its dialogues to be."""
    if sample.limit:
        return sample.limit.type not in LENGTHS
    ends = ("error" if event.event == "error" else getattr(event, "name", "") for event in sample.events)
    return sample.error is not None and next((end for end in ends if end in ("error", SCORERS)), "") != SCORERS


def played(
    name: str | int,
    epoch: int,
    messages: Sequence[ChatMessage],
    metadata: Mapping[str, Any],
    *,
    benchmark: str = "inspect",
    student: str = "",
    error: str = "",
    cut: bool = False,
) -> EvalDialogue:
    """A dialogue as it was played, unrated; of one that is longer than ours may be, the first ``MAX_TURNS`` turns.

    A question at its end that nobody answered is planned and not played. Epochs of a sample are several draws of one
    dialogue by one student: they share its digest, and are of one training seed.

    Args:
        name: of the sample, as are all others; ``epoch`` counts from 1.
        metadata: may say ``planned`` (user turns), ``kind``, ``category``, ``source``, ``license`` and ``facts``.
        benchmark: what tables call the data set.
        error: why it ended.
        cut: whether that was before its end: where ``planned`` is not told, there was one more question at least.
    """
    said = list(exchanges(messages))
    told = metadata.get("planned")
    asked = len(said) + (cut and all(one.answer is not None for one in said))
    planned = max(len(said), told, 1) if isinstance(told, int) else max(asked, 1)
    turns = [
        EvalTurn(
            user=one.user,
            origin=QuestionOrigin.STATIC if number else QuestionOrigin.SEED,
            answer=one.answer,
            judged=Unrated(reason=NOT_RATED),
        )
        for number, one in enumerate(said[:MAX_TURNS])
        if one.answer is not None
    ]
    whole = len(turns) == min(planned, MAX_TURNS)
    facts, kinds = metadata.get("facts"), {kind.value: kind for kind in DialogueKind}
    return EvalDialogue(
        id=f"{benchmark}/{label(str(name)).removeprefix(f'{benchmark}/')}" + (f"#{epoch}" if epoch > 1 else ""),
        benchmark=benchmark,
        kind=kinds.get(str(metadata.get("kind")), DialogueKind.RED_TEAM),
        source=_text(metadata, "source"),
        source_id=label(str(name)),
        license=_text(metadata, "license"),
        category=_text(metadata, "category"),
        planned=min(planned, MAX_TURNS),
        turns=tuple(turns),
        end=EvalEnd.COMPLETED if whole else EvalEnd.STUDENT_FAILED,
        detail=error or ("" if whole else "a planned question has no answer"),
        oddities=("too_many_turns",) if planned > MAX_TURNS else (),
        facts=json.loads(encodable(json.dumps(facts, ensure_ascii=False))) if isinstance(facts, dict) else {},
        student=student,
    )


def _absent(
    missing: Sequence[tuple[int | str, int]], spec: EvalSpec, status: str, found: Sequence[EvalDialogue]
) -> Iterator[EvalDialogue]:
    """Samples that a log plans and does not hold: each one answer that could have been anything.

    The name of one of our task begins with its benchmark, and it is of the kind that all others of that benchmark are.
    """
    kinds = defaultdict[str, set[DialogueKind]](set)
    for one in found:
        kinds[one.benchmark].add(one.kind)
    for name, epoch in missing:
        head = str(name).partition("/")[0]
        benchmark = head if head in kinds else _benchmark(spec)
        why = f"not in the log, which is {status}"
        lost = played(name, epoch, (), {}, benchmark=benchmark, student=one_line(spec.model), error=why)
        kind = next(iter(kinds[benchmark])) if len(kinds[benchmark]) == 1 else lost.kind
        yield lost.model_copy(update={"end": EvalEnd.UNPLAYABLE, "kind": kind})


def _named(dialogues: Sequence[EvalDialogue]) -> list[EvalDialogue]:
    """Sorted, each with an id of its own: names that a label cuts may be the same."""
    seen, found = Counter[str](), list[EvalDialogue]()
    for one in sorted(dialogues, key=lambda dialogue: dialogue.id):
        seen[one.id] += 1
        found.append(one if seen[one.id] == 1 else one.model_copy(update={"id": f"{one.id}~{seen[one.id]}"}))
    return found


def _about(spec: EvalSpec, dialogues: Sequence[EvalDialogue]) -> RunAbout:
    """What a log says of itself; the judge is who rated, the model in the role ``grader``, or its scorers."""
    judges = (turn.judged.judge for dialogue in dialogues for turn in dialogue.turns if turn.judged.judge)
    scorers, exact = ", ".join(scorer.name for scorer in spec.scorers or []), (spec.metadata or {}).get(EXACT, ())
    attack = spec.task_args.get("attack")  # a model in the role of the tutor may have had nothing to do
    given = "" if attack == "static" else _role(spec, "tutor")
    tutor = next((dialogue.tutor for dialogue in dialogues if dialogue.tutor), given)
    return RunAbout(
        name=label(spec.model),
        student=next((dialogue.student for dialogue in dialogues if dialogue.student), one_line(spec.model)),
        judge=next(judges, "") or one_line(_role(spec, "grader") or scorers),
        tutor=tutor,
        attack="adaptive" if tutor or attack == "adaptive" else "static",
        benchmarks={one.benchmark: {"exact_match": True} if one.benchmark in exact else {} for one in dialogues},
        date=spec.created,
    )


def _benchmark(spec: EvalSpec) -> str:
    """What tables call the data set: its name, else the task's."""
    return re.sub(r"[^\w.-]+", "_", spec.dataset.name or spec.task)[:60] or "inspect"


def _sampling(spec: EvalSpec) -> Sampling | None:
    """How answers were drawn; ``None``: by the provider's own default."""
    drawn = spec.model_generate_config.model_dump(include=set(Sampling.model_fields), exclude_none=True)
    return Sampling(**drawn) if "temperature" in drawn else None


def _role(spec: EvalSpec, role: str) -> str:
    found = (spec.model_roles or {}).get(role)
    models = found if isinstance(found, list) else [found] if found else []
    return ", ".join(one_line(model.model) for model in models if isinstance(model, ModelConfig))


def _text(metadata: Mapping[str, Any], name: str) -> str:
    value = metadata.get(name)
    return label(value) if isinstance(value, str) else ""


def _digest(sample: EvalSample) -> str:
    """What holds a sample's epochs together. Without epochs there is none: runs are then paired by their questions."""
    asked = sample.input if isinstance(sample.input, str) else [message.text for message in sample.input]
    return hashlib.sha256(json.dumps([sample.id, asked]).encode()).hexdigest()
