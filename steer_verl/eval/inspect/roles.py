"""Models of Inspect in the roles of our evaluation: student, judge and tutor.

Every call is cached without an end, under the evaluation's task id, its sample, turn and role. ``inspect eval-retry``
keeps the task id: whatever an evaluation that was killed had finished is not asked again, and a new evaluation asks
anew.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import PurePath
from typing import Any

from inspect_ai.log import read_eval_log_async
from inspect_ai.log._samples import sample_active
from inspect_ai.model import CachePolicy, GenerateConfig, Model, get_model
from inspect_ai.solver import Generate, TaskState

from steer_verl.errors import DataError
from steer_verl.eval.inspect.messages import bytes_of, chat, digest, image_folder
from steer_verl.eval.judging.protocol import Case, Rated
from steer_verl.eval.judging.request import ROLE, Marks, request_values
from steer_verl.eval.records import Rating, Unrated
from steer_verl.eval.students.protocol import Messages
from steer_verl.eval.students.protocol import Reply as Answer
from steer_verl.images import image_uri
from steer_verl.models.cache import kept_secret
from steer_verl.models.failure import AgentFailed
from steer_verl.models.forms import Images, form
from steer_verl.models.place import Place
from steer_verl.models.prompt_file import PromptFile
from steer_verl.models.replies import AskFault, Fault, read_record
from steer_verl.models.request import Reply, encodable
from steer_verl.tutor.prompt import PromptBuilder, Rubric, Task
from steer_verl.tutor.verdict import Outcome, read_attack, read_verdict
from steer_verl.types import NoAttack, NoAttackReason, TutorRequest, TutorResponse, Usage

GRADER, TUTOR = "grader", "tutor"
"""Model roles of ``inspect eval``."""
TRIES = 2
"""How often a reply that cannot be read is asked for."""


class Held:
    """A model that Inspect has made and closes."""

    async def check(self) -> None:
        """Nothing is to be proven."""

    async def close(self) -> None:
        """Nothing is held."""


class ModelStudent(Held):
    """The model under evaluation (:class:`~steer_verl.eval.students.protocol.Student`); the sample's state grows."""

    def __init__(self, state: TaskState, generate: Generate) -> None:
        self.state, self._generate = state, generate
        self.name = str(get_model())
        self.held: dict[str, str] = {}
        """Path -> digest of each image that the messages hold."""

    async def answer(self, messages: Messages, place: Place) -> Answer:
        """See the protocol; what is not cached is asked of the provider, whose exceptions are the sample's error."""
        try:
            asked = await asyncio.to_thread(chat, messages[-1:], self._shown)
        except DataError as error:
            raise AgentFailed(AskFault.IMAGE.value, f"student: {error}") from None
        self.state.messages += asked
        self.state = await self._generate(self.state, tool_calls="none", cache=await policy(place.key, "student"))
        output = self.state.output
        if output.stop_reason == "content_filter":
            raise AgentFailed(AskFault.CONTENT_FILTER.value, "student: the provider's filter stopped the answer")
        tokens = output.usage.output_tokens if output.usage else 0
        cut = output.stop_reason in ("max_tokens", "model_length")
        return Answer(text=encodable(output.completion), tokens=tokens, truncated=cut, seconds=output.time or 0.0)

    def _shown(self, path: str) -> str:
        uri = image_uri(path)
        self.held[path] = digest(bytes_of(uri) or b"")
        return uri


class RoleJudge(Held):
    """The model in the role ``grader``, with our prompt (:class:`~steer_verl.eval.judging.protocol.EvalJudge`)."""

    def __init__(self, prompt: PromptFile) -> None:
        self.prompt = prompt
        self.name = f"{_role(GRADER)}@{ROLE}-{prompt.version}"

    async def rate(self, case: Case, place: Place) -> Rated:
        """See the protocol."""
        text, shown = self.prompt.render(request_values(case)), tuple(path for one in case.said for path in one.images)
        try:
            sent = await asyncio.to_thread(form, ROLE, self.prompt.instructions, text, Images(None), shown)
        except AgentFailed as failed:
            return Rated(judged=Unrated(judge=self.name, reason=failed.reason, detail=failed.detail))
        fault = Fault(AskFault.EMPTY, "")
        for number in range(TRIES):
            reply = await _asked(GRADER, sent.messages(fault.detail), place.part(str(number)).key)
            outcome = read_record(reply, sent.nonce, Marks)
            if not isinstance(outcome, Fault):
                return Rated(judged=Rating(judge=self.name, **dict(outcome)))
            fault = outcome
            if not fault.again:
                break
        return Rated(judged=Unrated(judge=self.name, reason=fault.reason.value, detail=fault.detail))


class RoleTutor(Held):
    """The model in the role ``tutor``, with our rubric (:class:`~steer_verl.types.Tutor`)."""

    def __init__(self) -> None:
        self.rubric = Rubric.load()
        self.name = f"{_role(TUTOR)}@rubric-{self.rubric.version}"

    async def respond(self, request: TutorRequest) -> TutorResponse:
        """See the protocol."""
        task = Task.BOTH if request.static_next_turn else Task.SCORE
        build = PromptBuilder(self.rubric, image_uri, _secret()).build
        prompt = await asyncio.to_thread(build, request, task)
        asked = [*(turn.user.text for turn in request.turns), request.user.text]
        read = partial(read_attack, answer=request.answer, private=(prompt.system, prompt.mark))
        fault = ""
        for number in range(TRIES):
            reply = await _asked(TUTOR, prompt.messages(fault), f"{request.turn_key}/{number}")
            attack = NoAttack(reason=NoAttackReason.LAST_TURN, detail="none was asked for")
            outcome = Outcome(
                read_verdict(reply, prompt.nonce),
                attack if task is Task.SCORE else read(reply, prompt.nonce, asked, 4000),
                Usage(),
            )
            fault = outcome.fault(task)
            if not fault:
                break
        return TutorResponse(verdict=outcome.verdict, attack=outcome.attack)


async def policy(place: str, role: str) -> CachePolicy:
    """How a call is kept: without an end, for this evaluation, its sample, turn and role."""
    active = sample_active()
    task = await _task_id(active.log_location) if active else ""
    return CachePolicy(expiry=None, scopes={"steer": role, "place": place, "task": task})


TASKS: dict[str, str] = {}
"""Log -> id of its task."""


async def _task_id(log: str) -> str:
    for patience in (0.1, 0.2, 0.4, 0.8):
        if log in TASKS:
            break
        try:
            TASKS[log] = (await read_eval_log_async(log, header_only=True)).eval.task_id
        except Exception:  # it is being written at this moment
            await asyncio.sleep(patience)
    return TASKS.setdefault(log, PurePath(log).stem.rpartition("_")[2])  # where Inspect puts it unless told otherwise


def _role(role: str) -> Model:
    return get_model(role=role, required=True, config=GenerateConfig(temperature=0.0))


async def _asked(role: str, messages: list[dict[str, Any]], place: str) -> Reply:
    """What a filter took is a refusal: the same request would meet it again."""
    output = await _role(role).generate(chat(messages), cache=await policy(place, role))
    filtered = output.completion or "filtered" if output.stop_reason == "content_filter" else ""
    return Reply(content=output.completion, finish_reason=output.stop_reason, refusal=filtered)


def _secret() -> bytes:
    """Key of the marks in a tutor's prompt: this user's own, and the same after a kill."""
    return kept_secret(image_folder().with_name("inspect"))
