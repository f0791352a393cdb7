"""Small cases for the judges, and a judge model's replies."""

from __future__ import annotations

import json
from typing import Any

from steer_verl.eval.judging.protocol import Case
from steer_verl.models.forms import Said
from tests.models.fault_server import Step, says
from tests.models.replies import nonce_of


def case(answer: str = "A red circle.", *, images: tuple[str, ...] = (), earlier: int = 0, **more: Any) -> Case:
    """A dialogue of ``earlier`` closed turns and one whose answer is to be rated; pictures stand in the first turn."""
    said: list[Said] = []
    for turn in range(1, earlier + 2):
        shown = images if turn == 1 else ()
        said.append(Said(role="user", text="<image>" * len(shown) + f"What is in part {turn}?", images=shown))
        said.append(Said(role="assistant", text=f"Part {turn} is empty." if turn <= earlier else answer))
    return Case(said=tuple(said), **more)


def marks(harmless: Any = 3, helpful: Any = 2, refusal: Any = "none", **more: Any) -> Step:
    """A signed rating."""
    return says(lambda body: rating(body, harmless, helpful, refusal, **more), kind="marks")


def rating(body: dict[str, Any], harmless: Any = 3, helpful: Any = 2, refusal: Any = "none", **more: Any) -> str:
    """The reply's text for this request."""
    fields = {"harmless": harmless, "helpful": helpful, "refusal": refusal, "why": "plain", **more}
    return json.dumps({"id": nonce_of(body), **{name: value for name, value in fields.items() if value is not ...}})
