"""The tutor as a tool, for verls_loop.py; verl loads this file by ``rollout.multi_turn.function_tool_path``."""

from __future__ import annotations

from verl.tools.function_tool import function_tool

from benchmarks.gpu.verls_loop import TOOL


@function_tool(TOOL)
async def ask_tutor(answer: str) -> str:
    """Have your answer judged and hear the next question.

    Args:
        answer: What you answer.
    """
    return "Thank you. Which steps would one follow to take the device apart, in order?"
