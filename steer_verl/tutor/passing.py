"""Whether a turn that a tutor could not score may be scored later: asked before a resumable step gives one up."""

from __future__ import annotations

from steer_verl.types import NoAttack, NoAttackReason, TutorResponse, Unscored, UnscoredReason

_PASSING = frozenset({UnscoredReason.CONNECT, UnscoredReason.TIMEOUT, UnscoredReason.HTTP_429, UnscoredReason.HTTP_5XX})

_UNWELCOME = ("HTTP 401", "HTTP 403", "HTTP 404")
"""A key or a model that the server does not have: no dialogue's fault, and mended by the user."""


def may_pass(unscored: Unscored) -> bool:
    """Whether the same request may be scored when the endpoint is well again."""
    return unscored.reason in _PASSING or unscored.detail.startswith(_UNWELCOME)


def passing_fault(ruling: TutorResponse) -> Unscored | NoAttack | None:
    """The part of a ruling that is missing for the moment only; ``None`` when it is as good as it will ever be."""
    if isinstance(ruling.verdict, Unscored) and may_pass(ruling.verdict):
        return ruling.verdict
    attack = ruling.attack
    return attack if isinstance(attack, NoAttack) and attack.reason is NoAttackReason.UNAVAILABLE else None
