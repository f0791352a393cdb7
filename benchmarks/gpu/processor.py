"""The image processor at Qwen2.5-VL's own pixel limits: what one pass costs, and what a prompt's group costs.

verl 0.9.1 encodes a picture three times in each rollout: for the prompt, the reward's positions and the final tensors
(experimental/agent_loop/agent_loop.py:335, :981; trainer/ppo/v1/agent_loop_tq.py:188). One pass would do for a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.gpu.results import Figures
from benchmarks.gpu.student import PIXELS
from benchmarks.gpu.timing import interleaved

SIZES = ((512, 512), (1024, 768))
"""Width and height."""
ROLLOUTS = 5

Encode = Callable[[], Any]


def thrice_a_rollout(encode: Encode, rollouts: int) -> None:
    """What verl's loop does: 3n passes."""
    for _ in range(3 * rollouts):
        encode()


def once_a_prompt(encode: Encode, rollouts: int) -> None:
    """The floor: one pass, whatever the group's size."""
    encode()


WAYS: dict[str, Callable[[Encode, int], None]] = {"3n passes (verl)": thrice_a_rollout, "1 pass": once_a_prompt}
"""How a group gets its pictures encoded."""


def remembered(processor: Any, picture: Any, rollouts: int, **options: Any) -> None:
    """What our loop does: as many calls as verl makes, behind :class:`rollout.processors.EncodeOnce`."""
    from rollout.processors import EncodeOnce, Shared

    encoder, shared = EncodeOnce(processor), Shared(picture)
    encoder.keep(shared)
    for _ in range(3 * rollouts):
        encoder([picture], **options)


def measure(
    devices: Sequence[str] = ("cpu", "cuda"),
    *,
    sizes: Sequence[tuple[int, int]] = SIZES,
    rollouts: int = ROLLOUTS,
    repeats: int = 9,
) -> Figures:
    """Median milliseconds of one pass and of a group by each way, and the bytes of the result, by size and device."""
    from transformers import Qwen2VLImageProcessor

    processor = Qwen2VLImageProcessor(patch_size=14, merge_size=2, temporal_patch_size=2, **PIXELS)
    rows: list[dict[str, Any]] = []
    for width, height in sizes:
        picture = _noise(width, height)
        for device in devices:
            encode = partial(processor, picture, return_tensors="pt", device=device)
            runs = {name: partial(way, encode, rollouts) for name, way in WAYS.items()}
            runs["3n calls, 1 pass (ours)"] = partial(
                remembered, processor, picture, rollouts, return_tensors="pt", device=device
            )
            times = interleaved({"one": encode, **runs}, repeats=repeats, warm_up=1, device=device)
            found = encode()
            rows.append(
                {
                    "size": f"{width}x{height}",
                    "device": device,
                    "tokens": int(found["image_grid_thw"].prod()) // 4,
                    "bytes": found["pixel_values"].nbytes,
                    "one_ms": times.pop("one"),
                    "group_ms": times,
                }
            )
    return {"rollouts": rollouts, "rows": rows}


def _noise(width: int, height: int) -> Any:
    """A picture whose decoding is done: what is timed is the processor."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
