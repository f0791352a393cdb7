"""A foreign benchmark file with every oddity, and the images it names: symbolic questions about boxes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from PIL import Image

from steer_verl.eval.benchmarks.items import items_of
from steer_verl.eval.config import BenchmarkSettings
from steer_verl.eval.records import EvalItem
from tests.data.samples import picture

LINES: list[tuple[str, dict[str, Any] | str, set[str], bool]] = [
    # (what it is, the row or the line, its oddities, whether it is played)
    ("good", {"question_id": "good", "image": "a.png", "messages_fixed": ["What is it?", "And below?"]}, set(), True),
    ("text", {"question_id": "text", "messages_fixed": ["What is a box?", "And a lid?"]}, {"no_image"}, True),
    ("one turn", {"question_id": "one", "image": "a.png", "messages_fixed": ["What is it?"]}, {"one_turn"}, True),
    (
        "eleven turns",
        {"question_id": "long", "image": "a.png", "messages_fixed": [f"Part {n}?" for n in range(11)]},
        {"too_many_turns"},
        True,
    ),
    ("torn in the middle", '{"question_id": "torn", "messages_fixed": [', {"broken_line"}, False),
    ("a list", "[1, 2]", {"broken_line"}, False),
    ("the same again", {"question_id": "good", "image": "a.png", "messages_fixed": ["What is it?", "And below?"]},
     {"duplicate_row"}, False),
    ("its id again", {"question_id": "good", "image": "a.png", "messages_fixed": ["Who made it?", "When?"]},
     {"duplicate_id"}, True),
    ("no id", {"image": "a.png", "messages_fixed": ["What is it?", "Why?"]}, {"no_id"}, True),
    ("an id of another type", {"question_id": [1], "image": "a.png", "messages_fixed": ["Which?", "Why?"]}, {"no_id"},
     True),
    ("missing", {"question_id": "missing", "image": "gone.png", "messages_fixed": ["What is it?", "Why?"]},
     {"image_missing"}, False),
    ("a URL", {"question_id": "url", "image": "http://localhost:9/a.png", "messages_fixed": ["What?", "Why?"]},
     {"image_bad"}, False),
    ("truncated", {"question_id": "cut", "image": "cut.png", "messages_fixed": ["What is it?", "Why?"]},
     {"image_bad"}, False),
    ("a bomb", {"question_id": "bomb", "image": "bomb.png", "messages_fixed": ["What is it?", "Why?"]},
     {"image_bad"}, False),
    ("outside", {"question_id": "out", "image": "../out.png", "messages_fixed": ["What is it?", "Why?"]},
     {"image_bad"}, False),
    ("linked out", {"question_id": "link", "image": "link.png", "messages_fixed": ["What is it?", "Why?"]},
     {"image_bad"}, False),
    ("an image by value", {"question_id": "value", "image": {"bytes": "iVBO"}, "messages_fixed": ["What?", "Why?"]},
     {"image_bad"}, False),
    ("two images", {"question_id": "two", "image": ["a.png", "b.png"], "messages_fixed": ["Which?", "Why?"]},
     {"several_images"}, True),
    ("an empty question", {"question_id": "empty", "image": "a.png", "messages_fixed": ["What is it?", " "]},
     {"empty_turn"}, False),
    ("no question", {"question_id": "none", "image": "a.png", "messages_fixed": []}, {"no_turns"}, False),
    ("no list", {"question_id": "nolist", "image": "a.png", "messages_fixed": {"a": 1}}, {"no_turns"}, False),
    ("a number for a question", {"question_id": "number", "image": "a.png", "messages_fixed": ["What is it?", 7]},
     {"odd_turn"}, False),
    ("a system message", {"question_id": "system", "messages_fixed": [{"role": "system", "content": "Obey."}, "What?"]},
     {"odd_turn", "no_image"}, False),
    (
        "answers between the questions",
        {
            "question_id": "answered",
            "image": "a.png",
            "messages_fixed": ["What is it?", {"role": "assistant", "content": "A box."}, "Why?"],
        },
        {"assistant_turn"},
        True,
    ),
    ("too many marks", {"question_id": "marks", "image": "a.png", "messages_fixed": ["<image>What?", "<image>Why?"]},
     {"extra_mark"}, True),
    ("a token", {"question_id": "token", "image": "a.png", "messages_fixed": ["What?<|im_end|>", "Why?"]},
     {"special_token"}, True),
    ("a long question", {"question_id": "wordy", "image": "a.png", "messages_fixed": ["What? " * 2000, "Why?"]},
     {"long_turn"}, True),
    ("odd risk", {"question_id": "risk", "image": "a.png", "messages_fixed": ["What?", "Why?"], "risk_trajectory": [9]},
     {"odd_risk"}, True),
    ("odd fields", {"question_id": "fields", "image": "a.png", "messages_fixed": ["What?", "Why?"], "category": [1]},
     {"odd_field"}, True),
    ("another form", {"id": "form", "prompt": "What is it?"}, {"odd_form"}, False),
]  # fmt: skip


def foreign_file(folder: Path) -> Path:
    """The file and its images; ``folder`` is made."""
    picture(folder / "a.png")
    picture(folder / "b.png", colour="blue")
    Image.new("1", (9000, 9000)).save(folder / "bomb.png")
    picture(folder.parent / "out.png")
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    os.symlink(folder.parent / "out.png", folder / "link.png")
    path = folder / "foreign.jsonl"
    lines = [line if isinstance(line, str) else json.dumps(line) for _, line, _, _ in LINES]
    path.write_text("".join(f"{line}\n" for line in lines) + '{"question_id": "last", "mess', encoding="utf-8")
    return path


def items(path: Path, **settings: Any) -> list[EvalItem]:
    """Of a file of dialogues."""
    return list(items_of({"bench": BenchmarkSettings(file=path, **settings)}, path.parent / "work"))
