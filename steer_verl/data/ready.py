"""Whether everybody whom a build asks is there, before the first item: each server is asked one small question."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Mapping

from steer_verl.config import EndpointConfig
from steer_verl.data.stages.agents import ROLES, Role
from steer_verl.errors import ConfigError
from steer_verl.models.endpoint import Endpoint, servers_of
from steer_verl.models.failure import Failure
from steer_verl.models.request import Request
from steer_verl.tutor.check import explained

QUESTION = "Reply with the one word: ready."
MAX_RETRIES = 2
"""Of a check: a server that only now starts is asked again by the user."""


async def check_endpoints(endpoints: Mapping[Role, EndpointConfig]) -> None:
    """Ask every server of every role's endpoint; roles that ask the same model in the same way are one question.

    Args:
        endpoints: role -> its endpoint.

    Raises:
        ConfigError: one line for each server that gives no reply: for which roles, what is wrong, how to fix it.
    """
    roles: dict[EndpointConfig, list[str]] = {}
    for role, endpoint in endpoints.items():
        for server in servers_of(endpoint):
            roles.setdefault(_asked(server), []).append(role)
    found = await asyncio.gather(*(_fault(server, names) for server, names in roles.items()))
    if faults := [fault for fault in found if fault]:
        raise ConfigError(" | ".join(faults))


def _asked(server: EndpointConfig) -> EndpointConfig:
    """What decides whether it can be asked at all; the rest is the same for every role."""
    same = {"temperature": 0.0, "max_tokens": 16, "prices": None, "weight": 1.0, "json_schema": "off"}
    return server.model_copy(update={**same, "max_retries": min(server.max_retries, MAX_RETRIES)})


async def _fault(server: EndpointConfig, roles: list[str]) -> str:
    """One line, or nothing where it replies."""
    named = "agents.endpoint" if {*roles} == {*ROLES} else f"agents.roles.{','.join(dict.fromkeys(roles))}"
    endpoint = Endpoint(server, where=named)
    try:
        content = [_image(), {"type": "text", "text": QUESTION}] if server.images else QUESTION
        reply = await endpoint.ask(Request([{"role": "user", "content": content}]), endpoint.context())
        return await explained(reply, endpoint) if isinstance(reply, Failure) else ""
    finally:
        await endpoint.close()


def _image() -> dict[str, object]:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 30, 30)).save(buffer, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": uri}}
