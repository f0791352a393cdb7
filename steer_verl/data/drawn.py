"""Lots that fall the same in every process and on every machine: drawn by a hash of what they are drawn for.

A run that was killed and started again, or spread over machines, decides about an item as it did before, whatever else
comes or goes.
"""

from __future__ import annotations

import hashlib


def drawn(*parts: str) -> float:
    """A number in [0, 1), as good as random, and the same for the same ``parts``."""
    text = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:6], "big") / 2**48
