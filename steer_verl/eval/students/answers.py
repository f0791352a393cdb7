"""What a student is shown, and its answers, which are kept.

Every text is neutralised: questions come from files and tutors, answers from the student itself, and neither may spell
a role or an image that is not there. Hidden characters stay: a benchmark may mean them. An answer that is kept is known
by its place, by who gave it, and by the conversation that it answers.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_verl.eval.config import StudentSettings
from steer_verl.eval.images import image_digest
from steer_verl.eval.students.protocol import Messages, Reply
from steer_verl.models.cache import Cache, ReplyCache, remembered
from steer_verl.models.forms import Images
from steer_verl.models.log import RequestLog
from steer_verl.models.place import Place
from steer_verl.text import neutralize


@dataclass(frozen=True)
class Setup:
    """What every student is made of."""

    settings: StudentSettings
    out: Path
    """Folder of a server's log and of a merged checkpoint."""
    name: str
    """See the protocol."""
    system: str = ""
    """A system message; empty: none."""
    cache: ReplyCache | None = None
    """Keeps every answer, with the seconds that it took; without one, nothing is kept."""
    log: RequestLog | None = None
    """Where every attempt at a server is written down, if anywhere."""
    tell: Callable[[str], object] = lambda line: print(line, file=sys.stderr, flush=True)
    """Shows one line of progress while a server starts."""


class KeptAnswers(ABC):
    """A student (:class:`~steer_verl.eval.students.protocol.Student`) that is asked once for each answer."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.name = setup, setup.name
        self._cache: ReplyCache = setup.cache or Cache(None)

    async def answer(self, messages: Messages, place: Place) -> Reply:
        """See the protocol."""
        name = f"{self.name}/{digest(messages)}"
        return await remembered(self._cache, place, name, Reply, functools.partial(self.asked, messages, place, name))

    @abstractmethod
    async def asked(self, messages: Messages, place: Place, name: str) -> Reply:
        """An answer that is not kept yet.

        Args:
            messages: see the protocol.
            place: the turn's; what the answer cost goes on its account, also when nothing came of it.
            name: of the answer at its place.

        Raises:
            AgentFailed: see the protocol.
        """


def conversation(system: str, messages: Messages, images: Images | None) -> list[dict[str, Any]]:
    """The messages as a student takes them, each one's images and texts in their order.

    Args:
        system: a system message that goes before them; empty: none.
        messages: the chat, the open question last.
        images: how a server is shown images; ``None``: by their paths, for a student in this process.

    Raises:
        AgentFailed: an image cannot be opened.
    """
    head = [{"role": "system", "content": system}] if system else []
    return [*head, *({"role": m["role"], "content": _content(m["content"], images)} for m in messages)]


def image_paths(messages: Messages) -> list[str]:
    """The images of a chat, in their order."""
    blocks = [b for m in messages if not isinstance(m["content"], str) for b in m["content"]]
    return [str(block["image"]) for block in blocks if block["type"] == "image"]


def _content(content: Any, images: Images | None) -> str | list[dict[str, Any]]:
    """A plain string when no image is shown."""
    parts: list[dict[str, Any]] = []
    for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if block["type"] != "image":
            parts += [{"type": "text", "text": text}] if (text := neutralize(block["text"])) else []
        elif images is None:
            parts.append(dict(block))
        else:
            shown, unseen = images.parts((str(block["image"]),))
            parts += shown or [{"type": "text", "text": unseen}]
    return parts if any(part["type"] != "text" for part in parts) else "".join(part["text"] for part in parts)


def digest(messages: Messages) -> str:
    """Tells a conversation from every other one of its item, by its texts and the bytes of its images: a folder that
    was moved is the same, another image under the same path is not."""
    said = [[m["role"], c if isinstance(c := m["content"], str) else list(map(_known, c))] for m in messages]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:12]


def _known(block: Mapping[str, Any]) -> list[str]:
    return ["image", image_digest(str(block["image"]))] if block["type"] == "image" else ["text", block["text"]]
