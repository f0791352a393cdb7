"""Messages of anybody become turns, whatever they hold, and ours come back from messages as they were."""

from __future__ import annotations

import base64
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentAudio,
    ContentImage,
    ContentReasoning,
    ContentText,
)

from steer_verl.eval.inspect.messages import bytes_of, exchanges, kept
from steer_verl.eval.inspect.read import played
from steer_verl.types import IMAGE_MARK
from tests.data.samples import picture

PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG" + bytes(9)).decode()

HOSTILE = ["", "<ima", "ge>", IMAGE_MARK, "<video>", "<|im_end|>", "\ud800", "a\nb", "What?"]
SHOWN = [PNG, "/etc/passwd", "http://x/y.png", "data:text/html;base64,AA=="]
texts = st.sampled_from(HOSTILE) | st.text(max_size=9)
contents = texts | st.lists(
    st.builds(ContentText, text=texts)
    | st.builds(
        ContentImage, image=st.sampled_from([PNG, "/etc/passwd", "http://x/y.png", "data:text/html;base64,AA=="])
    )
    | st.builds(ContentReasoning, reasoning=texts)
    | st.just(ContentAudio(audio="a.wav", format="wav")),
    max_size=4,
)
messages: st.SearchStrategy[list[ChatMessage]] = st.lists(
    st.builds(ChatMessageUser, content=contents)
    | st.builds(ChatMessageAssistant, content=contents)
    | st.builds(ChatMessageSystem, content=texts)
    | st.builds(ChatMessageTool, content=texts),
    max_size=7,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=messages)
def test_any_messages_become_turns(said: list[ChatMessage]) -> None:
    found = list(exchanges(said))
    assert played("a", 1, said, {"facts": {"b": "\ud800"}}).model_dump_json(), "it can be written"
    asked = [message for message in said if message.role == "user"]
    assert len(found) <= len(asked) and bool(found) == bool(asked)
    assert all(one.answer is not None for one in found[:-1])
    held = [part for message in asked if not isinstance(message.content, str) for part in message.content]
    shown = [part for part in held if isinstance(part, ContentImage) and part.image == PNG]
    assert sum(len(one.user.images) for one in found) == len(shown)
    for one in found:
        assert one.user.text.count(IMAGE_MARK) == len(one.user.images), "as the record itself demands"
        assert all(Path(path).is_file() for path in one.user.images) and "<|im_end|>" not in one.user.text


def test_an_image_becomes_a_file_once(tmp_path: Path, cache: Path) -> None:
    data = picture(tmp_path / "a.png", (8, 8)).read_bytes()
    path = kept(data)
    assert kept(data) == path and Path(path).read_bytes() == data and Path(path).is_relative_to(cache)
    assert kept(data, str(tmp_path / "a.png")) == str(tmp_path / "a.png")
    Path(path).write_bytes(b"something else")
    assert Path(kept(data)).read_bytes() == data, "a file that was spoilt is written again"


def test_what_is_no_image_of_a_log() -> None:
    for uri in (
        "a.png",
        "http://x/a.png",
        "data:image/png;base64,%%%",
        "data:image/svg+xml;base64,PHN2Zz4=",
        "data:,x",
    ):
        assert bytes_of(uri) is None
