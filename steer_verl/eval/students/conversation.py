"""What a student is shown: chat messages with every picture as a ``data:`` URI and every text neutralised.

Questions come from files and tutors, answers from the student itself; neither may spell a role or a picture that is not
there. Hidden characters stay: a benchmark may mean them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steer_verl.data.student_format import STUDENT_FORMAT
from steer_verl.errors import ConfigError
from steer_verl.eval.students.protocol import Messages
from steer_verl.models.forms import Images
from steer_verl.text import neutralize


@dataclass(frozen=True)
class Conversation:
    """A request for the next answer."""

    said: tuple[dict[str, Any], ...]

    def messages(self, complaint: str = "") -> list[dict[str, Any]]:
        """The chat messages. Whatever a student says is its answer, so none is asked
        for again."""
        return list(self.said)


def conversation(system: str, messages: Messages, images: Images) -> Conversation:
    """The messages as a server takes them, each one's pictures and texts in their order.

    Args:
        system: a system message that goes before them; empty: none.
        messages: the chat, the open question last.
        images: how images are shown.

    Raises:
        AgentFailed: an image cannot be opened.
    """
    head = [{"role": "system", "content": system}] if system else []
    return Conversation((*head, *({"role": m["role"], "content": _sent(m["content"], images)} for m in messages)))


def safe_messages(system: str, messages: Messages) -> list[dict[str, Any]]:
    """The messages for a student in this process: texts neutralised, pictures by their paths."""
    head = [{"role": "system", "content": system}] if system else []
    return [*head, *({"role": m["role"], "content": _neutral(m["content"])} for m in messages)]


def image_paths(messages: Messages) -> list[str]:
    """The pictures of a chat, in their order."""
    blocks = [b for m in messages if not isinstance(m["content"], str) for b in m["content"]]
    return [str(block["image"]) for block in blocks if block["type"] == "image"]


def system_prompt(setting: Path | str) -> str:
    """The system message that ``StudentSettings.system_prompt`` asks for; empty: none.

    Raises:
        ConfigError: the file cannot be read or is empty.
    """
    if setting == "none":
        return ""
    if setting == "student_format":
        return STUDENT_FORMAT
    try:
        text = Path(setting).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"student.system_prompt: cannot read {setting} ({why}); give a UTF-8 text file") from None
    if not text:
        raise ConfigError(f"student.system_prompt: {setting} is empty; write a prompt into it, or set none")
    return text


def _neutral(content: Any) -> Any:
    if isinstance(content, str):
        return neutralize(content)
    return [{**block, "text": neutralize(block["text"])} if block["type"] == "text" else block for block in content]


def _sent(content: Any, images: Images) -> str | list[dict[str, Any]]:
    """A message's content; a plain string when it shows no picture."""
    parts: list[dict[str, Any]] = []
    for block in _neutral([{"type": "text", "text": content}] if isinstance(content, str) else content):
        if block["type"] == "image":
            shown, unseen = images.parts((str(block["image"]),))
            parts += shown or [{"type": "text", "text": unseen}]
        elif block["text"]:
            parts.append({"type": "text", "text": block["text"]})
    if any(part["type"] == "image_url" for part in parts):
        return parts
    return "".join(part["text"] for part in parts)
