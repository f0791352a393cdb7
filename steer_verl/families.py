"""Families of students: what differs between vision-language models that verl and vLLM already know.

Tokens, positions and pictures of a dialogue come from the model's own processor, and verl and vLLM bring their own code
for each family, so that little is left. For a further one: a row here, whose tower verl can train around
(steer_verl/frozen_vision.py); a recipe with its name; and for the suite a miniature one (``FAMILIES`` of
steer_verl/mini/model.py).
"""

from __future__ import annotations

VISION = {"qwen2_5_vl": "model.visual", "qwen3_vl": "model.visual"}
"""transformers' model type -> the vision tower of its image-text-to-text model, patch merger included."""
