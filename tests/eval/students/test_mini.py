"""The laboratory's student behind the protocol: batches, the same answers as without it, one bad image."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from steer_verl.eval.config import StudentSettings
from steer_verl.eval.students.build import build_student
from steer_verl.eval.students.mini import MiniStudentAgent
from steer_verl.mini.model import build
from steer_verl.mini.student import Generated, MiniStudent, open_image
from steer_verl.models.failure import AgentFailed
from steer_verl.models.place import Place
from tests.data.samples import picture
from tests.models.memory import MemoryCache

PLACE = Place("step/item")
TOKENS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained student."""
    return build(tmp_path_factory.mktemp("student"))


def agent(folder: Path, cache: MemoryCache | None = None, **more: Any) -> MiniStudentAgent:
    """The student in ``folder``."""
    settings = StudentSettings.model_validate({"path": folder, "kind": "mini", "max_answer_tokens": TOKENS, **more})
    student = build_student(settings, folder, cache=cache)
    assert isinstance(student, MiniStudentAgent)
    return student


def asked(text: str, image: Path | None = None) -> list[dict[str, Any]]:
    """A conversation of one question."""
    if image is None:
        return [{"role": "user", "content": text}]
    shown = {"type": "image", "image": str(image)}
    return [{"role": "user", "content": [shown, {"type": "text", "text": text}]}]


async def test_it_answers_as_the_student_does_without_it(folder: Path, tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png", (84, 84))
    conversations = [asked("What is on the image?", image), asked("Which colour?"), asked("And now?", image)]
    plain = MiniStudent.load(folder, temperature=0.0, max_tokens=TOKENS)
    student = agent(folder, MemoryCache())
    places = [Place(str(i)) for i in range(3)]
    replies = await asyncio.gather(*map(student.answer, conversations, places))
    assert [reply.text for reply in replies] == plain.answer(conversations)
    again = await asyncio.gather(*map(student.answer, conversations, places))
    assert again == replies, "kept ones come back, times and all"
    await student.close()


async def test_words_depend_on_the_place_and_not_on_who_comes_when(folder: Path) -> None:
    conversations = [asked(f"Which colour is number {n}? " * (1 + n % 4)) for n in range(8)]

    async def run(order: Sequence[int], late: Sequence[int], seed: int = 0) -> dict[int, str]:
        student = agent(folder, temperature=1.0, seed=seed)

        async def one(n: int) -> str:
            if n in late:
                await asyncio.sleep(0.2)  # a machine that is busy elsewhere
            return (await student.answer(conversations[n], Place(f"evaluate/{n}/turn1"))).text

        texts = await asyncio.gather(*map(one, order))
        await student.close()
        return dict(zip(order, texts, strict=True))

    calm = await run(range(8), [])
    assert await run([5, 2, 7, 0, 1, 3, 6, 4], [2, 3, 6]) == calm != await run(range(8), [], seed=1)


class Recorder:
    """A student that answers with the number of its batch."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def generate(self, batch: Sequence[Any], places: Sequence[str]) -> list[Generated]:
        """Each conversation's batch."""
        self.batches.append(len(batch))
        return [Generated(str(len(self.batches)), 1)] * len(batch)


async def test_dialogues_advance_in_lock_step(folder: Path) -> None:
    student, recorder = agent(folder), Recorder()
    student._student = recorder  # type: ignore[assignment]

    async def dialogue(number: int, turns: int) -> list[str]:
        answers: list[str] = []
        for turn in range(turns):
            for _ in range(number % 4):
                await asyncio.sleep(0)  # rules, files: some turns of the event loop
            answers.append((await student.answer(asked(f"{number} {turn}"), PLACE)).text)
        return answers

    played = await asyncio.gather(*(dialogue(number, 2 + number % 3) for number in range(30)))
    assert recorder.batches == [30, 30, 20, 10], "nobody waits for who has ended, and nobody is left behind"
    assert played[2] == ["1", "2", "3", "4"]
    await student.close()


async def test_a_bad_image_fails_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    good = picture(tmp_path / "good.png", (84, 84))
    student = agent(folder)
    asks = [asked("What?", good), asked("What?", tmp_path / "bad.png"), asked("What?", tmp_path / "missing.png")]
    fine, *failed = await asyncio.gather(
        *(student.answer(messages, PLACE) for messages in asks), return_exceptions=True
    )
    assert not isinstance(fine, BaseException) and fine.tokens == TOKENS
    for failure in failed:
        assert isinstance(failure, AgentFailed) and (failure.reason, failure.transient) == ("image", False)
    await student.close()


async def test_another_image_under_the_same_path_is_seen(folder: Path, tmp_path: Path) -> None:
    cache, recorder = MemoryCache(), Recorder()
    student = agent(folder, cache)
    student._student = recorder  # type: ignore[assignment]
    image = picture(tmp_path / "a.png", colour="red")
    assert open_image(str(image)).getpixel((0, 0)) == (255, 0, 0)
    first = await student.answer(asked("Which colour?", image), PLACE)
    assert await student.answer(asked("Which colour?", image), PLACE) == first
    picture(image, colour="blue")
    assert open_image(str(image)).getpixel((0, 0)) == (0, 0, 255)
    assert (await student.answer(asked("Which colour?", image), PLACE)).text == "2"
    assert recorder.batches == [1, 1] and len(cache.kept) == 2
    await student.close()


async def test_a_spelled_image_does_not_break_the_batch(folder: Path) -> None:
    student = agent(folder)
    reply = await student.answer(asked("Look: <|vision_start|><|image_pad|><|vision_end|><|im_end|>"), PLACE)
    assert reply.tokens > 0
    await student.close()


async def test_a_failing_batch_fails_its_own_and_the_next_one_works(folder: Path) -> None:
    student, recorder = agent(folder), Recorder()

    class Broken:
        def generate(self, batch: Sequence[Any], places: Sequence[str]) -> list[Generated]:
            raise MemoryError("no room")

    student._student = Broken()  # type: ignore[assignment]
    failures = await asyncio.gather(*(student.answer(asked(str(i)), PLACE) for i in range(2)), return_exceptions=True)
    assert [type(failure) for failure in failures] == [MemoryError, MemoryError]
    student._student = recorder  # type: ignore[assignment]
    assert (await student.answer(asked("again"), PLACE)).text == "1"
    await student.close()


def test_what_was_generated_is_counted_to_its_end(folder: Path) -> None:
    student = MiniStudent.load(folder, temperature=0.0, max_tokens=TOKENS)
    tokenizer = student.processor.tokenizer
    word, end, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("a", "<|im_end|>", "<|endoftext|>"))
    assert student._read([word, word, end, pad, pad]) == Generated("aa", 3, False)
    assert student._read([word, word, word]) == Generated("aaa", 3, True)
    assert student._read([end, pad, pad]) == Generated("", 1, False)
