"""Keeps the vision tower as it is: ``model.external_lib: steer_verl.frozen_vision`` in any verl trainer.

verl 0.9.1 has a key ``actor.freeze_vision_tower`` (workers/config/actor.py:161) that nothing reads, and its SFT trainer
has none. What both have is ``model.external_lib``, a module imported before the model is built
(workers/config/model.py, ``__post_init__``). Imported there, this module registers, through the auto class's own
``register``, a model of each family (steer_verl/families.py) whose tower takes no gradient. LoRA users do not need it:
``model.exclude_modules='.*visual.*'`` keeps adapters out of the tower.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from steer_verl.families import VISION


def freeze(family: str, tower: str) -> type[Any]:
    """Register the family's model with its tower frozen; returns the class."""
    config = CONFIG_MAPPING[family]
    plain: type[Any] = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[config]
    if plain.__module__ == __name__:  # this module was loaded before
        return plain

    class FrozenVision(plain):
        """The model whose vision tower and patch merger stay at their loaded weights."""

        @classmethod
        def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
            """Load, then freeze: transformers makes every weight trainable while it loads."""
            model = super().from_pretrained(*args, **kwargs)
            model.get_submodule(tower).requires_grad_(False)
            return model

    # A checkpoint names the class that wrote it: every reader must find the plain model under that name.
    FrozenVision.__name__ = plain.__name__
    AutoModelForImageTextToText.register(config, FrozenVision, exist_ok=True)
    return FrozenVision


FROZEN = {family: freeze(family, tower) for family, tower in VISION.items()}
"""Family -> its model with a frozen tower."""
