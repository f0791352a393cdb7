"""What can become of a request that gives no reply, and what follows from it.

Worth another attempt: 408, 409, 429, 5xx, a refused or dropped connection, an answer that did not come in time. Never:
any other 4xx, which would only be refused again, an answer that is no chat completion, and a server that cannot read
pictures (llama.cpp says so with 500).
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from steer_verl.types import UnscoredReason

_NO_PICTURES = re.compile(
    r"image input is not supported|not a multimodal model|does not support image|image_url", re.IGNORECASE
)
_FILTERED = re.compile(r"content_filter|content management policy|data_inspection_failed", re.IGNORECASE)


class CallFailed(Exception):
    """A request that gave no reply. ``text`` is one line without secrets, ``detail`` its first 300 characters."""

    def __init__(self, reason: UnscoredReason, text: str, *, status: int = 0, wait: float | None = None) -> None:
        super().__init__(text)
        self.reason, self.text, self.status, self.wait = reason, text, status, wait
        self.detail = text[:300]

    @property
    def no_pictures(self) -> bool:
        """The server says that it takes no pictures."""
        return self.status in (400, 404, 415, 422, 500, 501) and says_no_pictures(self.text)

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        passing = self.status in (0, 408, 409, 429) or self.status >= 500
        return passing and not self.no_pictures and self.reason is not UnscoredReason.BAD_JSON

    @property
    def unwell(self) -> bool:
        """Whether it speaks of the server's health, and not of this request or of the load."""
        sick = self.reason in (UnscoredReason.CONNECT, UnscoredReason.TIMEOUT, UnscoredReason.HTTP_5XX)
        return sick and not self.no_pictures

    @property
    def unwelcome(self) -> bool:
        """The server has another key or model than the configuration says: it will refuse every request."""
        return self.status in (401, 403, 404) and self.reason is UnscoredReason.HTTP_4XX and not self.no_pictures


def says_no_pictures(text: str) -> bool:
    """Whether a server's error message says that the model takes no pictures."""
    return _NO_PICTURES.search(text) is not None


def status_failure(status: int, text: str, header: str | None) -> CallFailed:
    """The failure of an HTTP status; ``header`` is its ``Retry-After``."""
    if status == 429:
        reason = UnscoredReason.HTTP_429
    elif status >= 500:
        reason = UnscoredReason.HTTP_5XX
    elif _FILTERED.search(text):
        reason = UnscoredReason.CONTENT_FILTER
    else:
        reason = UnscoredReason.HTTP_4XX
    return CallFailed(reason, text, status=status, wait=retry_after(header))


def retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, as a number or as a date; ``None`` if it cannot be read."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return seconds if 0 <= seconds < float("inf") else None


def _seconds_until(date: str) -> float:
    try:
        when = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return -1.0
    return max(0.0, (when.replace(tzinfo=when.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds())
