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
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import uuid4

import ray
import yaml
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from benchmarks.gpu.student import make_processor
from rollout.agent_loop import SteerAgentLoop
from steer_verl.mini.model import build
from steer_verl.preflight.compose import compose
from steer_verl.types import Pending, Seed, TutorRequest, TutorResponse, UserTurn
from tests.scripted import GOOD, ScriptedTutor, ruling

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
    kept: ClassVar[Pace]
    """What student and tutor in this process keep: verl makes loops and tools by name."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        slots = {"student": self.student_slots, "tutor": self.tutor_slots}
        self.gates = {who: asyncio.Semaphore(number or 10**9) for who, number in slots.items()}

    async def take(self, who: str, question: asyncio.Event | None = None) -> None:
        """The time of a ``student``'s answer or of a ``tutor``'s ruling, whose ``question`` is set when it is whole.

        It is log-normal around its mean, and is put on the dialogue's account.
        """
        try:
            account = WAITED.get()
        except LookupError:
            WAITED.set(account := [])
            self.waits.append(account)
        account.append(seconds := getattr(self, who) * self.rng.lognormvariate(-(SIGMA**2) / 2, SIGMA))
        async with self.gates[who]:
            if question is not None:
                await asyncio.sleep(QUESTION * seconds)
                question.set()
                seconds -= QUESTION * seconds
            await asyncio.sleep(seconds)


def next_question(turn: int) -> str:
    """What the tutor asks after turn ``turn`` (from 1)."""
    return f"Look at it again and tell me more about what stands in the middle of it, number {turn}."


class SlowTutor(ScriptedTutor):
    """Our side's: finds everything good and asks on."""

    def __init__(self) -> None:
        super().__init__(lambda t, _: ruling(GOOD, next_question(t + 1)))

    async def respond(self, exchange: TutorRequest, question: asyncio.Event | None = None) -> TutorResponse:
        """See :class:`~steer_verl.types.Tutor`."""
        await Pace.kept.take("tutor", question)
        return await super().respond(exchange)


class EarlyTutor(SlowTutor):
    """The same, whose question is there before its verdict (:class:`~steer_verl.types.EarlyTutor`)."""

    def begin(self, exchange: TutorRequest) -> Pending:
        """See :class:`~steer_verl.types.EarlyTutor`."""
        whole = asyncio.Event()

        async def question() -> Any:
            await whole.wait()
            return self.script(len(exchange.turns), exchange).attack

        return Pending(asyncio.ensure_future(question()), asyncio.ensure_future(self.respond(exchange, whole)))


class SimulatedLoop(SteerAgentLoop):
    """``steer_dialogue`` with the slow tutor."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tutor = EarlyTutor() if Pace.kept.early else SlowTutor()


async def reward(data: Any) -> dict[str, Any]:
    """verl's reward worker: its side's last answer calls no tool, so here the tutor is asked. Ours calls none."""
    await Pace.kept.take("tutor")
    return {"reward_score": 0.9, "reward_extra_info": {}}


class Answer:
    """The student's one answer, at once: in our format, or as a call of the tool."""

    def __init__(self, student: Path, loop: str) -> None:
        from transformers import AutoTokenizer

        tokenizer, call = AutoTokenizer.from_pretrained(student), {"answer": WORDS, "turn": 1}
        text = f"<thinking>{WORDS}</thinking><answer>{WORDS}</answer>"
        if loop == SIDES["verl"]:
            text = f"<tool_call>{json.dumps({'name': 'ask_tutor', 'arguments': call})}</tool_call>"
        self.ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]

    async def generate(self, prompt_ids: list[int], **_: Any) -> TokenOutput:
        """As verl's vLLM server (workers/rollout/vllm_rollout/vllm_async_server.py)."""
        steps = dict.fromkeys(("min_global_steps", "max_global_steps", "global_steps"), 0)
        more = {**steps, "num_cached_tokens": max(0, len(prompt_ids) - 128)}
        log_probs = [-0.5] * len(self.ids)
        return TokenOutput(token_ids=self.ids, log_probs=log_probs, stop_reason="completed", extra_fields=more)


class Student(LLMServerClient):
    """verl's client, which takes the answer's time; ``near``: no Ray and no other process behind it."""

    def __init__(self, config: Any, student: Path, loop: str, near: bool) -> None:
        from verl.workers.rollout.router import GlobalRequestLoadBalancer

        self.near, balancer = Answer(student, loop) if near else None, None
        if not near:
            engine = ray.remote(num_cpus=0, max_concurrency=20_000)(Answer).remote(student, loop)
            balancer = ray.remote(num_cpus=0)(GlobalRequestLoadBalancer).remote(servers={"engine": engine})
        super().__init__(config, balancer)

    async def generate(self, request_id: str, **arguments: Any) -> Any:
        """See :class:`LLMServerClient`."""
        await Pace.kept.take("student")
        return await (self.near.generate(**arguments) if self.near else super().generate(request_id, **arguments))


class Worker:
    """verl's worker, as its trainer starts it; its default loop is ``steer_dialogue`` or ``tool_agent``."""

    def __init__(self, config: Any, student: Path, pace: Pace, near: bool) -> None:
        from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
        from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

        Pace.kept = pace
        self.loop = config.actor_rollout_ref.rollout.agent.default_agent_loop
        _agent_loop_registry["steer_dialogue"] = {"_target_": "benchmarks.rollout.simulation.SimulatedLoop"}
        self.client, self.rewarder = Student(config, student, self.loop, near), SimpleNamespace(remote=reward)
        plain = AgentLoopWorkerTQ.__ray_metadata__.modified_class
        # which calls handle.compute_score.remote(data) (experimental/agent_loop/agent_loop.py:1031)
        rewarders = [SimpleNamespace(compute_score=self.rewarder)]
        self.verl = plain(config=config, llm_client=self.client, reward_loop_worker_handles=rewarders)

    async def play(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Play the rows' groups to the end, as ``AgentLoopWorkerTQ.generate_sequences`` starts them.

        Returns:
            ``seconds``, those of the process's threads (``cpu``) and of the event loop's alone (``loop_cpu``), and
            ``waits``: of each dialogue, the times of its answers and rulings.
        """
        waits = Pace.kept.waits
        waits.clear()
        began, cpu, loop = time.perf_counter(), time.process_time(), time.thread_time()
        params = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}
        info = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False}
        groups = (self.verl._run_prompt({**row, "agent_name": self.loop}, params, trajectory=info) for row in rows)
        await asyncio.gather(*groups)
        seconds, cpu, loop = time.perf_counter() - began, time.process_time() - cpu, time.thread_time() - loop
        return {"seconds": seconds, "cpu": cpu, "loop_cpu": loop, "waits": list(waits)}


class Lab:
    """Ray, the queue, the student's folder and pictures of ``size`` (width, height); a run makes its own workers."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self.folder, self.size = folder, size
        self.student = build(folder / "student")
        make_processor(0).save_pretrained(self.student)  # Qwen2.5-VL's own limits for the size of a picture

    def config(self, side: str) -> Any:
        """The mini recipe's config for prompts with pictures of real size, played by the loop of ``side``."""
        given = {
            "root": self.folder,
            "student": self.student,
            "loop": SIDES[side],
            "n": N,
            "turns": TURNS,
            "here": HERE,
        }
        lines = yaml.safe_load((HERE / "simulation.yaml").read_text())
        return compose(RECIPE, "grpo", [line.format_map(given) for line in lines])

    def picture(self, number: int) -> str:
        """A file of that number: soft colours, as a photograph's, and no two alike."""
        from PIL import Image

        path = self.folder / f"picture-{number}.jpg"
        if not path.exists():
            small = Image.frombytes("RGB", (16, 12), random.Random(number).randbytes(16 * 12 * 3))
            small.resize(self.size, Image.Resampling.BICUBIC).save(path, quality=90)
        return str(path)

    def rows(self, prompts: int, pictures: int = 1) -> list[dict[str, Any]]:
        """Dataset rows, paths in them, of ``prompts`` seeds; the pictures stand in the opening turn."""
        found = []
        for number in range(prompts):
            paths = tuple(self.picture(number * pictures + i) for i in range(pictures))
            asked = ["<image>" * pictures + "What is this?", *(f"And what else, number {t}?" for t in range(1, TURNS))]
            turns = [UserTurn(text=text, images=paths if t == 0 else ()) for t, text in enumerate(asked)]
            seed = Seed(id=f"s{number}", turns=tuple(turns)).model_dump_json()
            content = [*({"type": "image", "image": path} for path in paths), {"type": "text", "text": "What is this?"}]
            about = {"index": number, "data_source": "rollout", "uid": uuid4().hex, "global_steps": 1}
            prompt = [{"role": "user", "content": content}]
            info = {"seed": seed, "split": "train", "index": number}
            found.append({"raw_prompt": prompt, "extra_info": info, **about})
        return found

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """With Ray and the queue."""
        import transfer_queue as tq

        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            tq.init(self.config("verl").transfer_queue)
            yield
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
        return Worker(self.config(side), self.student, pace, near=False)

    def crew(self, side: str, paces: Sequence[Pace]) -> list[Any]:
        """Workers in processes of their own, one for each pace, as verl has them (``rollout.agent.num_workers``)."""
        actor = ray.remote(num_cpus=0, max_concurrency=4)(Worker)
        return [actor.remote(self.config(side), self.student, pace, near=True) for pace in paces]
