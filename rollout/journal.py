"""The journal: what the dialogues of unfinished steps have cost so far, so that a killed run does not pay for it twice.

Two lines a turn: the student's answer as soon as the engine has given it, and the tutor's ruling as soon as it has
come. A run that is started again plays the same dialogues from its last checkpoint: the journal gives it every answer
and ruling that it holds, and the first turn that it lacks is played for real. An answer counts only after the very
same prompt (token ids), and a ruling only on the very same exchange, so that a stale line is never used; a run with
other settings (:func:`run_identity`) has a journal of its own. A ruling without a verdict is asked for again.

Steps that a checkpoint holds are dropped (:func:`prune`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field, TypeAdapter

from steer_verl.append_log import append, files, own_file, whole_lines
from steer_verl.secret import kept_secret
from steer_verl.types import Judge, JudgeResult, Record, Tutor, TutorRequest, TutorResponse, Unscored, Usage

CHECKPOINTED = "latest_checkpointed_iteration.txt"
"""verl writes the last checkpoint's step into it (trainer/ppo/v1/trainer_base.py:1013)."""


PLAYED = ("attack", "max_turns", "max_answer_tokens", "max_question_chars", "min_scored_turns", "reward")
"""Settings of ours that decide what is played and what is learned from it."""


class AnswerLine(Record):
    """An answer: token ids (int32) and log-probabilities (float32) as base64, and the weights that gave it."""

    kind: Literal["answer"] = "answer"
    place: str
    after: str
    """Digest of the prompt's token ids."""
    ids: str
    log_probs: str
    versions: dict[str, int]
    """``min_global_steps`` and ``max_global_steps`` of verl's ``TokenOutput.extra_fields``."""

    @property
    def token_ids(self) -> list[int]:
        """The student's tokens."""
        return np.frombuffer(base64.b64decode(self.ids), dtype=np.int32).tolist()

    @property
    def token_log_probs(self) -> list[float] | None:
        """One per token; ``None`` when the engine gave none."""
        return np.frombuffer(base64.b64decode(self.log_probs), dtype=np.float32).tolist() or None


class RulingLine(Record):
    """A ruling with a verdict."""

    kind: Literal["ruling"] = "ruling"
    place: str
    on: str
    """Digest of the exchange."""
    ruling: TutorResponse


class OpinionLine(Record):
    """What the held-out judge said."""

    kind: Literal["opinion"] = "opinion"
    place: str
    on: str
    judge_result: JudgeResult


Line: TypeAlias = AnswerLine | RulingLine | OpinionLine
_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


class Journal:
    """One process's view: it reads what earlier processes left, and appends to a file of its own for each step.

    Args:
        folder: where; ``None`` keeps nothing and finds nothing.
        run: what tells this run's settings from another's, see :func:`run_identity`.
    """

    def __init__(self, folder: str | Path | None, run: str = "") -> None:
        self.folder = Path(folder) / run if folder is not None else None
        self._found: dict[Path, dict[tuple[str, str, str], Line]] = {}

    @cached_property
    def secret(self) -> bytes | None:
        """Key of the run's prompt ids, kept in the folder (steer_verl/secret.py); ``None`` without a folder."""
        return None if self.folder is None else kept_secret(self.folder)

    def answer(self, place: str, prompt_ids: Sequence[int]) -> AnswerLine | None:
        """The answer that was given at ``place`` (see ``TutorRequest.turn_key``) after this prompt."""
        found = self._lookup("answer", place, _digest_ids(prompt_ids)) if self.folder else None
        return found if isinstance(found, AnswerLine) else None

    def keep_answer(
        self,
        place: str,
        prompt_ids: Sequence[int],
        token_ids: Sequence[int],
        log_probs: Sequence[float] | None,
        versions: Mapping[str, int],
    ) -> None:
        """Write an answer down, before the tutor is asked about it."""
        if self.folder is not None:
            ids, probs = np.asarray(token_ids, np.int32), np.asarray(log_probs or [], np.float32)
            self._append(
                AnswerLine(
                    place=place,
                    after=_digest_ids(prompt_ids),
                    ids=base64.b64encode(ids.tobytes()).decode(),
                    log_probs=base64.b64encode(probs.tobytes()).decode(),
                    versions=dict(versions),
                )
            )

    def ruling(self, tutor: str, exchange: TutorRequest) -> TutorResponse | None:
        """What the tutor of this name ruled on this exchange."""
        found = self._lookup("ruling", exchange.turn_key, _digest(tutor, exchange)) if self.folder else None
        return found.ruling if isinstance(found, RulingLine) else None

    def keep_ruling(self, tutor: str, exchange: TutorRequest, ruling: TutorResponse) -> None:
        """Write a ruling down; one without a verdict is not kept, so that it is asked for again."""
        if self.folder is not None and not isinstance(ruling.verdict, Unscored):
            self._append(RulingLine(place=exchange.turn_key, on=_digest(tutor, exchange), ruling=ruling))

    def judge_result(self, judge: str, exchange: TutorRequest) -> JudgeResult | None:
        """What the judge of this name said of this exchange."""
        found = self._lookup("opinion", exchange.turn_key, _digest(judge, exchange)) if self.folder else None
        return found.judge_result if isinstance(found, OpinionLine) else None

    def keep_assessment(self, judge: str, exchange: TutorRequest, judge_result: JudgeResult) -> None:
        """Write an opinion down; a missing one is not kept."""
        if self.folder is not None and not isinstance(judge_result.scores, Unscored):
            self._append(OpinionLine(place=exchange.turn_key, on=_digest(judge, exchange), judge_result=judge_result))

    def _lookup(self, kind: str, place: str, digest: str) -> Line | None:
        step = self._step(place)
        if step not in self._found:
            self._found = {kept: lines for kept, lines in self._found.items() if kept.exists()}  # pruned steps go
            self._found[step] = {_key(line): line for line in _read(step, but=own_file(step))}
        return self._found[step].get((kind, place, digest))

    def _append(self, line: Line) -> None:
        append(own_file(self._step(line.place)), line)

    def _step(self, place: str) -> Path:
        assert self.folder is not None  # nothing is looked up or appended without one
        split, step = place.split("/")[:2]
        return self.folder / f"{split}-{step}"


class RecallingTutor:
    """A tutor that is not asked again what the journal holds. A recalled ruling costs nothing: its usage is empty."""

    def __init__(self, tutor: Tutor, journal: Journal) -> None:
        self.tutor, self.journal, self.name = tutor, journal, tutor.name

    async def respond(self, exchange: TutorRequest) -> TutorResponse:
        """See :class:`~steer_verl.types.Tutor`."""
        found = self.journal.ruling(self.name, exchange)
        if found is not None:
            return found.model_copy(update={"usage": Usage()})
        ruling = await self.tutor.respond(exchange)
        self.journal.keep_ruling(self.name, exchange, ruling)
        return ruling

    async def check(self) -> None:
        """See :class:`~steer_verl.types.Tutor`."""
        await self.tutor.check()

    async def close(self) -> None:
        """See :class:`~steer_verl.types.Tutor`."""
        await self.tutor.close()


class RecallingJudge:
    """The same for a judge."""

    def __init__(self, judge: Judge, journal: Journal) -> None:
        self.inner, self.journal, self.name = judge, journal, judge.name

    async def judge(self, exchange: TutorRequest) -> JudgeResult:
        """See :class:`~steer_verl.types.Judge`."""
        found = self.journal.judge_result(self.name, exchange)
        if found is not None:
            return found.model_copy(update={"usage": Usage()})
        judge_result = await self.inner.judge(exchange)
        self.journal.keep_assessment(self.name, exchange, judge_result)
        return judge_result

    async def check(self) -> None:
        """See :class:`~steer_verl.types.Judge`."""
        await self.inner.check()

    async def close(self) -> None:
        """See :class:`~steer_verl.types.Judge`."""
        await self.inner.close()


def prune(folder: str | Path) -> None:
    """Drop the steps that verl's last checkpoint holds; the journal lies in the same ``trainer.default_local_dir``."""
    written = Path(folder).parent / CHECKPOINTED
    if not written.is_file():
        return
    last = int(written.read_text().strip() or 0)
    for step in Path(folder).glob("*/*-*"):
        if int(step.name.rpartition("-")[2]) <= last:
            shutil.rmtree(step, ignore_errors=True)


def run_identity(config: Any) -> str:
    """Short digest of what decides a student's weights, answers and questions: verl's composed config, and its student.

    Left out: where things are written, and how the tutor is reached, which may be mended between two starts.
    """
    from omegaconf import OmegaConf

    roles = config.actor_rollout_ref
    parts = (config.data, config.algorithm, roles.model, roles.actor, roles.rollout)
    plain: list[Any] = [OmegaConf.to_container(part, resolve=True) for part in parts]
    steer = (plain[-1].pop("custom", None) or {}).get("steer") or {}
    played = {name: steer.get(name) for name in PLAYED}
    text = json.dumps([*plain, played, _weights(roles.model.path)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _weights(path: str) -> list[tuple[str, int, int]]:
    """Name, size and time of the student's files, where they are local: the same path may hold another student."""
    return sorted(
        (file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in Path(path).glob("*.safetensors")
    )


def _digest(judge: str, exchange: TutorRequest) -> str:
    """Of who is asked and what is shown; how long a turn took may differ."""
    said = [(turn.user.model_dump(), turn.answer) for turn in exchange.turns]
    hint = exchange.static_next_turn.model_dump() if exchange.static_next_turn else None
    shown = [judge, exchange.seed.id, said, exchange.user.model_dump(), exchange.answer, hint]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()


def _digest_ids(ids: Sequence[int]) -> str:
    return hashlib.sha256(np.asarray(ids, np.int32).tobytes()).hexdigest()


def _key(line: Line) -> tuple[str, str, str]:
    return line.kind, line.place, line.after if isinstance(line, AnswerLine) else line.on


def _read(step: Path, but: Path) -> Iterator[Line]:
    """Every line that other processes have left."""
    for path in files(step):
        if path != but:
            yield from (_LINE.validate_json(line) for _, line in whole_lines(path))
