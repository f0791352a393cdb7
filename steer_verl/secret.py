"""A run's own secret, the same in every process and after a restart."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def kept_secret(folder: Path) -> bytes:
    """32 random bytes in the file ``secret`` of ``folder``, drawn when they are first asked for; its owner's alone.

    They are the key of the ids in a tutor's prompts: a request that was answered just before a kill is then the same
    request afterwards, idempotency key and all.
    """
    path = folder / "secret"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"secret.{os.getpid()}"
        draft.touch(mode=0o600)
        draft.write_bytes(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):  # another process was first: its secret counts
            os.link(draft, path)
        draft.unlink()
    return path.read_bytes()
