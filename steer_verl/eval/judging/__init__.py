"""Who rates every answer: a model with our rubric, a panel of them, or the laboratory's own judge."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

from steer_verl.config import EndpointConfig
from steer_verl.eval.config import JudgeSettings
from steer_verl.eval.judging.protocol import EvalJudge
from steer_verl.models.cache import ReplyCache
from steer_verl.work.run import share

__all__ = ["CALLS", "EvalJudge", "build_judge"]

CALLS = "calls"
"""Folder below ``out`` with every attempt at a judge (``steer tutor log`` counts them)."""


def build_judge(
    settings: JudgeSettings,
    out: Path,
    pictures: Path | None = None,
    *,
    processes: int = 1,
    cache: ReplyCache | None = None,
) -> EvalJudge:
    """The judge that the settings name.

    Args:
        settings: the section ``judge``.
        out: folder of the run; attempts are logged below it.
        pictures: folder that all pictures of the cases must lie below; ``None``: their paths are absolute, and have
            been looked at when the items were read.
        processes: how many ask the same endpoints at the same time; they share every endpoint's bound.
        cache: keeps every reply; without one, nothing is kept.

    Raises:
        ConfigError: a rubric cannot be read, an address cannot be used, or the client library is missing.
    """
    if settings.kind == "mini":
        from steer_verl.eval.judging.mini import MiniEvalJudge

        return MiniEvalJudge()
    members = _members(settings, out, pictures, processes, cache)
    if len(members) == 1:
        return members[0]
    from steer_verl.eval.judging.panel import PanelJudge

    return PanelJudge(members, combine=settings.combine, quorum=settings.quorum)


def _members(
    settings: JudgeSettings, out: Path, pictures: Path | None, processes: int, cache: ReplyCache | None
) -> list[EvalJudge]:
    """Every judge at an endpoint, the first one first; those that would have the same name are numbered."""
    from steer_verl.eval.judging.endpoint import EndpointJudge
    from steer_verl.models.log import open_log

    assert settings.endpoint is not None  # see JudgeSettings
    given: list[tuple[str, EndpointConfig, Path | None]] = [("judge.endpoint", settings.endpoint, settings.rubric)]
    given += [(f"judge.panel[{n}].endpoint", one.endpoint, one.rubric) for n, one in enumerate(settings.panel)]
    make = functools.partial(EndpointJudge, pictures=pictures, cache=cache, log=open_log(str(out / CALLS)))
    seen, members = Counter[str](), list[EvalJudge]()
    for where, whole, rubric in given:
        config = whole.model_copy(update={"max_concurrency": share(whole.max_concurrency, processes)})
        judge = make(config, rubric=rubric, where=where)
        seen[judge.name] += 1
        number = seen[judge.name]
        members.append(judge if number == 1 else make(config, rubric=rubric, where=where, number=number))
    return members
