"""What a model is sent: a request for a record, or a chat, with its pictures as ``data:`` URIs.

A record's request ends in an id that is a digest of the whole request, pictures included. No text of the request can
hold its own digest, so an object that a model merely repeats from its material is none of its own. The id is not drawn
by chance, so that a run that was killed sends the same request again, and a gateway charges it once.
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

UNSEEN = "[a picture that you cannot see]"
"""Stands for a picture that an endpoint is not sent."""


class Said(Record):
    """One message of a dialogue that is being played; pictures are paths."""

    role: Literal["user", "assistant"]
    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """A request for a record."""

    system: str
    pictures: tuple[dict[str, Any], ...]
    text: str
    nonce: str

    def messages(self, complaint: str = "") -> list[dict[str, Any]]:
        """The chat messages; ``complaint`` (our own words) says why the last reply was of no use."""
        text = f"{self.text}\n\n{CLOSING} {self.nonce}."
        if complaint:
            text += f"\nYour last reply could not be used: {complaint}."
        content = [*self.pictures, {"type": "text", "text": text}] if self.pictures else text
        return [{"role": "system", "content": self.system}, {"role": "user", "content": content}]


@dataclass(frozen=True)
class Chat:
    """A request for a chat's next message."""

    system: str
    said: tuple[dict[str, Any], ...]

    def messages(self, complaint: str = "") -> list[dict[str, Any]]:
        """The chat messages. Without a system message there is no room to complain."""
        hint = f"\n\nYour last reply could not be used: {complaint}." if complaint and self.system else ""
        head = [{"role": "system", "content": self.system + hint}] if self.system else []
        return [*head, *self.said]


@dataclass(frozen=True)
class Pictures:
    """How pictures are shown.

    Attributes:
        folder: that their paths lie below.
        sent: whether the endpoint takes pictures at all.
    """

    folder: Path | None
    sent: bool = True

    def parts(self, paths: tuple[str, ...]) -> tuple[list[dict[str, Any]], str]:
        """The pictures as parts of a message, and what stands before its text for those that are not sent.

        Raises:
            AgentFailed: one cannot be opened.
        """
        if not self.sent:
            return [], f"{UNSEEN}\n" * len(paths)
        try:
            uris = [image_uri(path, self.folder) for path in paths]
        except DataError as error:
            raise AgentFailed(AskFault.PICTURE.value, str(error)) from None
        return [{"type": "image_url", "image_url": {"url": uri}} for uri in uris], ""


def form(role: str, system: str, text: str, pictures: Pictures, images: tuple[str, ...]) -> Form:
    """A request for a record.

    Args:
        role: who is asked.
        system: the prompt's instructions.
        text: the request, everything of others quoted in it.
        pictures: how they are shown.
        images: paths of those that are shown.

    Raises:
        AgentFailed: a picture cannot be opened.
    """
    parts, unseen = pictures.parts(images)
    text = unseen + text
    uris = [part["image_url"]["url"] for part in parts]
    digest = hashlib.sha256("\0".join([role, system, text, *uris]).encode()).hexdigest()
    return Form(system, tuple(parts), text, digest[:16])


def chat(system: str, said: tuple[Said, ...], pictures: Pictures) -> Chat:
    """A chat as it was said, each message's pictures first; ``system`` may be empty.

    Raises:
        AgentFailed: a picture cannot be opened.
    """
    return Chat(system, tuple(_message(message, pictures) for message in said))


def _message(message: Said, pictures: Pictures) -> dict[str, Any]:
    parts, unseen = pictures.parts(message.images)
    text = unseen + neutralize(visible(message.text.replace(IMAGE_MARK, "")))
    return {"role": message.role, "content": [*parts, {"type": "text", "text": text}] if parts else text}
