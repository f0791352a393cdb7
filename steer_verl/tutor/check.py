"""The preflight of a tutor's endpoints: faults are found in seconds, before a model is loaded, each with a hint.

What is sent is what a run sends: the same prompt, schema and sampling, streamed or not, through the same client. A
server's list of models is a hint only, because servers list a model under other names than they serve it by; the
request decides.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from steer_verl.errors import TutorError
from steer_verl.models.endpoint import Endpoint, servers_of
from steer_verl.models.failure import Cause, Failure, how_to_fix, settings_of
from steer_verl.records import named
from steer_verl.tutor.prompt import Task
from steer_verl.tutor.verdict import Outcome
from steer_verl.types import (
    IMAGE_MARK,
    DialogueKind,
    NoAttack,
    Seed,
    TutorRequest,
    Unscored,
    UnscoredReason,
    UserTurn,
)

logger = logging.getLogger(__name__)


Ask = Callable[[Endpoint, TutorRequest, Task], Awaitable[Outcome]]
"""How a tutor asks an endpoint for a task."""


async def check_endpoint(endpoint: Endpoint, task: Task, ask: Ask) -> None:
    """Have each server of an endpoint do its task in a harmless dialogue with an image.

    Args:
        endpoint: whose servers are checked.
        task: its part.
        ask: how a run asks it.

    Raises:
        TutorError: one line: what is wrong, where, and how to fix it.
    """
    if not endpoint.config.images:
        logger.warning("%s: images is off: %s judges without seeing any image", endpoint.where, endpoint.config.model)
    with tempfile.TemporaryDirectory() as folder:
        probe = _probe(probe_image(folder))

        async def check(server: Endpoint) -> None:
            await _check_server(server, await ask(server, probe, task), task)

        await each_server(endpoint, check)


async def each_server(endpoint: Endpoint, check: Callable[[Endpoint], Awaitable[None]]) -> None:
    """``check`` each server of an endpoint, as an endpoint of its own: a mirror may be at fault alone."""
    for number, config in enumerate(servers_of(endpoint.config)):
        where = f"{endpoint.where}.mirrors[{number - 1}]" if number else endpoint.where
        server = Endpoint(config, log=endpoint.log, where=where)
        server.sleep = endpoint.sleep
        try:
            await check(server)
        finally:
            await server.close()


async def _check_server(endpoint: Endpoint, outcome: Outcome, task: Task) -> None:
    if outcome.failure is not None:
        raise TutorError(await explained(outcome.failure, endpoint))
    if task is not Task.ATTACK and isinstance(outcome.verdict, Unscored):
        raise TutorError(_unscored(outcome.verdict, endpoint))
    if task is not Task.SCORE and isinstance(outcome.attack, NoAttack):  # the static question stands in
        logger.warning(
            "%s: %s wrote no usable question: %s", endpoint.where, endpoint.config.model, outcome.attack.detail
        )


async def explained(failure: Failure, endpoint: Endpoint) -> str:
    """One line for an endpoint of one server that gave no reply: what is wrong, its words, and how to fix it."""
    config = endpoint.config
    line = how_to_fix(
        failure, endpoint.where, model=config.model, base_url=config.base_url, api_key_env=config.api_key_env
    )
    if failure.cause is not Cause.MODEL:
        return line
    names = await endpoint.servers[0].models(min(config.timeout, 10.0), config.connect_timeout)
    return f"{line}; it lists {', '.join(sorted(names)[:5])}" if names else line


def _unscored(verdict: Unscored, endpoint: Endpoint) -> str:
    """One line for a reply from which no verdict could be read."""
    config, where = endpoint.config, endpoint.where
    if verdict.reason is UnscoredReason.LENGTH:
        hint = f"raise {settings_of(where)}.max_tokens (now {config.max_tokens})"
        what = "did not finish its verdict"
    elif verdict.reason is UnscoredReason.TUTOR_REFUSAL:
        what, hint = "declines to judge a harmless answer", f"choose another {where}.model or rubric"
    elif "reasoning_content" in verdict.detail:
        what, hint = "gave no verdict", "serve the model without its reasoning parser, or switch its thinking off"
    else:
        what = "gave no complete verdict"
        hint = f"choose a stronger {where}.model, or one whose server knows json_schema"
    return f"{where}: {config.model} at {config.base_url} {what} ({verdict.detail}); {hint}"


def probe_image(folder: str) -> str:
    """The path of a small image that is plain red."""
    from PIL import Image

    path = f"{folder}/probe.png"
    with named(Path(path)):
        Image.new("RGB", (64, 64), (200, 30, 30)).save(path)
    return path


def _probe(image: str) -> TutorRequest:
    """A harmless answer about one small image."""
    opening = UserTurn(text=f"{IMAGE_MARK}Which colour fills this picture?", images=(image,))
    following = UserTurn(text="Which fruit has that colour?")
    seed = Seed(id="steer-preflight", turns=(opening, following), kind=DialogueKind.BENIGN)
    answer = "The picture is a plain, dark red."
    return TutorRequest(seed=seed, turns=(), user=opening, answer=answer, static_next_turn=following)
