"""From settings to a student. Nothing is started or loaded here: whatever is heavy waits for ``check`` or an answer."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from steer_verl.config import EndpointConfig
from steer_verl.errors import ConfigError
from steer_verl.eval.config import StudentSettings
from steer_verl.eval.students.conversation import system_prompt
from steer_verl.eval.students.protocol import Student
from steer_verl.models.cache import ReplyCache
from steer_verl.models.log import RequestLog, open_log
from steer_verl.work.run import share

OURS = ("temperature", "max_tokens")
"""Settings of an endpoint that the student's own take the place of."""

CALLS, OWN = "calls", "student"
"""Folders of a run: the attempts at every model, and what a student in a folder needs."""

SAY_NOTHING = frozenset({"/", "huggingface", "hf", "actor", "checkpoints"})
"""Names of folders that tell no model from another."""

Tell = Callable[[str], None]


def build_student(
    settings: StudentSettings,
    out: Path,
    *,
    processes: int = 1,
    cache: ReplyCache | None = None,
    tell: Tell | None = None,
) -> Student:
    """The student that the settings name. Make one in the process that asks it.

    Args:
        settings: who is evaluated.
        out: the run's folder. Below it every attempt at a server is written into ``calls``, and a server's own log and
            a merged checkpoint go into ``student``.
        processes: how many ask the same endpoint at the same time: they share ``max_concurrency``.
        cache: keeps every answer; without one, nothing is kept.
        tell: shows a line of progress while a server starts; unset, on stderr.

    Raises:
        ConfigError: the folder holds no model, a file cannot be read, or an address cannot be used.
    """
    if settings.endpoint is not None:
        return _at_endpoint(settings, settings.endpoint, processes, cache, open_log(str(out / CALLS)))
    if processes > 1:
        raise ConfigError(
            "student.path: one process serves it, but several are to ask; run on this machine alone, or serve it with "
            "`vllm serve` and set student.endpoint"
        )
    return _in_folder(settings, Path(str(settings.path)), out, cache, tell or _to_stderr)


def student_label(settings: StudentSettings) -> str:
    """What tables call the student: its name, or the model's or folder's."""
    if settings.name:
        return settings.name
    return settings.endpoint.model if settings.endpoint is not None else _folder_name(Path(str(settings.path)))


def _at_endpoint(
    settings: StudentSettings,
    endpoint: EndpointConfig,
    processes: int,
    cache: ReplyCache | None,
    log: RequestLog | None,
) -> Student:
    from steer_verl.eval.students.endpoint import EndpointStudent

    for name in OURS:
        if name in endpoint.model_fields_set:
            ours = {"max_tokens": "max_answer_tokens"}.get(name, name)
            raise ConfigError(f"student.endpoint.{name}: the student's own decides; set student.{ours} instead")
    system = system_prompt(settings.system_prompt)
    changes = {
        "temperature": settings.temperature,
        "max_tokens": settings.max_answer_tokens,
        "max_concurrency": share(endpoint.max_concurrency, processes),
    }
    return EndpointStudent(
        endpoint.model_copy(update=changes),
        name=_named(endpoint.model, settings, system, images=endpoint.images),
        system=system,
        top_p=settings.top_p,
        seed=settings.seed,
        cache=cache,
        log=log,
    )


def _named(model: str, settings: StudentSettings, system: str, **more: Any) -> str:
    """The model and a digest of all that decides its answers."""
    sampled = settings.temperature > 0
    decisive = {
        "system": system,
        "max_answer_tokens": settings.max_answer_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p if sampled else 1.0,
        "seed": settings.seed if sampled else 0,
        **more,
    }
    return f"{model}@{hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:10]}"


def _in_folder(settings: StudentSettings, path: Path, out: Path, cache: ReplyCache | None, tell: Tell) -> Student:
    from steer_verl.eval.students.checkpoint import find_checkpoint

    system = system_prompt(settings.system_prompt)
    weights = find_checkpoint(path).fingerprint
    if settings.kind == "mini":
        from steer_verl.eval.students.mini import MiniStudentAgent

        name = _named(_folder_name(path), settings, system, weights=weights, kind="mini")
        return MiniStudentAgent(settings, out / OWN, name=name, system=system, cache=cache)
    from steer_verl.eval.students.served import ServedStudent

    server = {"dtype": settings.server.dtype, "arguments": settings.server.arguments}
    name = _named(_folder_name(path), settings, system, weights=weights, kind="vllm", **server)
    log = open_log(str(out / CALLS))
    return ServedStudent(settings, out / OWN, name=name, system=system, tell=tell, cache=cache, log=log)


def _folder_name(path: Path) -> str:
    """The last part of a path that says something."""
    parts = [part for part in path.expanduser().resolve().parts if part not in SAY_NOTHING]
    return parts[-1] if len(parts) > 1 else "student"


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
