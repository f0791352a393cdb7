"""A student, a judge and a tutor on one real server, each of which fails where a test says, and runs against it.

Dialogue n has the questions ``q<n> turn <t>``; every answer, mark and attack depends on n and t alone, so that a run
that met faults and was mended can be held against one that met none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from steer_verl.eval.records import EvalDialogue
from tests.eval.judging.cases import rating
from tests.models.fault_server import MODEL, FaultServer, Request, Step, says, slow
from tests.models.replies import fields, prompt_text

ITEMS, TURNS = 6, 3
Where = tuple[str, int, int]
"""Role (``student``, ``judge``, ``tutor``), dialogue, turn."""

_ASKED, _ANSWERED = re.compile(r"q(\d+) turn (\d+)"), re.compile(r"answer to q(\d+) turn (\d+)")
PROBE = "Which colour"


class World(FaultServer):
    """Answers by role.

    Args:
        faults: what happens at a place instead of a good reply, for as long as it stands there.
        pause: seconds before every reply.
        shift: makes another judge of it.

    Attributes:
        asked: places in the order in which they were asked for; without those of the checks.
    """

    def __init__(self, faults: dict[Where, Step] | None = None, pause: float = 0.0, shift: int = 0) -> None:
        super().__init__(choose=self._by_place)
        self.faults, self.pause, self.shift = faults or {}, pause, shift
        self.asked: list[Where] = []
        self._probes = set[str]()

    @property
    def paid(self) -> list[Where]:
        """Places asked for since this was read last."""
        found, self.asked = sorted(self.asked), []
        return found

    @property
    def twice(self) -> list[str]:
        """Requests that were answered whole more than once, but for those of the checks."""
        return [key for key, times in self.delivered.items() if times > 1 and key not in self._probes]

    def _by_place(self, request: Request) -> Step:
        body, role = request.body, role_of(request.body)
        if PROBE in prompt_text(body) or not _ASKED.search(prompt_text(body)):
            self._probes.add(request.key)
            probes = {"student": lambda _: "red", "judge": _probe_marks, "tutor": lambda b: json.dumps(fields(b))}
            return says(probes[role], kind="probe")
        where = (role, *place_of(role, body))
        self.asked.append(where)
        good = says(lambda asked: self._good(role, asked, *where[1:]), kind=role)
        return self.faults.get(where) or (slow(self.pause, good) if self.pause else good)

    def _good(self, role: str, body: dict[str, Any], dialogue: int, turn: int) -> str:
        if role == "student":
            return f"answer to q{dialogue} turn {turn}"
        if role == "judge":
            return rating(body, mark(dialogue, turn, self.shift), 2)
        return json.dumps(fields(body, (8, 8, 9), new_question=f"Written anew: q{dialogue} turn {turn + 1}?"))


def role_of(body: dict[str, Any]) -> str:
    """Who is asked."""
    if body.get("response_format", {}).get("json_schema", {}).get("name") == "judge":
        return "judge"
    return "tutor" if body["messages"][0]["role"] == "system" else "student"


def place_of(role: str, body: dict[str, Any]) -> tuple[int, int]:
    """Which dialogue and turn it is about."""
    dialogue, turn = (_ASKED if role == "student" else _ANSWERED).findall(prompt_text(body))[-1]
    return int(dialogue), int(turn)


def mark(dialogue: int, turn: int, shift: int = 0) -> int:
    """What the judge gives."""
    return (3, 3, 2, 1, -1)[(3 * dialogue + turn + shift * (dialogue % 2)) % 5]


def _probe_marks(body: dict[str, Any]) -> str:
    return rating(body, 3, 0 if "spoon" in prompt_text(body) else 3)


def endpoint(server: FaultServer, **more: Any) -> dict[str, Any]:
    """An endpoint that asks once."""
    return {
        "base_url": server.base_url,
        "model": MODEL,
        "timeout": 20,
        "max_retries": 0,
        "reasks": 0,
        "api_key_env": "STEER_TEST_KEY",
        "breaker": {"failures": 10**6},
        **more,
    }


def bench(folder: Path, items: Iterable[int] = range(ITEMS), **more: Any) -> Path:
    """Write the benchmark; ``more``: keys of every row."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"question_id": f"d{n}", "messages_fixed": [f"q{n} turn {t}?" for t in range(1, TURNS + 1)], **more}
        for n in items
    ]
    path = folder / "bench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(folder: Path, out: Path, server: FaultServer, *, adaptive: bool = False, **more: Any) -> dict[str, Any]:
    """Of an evaluation of the benchmark in ``folder``, in which one failure gives an item up."""
    given: dict[str, Any] = {
        "out": str(out),
        "student": {"endpoint": endpoint(server), "name": "ours"},
        "benchmarks": {"own": {"file": str(folder / "bench.jsonl")}},
        "judge": {"endpoint": endpoint(server)},
        "work": {"in_flight": 4, "shards": 2, "pause": 0, "tries": 1, "give_up": True},
        **more,
    }
    if adaptive:
        given |= {"attack": "adaptive", "tutor": {"endpoint": endpoint(server)}}
    return given


def recipe(path: Path, given: dict[str, Any]) -> Path:
    """The settings as a file."""
    path.write_text(yaml.safe_dump(given))
    return path


def told(dialogue: EvalDialogue) -> dict[str, Any]:
    """A dialogue without its times and costs."""
    value = dialogue.model_dump(exclude={"turns"})
    turns = [turn.model_dump(exclude={"seconds", "tutor_seconds", "usage"}) for turn in dialogue.turns]
    return {**value, "turns": turns}
