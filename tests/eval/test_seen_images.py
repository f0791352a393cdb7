"""Whoever is asked in data making and evaluation is shown the pixels that training shows: :func:`seen_image`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from steer_verl.eval.students.answers import conversation
from steer_verl.images import seen_image
from steer_verl.mini import student as mini_student
from steer_verl.models.forms import Images, Said, chat, form
from tests.odd_images import decoded, write_odd_images


def shown(messages: list[dict[str, Any]]) -> list[Any]:
    """The images of a request, as its server decodes them."""
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    return [decoded(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]


def test_students_judges_and_data_makers_see_the_same(tmp_path: Path) -> None:
    below = Images(tmp_path)
    for name, path in write_odd_images(tmp_path).items():
        seen = seen_image(path)
        block = {"role": "user", "content": [{"type": "image", "image": path}, {"type": "text", "text": "What?"}]}
        asked = [
            conversation("", [block], Images(None)),  # a student behind a server
            form("judge", "Judge.", "An answer.", below, (Path(path).name,)).messages(),  # judges, writers
            chat("", (Said(role="user", text="What?", images=(Path(path).name,)),), below).messages(),
        ]
        images = [image for messages in asked for image in shown(messages)] + mini_student._pictures([block])
        assert len(images) == 4 and all(i.tobytes() == seen.tobytes() and i.size == seen.size for i in images), name
