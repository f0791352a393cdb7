"""What comes back from a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """A reply's text, why it ended, and the model's own refusal if it sent one."""

    content: str
    finish_reason: str = "stop"
    refusal: str = ""
