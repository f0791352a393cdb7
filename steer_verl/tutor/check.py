"""The preflight of a tutor endpoint: faults are found in seconds, before a model is loaded, and told with the cure."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from steer_verl.config import EndpointConfig
from steer_verl.errors import TutorError
from steer_verl.transport.failure import CallFailed, says_no_pictures
from steer_verl.types import (
    IMAGE_MARK,
    Attack,
    DialogueKind,
    NoAttack,
    NoAttackReason,
    Seed,
    TurnVerdict,
    TutorRequest,
    Unscored,
    UnscoredReason,
    UserTurn,
)

if TYPE_CHECKING:
    from steer_verl.transport.endpoint import Server
    from steer_verl.tutor.client import OpenAITutor

logger = logging.getLogger(__name__)


async def check_endpoint(tutor: OpenAITutor, config: EndpointConfig, where: str) -> None:
    """Reach every server, find the model in its list, and have one rule on a harmless exchange with a picture.

    Args:
        tutor: who will use the endpoint.
        config: one of the tutor's endpoints.
        where: its place in the configuration, for messages.

    Raises:
        TutorError: one line: what is wrong, where, and the cure.
    """
    await _find_models(tutor, config, where)
    with tempfile.TemporaryDirectory() as folder:
        verdict, attack = await _played(tutor, config, _probe(Path(folder)))
    if isinstance(verdict, Unscored):
        raise TutorError(told(config, where, verdict.reason, verdict.detail))
    _report(attack, config, where)


async def _played(
    tutor: OpenAITutor, config: EndpointConfig, probe: TutorRequest
) -> tuple[TurnVerdict | None, Attack | NoAttack | None]:
    """What the endpoint makes of the probe in its own part: judge, attacker or both."""
    if config is tutor.attacker_config:
        return None, await tutor.attack(probe)
    if tutor.attacker_config is not None:
        return await tutor.judge(probe), None
    ruling = await tutor.respond(probe)
    return ruling.verdict, ruling.attack


async def _find_models(tutor: OpenAITutor, config: EndpointConfig, where: str) -> None:
    """Every server of the endpoint is reached and serves the model."""
    for number, server in enumerate(tutor.endpoint(config).servers):
        await find_model(server, f"{where}.mirrors[{number - 1}]" if number else where)
    if not config.images:
        logger.warning("%s: images is off: %s judges without seeing any picture", where, config.model)


async def find_model(server: Server, where: str) -> None:
    """One server is reached and serves its model.

    Args:
        server: who is asked for its list of models.
        where: its place in the configuration, for messages.

    Raises:
        TutorError: one line: what is wrong, where, and the cure.
    """
    config = server.config
    try:
        names = await asyncio.wait_for(server.models(), config.timeout)
    except CallFailed as failure:
        raise TutorError(told(config, where, failure.reason, failure.detail)) from None
    except asyncio.TimeoutError:
        raise TutorError(told(config, where, UnscoredReason.TIMEOUT, f"silent for {config.timeout:g} s")) from None
    if names and config.model not in names:
        listed = ", ".join(sorted(names)[:5])
        raise TutorError(f"{where}.model: {config.base_url} does not serve {config.model}; it serves {listed}")


def _report(attack: Attack | NoAttack | None, config: EndpointConfig, where: str) -> None:
    """An unusable attacker is an error; one that missed a single question is not, for the static question stands in."""
    if not isinstance(attack, NoAttack):
        return
    if attack.reason is NoAttackReason.UNAVAILABLE:
        raise TutorError(told(config, where, None, attack.detail))
    logger.warning("%s: %s wrote no usable question in the probe: %s", where, config.model, attack.detail)


def told(config: EndpointConfig, where: str, reason: UnscoredReason | None, detail: str) -> str:
    """One line for a probe that failed: what is wrong, where, and the cure.

    Args:
        config: who was asked.
        where: its place in the configuration.
        reason: why there was no verdict, as far as it is known.
        detail: what the transport or the reader said.
    """
    what, cure = _diagnosed(config, where, reason, detail)
    return f"{where}: {config.model} at {config.base_url} {what} ({detail}); {cure}"


def _diagnosed(config: EndpointConfig, where: str, reason: UnscoredReason | None, detail: str) -> tuple[str, str]:
    if says_no_pictures(detail):
        return "takes no pictures", f"serve a vision model, or set {where}.images=false and let it judge blind"
    if detail.startswith(("HTTP 401", "HTTP 403")):
        return "refuses the key", f"set the environment variable {config.api_key_env}"
    if detail.startswith("HTTP 404"):
        return "is not found", f"correct {where}.model, or {where}.base_url, which usually ends in /v1"
    if reason in (UnscoredReason.CONNECT, UnscoredReason.TIMEOUT):
        return "cannot be reached", f"start the server, or correct {where}.base_url"
    if reason is UnscoredReason.LENGTH:
        return "did not finish its verdict", f"raise {where}.max_tokens (now {config.max_tokens})"
    if reason in (UnscoredReason.TUTOR_REFUSAL, UnscoredReason.CONTENT_FILTER):
        return "declines to judge a harmless answer", f"choose another {where}.model or rubric"
    if reason in (UnscoredReason.BAD_JSON, UnscoredReason.SCHEMA, UnscoredReason.OUT_OF_RANGE):
        return "gave no complete verdict", f"choose a stronger {where}.model, or one whose server knows json_schema"
    return "fails", f"see the server's log, and check {where}"


def _probe(folder: Path) -> TutorRequest:
    """A harmless exchange with one small picture."""
    from PIL import Image

    path = folder / "probe.png"
    Image.new("RGB", (64, 64), (200, 30, 30)).save(path)
    opening = UserTurn(text=f"{IMAGE_MARK}Which colour fills this picture?", images=(str(path),))
    following = UserTurn(text="Which fruit has that colour?")
    seed = Seed(id="steer-preflight", turns=(opening, following), kind=DialogueKind.BENIGN)
    return TutorRequest(
        seed=seed, turns=(), user=opening, answer="The picture is a plain, dark red.", static_next_turn=following
    )
