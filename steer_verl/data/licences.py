"""What may be made of a set, by the licences of its rows: what derives from a non-commercial one stays so.

No legal advice: the reading goes by the licence's identifier, and whatever it does not know it calls unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

Use = Literal["commercial", "non-commercial", "unknown"]

_VERSIONS = ("2.0", "2.5", "3.0", "4.0")
_SOFTWARE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense")
_DATA = ("cc0-1.0", "pddl", "odc-by", "odbl")

OPEN = frozenset((*_SOFTWARE, *_DATA, *(f"cc-by{share}-{v}" for share in ("", "-sa") for v in _VERSIONS)))
"""Identifiers that allow commercial use."""

_NON_COMMERCIAL = re.compile(r"(?:^|[^a-z])(?:nc|non[-_ ]?commercial)(?:[^a-z]|$)", re.IGNORECASE)
MAX_LISTED = 8
"""Licences that a sentence names."""

_CLOSED = re.compile(r"cc-by-nc(-sa|-nd)?-[234]\.[05]")
_ALIASES = {"apache2": "apache-2.0", "apache-2": "apache-2.0", "apache-license-2.0": "apache-2.0", "cc0": "cc0-1.0"}


def identifier(license: str) -> str:
    """The licence as the Hugging Face hub spells it: ``"CC BY-NC 4.0"`` -> ``"cc-by-nc-4.0"``. Empty if unstated."""
    name = re.sub(r"[\s_]+", "-", license.strip().casefold())
    return _ALIASES.get(name, name)


def non_commercial(license: str) -> bool:
    """Whether a licence forbids commercial use (``CC-BY-NC-4.0``); what is derived from such a row inherits it."""
    return _NON_COMMERCIAL.search(license) is not None


def use_of(license: str) -> Use:
    """Whether rows under this licence may be put to commercial use; one that is not in ``OPEN`` is unknown."""
    if non_commercial(license):
        return "non-commercial"
    return "commercial" if identifier(license) in OPEN else "unknown"


def use_of_set(licenses: Iterable[str]) -> Use:
    """Of rows under all of these: the strictest decides, and what is unknown is not allowed either."""
    uses = set(map(use_of, licenses))
    if "non-commercial" in uses:
        return "non-commercial"
    return "commercial" if uses == {"commercial"} else "unknown"


def consequence(licenses: Iterable[str]) -> str:
    """One or two sentences for the reader of a card."""
    given = sorted(set(licenses))
    if not given:
        return "The set is empty."
    closed = [name for name in given if use_of(name) == "non-commercial"]
    unknown = [name or "none stated" for name in given if use_of(name) == "unknown"]
    parts = []
    if closed:
        parts.append(
            f"Non-commercial use only: rows come from sources under {_listed(closed)}, and what is derived from them "
            "stays non-commercial, this set as a whole included."
        )
    if unknown:
        parts.append(f"Ask before any use of rows whose licence is not known to this tool: {_listed(unknown)}.")
    if any(re.search(r"-(sa|nd)\b", identifier(name)) for name in given):
        parts.append("Some sources are share-alike or allow no derivatives: read their terms before passing rows on.")
    return " ".join(parts) or f"Commercial use is allowed under the terms of {_listed(given)}; name the sources."


def hub_fields(licenses: Iterable[str]) -> dict[str, object]:
    """The licence fields of a Hugging Face card's front matter: known identifiers, or ``other`` with a name."""
    names = sorted({identifier(name) for name in licenses})
    if names and all(name in OPEN or _CLOSED.fullmatch(name) for name in names):
        return {"license": names[0] if len(names) == 1 else names}
    return {"license": "other", "license_name": "see-the-card"}


def _listed(names: list[str]) -> str:
    if len(names) > MAX_LISTED:
        names = [*names[:MAX_LISTED], f"{len(names) - MAX_LISTED} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
