"""Small pictures and rows for the tests of the data rooms."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image


def picture(path: Path, size: tuple[int, int] = (56, 56), colour: str = "red", **options: Any) -> Path:
    """A plain picture, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def row(name: str | int = "a", turns: int = 3, images: Iterable[str] = ("a.png",), **metadata: Any) -> dict[str, Any]:
    """A good JSONL row whose pictures all stand in the opening turn."""
    images = list(images)
    rest = [{"role": "user", "content": f"And then, question {t}?"} for t in range(2, turns + 1)]
    return {
        "question": [{"role": "user", "content": "<image>" * len(images) + "What is this?"}],
        "images": images,
        "label": "benign",
        "metadata": {"question_id": name, "rest_messages": rest, **metadata},
    }


def write_rows(path: Path, rows: Iterable[dict[str, Any] | str]) -> Path:
    """A JSONL file; a string is written as it is."""
    lines = [item if isinstance(item, str) else json.dumps(item) for item in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path
