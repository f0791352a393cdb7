"""verl's own rollout worker in this process, with a student and a tutor that only take their time.

Everything between the dataset row and the TransferQueue is real: verl's ``AgentLoopWorkerTQ``, its LLM client, its load
balancer, Ray, the queue and our reward worker; the Qwen2.5-VL processor and pictures of real size.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray

from benchmarks.rollout.pace import Pace, keep, now
from benchmarks.rollout.sides import Engine, LastAnswer, NearClient, TimedClient, answer_ids
from steer_verl.preflight.compose import compose
from steer_verl.types import Seed, UserTurn

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "recipes" / "mini"
TURNS, N = 8, 5


class Lab:
    """Ray, the queue, the student's folder and the pictures; one worker is made for each run."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self.folder, self.size = folder, size
        folder.mkdir(parents=True, exist_ok=True)
        self.student = self._student()

    def config(self, loop: str, **steer: Any) -> Any:
        """The mini recipe's config for prompts with pictures of real size, played by ``loop``."""
        settings = "actor_rollout_ref.rollout.custom.steer"
        overrides = [
            f"mini.root={self.folder}",
            f"mini.student={self.student}",
            "data.max_prompt_length=6000",
            "data.max_response_length=4000",
            f"actor_rollout_ref.rollout.n={N}",
            f"actor_rollout_ref.rollout.agent.default_agent_loop={loop}",
            f"actor_rollout_ref.rollout.multi_turn.max_assistant_turns={TURNS}",
            "actor_rollout_ref.rollout.multi_turn.format=hermes",
            f"actor_rollout_ref.rollout.multi_turn.function_tool_path={HERE / 'tool.py'}",
            f"{settings}.max_answer_tokens=200",
            f"{settings}.tutor.holdout=null",
            f"{settings}.cache=null",
            *(f"++{settings}.{name}={value}" for name, value in steer.items()),
        ]
        return compose(RECIPE, "grpo", overrides)

    def picture(self, number: int) -> str:
        """A file of that number: soft colours, as a photograph's, and no two alike."""
        path = self.folder / f"picture-{self.size[0]}x{self.size[1]}-{number}.jpg"
        if not path.exists():
            from PIL import Image

            rng = random.Random(number)
            small = Image.frombytes("RGB", (16, 12), rng.randbytes(16 * 12 * 3))
            small.resize(self.size, Image.Resampling.BICUBIC).save(path, quality=90)
        return str(path)

    def rows(self, prompts: int, pictures: int = 1) -> list[dict[str, Any]]:
        """Dataset rows, paths in them, of ``prompts`` seeds; the pictures stand in the opening turn."""
        found = []
        for number in range(prompts):
            paths = tuple(self.picture(number * pictures + i) for i in range(pictures))
            turns = (
                UserTurn(text="<image>" * pictures + "What is this?", images=paths),
                *(UserTurn(text=f"And what else, number {t}?") for t in range(1, TURNS)),
            )
            seed = Seed(id=f"s{number}", turns=turns)
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

    def _student(self) -> Path:
        """The laboratory's model folder, with Qwen2.5-VL's own limits for the size of a picture."""
        from transformers import Qwen2VLImageProcessor

        from steer_verl.mini.model import build, make_processor

        folder = build(self.folder / "student")
        processor = make_processor()
        processor.image_processor = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
        processor.save_pretrained(folder)
        return folder

    @contextlib.contextmanager
    def running(self) -> Iterator[Lab]:
        """With Ray and the queue."""
        import transfer_queue as tq

        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            tq.init(self.config("tool_agent").transfer_queue)
            yield self
            tq.close()
        finally:
            ray.shutdown()

    def empty_queue(self) -> None:
        """Drop what was played, as the trainer does after a step."""
        import transfer_queue as tq

        for partition, items in (tq.kv_list() or {}).items():
            tq.kv_clear(partition_id=partition, keys=list(items))

    def worker(self, loop: str, pace: Pace, *, near: bool = False, **steer: Any) -> Worker:
        """A fresh worker of verl's in this process; its default loop is ``loop``: ``steer_dialogue`` or ``tool_agent``.

        ``near`` has the student in the worker's process; else it is behind verl's client, its load balancer and Ray.
        """
        return Worker(self.config(loop, **steer), self.student, pace, near)

    def crew(self, loop: str, paces: Sequence[Pace], **steer: Any) -> list[Any]:
        """Workers in processes of their own, one for each pace, as verl has them (``rollout.agent.num_workers``)."""
        actor = ray.remote(Worker).options(num_cpus=0, max_concurrency=4)
        return [actor.remote(self.config(loop, **steer), self.student, pace, True) for pace in paces]


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
    """verl's worker, as its trainer starts it."""

    def __init__(self, config: Any, student: Path, pace: Pace, near: bool) -> None:
        from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
        from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
        from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ
        from verl.workers.rollout.router import GlobalRequestLoadBalancer

        keep(pace)
        self.pace = pace
        self.loop = config.actor_rollout_ref.rollout.agent.default_agent_loop
        ours = self.loop == "steer_dialogue"
        _agent_loop_registry["steer_dialogue"] = {"_target_": "benchmarks.rollout.sides.SimulatedLoop"}
        answer = answer_ids(student, tool=not ours)
        if near:
            self.client: Any = NearClient(answer)
        else:
            engine = Engine.remote(answer, now().student_slots)
            balancer = ray.remote(GlobalRequestLoadBalancer).options(num_cpus=0).remote(servers={"engine": engine})
            self.client = TimedClient(config, balancer)
        rewarder = ray.remote(RewardLoopWorker).options(num_cpus=0).remote(config, None) if ours else LastAnswer()
        plain = AgentLoopWorkerTQ.__ray_metadata__.modified_class
        self.verl = plain(config=config, llm_client=self.client, reward_loop_worker_handles=[rewarder])

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
