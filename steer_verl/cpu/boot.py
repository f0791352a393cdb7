"""What must be in place before any entry point: torchvision next to a CPU torch. Standard library only.

The package index's torchvision is a CUDA build. Beside a CPU torch its compiled part cannot load, so the operators
``torchvision::nms`` and ``::qnms`` do not exist, and ``import torchvision`` dies where it attaches shapes to them
(torchvision 0.22-0.28, torchvision/_meta_registrations.py:163,177). Declaring the two is enough: nobody calls them.

vLLM's processes import torchvision (through transformers) before they load plugins, so this is called by a ``.pth``
file at interpreter start; ``python -m steer_verl.cpu.install`` writes that file, and only where it is needed. Every
process of the environment that runs with ``STEER_CPU=1`` pays for it, so nothing but ``sys`` is imported.
"""

from __future__ import annotations

import sys

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[object] = []  # a torch Library takes its declarations with it when it is collected


def declare_operators() -> None:
    """Declare torchvision's two operators if torch has no CUDA and nothing declared them before."""
    import torch

    if _kept or torch.version.cuda is not None:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + SCHEMA)
    _kept.append(library)


class BeforeTorchvision:
    """A meta path finder that finds nothing, but declares the operators when torchvision is first looked for."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Step aside, declare, and let the ordinary finders find the package."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            declare_operators()
        return None


def install() -> None:
    """Arrange for the declaration before torchvision's first import; nothing is imported now."""
    if not any(isinstance(finder, BeforeTorchvision) for finder in sys.meta_path):
        sys.meta_path.insert(0, BeforeTorchvision())
