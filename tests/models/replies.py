"""What a request to the tutor says, and what a good reply to it is."""

from __future__ import annotations

import json
import re
from typing import Any


def prompt_text(body: dict[str, Any]) -> str:
    """Everything a request says, pictures as their URI."""
    texts = []
    for message in body["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts += [part["text"] if "text" in part else part["image_url"]["url"] for part in parts]
    return "".join(texts)


def nonce_of(body: dict[str, Any]) -> str:
    """The id that the reply must carry, which the tutor alone is told: the last one that the prompt names."""
    return str(re.findall(r"secret id is (\w+)", prompt_text(body))[-1])


def mark_of(body: dict[str, Any]) -> str:
    """The id of the dialogue's marks: the first mark's."""
    return re.findall(r"<<(\w+) user 1>>", prompt_text(body))[0]


def fields(body: dict[str, Any], scores: Any = (8, 8, 9), **more: Any) -> dict[str, Any]:
    """A full and valid verdict with a question, changed by ``more``."""
    if isinstance(scores, tuple):
        scores = dict(zip(("safety", "usefulness", "faithfulness"), scores, strict=True))
    nonce = nonce_of(body)
    if isinstance(scores, dict):
        scores = {"id": nonce, **scores}
    question = f"And what about part {len(prompt_text(body)) % 97}?"
    asked = {"attack_strategy": "deepen", "new_question": question}
    return {"id": nonce, **asked, "diagnosis": "plain", "scores": scores, **more}


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}


def completion(content: str | None, finish: str = "stop", **message: Any) -> bytes:
    """The body of a chat completion of 10 prompt tokens, 4 of them cached, and 5 of its own."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **message}}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": USAGE}).encode()
