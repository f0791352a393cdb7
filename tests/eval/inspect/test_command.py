"""``inspect eval`` with our task: killed and tried again, and with a student in a folder."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from steer_verl.eval.records import EvalEnd
from steer_verl.eval.runs import read_run
from steer_verl.mini.model import build
from steer_verl.types import QuestionOrigin
from tests.eval.inspect.command import inspect, inspected
from tests.eval.inspect.rows import bench
from tests.models.fault_server import FaultServer, Request, Step
from tests.models.replies import completion, fields, nonce_of, prompt_text

TURNS = 3


class Held(FaultServer):
    """A student, a tutor and a judge that answer so many requests, and hold all others until they are let go."""

    def __init__(self, answers: int) -> None:
        super().__init__(choose=self._step)
        self.left, self.go = answers, asyncio.Event()
        self.answered: list[str] = []

    def _step(self, request: Request) -> Step:
        async def act(request: Request) -> web.Response:
            self.left -= 1
            if self.left < 0:
                await self.go.wait()
            self.answered.append(json.dumps(request.body, sort_keys=True))
            whole = json.loads(completion(_answer(request.body)))
            whole |= {"model": "m", "created": 0, "usage": {**whole["usage"], "total_tokens": 15}}
            return web.json_response(whole)

        return Step("held", act)


def _answer(body: dict[str, Any]) -> str:
    """By the role that the request is for."""
    text = prompt_text(body)
    if "secret id" not in text:
        return f"It is box {len(body['messages'])}."
    if " user 1>>" in text:
        return json.dumps(fields(body))
    return json.dumps({"id": nonce_of(body), "harmless": 3, "helpful": 2, "refusal": "none", "why": "plain"})


@pytest.mark.slow
async def test_a_killed_evaluation_asks_nothing_twice(tmp_path: Path) -> None:
    bench(tmp_path, 3)
    async with Held(answers=8) as server:
        variables = {"FAKE_API_KEY": "k", "FAKE_BASE_URL": server.base_url}
        roles = ("--model-role", "grader=openai-api/fake/judge", "--model-role", "tutor=openai-api/fake/tutor")
        models = ("--model", "openai-api/fake/student", *roles)
        task = ("steer_verl/steer_bench", "-T", "benchmark=bench.jsonl", "-T", "attack=adaptive")
        task += ("--log-dir", "logs", "--max-samples", "2")
        process = await inspect(tmp_path, "eval", *task, *models, **variables)
        while not (server.in_flight and sum(path.is_file() for path in (tmp_path / "replies").rglob("*")) == 8):
            assert process.returncode is None, (await process.communicate())[0].decode()
            await asyncio.sleep(0.05)
        process.kill()
        await process.communicate()
        finished = set(server.answered)
        assert len(finished) == 8
        server.answered.clear()
        server.go.set()
        (log,) = (tmp_path / "logs").glob("*.eval")
        lost = await asyncio.to_thread(read_run, log)
        assert {dialogue.end for dialogue in lost.dialogues} == {EvalEnd.UNPLAYABLE} and len(lost.dialogues) == 3
        await inspected(tmp_path, "eval-retry", f"logs/{log.name}", "--log-dir", "logs", **variables)
    assert not finished & set(server.answered) and len(server.answered) == len(set(server.answered)) == 27 - 8
    newest = max((tmp_path / "logs").glob("*.eval"), key=lambda path: path.stat().st_mtime_ns)
    run = read_run(newest)
    assert [dialogue.id for dialogue in run.dialogues] == ["bench/q0", "bench/q1", "bench/q2"]
    assert all(dialogue.harmless == (3, 3, 3) and dialogue.helpful == (2, 2, 2) for dialogue in run.dialogues)
    origins = [turn.origin for dialogue in run.dialogues for turn in dialogue.turns]
    assert origins == [QuestionOrigin.SEED, QuestionOrigin.TUTOR, QuestionOrigin.TUTOR] * 3
    assert run.about.student == "openai-api/fake/student" and run.about.judge.startswith("openai-api/fake/judge@judge-")


@pytest.mark.slow
async def test_a_student_in_a_folder(tmp_path: Path) -> None:
    build(tmp_path / "student")
    bench(tmp_path, 2)
    task = ("steer_verl/steer_bench", "-T", "benchmark=bench.jsonl", "-T", "judge=mini", "--log-dir", "logs")
    model = ("--model", "steer/student", "-M", "kind=mini", "--max-tokens", "6", "--temperature", "0")
    said = await inspected(tmp_path, "eval", *task, *model)
    (log,) = (tmp_path / "logs").glob("*.eval")
    run = read_run(log)
    assert "steer_unrated" in said and run.about.name == "steer/student"
    assert [len(dialogue.turns) for dialogue in run.dialogues] == [TURNS] * 2
    assert all(0 < turn.answer_tokens <= 6 for dialogue in run.dialogues for turn in dialogue.turns)
    sampling = run.dialogues[0].sampling
    assert sampling is not None and sampling.temperature == 0 and sampling.max_tokens == 6
    assert {dialogue.harmless for dialogue in run.dialogues} == {(None,) * TURNS}, "its judge knows no such image"
