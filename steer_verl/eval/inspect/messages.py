"""Turns of a dialogue as chat messages of Inspect, and anybody's chat messages as turns.

A log holds images as ``data:`` URIs. Read back, each is a file again: the one that it was, where that still has the
same bytes, else a file of :func:`image_folder`, named by its bytes. A path or URL that a log names is never opened for
anything else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentText,
)

from steer_verl.dialogue import user_message
from steer_verl.errors import DataError
from steer_verl.eval.records import EvalTurn
from steer_verl.images import MAX_BYTES, image_bytes, seen_size
from steer_verl.models.request import encodable
from steer_verl.records import atomic
from steer_verl.text import neutralize
from steer_verl.types import IMAGE_MARK, Turn, UserTurn

KINDS = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"RIFF": "webp"}
"""How the files begin that a log may hold."""
UNSEEN = "[an image that is not in the log]"

T = TypeVar("T", EvalTurn, Turn)

Shown = Callable[[str], str]
"""Path of an image -> its ``data:`` URI; raises ``DataError``."""


class Said(NamedTuple):
    """A question of a log and its answer; ``None``: nobody answered."""

    user: UserTurn
    answer: str | None


def conversation(turns: Iterable[T], shown: Shown, model: str, told: Callable[[T], str]) -> list[ChatMessage]:
    """Turns as messages; each question says where it came from, and each answer what was made of it (``told``).

    An image that cannot be shown is words.
    """
    said: list[ChatMessage] = []
    for turn in turns:
        asked = {"origin": turn.origin.value} | ({"strategy": turn.strategy.value} if turn.strategy else {})
        content = user_message(turn.user)["content"]
        parts = content if isinstance(content, str) else [_part(block, shown) for block in content]
        said.append(ChatMessageUser(content=parts, metadata=asked))
        marks = {"rating": told(turn)}
        said.append(ChatMessageAssistant(content=turn.answer, model=model, source="generate", metadata=marks))
    return said


def chat(messages: Sequence[Mapping[str, Any]], shown: Shown = str) -> list[ChatMessage]:
    """Messages of ours (blocks ``text`` and ``image``), or of the OpenAI form (``image_url``), as Inspect has them.

    Raises:
        DataError: of ``shown``.
    """
    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    said: list[ChatMessage] = []
    for message in messages:
        content = message["content"]
        parts = content if isinstance(content, str) else [_content(block, shown) for block in content]
        said.append(kinds[message["role"]](content=parts))
    return said


def exchanges(messages: Iterable[ChatMessage]) -> Iterator[Said]:
    """The dialogue between user and assistant.

    What the system and tools said is passed over. Messages of one side in a row are one, and whatever the assistant
    said before its user did is no answer. Nor is what a sample puts into its mouth (examples, a history, the beginning
    of an answer): that is part of the question.
    """
    asked: list[ChatMessage] = []
    answered: list[str] = []
    for message in messages:
        given = message.role == "assistant" and message.source == "input"
        if message.role == "user" or (given and asked and message.text):
            if asked and answered:
                yield Said(_turn(asked), encodable("\n\n".join(answered)))
                asked, answered = [], []
            asked.append(message)
        elif message.role == "assistant" and not given and asked and (message.text or not message.tool_calls):
            answered += [message.text] if message.text or not answered else []
    if asked:
        yield Said(_turn(asked), encodable("\n\n".join(answered)) if answered else None)


def images(messages: Iterable[ChatMessage]) -> Iterator[bytes]:
    """Every image that the messages hold."""
    for message in messages:
        for part in [] if isinstance(message.content, str) else message.content:
            if isinstance(part, ContentImage) and (data := bytes_of(part.image)) is not None:
                yield data


def _content(block: Mapping[str, Any], shown: Shown) -> Content:
    if block["type"] == "text":
        return ContentText(text=block["text"])
    return ContentImage(image=block["image_url"]["url"] if block["type"] == "image_url" else shown(block["image"]))


def _part(block: Mapping[str, Any], shown: Shown) -> Content:
    try:
        return _content(block, shown)
    except DataError:
        return ContentText(text=UNSEEN)


def _turn(asked: Sequence[ChatMessage]) -> UserTurn:
    text, paths, roles = "", list[str](), {message.role for message in asked}
    for message in asked:
        text += "\n\n" * bool(text) + f"[{message.role}]\n" * (len(roles) > 1)
        for part in [ContentText(text=message.content)] if isinstance(message.content, str) else message.content:
            words = f"[{part.type}]"
            if isinstance(part, ContentText):
                words = neutralize(part.text)
            elif isinstance(part, ContentImage):
                data = bytes_of(part.image)
                words = UNSEEN if data is None else IMAGE_MARK
                paths += [] if data is None else [kept(data)]
            text += words if not text or text.endswith(("\n", IMAGE_MARK)) or words == IMAGE_MARK else f"\n{words}"
    return UserTurn(text=text, images=tuple(paths))


def image_folder() -> Path:
    """Where images of logs are kept: ``$XDG_CACHE_HOME/steer-verl/images``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "steer-verl" / "images"


def shown(held: dict[str, str]) -> Callable[[str], str]:
    """Makes the ``data:`` URI of an image file as it is, and puts its digest into ``held``, by its path.

    What it returns raises ``DataError`` for what is no PNG, JPEG or WEBP file, or beyond a bound.
    """

    def uri(path: str) -> str:
        seen_size(path)
        data = image_bytes(path)
        held[path] = digest(data)
        return f"data:image/{_kind(data)};base64,{base64.b64encode(data).decode()}"

    return uri


def bytes_of(uri: str) -> bytes | None:
    """The image of a ``data:`` URI; ``None`` for a path, a URL, another kind of data, or one beyond the bound."""
    head, _, data = uri.partition(";base64,")
    if not head.startswith("data:image/") or len(data) > MAX_BYTES * 4 // 3 + 4:
        return None
    try:
        image = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    return image if _kind(image) else None


def digest(image: bytes) -> str:
    """What an image is known by in a log."""
    return hashlib.sha256(image).hexdigest()


def kept(image: bytes, was: str = "") -> str:
    """The path of a file with these bytes: ``was`` if that is one, else one of :func:`image_folder`."""
    if was and _same(Path(was), image):
        return was
    path = image_folder() / f"{digest(image)}.{_kind(image)}"
    if not _same(path, image):
        with atomic(path) as stream:
            stream.write(image)
    return str(path)


def absent(was: str) -> str:
    """A path at which there is nothing, for an image that a log names and does not hold."""
    return was if not os.path.lexists(was) else str(image_folder() / "not-in-the-log" / Path(was).name)


def _same(path: Path, image: bytes) -> bool:
    try:
        return path.is_file() and path.stat().st_size == len(image) and path.read_bytes() == image
    except (OSError, ValueError):
        return False


def _kind(image: bytes) -> str:
    return next((kind for start, kind in KINDS.items() if image.startswith(start)), "")
