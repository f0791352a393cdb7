"""What to do when a stage fails, by what its log says. The first that matches wins; the general one comes last."""

from __future__ import annotations

import re
from collections.abc import Sequence

CURES: tuple[tuple[str, str], ...] = (
    (r"No space left on device|Disk quota exceeded", "the disk is full: free some space, or choose another --out"),
    (
        r"Cannot allocate memory|MemoryError|signal 9\b|OutOfMemory|exit status 137|DefaultCPUAllocator",
        "memory ran out: about 6 GiB must be free; close other programs and start the demo again",
    ),
    (r"AF_UNIX path (length|too long)|path too long", "/tmp must be writable: Ray's socket paths have to be short"),
    (
        r"took longer than",
        "the stage hung or the machine is very busy; see the end of the log, then start the demo again",
    ),
    (r"operator torchvision::nms does not exist", "torch and torchvision do not match: run `make env`"),
    (r"No module named '?([\w.]+)|DistributionNotFound|PackageNotFoundError", "a package is missing: run `make env`"),
    (r"Address already in use|EADDRINUSE", "a port is taken: end the other run on this machine, or just start again"),
    (r"Permission denied", "a file cannot be written: look at the owner of the --out folder and of /tmp"),
    (
        r"unexpected EOF|PytorchStreamReader|incomplete metadata|Error while deserializing",
        "a checkpoint is damaged: remove the stage's folder under --out and start the demo again",
    ),
    (r"mismatch.*shape|size mismatch", "files of two versions are mixed: remove the --out folder and start again"),
)
GENERAL = "run `steer doctor`, then start the demo again: it goes on from the last checkpoint"


def cure(text: Sequence[str]) -> str:
    """The likeliest cure for a stage whose message and last lines are ``text``."""
    whole = "\n".join(text)
    return next((advice for pattern, advice in CURES if re.search(pattern, whole, re.IGNORECASE)), GENERAL)
