"""What may be made of a set, by the licences of its rows."""

from __future__ import annotations

import re

_NON_COMMERCIAL = re.compile(r"(?:^|[^a-z])(?:nc|non[-_ ]?commercial)(?:[^a-z]|$)", re.IGNORECASE)


def non_commercial(license: str) -> bool:
    """Whether a licence forbids commercial use (``CC-BY-NC-4.0``); what is derived from such a row inherits it."""
    return _NON_COMMERCIAL.search(license) is not None
