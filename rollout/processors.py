"""Two ways past a Hugging Face processor's slow half, which give what it would have given.

* :class:`EncodeOnce` stands before the image processor and remembers the features of images that rollouts share.
* :class:`LayoutOnly` tells how many tokens an image takes, from its size; rendering a prompt needs no more
  (:func:`layout_of`).

Both are for the Qwen-VL family, whose features are rows per image; other processors are left as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import torch
from verl.utils.tokenizer import build_multimodal_processor_inputs
from wrapt import ObjectProxy

if TYPE_CHECKING:
    from PIL.Image import Image

ENCODED = ["pixel_values", "image_grid_thw"]
"""What an image processor must return to be shared: rows per image, in their order."""


class Shared:
    """An image and what its image processor made of it, by the options that it was given."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.lock = Lock()
        self.features: dict[str, dict[str, torch.Tensor]] = {}
        self.joined: dict[tuple[Any, ...], dict[str, torch.Tensor]] = {}
        """With the features of the images before it."""


class EncodeOnce(ObjectProxy):
    """Stands before an image processor and gives the features of a shared image again; all else passes through."""

    def __init__(self, image_processor: Any) -> None:
        super().__init__(image_processor)
        self._self_shared: WeakValueDictionary[int, Shared] = WeakValueDictionary()

    def keep(self, shared: Shared) -> None:
        """Know this image for as long as somebody holds it."""
        self._self_shared[id(shared.image)] = shared

    def __call__(self, images: Any = None, *args: Any, **kwargs: Any) -> Any:
        """The image processor's own call; ``images`` is a list of images where they can be shared."""
        known = [self._self_shared.get(id(image)) for image in images] if isinstance(images, list) else []
        shared = [one for one in known if one is not None]
        if args or not shared or len(shared) < len(known):
            return self.__wrapped__(images, *args, **kwargs)
        return self._together(shared, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy shares nothing."""
        return copy.deepcopy(self.__wrapped__, memo)

    def _together(self, shared: list[Shared], kwargs: dict[str, Any]) -> Any:
        """Rows of all images in their order. The joined ones are kept with the last image, which is the newest."""
        from transformers import BatchFeature

        options = repr(sorted(kwargs.items()))
        if len(shared) == 1:
            return BatchFeature(dict(self._one(shared[0], options, kwargs)))
        joined, key = shared[-1].joined, (options, *map(id, shared))
        if key not in joined:
            parts = [self._one(held, options, kwargs) for held in shared]
            joined[key] = {name: torch.cat([part[name] for part in parts]) for name in ENCODED}
        return BatchFeature(dict(joined[key]))

    def _one(self, held: Shared, options: str, kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
        with held.lock:
            if options not in held.features:
                held.features[options] = dict(self.__wrapped__([held.image], **kwargs))
            return held.features[options]


def encoder_of(processor: Any) -> EncodeOnce | None:
    """The processor's image processor with :class:`EncodeOnce` before it, put there if it is not yet.

    ``None`` for one whose features cannot be told apart by image: it encodes as often as verl asks.
    """
    found = processor.image_processor
    if type(found) is EncodeOnce:
        return found
    if list(found.model_input_names) != ENCODED:
        return None
    processor.image_processor = encoder = EncodeOnce(found)
    processor.__class__ = quick_to_check(type(processor))
    return encoder


class LayoutOnly(ObjectProxy):
    """Gives an image's grid as one row of patches: of the grid, rendering uses the product alone."""

    def __call__(self, images: list[Image], **kwargs: Any) -> Any:
        """``image_grid_thw`` (images, 3) and no pixels."""
        from transformers import BatchFeature

        count = self.__wrapped__.get_number_of_image_patches
        rows = [[1, 1, count(image.height, image.width, kwargs)] for image in images]
        return BatchFeature({"image_grid_thw": torch.tensor(rows)})


def layout_of(processor: Any, options: Mapping[str, Any]) -> Any:
    """A processor that renders like this one with ``options`` (``data.mm_processor_kwargs``) and encodes nothing.

    The processor itself where the size alone does not tell the patches: with other options than both limits of
    pixels, or with images that are not resized.
    """
    found = processor.image_processor
    if (
        encoder_of(processor) is None
        or set(options) not in ({"min_pixels", "max_pixels"}, set())
        or not found.do_resize
    ):
        return processor
    rendering = copy.copy(processor)
    rendering.image_processor = LayoutOnly(getattr(found, "__wrapped__", found))
    rendering.__class__ = quick_with_text(type(processor))
    return rendering


def quick_with_text(processor_class: type) -> type:
    """The same processor, which hands a text without images to its tokenizer and gives back the ids alone.

    verl renders each new question twice, and transformers takes 1 ms a time to find that there is no image in it.
    """
    plain = processor_class.__call__

    def call(self: Any, images: Any = None, text: Any = None, videos: Any = None, **options: Any) -> Any:
        if images or videos or not set(options) <= {"return_tensors", "min_pixels", "max_pixels"}:
            return plain(self, images=images, text=text, videos=videos, **options)
        return {"input_ids": self.tokenizer(text)["input_ids"]}

    return type(processor_class.__name__, (processor_class,), {"__call__": call})


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


def encode(processor: Any, images: list[Image], options: dict[str, Any]) -> None:
    """Fill the cache through verl's own call: the image processor gets the options that it will get again."""
    marks = processor.image_token * len(images)
    build_multimodal_processor_inputs(processor, text=[marks], images=images, mm_processor_kwargs=options or None)
