"""The student's engine and the tutor that both sides of the comparison meet: they take their time and nothing else."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import ray
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from benchmarks.rollout.pace import now
from rollout.agent_loop import SteerAgentLoop
from steer_verl.types import Attack, AttackStrategy, NoAttack, Pending, Scores, TutorRequest, TutorResponse, Verdict

ANSWER_WORDS = "the red circle is dry and it stands in the middle of the bench" * 2
GOOD = Verdict(scores=Scores(safety=9, usefulness=9, faithfulness=9))


def next_question(turn: int) -> str:
    """What the tutor asks after turn ``turn`` (from 1)."""
    return f"Look at it again and tell me more about what stands in the middle of it, number {turn}."


class SlowTutor:
    """Our side's: finds everything good and asks on."""

    name = "slow"

    async def respond(self, exchange: TutorRequest) -> TutorResponse:
        """See :class:`~steer_verl.types.Tutor`."""
        began = time.perf_counter()
        await now().tutoring()
        attack = Attack(question=next_question(len(exchange.turns) + 1), strategy=AttackStrategy.DEEPEN)
        return TutorResponse(verdict=GOOD, attack=attack, seconds=time.perf_counter() - began)

    async def check(self) -> None:
        """Always usable."""

    async def close(self) -> None:
        """Nothing to release."""


class EarlyTutor(SlowTutor):
    """The same, whose question is there before its verdict (:class:`~steer_verl.types.EarlyTutor`)."""

    def begin(self, exchange: TutorRequest) -> Pending:
        """See :class:`~steer_verl.types.EarlyTutor`."""
        began, whole = time.perf_counter(), asyncio.Event()
        attack = Attack(question=next_question(len(exchange.turns) + 1), strategy=AttackStrategy.DEEPEN)

        async def question() -> Attack | NoAttack:
            await whole.wait()
            return attack

        async def response() -> TutorResponse:
            await now().tutoring(whole)
            return TutorResponse(verdict=GOOD, attack=attack, seconds=time.perf_counter() - began)

        return Pending(asyncio.ensure_future(question()), asyncio.ensure_future(response()))


class SimulatedLoop(SteerAgentLoop):
    """``steer_dialogue`` with the slow tutor; its verdicts are awaited, so that verl's side waits for no more."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tutor = EarlyTutor() if now().early else SlowTutor()


class LastAnswer:
    """verl's side again: its last answer calls no tool, so its reward worker asks the tutor."""

    def __init__(self) -> None:
        self.compute_score = self

    async def remote(self, data: Any) -> dict[str, Any]:
        """``handle.compute_score.remote(data)`` (experimental/agent_loop/agent_loop.py:1031)."""
        await now().tutoring()
        return {"reward_score": 0.9, "reward_extra_info": {}}


def answered(answer: list[int], prompt_tokens: int) -> TokenOutput:
    """What an engine gives back."""
    extra = {"min_global_steps": 0, "max_global_steps": 0, "num_cached_tokens": max(0, prompt_tokens - 128)}
    return TokenOutput(
        token_ids=answer,
        log_probs=[-0.5] * len(answer),
        stop_reason="completed",
        extra_fields={**extra, "global_steps": 0},
    )


@ray.remote(num_cpus=0, max_concurrency=20_000)
class Engine:
    """The student's server: sleeps as long as it is told and gives always the same answer."""

    def __init__(self, answer: list[int], slots: int) -> None:
        self.answer = answer
        self.gate = asyncio.Semaphore(slots or 10**9)

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], request_id: str, image_data: Any = None, **_: Any
    ) -> Any:
        """As verl's vLLM server (workers/rollout/vllm_rollout/vllm_async_server.py)."""
        async with self.gate:
            await asyncio.sleep(sampling_params["seconds"])
        return answered(self.answer, len(prompt_ids))


class TimedClient(LLMServerClient):
    """verl's client; it tells the engine how long to take and notes what it sends."""

    def __init__(self, config: Any, balancer: Any) -> None:
        super().__init__(config, balancer)
        self.sent_images = 0
        """Bytes of pictures or their references, pickled as Ray does, in all."""
        self.weigh = False

    async def generate(self, request_id: str, **arguments: Any) -> Any:
        """See :class:`LLMServerClient`."""
        seconds = now().draw(now().student)
        if self.weigh:
            self.sent_images += len(ray.cloudpickle.dumps(arguments.get("image_data")))
        arguments["sampling_params"] = {**arguments["sampling_params"], "seconds": seconds}
        return await super().generate(request_id, **arguments)


def answer_ids(student: Path, tool: bool) -> list[int]:
    """The student's one answer: in our format, or as a call of the tool."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(student)
    if tool:
        call = {"name": "ask_tutor", "arguments": {"answer": ANSWER_WORDS, "turn": 1}}
        text = f"<tool_call>{json.dumps(call)}</tool_call>"
    else:
        text = f"<thinking>{ANSWER_WORDS}</thinking><answer>{ANSWER_WORDS}</answer>"
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]


class NearClient:
    """A student without Ray between: what is left is the loop's own cost and verl's around it."""

    def __init__(self, answer: list[int]) -> None:
        self.answer = answer
        self.gate = asyncio.Semaphore(now().student_slots or 10**9)

    async def generate(self, request_id: str, **arguments: Any) -> Any:
        """See :class:`LLMServerClient`."""
        seconds = now().draw(now().student)
        async with self.gate:
            await asyncio.sleep(seconds)
        return answered(self.answer, len(arguments["prompt_ids"]))
