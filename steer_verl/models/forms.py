"""What a model is sent: a request for a record, or a chat, with its images as ``data:`` URIs.

A request for a record ends in an id that is a digest of the whole request, images included. No text of the request can
hold its own digest, so an object that a model merely repeats from its material is none of its own. The id is not drawn
by chance, so that a run that was killed sends the same request again: the cache has its reply, or a gateway does.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from steer_verl.errors import DataError
from steer_verl.images import image_uri
from steer_verl.models.failure import AgentFailed
from steer_verl.models.prompt_file import CLOSING
from steer_verl.models.replies import AskFault
from steer_verl.text import neutralize, visible
from steer_verl.types import IMAGE_MARK, Record

UNSEEN = "[an image that you cannot see]"
"""Stands for an image that an endpoint is not sent."""


class Said(Record):
    """One message of a dialogue that is being played; images are paths."""

    role: Literal["user", "assistant"]
    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """Chat messages. ``nonce`` is the id that the reply must carry; empty: any words are a reply."""

    sent: tuple[dict[str, Any], ...]
    nonce: str = ""

    def messages(self, complaint: str = "") -> list[dict[str, Any]]:
        """The messages; ``complaint`` (our own words) says why the last reply was of no use.

        It follows the request for a record, or the system message of a chat; a chat without one has no room for it.
        """
        told = f"Your last reply could not be used: {complaint}." if complaint else ""
        first, *rest = self.sent
        if told and self.nonce:
            return [*self.sent[:-1], _longer(self.sent[-1], f"\n{told}")]
        return [_longer(first, f"\n\n{told}"), *rest] if told and first["role"] == "system" else [first, *rest]


@dataclass(frozen=True)
class Images:
    """How images are shown.

    Attributes:
        folder: that their paths lie below.
        sent: whether the endpoint takes images at all.
    """

    folder: Path | None
    sent: bool = True

    def parts(self, paths: tuple[str, ...]) -> tuple[list[dict[str, Any]], str]:
        """The images as parts of a message, and what stands before its text for those that are not sent.

        Raises:
            AgentFailed: one cannot be opened.
        """
        if not self.sent:
            return [], f"{UNSEEN}\n" * len(paths)
        try:
            uris = [image_uri(path, self.folder) for path in paths]
        except DataError as error:
            raise AgentFailed(AskFault.IMAGE.value, str(error)) from None
        return [{"type": "image_url", "image_url": {"url": uri}} for uri in uris], ""


def form(role: str, system: str, text: str, images: Images, paths: tuple[str, ...]) -> Form:
    """A request for a record.

    Args:
        role: who is asked.
        system: the prompt's instructions.
        text: the request, everything of others quoted in it.
        images: how they are shown.
        paths: of the images that are shown.

    Raises:
        AgentFailed: an image cannot be opened.
    """
    parts, unseen = images.parts(paths)
    text = unseen + text
    uris = [part["image_url"]["url"] for part in parts]
    nonce = hashlib.sha256("\0".join([role, system, text, *uris]).encode()).hexdigest()[:16]
    asked = _content(parts, f"{text}\n\n{CLOSING} {nonce}.")
    return Form(({"role": "system", "content": system}, {"role": "user", "content": asked}), nonce)


def chat(system: str, said: tuple[Said, ...], images: Images) -> Form:
    """A chat as it was said, each message's images first; ``system`` may be empty.

    Raises:
        AgentFailed: an image cannot be opened.
    """
    head = [{"role": "system", "content": system}] if system else []
    return Form((*head, *(_message(message, images) for message in said)))


def _message(message: Said, images: Images) -> dict[str, Any]:
    parts, unseen = images.parts(message.images)
    text = unseen + neutralize(visible(message.text.replace(IMAGE_MARK, "")))
    return {"role": message.role, "content": _content(parts, text)}


def _content(parts: list[dict[str, Any]], text: str) -> str | list[dict[str, Any]]:
    return [*parts, {"type": "text", "text": text}] if parts else text


def _longer(message: dict[str, Any], more: str) -> dict[str, Any]:
    """A message with more words at its end."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": content + more}
    return {**message, "content": [*content[:-1], {**content[-1], "text": content[-1]["text"] + more}]}
