"""The held-out judge: scores the answers of a sample of dialogues while they are played, and never enters a reward.

A policy that learns its tutor's taste earns more from the tutor and no more from a judge that it was never paid by.
The gap between the two is a metric of every step (steer_verl/metrics.py) and an alarm (steer_verl/alarms.py).
"""

from __future__ import annotations

import hashlib


def draws(share: float, step: int, seed_id: str, rollout: int) -> bool:
    """Whether this dialogue is judged: a hash of its place decides, so that a resumed step draws the same ones.

    Args:
        share: of the dialogues that are drawn, in [0, 1].
        step: the training step.
        seed_id: the seed's id.
        rollout: which of the group.
    """
    digest = hashlib.sha256(f"{step}/{rollout}/{seed_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
