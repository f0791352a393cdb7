"""What every page of figures is made with: a table, and the line that says how it was written."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from steer_verl.records import write_whole


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; each cell is what ``str`` makes of it."""
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def machine(*packages: str) -> str:
    """``2 cores, 24 GiB, Python 3.11.7``, and the versions of ``packages``."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = (f"{len(os.sched_getaffinity(0))} cores", f"{memory:.0f} GiB", f"Python {platform.python_version()}")
    return ", ".join((*parts, *(f"{name} {_version(name)}" for name in packages)))


def written(command: str, *packages: str) -> str:
    """The line below a page's title: by what it was written, when, and on which machine."""
    where = f"on {date.today()} ({machine(*packages)})"
    return f"Written by `{command}` {where}; no figure is written by hand."


def write(path: Path, *parts: str) -> str:
    """Write the parts, a blank line between them, to ``path`` and show them; returns the page."""
    page = "\n\n".join(part.strip("\n") for part in parts if part) + "\n"
    write_whole(path, page)
    print(page)
    return page


def listed(found: Iterable[object]) -> str:
    """``1, 2, 3``, or none."""
    return ", ".join(map(str, found)) or "none"


def counted(found: Mapping[str, int]) -> str:
    """``4 http_5xx, 52 connect``, or none."""
    return listed(f"{count:,} {name}" for name, count in sorted(found.items()))


def number(value: float) -> str:
    """Three figures that count: 0.0667, 31.4, 2,350."""
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
