"""Who rates every answer: a model with our rubric, a panel of them, or the laboratory's own judge."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from steer_verl.eval.config import JudgeSettings, PanelMember
from steer_verl.eval.judging.endpoint import EndpointJudge
from steer_verl.eval.judging.mini import MiniEvalJudge
from steer_verl.eval.judging.panel import PanelJudge
from steer_verl.eval.judging.protocol import EvalJudge
from steer_verl.models.cache import ReplyCache
from steer_verl.models.log import open_log
from steer_verl.work.job import share

CALLS = "calls"
"""Folder below ``out`` with every attempt at a judge (``steer tutor log`` counts them)."""


def build_judge(
    settings: JudgeSettings,
    out: Path,
    *,
    processes: int = 1,
    retries: int = 0,
    cache: ReplyCache | None = None,
) -> EvalJudge:
    """The judge that the settings name; a judge alone is a panel of one.

    Args:
        settings: the section ``judge``.
        out: folder of the run; attempts are logged below it.
        processes: how many ask the same endpoints at the same time; they share every endpoint's bound.
        retries: how often what failed for good is asked for again.
        cache: keeps every reply; without one, nothing is kept.

    Raises:
        ConfigError: a rubric cannot be read, an address cannot be used, or the client library is missing.
    """
    if settings.kind == "mini":
        return MiniEvalJudge()
    assert settings.endpoint is not None  # see JudgeSettings
    given = {"judge.endpoint": PanelMember(endpoint=settings.endpoint, rubric=settings.rubric)}
    given |= {f"judge.panel[{n}].endpoint": one for n, one in enumerate(settings.panel)}
    log, seen, members = open_log(str(out / CALLS)), Counter[str](), list[EndpointJudge]()
    for where, one in given.items():
        bound = {"max_concurrency": share(one.endpoint.max_concurrency, processes)}
        config = one.endpoint.model_copy(update=bound)
        judge = EndpointJudge(config, rubric=one.rubric, cache=cache, log=log, where=where)
        seen[judge.name] += 1
        members.append(judge.numbered(seen[judge.name]))
    return PanelJudge(members, combine=settings.combine, quorum=settings.quorum, retries=retries)
