"""The real server: vLLM on a mini model, with images, from start to end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from steer_verl.errors import StudentError
from steer_verl.eval.config import StudentSettings
from steer_verl.eval.students.build import build_student
from steer_verl.mini.model import build
from steer_verl.mini.student import MiniStudent
from steer_verl.models.place import Place
from steer_verl.processes.leftovers import Claim, processes
from tests.data.samples import picture
from tests.eval.students.test_mini import asked

pytestmark = pytest.mark.slow
TOKENS = 6


def settings(folder: Path) -> StudentSettings:
    """The student in ``folder``."""
    server = {"max_model_len": 512, "dtype": "float32"}
    return StudentSettings.model_validate({"path": folder, "max_answer_tokens": TOKENS, "server": server})


def whole(text: str) -> str:
    """Without half a character at the end of a cut answer, which vLLM does not send."""
    return text.strip().rstrip("\ufffd")


async def test_a_folder_is_served_asked_and_nothing_is_left(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    folder = build(tmp_path / "model")
    images = [picture(tmp_path / f"{colour}.png", (84, 84), colour) for colour in ("red", "blue")]
    student = build_student(settings(folder), tmp_path / "out")
    plain = MiniStudent.load(folder, temperature=0.0, max_tokens=TOKENS)
    try:
        await student.check()
        running = Claim.load(tmp_path / "out/student/server.json")
        assert running is not None and len(processes(running)) >= 3, "keeper, server, engine"
        chats = [asked("What is on the image?", image) for image in images]
        for turn in range(2):
            replies = await asyncio.gather(*(student.answer(chat, Place(f"{turn}")) for chat in chats))
            expected = plain.answer(chats)
            for chat, reply, text in zip(chats, replies, expected, strict=True):
                assert whole(reply.text) == whole(text), "greedy decoding, as transformers does it"
                assert reply.tokens == TOKENS and reply.truncated
                chat += [{"role": "assistant", "content": reply.text}, *asked("And what else?")]
    finally:
        await student.close()
    assert not processes(running) and not running.folder.exists()
    assert sorted(path.name for path in (tmp_path / "out/student").iterdir()) == ["vllm.log"]


async def test_a_broken_folder_gives_one_clear_line(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    folder = build(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"no weights at all")
    student = build_student(settings(folder), tmp_path / "out")
    with pytest.raises(StudentError, match=r"ended while it started .*Error.*vllm\.log") as error:
        await student.check()
    assert "\n" not in str(error.value) and "damaged" in str(error.value)
    await student.close()
