"""The token side of a dialogue: what the student reads and writes, and what carries loss.

A thin adapter on verl's Continuous Token builder (utils/tokenizer/continuous_token.py), as verl's own methods use it
(experimental/agent_loop/agent_loop.py:316-435): append-only, nothing that was once tokenised is tokenised again. Only
tokens that the student sampled have mask 1.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from verl.utils.tokenizer import get_processor_token_id

from rollout.images import ImageStore

if TYPE_CHECKING:
    from verl.experimental.agent_loop.agent_loop import AgentLoopBase
    from verl.workers.rollout.replica import TokenOutput


MERGE_NAMES = ("merge_context_tokens", "merge_non_assistant_tokens")
"""The builder's method that appends a user message: verl 0.9's name, and verl 0.10's. Both take the same arguments."""


def merge_name(builder: Any) -> str:
    """Which of :data:`MERGE_NAMES` a builder, or its class, has.

    Raises:
        AttributeError: none; verl has changed, and this adapter must follow.
    """
    for name in MERGE_NAMES:
        if hasattr(builder, name):
            return name
    raise AttributeError(f"{builder} has none of {', '.join(MERGE_NAMES)}: this verl is not known")


class OverlongError(ValueError):
    """An opening that does not fit into the prompt's budget."""


@dataclass
class TokenContext:
    """Tokens of one dialogue. ``len(mask) == len(log_probs) == len(ids) - prompt_length`` at all times.

    Between two turns stands at least one token of the chat template, which :func:`steer_verl.tcsr.lay_out_rewards`
    checks when it writes the spans down.
    """

    loop: AgentLoopBase
    store: ImageStore
    messages: list[dict[str, Any]]
    ids: list[int]
    prompt_length: int
    response_length: int
    """Tokens that may follow the prompt, ``rollout.response_length``."""
    images: list[Any]
    log_probs: list[float] | None
    """0 off the student's tokens; ``None`` if ``rollout.calculate_log_probs`` is off."""
    mask: list[int] = field(default_factory=list)
    turn_spans: list[tuple[int, int]] = field(default_factory=list)
    """First and one past the last student token of each turn with loss, indices into ``mask``."""

    @classmethod
    async def start(
        cls, loop: AgentLoopBase, store: ImageStore, messages: list[dict[str, Any]], response_length: int
    ) -> TokenContext:
        """Tokenise the opening messages, whose image blocks hold paths.

        Raises:
            OverlongError: the prompt with its images is longer than ``rollout.prompt_length``. verl's own method would
                raise for one with images and cut one without, so that student and tutor were shown different openings.
            ValueError: the model has no processor.
            DataError: an image cannot be read.
        """
        asked = json.dumps(messages)
        messages, images = await _load_images(loop, store, messages)
        await store.prepare(loop, images)
        render = partial(loop.continuous_token_builder.build_initial_tokens, messages, images=images or None)
        ids = await store.tokens(asked, lambda: asyncio.to_thread(render))
        limit = loop.rollout_config.prompt_length
        if len(ids) > limit:
            raise OverlongError(f"the opening has {len(ids)} tokens, more than data.max_prompt_length={limit}")
        return cls(loop, store, messages, ids, len(ids), response_length, images, _no_log_probs(loop))

    @classmethod
    def empty(cls, loop: AgentLoopBase) -> TokenContext:
        """Of a lost dialogue: an end token as the prompt, and one without loss as the response, for verl needs both."""
        end = loop.tokenizer.eos_token_id
        context = cls(loop, ImageStore(), [], [end], 1, 1, [], _no_log_probs(loop))
        context.add_end()
        return context

    def expect(self, paths: Sequence[str]) -> None:
        """The next turn will bring these images."""
        self.store.expect(self.loop, self.images, paths)

    @property
    def handed_images(self) -> Any:
        """The images so far as the engine is given them."""
        return self.store.handed(self.images)

    @property
    def room(self) -> int:
        """Tokens left in the response budget."""
        return self.response_length - len(self.mask)

    def add_answer(self, output: TokenOutput, text: str) -> None:
        """Append the student's tokens and close the turn.

        An answer that was cut, or that ended on another stop token, lacks the end-of-turn token that the chat template
        puts after every answer; it is added with mask 0, so that the next turn starts where the model expects it.

        Raises:
            ValueError: the engine gave no log-probabilities, and ``rollout.calculate_log_probs`` is on; or the student
                drew an image's own token, which verl bans in vLLM alone (vllm_async_server.py:504): no image stands
                behind it, and verl would raise once the loop is done, so that nobody counted the loss.
        """
        if {get_processor_token_id(self.loop.processor, kind) for kind in ("image", "video")} & {*output.token_ids}:
            raise ValueError("the student drew the token of an image or a video; ban it in the engine")
        builder = self.loop.continuous_token_builder
        merged = builder.merge_assistant_tokens(self.ids, output.token_ids)
        given = None if self.log_probs is None else _log_probs(output)
        self.mask, self.log_probs = builder.align_response_metadata(
            merged, self.mask, self.log_probs, assistant_logprobs=given
        )
        self.ids = merged.token_ids
        self.turn_spans.append((len(self.mask) - len(output.token_ids), len(self.mask)))
        self.messages.append({"role": "assistant", "content": text})
        if output.token_ids[-1] != self.loop.tokenizer.eos_token_id:
            self.add_end()

    def add_end(self) -> None:
        """Append the end-of-turn token, which the student did not write: mask 0."""
        end = self.loop.tokenizer.eos_token_id
        self.ids, self.mask = [*self.ids, end], [*self.mask, 0]
        if self.log_probs is not None:
            self.log_probs = [*self.log_probs, 0.0]

    async def add_question(self, message: dict[str, Any], reserve: int) -> bool:
        """Append a user message with its images, unless that would leave fewer than ``reserve`` response tokens.

        Returns whether it was appended; when not, nothing has changed.
        """
        loaded, images = await _load_images(self.loop, self.store, [message])
        if images:
            await self.store.prepare(self.loop, self.images + images)
        builder = self.loop.continuous_token_builder
        merge = partial(getattr(builder, merge_name(builder)), self.messages, self.messages + loaded, self.ids)
        merged = await asyncio.to_thread(merge) if self._encodes(self.images + images) else merge()
        mask, log_probs = builder.align_response_metadata(merged, self.mask, self.log_probs)
        if len(mask) + reserve > self.response_length:
            return False
        self.messages, self.images = self.messages + loaded, self.images + images
        self.ids, self.mask, self.log_probs = merged.token_ids, mask, log_probs
        return True

    def _encodes(self, images: Sequence[Any]) -> bool:
        """Whether rendering would work on images. Else it takes a millisecond or two, and a thread for it costs more:
        hundreds of dialogues waited 0.1 s a turn for their places among verl's threads (benchmarks/rollout.md)."""
        builder = self.loop.continuous_token_builder
        return bool(images) and getattr(builder, "processor", None) is self.loop.processor


def _no_log_probs(loop: AgentLoopBase) -> list[float] | None:
    """The log-probabilities of no token; ``None`` where none are asked of the engine."""
    return [] if loop.rollout_config.get("calculate_log_probs", True) else None


def _log_probs(output: TokenOutput) -> list[float]:
    """The engine's log-probabilities; never made up, because verl would learn from them."""
    if not output.log_probs:
        raise ValueError("the engine gave no log-probabilities though rollout.calculate_log_probs is on")
    return list(output.log_probs)


async def _load_images(
    loop: AgentLoopBase, store: ImageStore, messages: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[Any]]:
    """``messages`` with each image block's path replaced by the image, and the images in their order."""
    loaded: list[dict[str, Any]] = []
    images: list[Any] = []
    for message in messages:
        content = message["content"]
        if isinstance(content, list):
            content = [dict(block) for block in content]
            for block in content:
                if block["type"] == "image":
                    block["image"] = await store.open(loop, block["image"])
                    images.append(block["image"])
        loaded.append({**message, "content": content})
    return loaded, images
