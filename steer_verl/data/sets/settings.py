"""What a user may set of the sets."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from steer_verl.config import Settings

Count = Annotated[int, Field(ge=1)]


class SetSettings(Settings):
    """Size and mixture of the sets; without a target everything that may enter does."""

    sft: Count | None = None
    rl: Count | None = None
    bench: Count | None = None
    """Rows at most; which ones is decided by a hash of their ids."""
    rl_benign_share: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Rows of the RL set that are benign, at most: a student that sees attacks alone learns to refuse."""
