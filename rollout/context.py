"""The token side of a dialogue: what the student reads and writes, and what carries loss.

A thin adapter on verl's Continuous Token methods (experimental/agent_loop/agent_loop.py:316-435): append-only,
nothing that was once tokenised is tokenised again. Only tokens that the student sampled have mask 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from verl.experimental.agent_loop.agent_loop import AgentLoopBase
    from verl.workers.rollout.replica import TokenOutput


@dataclass
class TokenContext:
    """Tokens of one dialogue. ``len(mask) == len(log_probs) == len(ids) - prompt_length`` at all times."""

    loop: AgentLoopBase
    messages: list[dict[str, Any]]
    ids: list[int]
    prompt_length: int
    images: list[Any]
    mask: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    turn_ends: list[int] = field(default_factory=list)
    """Index into ``mask`` of each turn's last student token."""

    @classmethod
    async def start(cls, loop: AgentLoopBase, messages: list[dict[str, Any]]) -> TokenContext:
        """Tokenise the opening messages, whose image blocks hold paths.

        Raises:
            ValueError: the prompt with its pictures is longer than ``rollout.prompt_length`` (verl's own check), or the
                model has no processor.
        """
        messages, images = await _load_images(loop, messages)
        ids = await loop.ct_build_initial_tokens(messages, images=images or None)
        return cls(loop=loop, messages=messages, ids=ids, prompt_length=len(ids), images=images)

    @property
    def room(self) -> int:
        """Tokens left in the response budget, ``rollout.response_length``."""
        return int(self.loop.rollout_config.response_length) - len(self.mask)

    async def add_answer(self, output: TokenOutput, text: str) -> None:
        """Append the student's tokens and close the turn.

        An answer that was cut, or that ended on another stop token, lacks the end-of-turn token that the chat template
        puts after every answer; it is added with mask 0, so that the next turn starts where the model expects it.
        """
        merged, self.mask, log_probs = await self.loop.ct_merge_assistant_token(
            self.ids, output.token_ids, self.mask, self.log_probs, assistant_logprobs=_log_probs(output)
        )
        self.ids, self.log_probs = merged.token_ids, log_probs or []
        self.turn_ends.append(len(self.mask) - 1)
        self.messages.append({"role": "assistant", "content": text})
        if output.token_ids[-1] != self.loop.tokenizer.eos_token_id:
            self.add_end()

    def add_end(self) -> None:
        """Append the end-of-turn token, which the student did not write: mask 0."""
        end = self.loop.tokenizer.eos_token_id
        self.ids, self.mask, self.log_probs = [*self.ids, end], [*self.mask, 0], [*self.log_probs, 0.0]

    async def add_question(self, message: dict[str, Any], reserve: int) -> bool:
        """Append a user message with its pictures, unless that would leave fewer than ``reserve`` response tokens.

        Returns whether it was appended; when not, nothing has changed.
        """
        loaded, images = await _load_images(self.loop, [message])
        merged, mask, log_probs = await self.loop.ct_merge_context_msg(
            self.messages, self.messages + loaded, self.ids, self.mask, self.log_probs
        )
        if len(mask) + reserve > int(self.loop.rollout_config.response_length):
            return False
        self.messages, self.images = self.messages + loaded, self.images + images
        self.ids, self.mask, self.log_probs = merged.token_ids, mask, log_probs or []
        return True

    def drop_loss(self, from_turn: int) -> None:
        """Take the loss from turn ``from_turn`` (0-based) on: those answers have no reward to learn from."""
        start = self.turn_ends[from_turn - 1] + 1 if from_turn else 0
        rest = len(self.mask) - start
        self.mask[start:], self.log_probs[start:] = [0] * rest, [0.0] * rest
        del self.turn_ends[from_turn:]


def _log_probs(output: TokenOutput) -> list[float]:
    """The engine's log-probabilities; zeros when ``rollout.calculate_log_probs`` is off."""
    return list(output.log_probs) if output.log_probs else [0.0] * len(output.token_ids)


async def _load_images(loop: AgentLoopBase, messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Any]]:
    """``messages`` with each image block's path replaced by the picture, as verl's dataset class loads and resizes it.

    Returns the messages and the pictures in their order.
    """
    blocks = [b for m in messages if isinstance(m["content"], list) for b in m["content"] if b["type"] == "image"]
    if not blocks:
        return list(messages), []
    loop._assert_mm_supported(True)
    images = list((await loop.process_multi_modal_info(messages))["images"])
    if len(images) != len(blocks):
        raise ValueError(f"{len(blocks)} image blocks but {len(images)} pictures loaded")
    queue = iter(images)

    def load(message: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(message["content"], list):
            return message
        content = [{**b, "image": next(queue)} if b["type"] == "image" else b for b in message["content"]]
        return {**message, "content": content}

    return [load(m) for m in messages], images
