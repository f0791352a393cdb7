"""Anybody's multi-turn log as a run of ours.

The messages between user and assistant are the turns. Marks of a turn are read where a score names them
(steer_verl/eval/inspect/scores.py); else the turn is unrated, every figure shows what it could have been, and
``steer eval rejudge`` can have it rated.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from inspect_ai.log import EvalSample, EvalSpec
from inspect_ai.model import ChatMessage, ModelConfig

from steer_verl.eval.benchmarks.draft import label
from steer_verl.eval.inspect.messages import exchanges
from steer_verl.eval.inspect.scores import NOT_RATED, ratings_in
from steer_verl.eval.records import EvalDialogue, EvalEnd, EvalTurn, Sampling, Unrated
from steer_verl.eval.runs import RunAbout
from steer_verl.models.request import encodable
from steer_verl.text import one_line
from steer_verl.types import DialogueKind, QuestionOrigin

EXACT = "steer_exact_match"
"""In an evaluation's metadata: the benchmarks whose last answers are compared with references."""


def dialogue_of(sample: EvalSample, spec: EvalSpec) -> EvalDialogue:
    """A sample of anybody's log, with whatever marks its scores name."""
    found = played(
        sample.id,
        sample.epoch,
        sample.messages,
        sample.metadata,
        benchmark=_text(sample.metadata, "benchmark") or benchmark_of(spec),
        student=one_line(spec.model),
        error=one_line(sample.error.message) if sample.error else "",
    )
    ratings = ratings_in(sample.scores or {}, len(found.turns))
    turns = [turn.model_copy(update={"judged": judged}) for turn, judged in zip(found.turns, ratings, strict=True)]
    digest = _digest(sample) if (spec.config.epochs or 1) > 1 else ""
    return found.model_copy(update={"turns": tuple(turns), "sampling": sampling_of(spec), "digest": digest})


def played(
    name: str | int,
    epoch: int,
    messages: Sequence[ChatMessage],
    metadata: Mapping[str, Any],
    *,
    benchmark: str = "inspect",
    student: str = "",
    error: str = "",
) -> EvalDialogue:
    """A dialogue as it was played, unrated.

    A question at its end that nobody answered is planned and not played. Epochs of a sample are several draws of one
    dialogue, as those of several training seeds are.

    Args:
        name: of the sample.
        epoch: of the sample, from 1.
        messages: whatever was said.
        metadata: of the sample: ``planned`` (user turns), ``kind``, ``category``, ``source``, ``license``, ``facts``.
        benchmark: what tables call the data set.
        student: who answered.
        error: why the sample ended.
    """
    said = list(exchanges(messages))
    planned = max(len(said), metadata["planned"] if isinstance(metadata.get("planned"), int) else 1, 1)
    unrated = Unrated(reason=NOT_RATED)
    turns = [
        EvalTurn(
            user=one.user,
            origin=QuestionOrigin.STATIC if number else QuestionOrigin.SEED,
            answer=one.answer,
            judged=unrated,
        )
        for number, one in enumerate(said)
        if one.answer is not None
    ]
    end = EvalEnd.COMPLETED if len(turns) == planned else EvalEnd.STUDENT_FAILED
    facts, kinds = metadata.get("facts"), {kind.value: kind for kind in DialogueKind}
    return EvalDialogue(
        id=f"{benchmark}/{label(str(name)).removeprefix(f'{benchmark}/')}" + (f"#{epoch}" if epoch > 1 else ""),
        benchmark=benchmark,
        kind=kinds.get(str(metadata.get("kind")), DialogueKind.RED_TEAM),
        source=_text(metadata, "source"),
        source_id=label(str(name)),
        license=_text(metadata, "license"),
        category=_text(metadata, "category"),
        planned=planned,
        turns=tuple(turns),
        end=end,
        detail=error or ("" if end is EvalEnd.COMPLETED else "a planned question has no answer"),
        facts=json.loads(encodable(json.dumps(facts, ensure_ascii=False))) if isinstance(facts, dict) else {},
        run=epoch - 1,
        student=student,
    )


def absent(name: str, epoch: int, spec: EvalSpec, status: str, benchmarks: Collection[str]) -> EvalDialogue:
    """A sample that a log plans and does not hold: one answer that could have been anything.

    Args:
        name: of the sample; of one of our task it begins with the benchmark's.
        epoch: of the sample.
        spec: of the evaluation.
        status: of the log.
        benchmarks: of the samples that the log holds.
    """
    head = name.partition("/")[0]
    benchmark = head if head in benchmarks else benchmark_of(spec)
    why = f"not in the log, which is {status}"
    found = played(name, epoch, (), {}, benchmark=benchmark, student=one_line(spec.model), error=why)
    return found.model_copy(update={"end": EvalEnd.UNPLAYABLE})


def about_of(spec: EvalSpec, dialogues: Sequence[EvalDialogue]) -> RunAbout:
    """What a log says of itself; the judge is the model in the role ``grader``, else its scorers."""
    first = next((dialogue for dialogue in dialogues if dialogue.student), None)
    judges = {turn.judged.judge: None for dialogue in dialogues for turn in dialogue.turns if turn.judged.judge}
    scorers = ", ".join(scorer.name for scorer in spec.scorers or [])
    exact = (spec.metadata or {}).get(EXACT, ())
    tutor = next((dialogue.tutor for dialogue in dialogues if dialogue.tutor), _role(spec, "tutor"))
    return RunAbout(
        name=label(spec.model),
        student=first.student if first else one_line(spec.model),
        judge=next(iter(judges), "") or one_line(_role(spec, "grader") or scorers),
        tutor=tutor,
        attack="adaptive" if tutor or spec.task_args.get("attack") == "adaptive" else "static",
        benchmarks={one.benchmark: {"exact_match": True} if one.benchmark in exact else {} for one in dialogues},
        date=spec.created,
    )


def benchmark_of(spec: EvalSpec) -> str:
    """What tables call the data set: its name, else the task's."""
    name = spec.dataset.name or spec.task
    return re.sub(r"[^\w.-]+", "_", name)[:60] or "inspect"


def sampling_of(spec: EvalSpec) -> Sampling | None:
    """How answers were drawn; ``None``: by the provider's own default."""
    config = spec.model_generate_config
    if config.temperature is None:
        return None
    return Sampling(
        temperature=config.temperature,
        top_p=1.0 if config.top_p is None else config.top_p,
        seed=config.seed or 0,
        max_tokens=config.max_tokens or 0,
    )


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
