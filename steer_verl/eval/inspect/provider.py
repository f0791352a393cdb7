"""The model API ``steer``: a student in a folder, as ``inspect eval`` asks it.

    inspect eval TASK --model steer/out/grpo/hf
    inspect eval TASK --model steer/out/mini/student -M kind=mini -M system_prompt=student_format

The folder is one of Hugging Face or a checkpoint of verl; further settings (``-M``) are those of ``student`` in a run's
file (steer_verl/eval/config.py). A vLLM server that is started for it ends with the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.hooks import Hooks, RunEnd, hooks
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, ModelUsage, modelapi
from inspect_ai.tool import ToolChoice, ToolInfo
from rich.markup import escape

from steer_verl.errors import ConfigError, SteerError, StudentError
from steer_verl.eval.config import StudentSettings
from steer_verl.eval.inspect.messages import bytes_of, image_folder, kept
from steer_verl.eval.students.build import build_student
from steer_verl.eval.students.checkpoint import find_checkpoint
from steer_verl.eval.students.endpoint import digest
from steer_verl.eval.students.protocol import Student
from steer_verl.models.place import Place
from steer_verl.settings_file import parse_settings

OURS = ("path", "endpoint", "name", "temperature", "top_p", "seed", "max_answer_tokens")
"""Settings that Inspect has options of its own for."""
OPEN: set[SteerAPI] = set()
"""Who holds a student."""


@contextmanager
def prerequisites() -> Iterator[None]:
    """What is wrong with settings and files is told as Inspect tells it: in one line, without a traceback.

    Raises:
        PrerequisiteError: in the place of a ``SteerError``.
    """
    try:
        yield
    except SteerError as error:
        raise PrerequisiteError(escape(str(error))) from None


class SteerAPI(ModelAPI):
    """See the module.

    Args:
        model_name: the folder.
        base_url: not used.
        api_key: not used.
        config: sampling of every answer; unset, greedy.
        model_args: settings of the student.

    Raises:
        PrerequisiteError: a setting cannot work, or the folder holds no model.
    """

    _student: Student | None

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        self._args, self._student = model_args, None
        with prerequisites():
            if taken := [name for name in OURS if name in model_args]:
                raise ConfigError(f"-M {taken[0]}: the folder is --model steer/PATH, and sampling --temperature etc.")
            find_checkpoint(Path(model_name))
            self._settings = self._with(config)

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """One answer. Where it is sampled, every call is a draw of its own, but for an explicit seed.

        Raises:
            StudentError: there are tools or tool results, or the sampling is not the one that it began with.
        """
        if tools:
            raise StudentError("steer: a student calls no tools; choose a task without them")
        student = self._opened(self._with(config))
        messages = [{"role": message.role, "content": _content(message)} for message in input]
        fixed = config.seed is not None or not config.temperature
        reply = await student.answer(messages, Place(f"inspect/{digest(messages) if fixed else uuid4().hex}"))
        output = ModelOutput.from_content(self.model_name, reply.text, "max_tokens" if reply.truncated else "stop")
        output.usage = ModelUsage(output_tokens=reply.tokens, total_tokens=reply.tokens)
        return output

    async def aclose(self) -> None:
        """End the student, with the server that was started for it."""
        OPEN.discard(self)
        student, self._student = self._student, None
        if student is not None:
            await student.close()

    def max_tokens(self) -> int:
        """Of an answer, where nobody says."""
        return self._settings.max_answer_tokens

    def max_connections(self) -> int:
        """Answers that are asked for at once."""
        return self._settings.max_concurrency

    def should_retry(self, ex: BaseException) -> bool:
        """Never: a student tries again by itself."""
        return False

    def _with(self, config: GenerateConfig) -> StudentSettings:
        sampling = {"temperature": config.temperature, "top_p": config.top_p, "seed": config.seed}
        sampling["max_answer_tokens"] = config.max_tokens
        told = {name: value for name, value in sampling.items() if value is not None}
        given = {"path": self.model_name, **self._args, **told}
        return parse_settings(StudentSettings, given, f"steer/{self.model_name}")

    def _opened(self, settings: StudentSettings) -> Student:
        if self._student is None:
            name = hashlib.sha256(str(Path(self.model_name).resolve()).encode()).hexdigest()[:16]
            self._settings = settings
            self._student = build_student(settings, image_folder().with_name("inspect") / name)
            OPEN.add(self)
            _ended_with_the_run()
        if settings != self._settings:
            raise StudentError(f"steer/{self.model_name}: asked with two kinds of sampling; start another evaluation")
        return self._student


@modelapi(name="steer")
def steer() -> type[ModelAPI]:
    """The model API by its name."""
    return SteerAPI


@cache
def _ended_with_the_run() -> None:
    """Inspect closes no model. Told to it only once there is a student, for it announces every hook at its start."""

    @hooks(name="steer_students", description="Ends the students of the model API steer.")
    class StudentsEnd(Hooks):
        async def on_run_end(self, data: RunEnd) -> None:
            for one in list(OPEN):
                await one.aclose()


def _content(message: ChatMessage) -> str | list[dict[str, str]]:
    """A message's content as a student takes it; images become files.

    Raises:
        StudentError: a result of a tool, or content that is neither text nor an image.
    """
    if message.role == "tool":
        raise StudentError("steer: a student knows no tools; choose a task without them")
    if isinstance(message.content, str):
        return message.content
    blocks: list[dict[str, str]] = []
    for part in message.content:
        if part.type == "text":
            blocks.append({"type": "text", "text": part.text})
        elif part.type == "image" and (image := bytes_of(part.image)) is not None:
            blocks.append({"type": "image", "image": kept(image)})
        elif part.type != "reasoning":
            raise StudentError(f"steer: a student takes text and images as data: URIs, not {part.type}")
    return blocks
