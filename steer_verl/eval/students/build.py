"""From settings to a student. Nothing is started or loaded here: whatever is heavy waits for ``check`` or an answer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from steer_verl.config import EndpointConfig
from steer_verl.data.student_format import STUDENT_FORMAT
from steer_verl.errors import ConfigError
from steer_verl.eval.config import StudentSettings
from steer_verl.eval.students.answers import Setup
from steer_verl.eval.students.protocol import Student
from steer_verl.models.cache import ReplyCache
from steer_verl.models.log import open_log
from steer_verl.work.job import share

OURS = {"temperature": "temperature", "max_tokens": "max_answer_tokens"}
"""Settings of an endpoint -> the student's own, which take their place."""

CALLS, OWN = "calls", "student"
"""Folders of a run: the attempts at every model, and what a student in a folder needs."""

SAY_NOTHING = frozenset({"/", "huggingface", "hf", "actor", "checkpoints"})
"""Names of folders that tell no model from another."""


def build_student(
    settings: StudentSettings,
    out: Path,
    *,
    processes: int = 1,
    cache: ReplyCache | None = None,
) -> Student:
    """The student that the settings name. Make one in the process that asks it.

    Args:
        settings: who is evaluated.
        out: the run's folder. Below it every attempt at a server is written into ``calls``, and a server's own log and
            a merged checkpoint go into ``student``.
        processes: how many ask the same endpoint at the same time: they share ``max_concurrency``.
        cache: keeps every answer; without one, nothing is kept.

    Raises:
        ConfigError: the folder holds no model, a file cannot be read, or an address cannot be used.
    """
    system = system_prompt(settings.system_prompt)
    if settings.endpoint is not None:
        from steer_verl.eval.students.endpoint import EndpointStudent

        config = _shared(settings.endpoint, processes)
        name = _named(config.model, settings, system, images=config.images)
        return EndpointStudent(Setup(settings, out, name, system, cache, open_log(str(out / CALLS))), config)
    if processes > 1:
        raise ConfigError(
            "student.path: one process serves it, but several are to ask; run on this machine alone, or serve it with "
            "`vllm serve` and set student.endpoint"
        )
    from steer_verl.eval.students.checkpoint import find_checkpoint
    from steer_verl.eval.students.mini import MiniStudentAgent
    from steer_verl.eval.students.served import ServedStudent

    path, mini = Path(str(settings.path)), settings.kind == "mini"
    decisive: dict[str, Any] = {"weights": find_checkpoint(path).fingerprint, "kind": settings.kind}
    decisive |= {} if mini else {"dtype": settings.server.dtype, "arguments": settings.server.arguments}
    name = _named(_folder_name(path), settings, system, **decisive)
    log = None if mini else open_log(str(out / CALLS))
    setup = Setup(settings, out / OWN, name, system, cache, log)
    return MiniStudentAgent(setup) if mini else ServedStudent(setup)


def student_label(settings: StudentSettings) -> str:
    """What tables call the student: its name, or the model's or folder's."""
    if settings.name:
        return settings.name
    return settings.endpoint.model if settings.endpoint is not None else _folder_name(Path(str(settings.path)))


def system_prompt(setting: Path | str) -> str:
    """The system message that ``StudentSettings.system_prompt`` asks for; empty: none.

    Raises:
        ConfigError: the file cannot be read or is empty.
    """
    if setting in ("none", "student_format"):
        return STUDENT_FORMAT if setting == "student_format" else ""
    try:
        text = Path(setting).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"student.system_prompt: cannot read {setting} ({error}); give a UTF-8 text file") from None
    if not text:
        raise ConfigError(f"student.system_prompt: {setting} is empty; write a prompt into it, or set none")
    return text


def _shared(endpoint: EndpointConfig, processes: int) -> EndpointConfig:
    for name, ours in OURS.items():
        if name in endpoint.model_fields_set:
            raise ConfigError(f"student.endpoint.{name}: the student's own decides; set student.{ours} instead")
    return endpoint.model_copy(update={"max_concurrency": share(endpoint.max_concurrency, processes)})


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


def _folder_name(path: Path) -> str:
    """The last part of a path that says something."""
    parts = [part for part in path.expanduser().resolve().parts if part not in SAY_NOTHING]
    return parts[-1] if len(parts) > 1 else "student"
