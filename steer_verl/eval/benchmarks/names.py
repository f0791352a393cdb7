"""Ids: as a file writes them, made fit for paths and pages, and unique within a benchmark."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from steer_verl.text import neutralize, visible

MAX_LABEL = 200
"""Characters of an id, a category and the like; what is longer is cut."""


def label(text: str) -> str:
    """A short text of somebody else's as tables show it: one line, no marks, nothing hidden, at most ``MAX_LABEL``."""
    words = " ".join(neutralize(visible(text)).split())
    return "".join(character if character.isprintable() else "\ufffd" for character in words)[:MAX_LABEL]


class Names:
    """The ids of one benchmark so far. Ids and digests are all that is remembered of a row."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._contents: set[tuple[str, bytes]] = set()

    def unique(self, wanted: str) -> str:
        """``wanted``, or ``wanted#2``, ``#3``, ... if it is taken; the same order of calls gives the same ids."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}#{number}"
        self._taken.add(name)
        return name

    def give(self, wanted: str, content: Any) -> tuple[str, str]:
        """An id for a row, and an oddity (steer_verl/eval/benchmarks/oddities.py) or nothing.

        Args:
            wanted: the row's own.
            content: of the row, as JSON takes it: the same content under the same id is the same dialogue.
        """
        digest = hashlib.blake2b(json.dumps(content).encode(), digest_size=16).digest()
        name = self.unique(wanted)
        if (wanted, digest) in self._contents:
            return name, "duplicate_row"
        self._contents.add((wanted, digest))
        return name, "" if name == wanted else "duplicate_id"
