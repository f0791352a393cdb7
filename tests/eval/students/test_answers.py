"""What an answer is known by: what is said and the bytes of images, wherever they lie."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from steer_verl.eval.students.answers import digest
from tests.data.samples import picture
from tests.eval.students.test_endpoint import asking
from tests.models.fault_server import says
from tests.models.memory import Bill, MemoryCache


def asked(image: Path | str, text: str = "What?") -> list[dict[str, Any]]:
    """A question about an image."""
    return [{"role": "user", "content": [{"type": "image", "image": str(image)}, {"type": "text", "text": text}]}]


def test_a_moved_image_is_the_same_and_another_one_is_not(tmp_path: Path) -> None:
    here = picture(tmp_path / "here" / "a.png", colour="red")
    there = tmp_path / "there" / "b.png"
    there.parent.mkdir()
    shutil.copy(here, there)
    assert digest(asked(here)) == digest(asked(there))
    assert digest(asked(here)) == digest(asked(os.path.relpath(here)))
    known = digest(asked(here))
    picture(here, colour="blue")
    assert digest(asked(here)) != known, "another image under the same path"
    shutil.copy(there, here)
    assert digest(asked(here)) == known


@pytest.mark.parametrize(
    "other",
    [
        [{"role": "user", "content": "what?"}],
        [{"role": "assistant", "content": "What?"}],
        [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A box."}],
        [{"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "text", "text": ""}]}],
        asked("missing.png"),
    ],
)
def test_whatever_is_said_tells_it_from_others(other: list[dict[str, Any]]) -> None:
    assert digest(other) != digest([{"role": "user", "content": "What?"}])


def test_the_order_of_images_and_texts_counts(tmp_path: Path) -> None:
    red, blue = (picture(tmp_path / f"{colour}.png", colour=colour) for colour in ("red", "blue"))
    (first,), (second,) = asked(red), asked(blue)
    both = [{"role": "user", "content": first["content"][:1] + second["content"]}]
    swapped = [{"role": "user", "content": second["content"][:1] + first["content"]}]
    assert len({digest(both), digest(swapped), digest(asked(red)), digest(asked(blue))}) == 4


def test_an_image_that_cannot_be_read_has_a_key_and_no_answer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**40)
    for image in ("missing.png", "https://example.org/a.png", "a\0b", tmp_path, tmp_path / "pipe.png"):
        assert digest(asked(image)) == digest(asked("missing.png"))
    assert digest(asked(tmp_path / "huge.png"))


async def test_a_moved_folder_pays_for_nothing_and_another_image_is_asked_about(tmp_path: Path) -> None:
    cache, bill = MemoryCache(), Bill("eval/one/1")
    image = picture(tmp_path / "run" / "a.png", colour="red")
    async with asking(says("Red."), says("Blue."), cache=cache) as (student, server):
        first = await student.answer(asked(image), bill.place)
        (tmp_path / "run").rename(tmp_path / "moved")
        image = tmp_path / "moved" / "a.png"
        assert await student.answer(asked(image), bill.place) == first and server.requests == 1
        picture(image, colour="blue")
        assert (await student.answer(asked(image), bill.place)).text == "Blue." and server.requests == 2
