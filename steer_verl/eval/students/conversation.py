"""What a student is shown: chat messages in which every text is neutralised.

Questions come from files and tutors, answers from the student itself; neither may spell a role or an image that is not
there. Hidden characters stay: a benchmark may mean them.
"""

from __future__ import annotations

from typing import Any

from steer_verl.eval.students.protocol import Messages
from steer_verl.models.forms import Images
from steer_verl.text import neutralize


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
