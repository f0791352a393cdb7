"""The images of a prompt's group: each is opened once, encoded once and put into Ray's object store once.

verl 0.9.1 encodes every image three times per rollout (experimental/agent_loop/agent_loop.py:335 and :981,
trainer/ppo/v1/agent_loop_tq.py:188), the last two times on the event loop, and sends it by value at every turn
(workers/rollout/llm_server.py:150). All n rollouts of a prompt run in one process (agent_loop_tq.py:107-129), so they
can share. Whatever is shared hangs on the group's :class:`SharedImages` and goes with the last rollout that holds it.

Only the final tensors need an image's pixels; its tokens need no more than its size (:mod:`rollout.processors`). So
nobody waits for the encoding: it is done while the student and the tutor take their time.

With ``share_images: false`` every rollout has :class:`ImageStore` of its own, which share nothing: verl's plain path.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import ray

from rollout.processors import Shared, encode, encoder_of
from steer_verl.images import seen_image

if TYPE_CHECKING:
    from PIL.Image import Image
    from verl.experimental.agent_loop.agent_loop import AgentLoopBase

T = TypeVar("T")


_ENCODERS = ThreadPoolExecutor(max(1, min(4, (os.cpu_count() or 2) // 2)), thread_name_prefix="encode")
"""Threads of our own: in asyncio's, which verl's short renderings need, images would hold up the text."""


class ImageStore:
    """Opens images anew for each rollout; nothing is shared."""

    async def open(self, loop: AgentLoopBase, path: str) -> Image:
        """The image that the tutor sees too (:func:`steer_verl.images.seen_image`), resized by verl's dataset class.

        verl's own loader is not given the path: it neither turns a photo upright nor scales 16 bits of grey, and puts
        black under the transparency of some images.

        Raises:
            DataError: the image is missing or must not be opened.
            ValueError: the model has no processor for images.
        """
        loop._assert_mm_supported(True)
        image = await asyncio.to_thread(seen_image, path)
        message = {"role": "user", "content": [{"type": "image", "image": image}]}
        return (await loop.process_multi_modal_info([message]))["images"][0]

    async def prepare(self, loop: AgentLoopBase, images: Sequence[Image]) -> None:
        """Make ready for the engine what it is handed of these images, all that the dialogue has so far."""

    def expect(self, loop: AgentLoopBase, images: Sequence[Image], paths: Sequence[str]) -> None:
        """Images that the next turn will add to ``images``: what can be done while the student answers."""

    async def encoded(self, images: Sequence[Image]) -> None:
        """Return when verl's final tensors can be made of these images."""

    async def digests(self, images: Sequence[Image]) -> list[str]:
        """:func:`pixel_digest` of each."""
        return [await asyncio.to_thread(pixel_digest, image) for image in images]

    def handed(self, images: list[Image]) -> Any:
        """What is sent to the engine: the images, or ``None`` where there are none."""
        return images or None

    async def tokens(self, messages: Hashable, render: Callable[[], Awaitable[list[int]]]) -> list[int]:
        """Token ids of the opening messages."""
        return await render()


class SharedImages(ImageStore):
    """Of one group. What one rollout does, or is doing, no other does again."""

    def __init__(self) -> None:
        self._done: dict[Hashable, asyncio.Future[Any]] = {}
        self._references: dict[tuple[int, ...], ray.ObjectRef] = {}

    @staticmethod
    def of(group: str) -> SharedImages:
        """The group's; it lives as long as one of its rollouts holds it."""
        found = _GROUPS.get(group)
        if found is None:
            found = _GROUPS[group] = SharedImages()
        return found

    async def open(self, loop: AgentLoopBase, path: str) -> Image:
        """See :class:`ImageStore`."""
        shared: Shared = await self._once(("open", path), lambda: self._open(loop, path))
        return shared.image

    async def prepare(self, loop: AgentLoopBase, images: Sequence[Image]) -> None:
        """Put the images into Ray's store, and begin to encode them."""
        if images:
            await self._once(("store", _ids(images)), lambda: self._store(list(images)))
            self._begin(("encode", _ids(images)), lambda: self._encode(loop, list(images)))

    async def encoded(self, images: Sequence[Image]) -> None:
        """Wait for the encoding that :meth:`prepare` has begun."""
        if images:
            await asyncio.shield(self._done["encode", _ids(images)])

    async def digests(self, images: Sequence[Image]) -> list[str]:
        """See :class:`ImageStore`."""
        return [
            await self._once(("digest", id(image)), partial(asyncio.to_thread, pixel_digest, image)) for image in images
        ]

    def expect(self, loop: AgentLoopBase, images: Sequence[Image], paths: Sequence[str]) -> None:
        """Open and prepare them in the background; an error shows when the turn comes."""
        if paths:
            self._begin(("expect", _ids(images), tuple(paths)), lambda: self._ahead(loop, images, paths))

    def handed(self, images: list[Image]) -> Any:
        """A reference to the images, which Ray resolves where the engine runs; without Ray the images."""
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

    async def _store(self, images: list[Image]) -> None:
        if ray.is_initialized():
            self._references[_ids(images)] = await asyncio.to_thread(ray.put, images)

    async def _encode(self, loop: AgentLoopBase, images: list[Image]) -> None:
        if encoder_of(loop.processor) is not None:
            options = loop._get_mm_processor_kwargs()
            await asyncio.get_running_loop().run_in_executor(_ENCODERS, encode, loop.processor, images, options)

    def _begin(self, key: Hashable, work: Callable[[], Awaitable[Any]]) -> None:
        """Start ``work`` unless it was; whoever waits for it hears of its failure, and who comes later tries again."""
        begun = self._done.get(key)
        if begun is None or (begun.done() and (begun.cancelled() or begun.exception())):
            self._done[key] = begun = asyncio.ensure_future(work())
            begun.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _once(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """The result of ``work``, or of the first that came with this key; who is cancelled cancels no sibling."""
        self._begin(key, work)
        result: T = await asyncio.shield(self._done[key])
        return result


_GROUPS: WeakValueDictionary[str, SharedImages] = WeakValueDictionary()


def pixel_digest(image: Image) -> str:
    """Of what the student sees of an image: the file of its path may be another one when a run is started again."""
    return hashlib.sha256(f"{image.mode} {image.size}".encode() + image.tobytes()).hexdigest()


def _ids(images: Sequence[Image]) -> tuple[int, ...]:
    return tuple(id(image) for image in images)
