"""Keeps the vision tower as it is: ``model.external_lib: steer_verl.frozen_vision`` in any verl trainer.

verl 0.9.1 has a key ``actor.freeze_vision_tower`` (workers/config/actor.py:161) that nothing reads, and its SFT trainer
has none. What both have is ``model.external_lib``, a module imported before the model is built
(workers/config/model.py, ``__post_init__``). Imported there, this module registers, through the auto class's own
``register``, a Qwen2.5-VL whose tower takes no gradient. LoRA users do not need it:
``model.exclude_modules='.*visual.*'`` keeps adapters out of the tower.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForImageTextToText
from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration


class FrozenVision(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL whose vision tower and patch merger stay at their loaded weights."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> FrozenVision:
        """Load, then freeze: transformers makes every weight trainable while it loads."""
        model: FrozenVision = super().from_pretrained(*args, **kwargs)
        model.model.visual.requires_grad_(False)
        return model


# A checkpoint names the class that wrote it: every reader must find the plain model under that name.
FrozenVision.__name__ = Qwen2_5_VLForConditionalGeneration.__name__
AutoModelForImageTextToText.register(Qwen2_5_VLConfig, FrozenVision, exist_ok=True)
