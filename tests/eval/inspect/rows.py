"""A benchmark with an image in a later turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.data.samples import picture

ASKED = ["Question?", "<image>And this?", "How so?"]


def bench(folder: Path, dialogues: int, lost: bool = False) -> Path:
    """Dialogues of three turns with an image in the second; ``lost``: one more, which cannot be played."""
    rows = [
        row(f"q{n}", [f"Question {n}?", *ASKED[1:]], picture(folder / "a.png", (40, 40)).name) for n in range(dialogues)
    ]
    rows += [row("lost", ["<image>What?", "Why?"], "gone.png")] if lost else []
    path = folder / "bench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(name: str, asked: list[str], image: str) -> dict[str, Any]:
    """An RL row."""
    said = [{"role": "user", "content": text} for text in asked]
    return {
        "question": said[:1],
        "images": [image],
        "metadata": {"question_id": name, "rest_messages": said[1:]},
    }
