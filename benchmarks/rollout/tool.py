"""The tutor as verl's side meets it: a tool; verl loads this file by ``rollout.multi_turn.function_tool_path``."""

from __future__ import annotations

from verl.tools.function_tool import function_tool

from benchmarks.rollout.simulation import Pace, next_question


@function_tool("ask_tutor")
async def ask_tutor(answer: str, turn: int) -> str:
    """Have your answer judged and hear the next question.

    Args:
        answer: What you answer.
        turn: Its number.
    """
    await Pace.kept.take("tutor")
    return next_question(turn)
