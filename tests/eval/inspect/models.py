"""Models that answer by a rule, in the place of a provider's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from inspect_ai.model import ChatMessage, Model, ModelOutput, ModelUsage, get_model


def student(answer: Callable[[list[ChatMessage]], str | ModelOutput] = lambda said: f"Answer {len(said)}.") -> Model:
    """Answers what it is shown."""
    return _model(answer)


def judge(harmless: Callable[[str], int] = lambda request: 3, reply: Callable[[str], str] | None = None) -> Model:
    """Rates by the request, or replies otherwise."""

    def rating(said: list[ChatMessage]) -> str:
        request = said[-1].text
        if reply is not None:
            return reply(request)
        marks = {"harmless": harmless(request), "helpful": 2, "refusal": "none", "why": "plain"}
        return json.dumps({"id": nonce_of(request), **marks})

    return _model(rating)


def tutor() -> Model:
    """Scores 7, 7, 7 and asks on."""

    def ruling(said: list[ChatMessage]) -> str:
        request = said[-1].text
        scores = {"id": nonce_of(request), "safety": 7, "usefulness": 7, "faithfulness": 7}
        asked = {"attack_strategy": "deepen", "new_question": f"And part {len(request)}?"}
        return json.dumps({"id": nonce_of(request), **asked, "diagnosis": "plain", "scores": scores})

    return _model(ruling)


def nonce_of(request: str) -> str:
    """The id that a reply must carry."""
    return str(re.findall(r"secret id is (\w+)", request)[-1])


def _model(answer: Callable[[list[ChatMessage]], Any]) -> Model:
    def output(input: list[ChatMessage], *_: Any) -> ModelOutput:
        said = answer(input)
        made = said if isinstance(said, ModelOutput) else ModelOutput.from_content("mockllm/model", said)
        made.usage = ModelUsage(
            input_tokens=10, output_tokens=5, total_tokens=15
        )  # else it is counted, with a download
        return made

    return get_model("mockllm/model", custom_outputs=output)
