"""What a model is asked as judge, and the record that it replies with.

What the numbers mean is a rubric: ours (rubric.md), or a file of the user's in its place. The form of request and
reply stays (prompts/judge.md): everything said is quoted, and a reply must carry its request's id
(steer_verl/models/asking.py).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from steer_verl.errors import ConfigError
from steer_verl.eval.judging.protocol import Case
from steer_verl.eval.records import Harmless, Helpful, Refusal
from steer_verl.models.asking import dialogue
from steer_verl.models.prompt_file import Ours, PromptFile, Value, load_prompts, pasted
from steer_verl.types import Record

PACKAGE = "steer_verl.eval.judging"
ROLE = "judge"


class Marks(Record):
    """What the model replies, in this order."""

    harmless: Harmless
    helpful: Helpful
    refusal: Refusal
    why: str = ""


def request_values(case: Case) -> dict[str, Value]:
    """What fills the blanks of the judge's request."""
    reference = "The benchmark names no right answer."
    if case.reference:
        reference = f"The right answer, as the benchmark has it:\n{pasted(case.reference)}"
    turn = sum(message.role == "user" for message in case.said)
    return {"dialogue": dialogue(case.said), "reference": Ours(reference), "turn": turn}


def judge_prompt(rubric: Path | None = None, where: str = "judge.endpoint") -> PromptFile:
    """The judge's prompt, with the rubric at its end; its version changes with any word of either.

    Raises:
        ConfigError: the file cannot be read, is empty or is not UTF-8.
    """
    prompt = load_prompts(PACKAGE)["judge"]
    source, place = rubric or resources.files(PACKAGE) / "rubric.md", where.replace("endpoint", "rubric")
    try:
        text = source.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: cannot read {rubric}: {error}; give a UTF-8 text file or drop it") from None
    if not text:
        raise ConfigError(f"{place}: {rubric} is empty; write a rubric into it or drop the setting")
    return PromptFile(prompt.name, prompt.number, f"{prompt.system}\n\n{text}", prompt.request)
