"""What a model is sent: a request for a record, or a chat, with its images as ``data:`` URIs.

A request for a record ends in an id that is a digest of the whole request, images included. No text of the request can
hold its own digest, so an object that a model merely repeats from its material is none of its own. The id is not drawn
by chance, so that a run that was killed sends the same request again: the cache has its reply, or a gateway does.

An image that must not be opened, or cannot be, is an ``AgentFailed``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

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


class Message(NamedTuple):
    """One message as it is sent."""

    role: str
    shown: list[dict[str, Any]]
    """The parts of its images."""
    text: str

    def content(self) -> str | list[dict[str, Any]]:
        """Its images before its text."""
        return [*self.shown, {"type": "text", "text": self.text}] if self.shown else self.text


@dataclass(frozen=True)
class Form:
    """A system message, which may be empty, and chat messages. Without a ``nonce``, any words are a reply."""

    system: str
    said: tuple[Message, ...]
    nonce: str = ""
    """The id that the reply must carry."""

    def messages(self, complaint: str = "") -> list[dict[str, Any]]:
        """The messages; ``complaint`` (our own words) says why the last reply was of no use.

        It follows the request for a record, or the system message of a chat; a chat without one has no room for it.
        """
        told = f"Your last reply could not be used: {complaint}." if complaint else ""
        system, said = self.system, list(self.said)
        if told and self.nonce:
            said[-1] = said[-1]._replace(text=f"{said[-1].text}\n{told}")
        elif told and system:
            system = f"{system}\n\n{told}"
        head = [{"role": "system", "content": system}] if system else []
        return [*head, *({"role": one.role, "content": one.content()} for one in said)]


@dataclass(frozen=True)
class Images:
    """How images are shown: the folder that their paths lie below, and whether the endpoint takes images at all."""

    folder: Path | None
    sent: bool = True

    def parts(self, paths: tuple[str, ...]) -> tuple[list[dict[str, Any]], str]:
        """The images as parts of a message, and what stands before its text for those that are not sent."""
        if not self.sent:
            return [], f"{UNSEEN}\n" * len(paths)
        try:
            uris = [image_uri(path, self.folder) for path in paths]
        except DataError as error:
            raise AgentFailed(AskFault.IMAGE.value, str(error)) from None
        return [{"type": "image_url", "image_url": {"url": uri}} for uri in uris], ""


def form(role: str, system: str, text: str, images: Images, paths: tuple[str, ...]) -> Form:
    """A request for a record: everything of others stands quoted in ``text``."""
    shown, unseen = images.parts(paths)
    text = unseen + text
    uris = [part["image_url"]["url"] for part in shown]
    nonce = hashlib.sha256("\0".join([role, system, text, *uris]).encode()).hexdigest()[:16]
    return Form(system, (Message("user", shown, f"{text}\n\n{CLOSING} {nonce}."),), nonce)


def chat(system: str, said: tuple[Said, ...], images: Images) -> Form:
    """A chat as it was said, each message's images first."""
    return Form(system, tuple(_message(one, images) for one in said))


def _message(said: Said, images: Images) -> Message:
    shown, unseen = images.parts(said.images)
    return Message(said.role, shown, unseen + neutralize(visible(said.text.replace(IMAGE_MARK, ""))))
