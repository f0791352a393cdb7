"""Where tables are printed: as wide as the terminal, and wide enough to read where there is none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 140
"""Characters of a line that no terminal bounds."""


def stdout() -> Console:
    """The console of a command's result."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDTH)
