"""The pictures of a prompt's group: each is opened once, encoded once and put into Ray's object store once.

verl 0.9.1 encodes every picture three times per rollout (experimental/agent_loop/agent_loop.py:335 and :981,
trainer/ppo/v1/agent_loop_tq.py:188), the last two times on the event loop, and sends it by value at every turn
(workers/rollout/llm_server.py:150). All n rollouts of a prompt run in one process (agent_loop_tq.py:107-129), so they
can share. Whatever is shared hangs on the group's :class:`SharedPictures` and goes with the last rollout that holds it.

With ``share_pictures: false`` every rollout has :class:`Pictures` of its own, which share nothing: verl's plain path.
"""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import ray
import torch
from verl.utils.tokenizer import build_multimodal_processor_inputs
from wrapt import ObjectProxy

if TYPE_CHECKING:
    from PIL.Image import Image
    from verl.experimental.agent_loop.agent_loop import AgentLoopBase

T = TypeVar("T")
ENCODED = ["pixel_values", "image_grid_thw"]
"""What an image processor must return to be shared: rows per picture, in their order (the Qwen-VL family's)."""

_ENCODERS = ThreadPoolExecutor(max(1, min(4, (os.cpu_count() or 2) // 2)), thread_name_prefix="encode")
"""Threads of our own: in asyncio's, which verl's short renderings need, pictures would hold up the text."""


class Pictures:
    """Opens pictures as verl's dataset class does, anew for each rollout; nothing is shared."""

    async def open(self, loop: AgentLoopBase, path: str) -> Image:
        """The picture, resized by ``data.mm_processor_kwargs``.

        Raises:
            ValueError: the model has no processor for pictures.
        """
        loop._assert_mm_supported(True)
        message = {"role": "user", "content": [{"type": "image", "image": path}]}
        return (await loop.process_multi_modal_info([message]))["images"][0]

    async def prepare(self, loop: AgentLoopBase, images: Sequence[Image]) -> None:
        """Do, off the event loop, what the rendering, the engine and the final tensors need of these pictures."""

    def expect(self, loop: AgentLoopBase, images: Sequence[Image], paths: Sequence[str]) -> None:
        """Pictures that the next turn will add to ``images``: what can be done while the student answers."""

    def handed(self, images: list[Image]) -> Any:
        """What is sent to the engine: the pictures, or ``None`` where there are none."""
        return images or None

    async def tokens(self, messages: Hashable, render: Callable[[], Awaitable[list[int]]]) -> list[int]:
        """Token ids of the opening messages."""
        return await render()


class SharedPictures(Pictures):
    """Of one group. What one rollout does, or is doing, no other does again."""

    def __init__(self) -> None:
        self._done: dict[Hashable, asyncio.Future[Any]] = {}
        self._references: dict[tuple[int, ...], ray.ObjectRef] = {}

    @staticmethod
    def of(group: str) -> SharedPictures:
        """The group's; it lives as long as one of its rollouts holds it."""
        found = _GROUPS.get(group)
        if found is None:
            found = _GROUPS[group] = SharedPictures()
        return found

    async def open(self, loop: AgentLoopBase, path: str) -> Image:
        """See :class:`Pictures`."""
        shared: Shared = await self._once(("open", path), lambda: self._open(loop, path))
        return shared.image

    async def prepare(self, loop: AgentLoopBase, images: Sequence[Image]) -> None:
        """Encode and store the pictures, together, as the final tensors and the engine want them."""
        if images:
            await self._once(("prepare", _ids(images)), lambda: self._prepare(loop, list(images)))

    def expect(self, loop: AgentLoopBase, images: Sequence[Image], paths: Sequence[str]) -> None:
        """Open and prepare them in the background; an error shows when the turn comes."""
        key = ("expect", _ids(images), tuple(paths))
        if paths and key not in self._done:
            self._done[key] = ahead = asyncio.ensure_future(self._ahead(loop, images, paths))
            ahead.add_done_callback(lambda done: done.cancelled() or done.exception())

    def handed(self, images: list[Image]) -> Any:
        """A reference to the pictures, which Ray resolves where the engine runs; without Ray the pictures."""
        return self._references.get(_ids(images)) or super().handed(images)

    async def tokens(self, messages: Hashable, render: Callable[[], Awaitable[list[int]]]) -> list[int]:
        """Token ids of the opening messages, which all rollouts of a group share."""
        return list(await self._once(("tokens", messages), render))

    async def _open(self, loop: AgentLoopBase, path: str) -> Shared:
        shared = Shared(await super().open(loop, path))
        encoder = encoder_of(loop.processor)
        if encoder is not None:
            encoder.keep(shared)
        return shared

    async def _ahead(self, loop: AgentLoopBase, images: Sequence[Image], paths: Sequence[str]) -> None:
        await self.prepare(loop, [*images, *[await self.open(loop, path) for path in paths]])

    async def _prepare(self, loop: AgentLoopBase, images: list[Image]) -> None:
        options = loop._get_mm_processor_kwargs()
        running = asyncio.get_running_loop()
        if ray.is_initialized():
            self._references[_ids(images)] = await running.run_in_executor(_ENCODERS, ray.put, images)
        if encoder_of(loop.processor) is not None:
            await running.run_in_executor(_ENCODERS, _encode, loop.processor, images, options)

    async def _once(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """The result of ``work``, or of the first that came with this key; who is cancelled cancels no sibling."""
        if key not in self._done:
            self._done[key] = asyncio.ensure_future(work())
        return await asyncio.shield(self._done[key])


_GROUPS: WeakValueDictionary[str, SharedPictures] = WeakValueDictionary()


class Shared:
    """A picture and what its image processor made of it, by the options that it was given."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.lock = Lock()
        self.features: dict[str, dict[str, torch.Tensor]] = {}
        self.joined: dict[tuple[Any, ...], dict[str, torch.Tensor]] = {}
        """With the features of the pictures before it."""


class EncodeOnce(ObjectProxy):
    """Stands before an image processor and gives the features of a shared picture again; all else passes through."""

    def __init__(self, image_processor: Any) -> None:
        super().__init__(image_processor)
        self._self_shared: WeakValueDictionary[int, Shared] = WeakValueDictionary()

    def keep(self, shared: Shared) -> None:
        """Know this picture for as long as somebody holds it."""
        self._self_shared[id(shared.image)] = shared

    def __call__(self, images: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The image processor's own call; ``images`` is a list of pictures where they can be shared."""
        known = [self._self_shared.get(id(image)) for image in images] if isinstance(images, list) else []
        shared = [one for one in known if one is not None]
        if args or not shared or len(shared) < len(known):
            return self.__wrapped__(images, *args, **kwargs)
        return self._together(shared, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy shares nothing."""
        return copy.deepcopy(self.__wrapped__, memo)

    def _together(self, shared: list[Shared], kwargs: dict[str, Any]) -> Any:
        """Rows of all pictures in their order. The joined ones are kept with the last picture, which is the newest."""
        from transformers import BatchFeature

        options = repr(sorted(kwargs.items()))
        if len(shared) == 1:
            return BatchFeature(dict(self._one(shared[0], options, kwargs)))
        joined, key = shared[-1].joined, (options, *map(id, shared))
        if key not in joined:
            parts = [self._one(picture, options, kwargs) for picture in shared]
            joined[key] = {name: torch.cat([part[name] for part in parts]) for name in ENCODED}
        return BatchFeature(dict(joined[key]))

    def _one(self, picture: Shared, options: str, kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
        with picture.lock:
            if options not in picture.features:
                picture.features[options] = dict(self.__wrapped__([picture.image], **kwargs))
            return picture.features[options]


def encoder_of(processor: Any) -> EncodeOnce | None:
    """The processor's image processor with :class:`EncodeOnce` before it, put there if it is not yet.

    ``None`` for one whose features cannot be told apart by picture: it encodes as often as verl asks.
    """
    found = processor.image_processor
    if type(found) is EncodeOnce:
        return found
    if list(found.model_input_names) != ENCODED:
        return None
    processor.image_processor = encoder = EncodeOnce(found)
    processor.__class__ = quick_to_check(type(processor))
    return encoder


def quick_to_check(processor_class: type) -> type:
    """The same processor, which counts the image tokens of a prompt in a list.

    transformers compares them one tensor element at a time (processing_utils.py:2295 of 5.10): 10 ms or more of the
    event loop for 1,400 tokens, twice per rollout.
    """
    plain = getattr(processor_class, "_check_special_mm_tokens", None)
    if plain is None:
        return processor_class

    def check(self: Any, text: list[str], text_inputs: Any, modalities: list[str]) -> None:
        ids = text_inputs["input_ids"]
        plain(self, text, {"input_ids": ids.tolist() if isinstance(ids, torch.Tensor) else ids}, modalities)

    return type(processor_class.__name__, (processor_class,), {"_check_special_mm_tokens": check})


def _encode(processor: Any, images: list[Image], options: dict[str, Any]) -> None:
    """Through verl's own call, so that the image processor gets the options that it will get again and again."""
    marks = processor.image_token * len(images)
    build_multimodal_processor_inputs(processor, text=[marks], images=images, mm_processor_kwargs=options or None)


def _ids(images: Sequence[Image]) -> tuple[int, ...]:
    return tuple(id(image) for image in images)
