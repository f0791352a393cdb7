"""Server-sent events: a chat completion that comes piece by piece, put together to the body that it stands for.

The bytes are bounded by whoever reads them (:mod:`steer_verl.models.http`); here everything is linear in them. Text is
UTF-8, and a piece may end in the middle of a letter or of a line.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from typing import Any

HEARD_CHARS = 20_000
"""Characters of a reply up to which it is told while it comes: a bound on the work that a stream can cause."""
HEARD_STEP = 16
"""Characters by which it must have grown to be told again, about four tokens; of a long one a sixteenth."""


class EventStream:
    """Reads the events of one answer.

    Args:
        heard: called with the whole text of the reply so far, each time that a piece of it has come.
    """

    def __init__(self, heard: Callable[[str], None]) -> None:
        self.done = False
        """The server has said that nothing more will come."""
        self._heard = heard
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._line: list[str] = []
        self._said: list[str] = []
        self._length = self._told = 0
        self._message: dict[str, list[str]] = {"reasoning_content": [], "refusal": []}
        self._finish: str | None = None
        self._usage: Any = None
        self._error: Any = None
        self._odd: Any = None
        self._choices = False

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the answer."""
        first, *rest = self._decode(piece).replace("\r\n", "\n").split("\n")
        self._line.append(first)
        for line in rest:
            self._take("".join(self._line).strip("\r"))
            self._line = [line]
        if self._told + max(HEARD_STEP, self._told // 16) <= self._length <= HEARD_CHARS:
            self._told = self._length
            self._heard("".join(self._said))

    def body(self) -> str:
        """The answer as a server sends it that does not stream; one that broke off has no end of its own."""
        if any(self._line):
            self._take("".join(self._line).strip("\r"))
        if self._error is not None:
            return json.dumps(self._error)
        if not self._choices:
            return json.dumps(self._odd) if self._odd else ""
        finish = self._finish or ("stop" if self.done else "incomplete")
        spoken = {name: "".join(parts) for name, parts in self._message.items() if parts}
        message = {"role": "assistant", "content": "".join(self._said), **spoken}
        return json.dumps({"choices": [{"message": message, "finish_reason": finish}], "usage": self._usage})

    def _take(self, line: str) -> None:
        name, _, data = line.partition(":")
        if name != "data" or self.done:  # a comment that keeps the connection alive, an id, an event's name
            return
        data = data.strip()
        if data == "[DONE]":
            self.done = True
            return
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            return
        if isinstance(event, dict):
            self._event(event)

    def _event(self, event: dict[str, Any]) -> None:
        choices = event.get("choices")
        if event.get("usage"):
            self._usage = event["usage"]
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            if event.get("error") or event.get("object") == "error":
                self._error = self._error or event
            elif choices is None:
                self._odd = event
            return
        choice = choices[0]
        if choice.get("error"):
            self._error = self._error or choice
            return
        self._choices = True
        if isinstance(choice.get("finish_reason"), str):
            self._finish = choice["finish_reason"]
        part = choice.get("delta") or (None if self._length else choice.get("message"))  # some end with all of it again
        if isinstance(part, dict):
            said = _text(part.get("content"))
            self._said.append(said)
            self._length += len(said)
            reasoning = part.get("reasoning_content") or part.get("reasoning")
            self._message["reasoning_content"].append(_text(reasoning))
            self._message["refusal"].append(_text(part.get("refusal")))


def _text(value: Any) -> str:
    """A piece of text: a string, or typed parts of which the texts count."""
    if isinstance(value, list):
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else ""
