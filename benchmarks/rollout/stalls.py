"""How long the event loop stood still, and in whose code.

Every step of every task on the loop is timed. While one runs long, a watching thread notes the stack of the loop's
thread again and again, so that a long step can be put down to the code that was met most often in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

WATCH_FROM = 0.004
"""Seconds after which a step is looked at."""
UNSEEN = "unseen"
"""Where the watching thread could not look, or met neither our code nor verl's."""
OWNERS = ("/rollout/", "/reward_fns/", "/steer_verl/")
"""Where our code lies, beneath the repository's root."""


@dataclass
class Stalls:
    """Seconds of every step longer than ``WATCH_FROM`` and, for each, where it was seen."""

    steps: list[tuple[float, str]] = field(default_factory=list)

    def longest(self, whose: str = "") -> float:
        """Seconds; ``whose``: only of steps seen in code of that owner, ``ours``, ``others`` or ``UNSEEN``."""
        return max((seconds for seconds, where in self.steps if where.startswith(whose)), default=0.0)

    def worst(self) -> str:
        """Where the longest step was."""
        return max(self.steps, default=(0.0, "nowhere"))[1]


@contextlib.contextmanager
def watched(root: str) -> Iterator[Stalls]:
    """Time the steps of the loops that run inside; ``root`` is the repository's."""
    stalls, plain = Stalls(), asyncio.Handle._run
    thread, state = threading.get_ident(), {"since": 0.0}
    seen: Counter[str] = Counter()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            since = state["since"]
            if since and time.perf_counter() - since > WATCH_FROM:
                seen[_place(sys._current_frames().get(thread), root)] += 1

    def timed(self: asyncio.Handle) -> None:
        state["since"] = began = time.perf_counter()
        try:
            plain(self)
        finally:
            state["since"], seconds = 0.0, time.perf_counter() - began
            if seconds > WATCH_FROM:
                stalls.steps.append((seconds, seen.most_common(1)[0][0] if seen else UNSEEN))
            seen.clear()

    asyncio.Handle._run = timed  # type: ignore[method-assign]
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield stalls
    finally:
        asyncio.Handle._run = plain  # type: ignore[method-assign]
        stop.set()
        watcher.join()


def _place(frame: FrameType | None, root: str) -> str:
    """Owner, file and function of the innermost frame that is ours or verl's."""
    while frame is not None:
        path = frame.f_code.co_filename
        if any(path.startswith(root + owner) for owner in OWNERS):
            return f"ours: {path.removeprefix(root + '/')} {frame.f_code.co_name}"
        if "/verl/" in path or "/transfer_queue/" in path:
            return f"others: {path.rpartition('site-packages/')[2]} {frame.f_code.co_name}"
        frame = frame.f_back
    return UNSEEN
