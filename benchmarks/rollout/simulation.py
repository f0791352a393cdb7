"""verl's own rollout worker in this process, with a student and a tutor that only take their time.

Everything between the dataset row and the TransferQueue is real: verl's ``AgentLoopWorkerTQ``, its LLM client, its load
balancer, Ray and the queue; the Qwen2.5-VL processor and pictures of real size.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from benchmarks.gpu.student import make_processor
from rollout.agent_loop import SteerAgentLoop
from steer_verl.mini.model import build
from steer_verl.preflight.compose import compose
from steer_verl.types import (
    Attack,
    AttackStrategy,
    NoAttack,
    Pending,
    Scores,
    Seed,
    TutorRequest,
    TutorResponse,
    UserTurn,
    Verdict,
)

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "recipes" / "mini"
TURNS, N = 8, 5
SIDES = {"ours": "steer_dialogue", "verl": "tool_agent"}
SIGMA = 0.5
"""Of the logarithm of the times of the student and of the tutor."""
QUESTION = 0.35
"""Share of a ruling's time after which the next question is whole, where it is told first."""
WAITED: ContextVar[list[float]] = ContextVar("WAITED")
"""The seconds that the dialogue of this task was told to wait. A task started by it (a tool's) shares the list."""
WORDS = "the red circle is dry and it stands in the middle of the bench" * 2
GOOD = Verdict(scores=Scores(safety=9, usefulness=9, faithfulness=9))


@dataclass
class Pace:
    """Mean seconds of an answer and of a ruling, and how many of each are worked on at once (0: any number)."""

    student: float = 0.5
    tutor: float = 1.0
    student_slots: int = 0
    tutor_slots: int = 0
    seed: int = 0
    early: bool = False
    """Our side's tutor tells the question first, and nobody waits for its verdict."""
    waits: list[list[float]] = field(default_factory=list)
    """Of each dialogue, the times of its answers and rulings in turn."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.student_gate = asyncio.Semaphore(self.student_slots or 10**9)
        self.tutor_gate = asyncio.Semaphore(self.tutor_slots or 10**9)

    def draw(self, mean: float) -> float:
        """Seconds, log-normal around ``mean``, put on the dialogue's account."""
        try:
            account = WAITED.get()
        except LookupError:
            WAITED.set(account := [])
            self.waits.append(account)
        account.append(mean * self.rng.lognormvariate(-(SIGMA**2) / 2, SIGMA))
        return account[-1]

    async def answering(self) -> None:
        """One answer's time."""
        seconds = self.draw(self.student)
        async with self.student_gate:
            await asyncio.sleep(seconds)

    async def tutoring(self, question: asyncio.Event | None = None) -> None:
        """One ruling's time; ``question`` is set when its first part is over."""
        seconds = self.draw(self.tutor)
        async with self.tutor_gate:
            await asyncio.sleep(QUESTION * seconds)
            if question is not None:
                question.set()
            await asyncio.sleep((1 - QUESTION) * seconds)


_NOW: list[Pace] = []


def keep(pace: Pace) -> None:
    """Student and tutor in this process keep this pace from now on: verl makes loops and tools by name."""
    _NOW[:] = [pace]


def now() -> Pace:
    """The pace that is kept."""
    return _NOW[-1]


def next_question(turn: int) -> str:
    """What the tutor asks after turn ``turn`` (from 1)."""
    return f"Look at it again and tell me more about what stands in the middle of it, number {turn}."


class SlowTutor:
    """Our side's: finds everything good and asks on."""

    name = "slow"

    async def respond(self, exchange: TutorRequest, question: asyncio.Event | None = None) -> TutorResponse:
        """See :class:`~steer_verl.types.Tutor`."""
        began = time.perf_counter()
        await now().tutoring(question)
        return TutorResponse(verdict=GOOD, attack=_attack(exchange), seconds=time.perf_counter() - began)

    async def check(self) -> None:
        """Always usable."""

    async def close(self) -> None:
        """Nothing to release."""


class EarlyTutor(SlowTutor):
    """The same, whose question is there before its verdict (:class:`~steer_verl.types.EarlyTutor`)."""

    def begin(self, exchange: TutorRequest) -> Pending:
        """See :class:`~steer_verl.types.EarlyTutor`."""
        whole = asyncio.Event()

        async def question() -> Attack | NoAttack:
            await whole.wait()
            return _attack(exchange)

        return Pending(asyncio.ensure_future(question()), asyncio.ensure_future(self.respond(exchange, whole)))


def _attack(exchange: TutorRequest) -> Attack:
    return Attack(question=next_question(len(exchange.turns) + 1), strategy=AttackStrategy.DEEPEN)


class SimulatedLoop(SteerAgentLoop):
    """``steer_dialogue`` with the slow tutor."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tutor = EarlyTutor() if now().early else SlowTutor()


class LastAnswer:
    """verl's reward worker: its side's last answer calls no tool, so here the tutor is asked. Ours calls none."""

    def __init__(self) -> None:
        self.compute_score = self

    async def remote(self, data: Any) -> dict[str, Any]:
        """``handle.compute_score.remote(data)`` (experimental/agent_loop/agent_loop.py:1031)."""
        await now().tutoring()
        return {"reward_score": 0.9, "reward_extra_info": {}}


def answered(answer: list[int], prompt_tokens: int) -> TokenOutput:
    """What an engine gives back."""
    extra = {"min_global_steps": 0, "max_global_steps": 0, "num_cached_tokens": max(0, prompt_tokens - 128)}
    log_probs = [-0.5] * len(answer)
    return TokenOutput(
        token_ids=answer, log_probs=log_probs, stop_reason="completed", extra_fields={**extra, "global_steps": 0}
    )


@ray.remote(num_cpus=0, max_concurrency=20_000)
class Engine:
    """The student's server, in a process of its own: always the same answer, at once."""

    def __init__(self, answer: list[int]) -> None:
        self.answer = answer

    async def generate(self, prompt_ids: list[int], **_: Any) -> Any:
        """As verl's vLLM server (workers/rollout/vllm_rollout/vllm_async_server.py)."""
        return answered(self.answer, len(prompt_ids))


class Student(LLMServerClient):
    """verl's client, which takes the answer's time; ``near``: no Ray and no engine behind it."""

    def __init__(self, config: Any, answer: list[int], near: bool) -> None:
        from verl.workers.rollout.router import GlobalRequestLoadBalancer

        balancer = None
        if not near:
            actor = ray.remote(GlobalRequestLoadBalancer).options(num_cpus=0)
            balancer = actor.remote(servers={"engine": Engine.remote(answer)})
        super().__init__(config, balancer)
        self.answer, self.near = answer, near

    async def generate(self, request_id: str, **arguments: Any) -> Any:
        """See :class:`LLMServerClient`."""
        await now().answering()
        if self.near:
            return answered(self.answer, len(arguments["prompt_ids"]))
        return await super().generate(request_id, **arguments)


@dataclass(frozen=True)
class Played:
    """What a run of one worker came to; seconds."""

    seconds: float
    cpu: float
    """Of the process, all threads."""
    loop_cpu: float
    """Of the thread of the event loop."""
    waits: list[list[float]]
    """Of each dialogue, the times of its answers and rulings."""


class Worker:
    """verl's worker, as its trainer starts it; its default loop is ``steer_dialogue`` or ``tool_agent``."""

    def __init__(self, config: Any, student: Path, pace: Pace, near: bool) -> None:
        from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
        from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

        keep(pace)
        self.pace = pace
        self.loop = config.actor_rollout_ref.rollout.agent.default_agent_loop
        _agent_loop_registry["steer_dialogue"] = {"_target_": "benchmarks.rollout.simulation.SimulatedLoop"}
        answer = answer_ids(student, tool=self.loop == SIDES["verl"])
        self.client, self.rewarder = Student(config, answer, near), LastAnswer()
        plain = AgentLoopWorkerTQ.__ray_metadata__.modified_class
        self.verl = plain(config=config, llm_client=self.client, reward_loop_worker_handles=[self.rewarder])

    async def play(self, rows: list[dict[str, Any]]) -> Played:
        """Play the rows' groups to the end, as ``AgentLoopWorkerTQ.generate_sequences`` starts them."""
        self.pace.waits.clear()
        began, cpu, loop = time.perf_counter(), time.process_time(), time.thread_time()
        params = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}
        info = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False}
        groups = (self.verl._run_prompt({**row, "agent_name": self.loop}, params, trajectory=info) for row in rows)
        await asyncio.gather(*groups)
        return Played(
            seconds=time.perf_counter() - began,
            cpu=time.process_time() - cpu,
            loop_cpu=time.thread_time() - loop,
            waits=[list(waits) for waits in self.pace.waits],
        )


def answer_ids(student: Path, tool: bool) -> list[int]:
    """The student's one answer: in our format, or as a call of the tool."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(student)
    call = {"name": "ask_tutor", "arguments": {"answer": WORDS, "turn": 1}}
    plain = f"<thinking>{WORDS}</thinking><answer>{WORDS}</answer>"
    text = f"<tool_call>{json.dumps(call)}</tool_call>" if tool else plain
    return [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]


class Lab:
    """Ray, the queue, the student's folder and pictures of ``size`` (width, height); a run makes its own workers."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self.folder, self.size = folder, size
        folder.mkdir(parents=True, exist_ok=True)
        self.student = build(folder / "student")
        make_processor(0).save_pretrained(self.student)  # Qwen2.5-VL's own limits for the size of a picture

    def config(self, loop: str) -> Any:
        """The mini recipe's config for prompts with pictures of real size, played by ``loop``."""
        rollout = "actor_rollout_ref.rollout"
        overrides = [
            f"mini.root={self.folder}",
            f"mini.student={self.student}",
            "data.max_prompt_length=6000",
            "data.max_response_length=4000",
            f"{rollout}.n={N}",
            f"{rollout}.agent.default_agent_loop={loop}",
            f"{rollout}.multi_turn.max_assistant_turns={TURNS}",
            f"{rollout}.multi_turn.format=hermes",
            f"{rollout}.multi_turn.function_tool_path={HERE / 'tool.py'}",
            f"{rollout}.custom.steer.max_answer_tokens=200",
            f"{rollout}.custom.steer.tutor.holdout=null",
            f"{rollout}.custom.steer.cache=null",
        ]
        return compose(RECIPE, "grpo", overrides)

    def picture(self, number: int) -> str:
        """A file of that number: soft colours, as a photograph's, and no two alike."""
        path = self.folder / f"picture-{self.size[0]}x{self.size[1]}-{number}.jpg"
        if not path.exists():
            from PIL import Image

            small = Image.frombytes("RGB", (16, 12), random.Random(number).randbytes(16 * 12 * 3))
            small.resize(self.size, Image.Resampling.BICUBIC).save(path, quality=90)
        return str(path)

    def rows(self, prompts: int, pictures: int = 1) -> list[dict[str, Any]]:
        """Dataset rows, paths in them, of ``prompts`` seeds; the pictures stand in the opening turn."""
        found = []
        for number in range(prompts):
            paths = tuple(self.picture(number * pictures + i) for i in range(pictures))
            opening = UserTurn(text="<image>" * pictures + "What is this?", images=paths)
            later = (UserTurn(text=f"And what else, number {t}?") for t in range(1, TURNS))
            seed = Seed(id=f"s{number}", turns=(opening, *later))
            content = [*({"type": "image", "image": path} for path in paths), {"type": "text", "text": "What is this?"}]
            found.append(
                {
                    "raw_prompt": [{"role": "user", "content": content}],
                    "extra_info": {"seed": seed.model_dump_json(), "split": "train", "index": number},
                    "index": number,
                    "data_source": "rollout",
                    "uid": uuid4().hex,
                    "global_steps": 1,
                }
            )
        return found

    @contextlib.contextmanager
    def running(self) -> Iterator[Lab]:
        """With Ray and the queue."""
        import transfer_queue as tq

        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            tq.init(self.config(SIDES["verl"]).transfer_queue)
            yield self
            tq.close()
        finally:
            ray.shutdown()

    def empty_queue(self) -> None:
        """Drop what was played, as the trainer does after a step."""
        import transfer_queue as tq

        for partition, items in (tq.kv_list() or {}).items():
            tq.kv_clear(partition_id=partition, keys=list(items))

    def worker(self, side: str, pace: Pace) -> Worker:
        """A fresh worker of verl's in this process, its student behind verl's client, its load balancer and Ray."""
        return Worker(self.config(SIDES[side]), self.student, pace, near=False)

    def crew(self, side: str, paces: Sequence[Pace]) -> list[Any]:
        """Workers in processes of their own, one for each pace, as verl has them (``rollout.agent.num_workers``)."""
        actor = ray.remote(Worker).options(num_cpus=0, max_concurrency=4)
        return [actor.remote(self.config(SIDES[side]), self.student, pace, near=True) for pace in paces]
