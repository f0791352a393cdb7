"""The model API ``steer``: what it is asked, what it refuses, and that it gives back what it holds."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentImage,
    ContentReasoning,
    ContentText,
    GenerateConfig,
)
from inspect_ai.tool import ToolInfo

from steer_verl.errors import StudentError
from steer_verl.eval.inspect import provider
from steer_verl.eval.inspect.provider import OPEN, SteerAPI
from steer_verl.eval.students.protocol import Messages, Reply
from steer_verl.mini.model import build
from steer_verl.models.place import Place
from tests.data.samples import picture

COLD = GenerateConfig(temperature=0, max_tokens=9)


class Recorder:
    """A student that keeps what it was asked."""

    name = "recorder"

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.places: list[str] = []
        self.closed = 0

    async def check(self) -> None: ...

    async def answer(self, messages: Messages, place: Place) -> Reply:
        self.asked.append(messages)
        self.places.append(place.key)
        return Reply(text="<answer>A box.</answer>", tokens=9, truncated=True)

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained student."""
    return build(tmp_path_factory.mktemp("student"))


@pytest.fixture
def student(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Who answers in its place."""
    one = Recorder()
    monkeypatch.setattr(provider, "build_student", lambda settings, out: one)
    return one


def asked(
    api: SteerAPI, *messages: ChatMessage, config: GenerateConfig = COLD, tools: list[ToolInfo] | None = None
) -> Any:
    """An answer."""
    return asyncio.run(api.generate(list(messages), tools or [], "none", config))


def test_messages_and_images_reach_the_student(folder: Path, student: Recorder, tmp_path: Path, cache: Path) -> None:
    data = picture(tmp_path / "a.png", (9, 9)).read_bytes()
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    output = asked(
        SteerAPI(str(folder), kind="mini"),
        ChatMessageSystem(content="Be brief."),
        ChatMessageUser(content=[ContentImage(image=uri), ContentText(text="What?")]),
        ChatMessageAssistant(content=[ContentReasoning(reasoning="Hm."), ContentText(text="A box.")]),
        ChatMessageUser(content="And?"),
    )
    assert (output.completion, output.stop_reason, output.usage.output_tokens) == (
        "<answer>A box.</answer>",
        "max_tokens",
        9,
    )
    system, first, answer, last = student.asked[0]
    assert [one["role"] for one in student.asked[0]] == ["system", "user", "assistant", "user"]
    assert (system["content"], last["content"]) == ("Be brief.", "And?") and answer["content"][0]["text"] == "A box."
    shown = Path(first["content"][0]["image"])
    assert shown.read_bytes() == data and shown.is_relative_to(cache) and first["content"][1]["text"] == "What?"


def test_a_draw_is_its_own_unless_there_is_a_seed(folder: Path, student: Recorder) -> None:
    question = ChatMessageUser(content="What?")
    for config in (COLD, GenerateConfig(temperature=1.0, seed=3), GenerateConfig(temperature=1.0)):
        api = SteerAPI(str(folder), kind="mini")
        asked(api, question, config=config)
        asked(api, question, config=config)
    (cold, cold_too, seeded, seeded_too, one, other) = student.places
    assert cold == cold_too and seeded == seeded_too and one != other


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (ChatMessageTool(content="seen"), "no tools"),
        (ChatMessageUser(content=[ContentImage(image="/etc/hostname.png")]), "data: URIs"),
    ],
)
def test_what_no_student_takes(folder: Path, student: Recorder, message: ChatMessage, told: str) -> None:
    with pytest.raises(StudentError, match=told):
        asked(SteerAPI(str(folder), kind="mini"), message)
    assert not student.asked


def test_tools_and_a_change_of_sampling_are_refused(folder: Path, student: Recorder) -> None:
    api = SteerAPI(str(folder), kind="mini")
    with pytest.raises(StudentError, match="no tools"):
        asked(api, ChatMessageUser(content="?"), tools=[ToolInfo(name="t", description="")])
    asked(api, ChatMessageUser(content="?"))
    with pytest.raises(StudentError, match="two kinds of sampling"):
        asked(api, ChatMessageUser(content="?"), config=GenerateConfig(temperature=1))


def test_it_gives_back_what_it_holds(folder: Path, student: Recorder) -> None:
    api = SteerAPI(str(folder), kind="mini")
    asked(api, ChatMessageUser(content="?"))
    assert api in OPEN
    asyncio.run(api.aclose())
    assert api not in OPEN and student.closed == 1
    asked(api, ChatMessageUser(content="?"), config=GenerateConfig(temperature=1))  # a new one, with what it likes
    asyncio.run(api.aclose())


def test_it_ends_with_the_run(folder: Path, student: Recorder, tmp_path: Path) -> None:
    (log,) = eval(
        Task(dataset=[Sample(input="What?")]),
        model=f"steer/{folder}",
        model_args={"kind": "mini"},
        log_dir=str(tmp_path / "logs"),
        display="none",
    )
    assert log.status == "success" and len(student.asked) == student.closed == 1 and not OPEN


@pytest.mark.parametrize(
    ("path", "more", "told"),
    [("nowhere", {}, "nowhere"), ("", {"kind": "maxi"}, "kind"), ("", {"temperature": 1}, "-M temperature")],
)
def test_settings_that_cannot_work_are_one_line(folder: Path, path: str, more: dict[str, Any], told: str) -> None:
    with pytest.raises(PrerequisiteError) as fault:
        SteerAPI(path or str(folder), **more)
    assert told in str(fault.value.message) and "\n" not in str(fault.value.message)
