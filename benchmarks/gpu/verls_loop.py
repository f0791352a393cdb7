"""The other side of the comparison: verl's own ``ToolAgentLoop`` plays the same dialogues, with the tutor as a tool.

``verls_loop.yaml`` names this loop to verl in place of ours. The student's answers are noise, so each of them counts as
a call of the tool; each has the length that ours has, and the tool answers with a question as long as the tutor's.
"""

from __future__ import annotations

import json
from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop
from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser

TOOL = "ask_tutor"


@ToolParser.register("every_answer")
class EveryAnswer(ToolParser):
    """``rollout.multi_turn.format=every_answer``: an answer is one call of the tool."""

    async def extract_tool_calls(self, responses_ids: list[int], tools: Any = None) -> tuple[str, list[FunctionCall]]:
        """See verl's ``ToolParser``."""
        text = self.tokenizer.decode(responses_ids)
        return text, [FunctionCall(name=TOOL, arguments=json.dumps({"answer": text}))]


class CappedToolAgentLoop(ToolAgentLoop):
    """``ToolAgentLoop`` has no cap for one answer: here it is that of ``custom.steer.max_answer_tokens``."""

    async def run(self, sampling_params: dict[str, Any], *args: Any, **row: Any) -> AgentLoopOutput:
        """See verl's loop."""
        cap = self.rollout_config.custom.steer.max_answer_tokens
        return await super().run({**sampling_params, "max_tokens": cap}, *args, **row)


def reward(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None, **more: Any) -> float:
    """Something that differs between the rollouts of a prompt (``reward.custom_reward_function``)."""
    return len(set(solution_str)) / 100
