"""Random numbers that belong to a place of a run: the same wherever, whenever and beside whomever it is worked on."""

from __future__ import annotations

import hashlib


def place_seed(seed: int, place: str) -> int:
    """A seed of 63 bits for one place of a run.

    It depends on the two arguments alone, not on process, order, machine or Python's hash. Places under one seed have
    independent random numbers; two runs under one seed share them place by place.

    Args:
        seed: of the run.
        place: what tells the place from every other one, as ``TutorRequest.turn_key``:
            ``<split>/<step>/<seed id>/<rollout>/<turn>``.
    """
    digest = hashlib.sha256(f"{seed}/{place}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
