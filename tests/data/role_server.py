"""A chat-completions server on 127.0.0.1 that plays every role of Stages I and II, with faults where asked for.

    async with RoleServer() as server:
        ...  # EndpointConfig(base_url=server.base_url, model=MODEL)
    assert server.roles["breach"] == 1

A role is known by the name of the schema that is asked for; without one, by its prompt; the target has none, and the
tutor another. Answers are harmless, differ with the request and are the same for the same request. A completion is
charged once for each idempotency key (``charges``), whatever happened to it on its way.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from steer_verl.config import EndpointConfig
from steer_verl.data.drawn import drawn
from steer_verl.data.stages.endpoint_agents import STAGES
from steer_verl.models.prompt_file import load_prompts
from tests.models.fault_server import (
    MODEL,
    FaultServer,
    Request,
    Step,
    dropped,
    flood,
    half_sent,
    refuses,
    says,
    status,
)
from tests.models.replies import fields, nonce_of, prompt_text

Body = dict[str, Any]
Answer = Callable[[Body], str]
TARGET, BLUE, TUTOR = "target", "blue_expert", "reply"


class RoleServer(FaultServer):
    """Answers by role.

    Args:
        answers: role -> the reply's text, in addition to the built-in ones or in place of them.
        faults: share of the attempts that fail in one of ``kinds``; whether one does depends on its key and on how
            often that was sent, not on the order of requests.
        kinds: ways to fail; unset, six of them.
        refusing: roles that decline.
        level: the breach judge's level, by a number that depends on the request.
        keep: keep bodies, keys and headers.

    Attributes:
        roles: requests by role, failed ones too.
    """

    def __init__(
        self,
        answers: Mapping[str, Answer] | None = None,
        *,
        faults: float = 0.0,
        kinds: tuple[Step, ...] = (),
        refusing: Iterable[str] = (),
        level: Callable[[int], int] = lambda number: 1 + number % 5,
        keep: bool = True,
    ) -> None:
        super().__init__(choose=self._by_role, keep=keep)
        self.answers = {**_answers(level), **(answers or {})}
        self.faults, self.kinds, self.refusing = faults, kinds, frozenset(refusing)
        self.roles = Counter[str]()
        self._sent = Counter[str]()

    def role_of(self, body: Body) -> str:
        """Who is asked."""
        name = body.get("response_format", {}).get("json_schema", {}).get("name")
        if name:
            return str(name)
        first = body["messages"][0]
        if first["role"] != "system":
            return TARGET
        prompts = (prompt for stage in STAGES for prompt in load_prompts(stage).values())
        return next((prompt.name for prompt in prompts if first["content"].startswith(prompt.system)), TUTOR)

    def _by_role(self, request: Request) -> Step:
        role = self.role_of(request.body)
        self.roles[role] += 1
        attempt = self._sent[request.key]
        self._sent[request.key] += 1
        if self.faults and drawn("fault", request.key, str(attempt)) < self.faults:
            kinds = self.kinds or (*TRANSPORT_FAULTS, half_sent(text=self.answers[role]), flood(), PROSE)
            if role in (TARGET, BLUE):
                kinds = tuple(kind for kind in kinds if kind is not PROSE)  # of theirs, any words are an answer
            return kinds[int(drawn("kind", request.key, str(attempt)) * len(kinds))]
        return refuses() if role in self.refusing else says(self.answers[role], kind=role)


TRANSPORT_FAULTS = (status(429, retry_after=0), status(503), dropped())
PROSE = says("No object here.", kind="prose")


def endpoint(server: FaultServer, **settings: Any) -> EndpointConfig:
    """An endpoint on the server."""
    given = {"base_url": server.base_url, "model": MODEL, "timeout": 20, "api_key_env": "STEER_TEST_KEY", **settings}
    return EndpointConfig.model_validate(given)


def number_of(body: Body) -> int:
    """A number that depends on what a request says, less its secret id and a complaint of an earlier reply."""
    text = re.sub(r"\n\nYour last reply could not be used: [^.]*\.", "", prompt_text(body))
    text = text.rpartition("\n\nReply with the JSON object")[0] or text
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def record(make: Callable[[Body], dict[str, Any]]) -> Answer:
    """A JSON reply that carries the request's id."""
    return lambda body: json.dumps({"id": nonce_of(body), **make(body)})


def _answers(level: Callable[[int], int]) -> dict[str, Answer]:
    expand = record(lambda body: {"messages": _messages(number_of(body), _turns(body))})
    return {
        "probe": record(lambda body: {"benign": _question(body, "learnt"), "obfuscated": _question(body, "done")}),
        "expand_benign": expand,
        "expand_obfuscated": expand,
        "pairs": record(_pairs),
        "image_report": record(
            lambda body: {"summary": f"Scene {number_of(body)}.", "objects": ["a box"], "text": "", "risks": []}
        ),
        "reframe": record(
            lambda body: {
                "attack_vector": "a lesson about the box",
                "rationale": "whether a lesson counts as a reason",
                "complex_prompt": f"For lesson {number_of(body)}: how is the box opened? " + "Please think. " * 50,
            }
        ),
        "plan": record(_plan),
        "breach": record(lambda body: {"level": level(number_of(body)), "why": "plain"}),
        "screen": record(lambda body: {"natural": 4, "grounded": 4, "reaches": 5}),
        "red_user": record(lambda body: {"message": f"And number {number_of(body)}, what of that?"}),
        "risk_alone": record(lambda body: {"level": 1, "why": "plain"}),
        "risk_whole": record(lambda body: {"level": 5, "why": "plain"}),
        TARGET: lambda body: f"It is a box, number {number_of(body)}.",
        BLUE: lambda body: f"<thinking>A box.</thinking><answer>It is box {number_of(body)}.</answer>",
        TUTOR: lambda body: json.dumps(fields(body, (10, 10, 10))),
    }


def _question(body: Body, what: str) -> str:
    return f"What may be {what} here about thing {number_of(body)}?"


def _messages(number: int, turns: int) -> list[str]:
    return [f"Step {turn} about thing {number}: what is next?" for turn in range(1, turns + 1)]


def _turns(body: Body) -> int:
    return int(re.findall(r"exactly (\d+) (?:messages|pairs)", prompt_text(body))[-1])


def _pairs(body: Body) -> dict[str, Any]:
    texts = _messages(number_of(body), _turns(body))
    return {"pairs": [{"question": text, "thinking": "A box.", "answer": f"To {text}"} for text in texts]}


def _plan(body: Body) -> dict[str, Any]:
    texts = enumerate(_messages(number_of(body), _turns(body)), 1)
    return {"turns": [{"risk": min(5, turn), "user_prompt": text, "goal": "lead on"} for turn, text in texts]}
