"""What may be made of a set, by the licences of its rows: what derives from a non-commercial one stays so.

No legal advice: the reading goes by the licence's name, in any of its common spellings, and whatever it does not know
it calls unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from steer_verl.data.sources.registry import SETS
from steer_verl.data.sources.settings import SourceSettings, SplitSettings
from steer_verl.text import one_line

Use = Literal["commercial", "non-commercial", "unknown"]

MAX_LISTED, MAX_NAME = 8, 80
"""Licences that a sentence names, and characters of each."""

_NAMED = {
    "apache-2.0": r"apache-?(2|2\.0)",
    "mit": r"mit(-mit)?",
    "bsd-2-clause": r"bsd-2-clause|2-clause-bsd",
    "bsd-3-clause": r"bsd-3-clause|3-clause-bsd",
    "isc": r"isc",
    "unlicense": r"unlicense",
    "cc0-1.0": r"cc-?0(-1\.0)?|cc-zero(-1\.0)?",
    "pddl": r"pddl(-1\.0)?",
    "odc-by": r"odc-by(-1\.0)?|open-data-commons-by(-1\.0)?",
    "odbl": r"odbl(-1\.0)?|odc-odbl(-1\.0)?|open-(data-commons-open-)?database(-odbl)?(-1\.0)?",
}
"""Identifier, as the Hugging Face hub spells it -> what it looks like once :data:`_SHORT` has cut it."""
_SHORT = (
    (r"creative-commons", "cc"),
    (r"attribution", "by"),
    (r"non-?commercial", "nc"),
    (r"share-?alike", "sa"),
    (r"no-?deriv(ative)?s?(-works)?", "nd"),
    (r"\bv(?=\d)", ""),
    (r"-(licen[cs]e|version|the|public|international|intl|unported|generic|deed|universal)(?=-)", ""),
)
_HUB = re.compile(r"cc-by(-nc)?(-sa|-nd)?-(2\.0|2\.5|3\.0|4\.0)")
_NON_COMMERCIAL = re.compile(r"(?:^|[^a-z])(?:nc|non[-_ ]?commercial)(?:[^a-z]|$)", re.IGNORECASE)
_NO_TRAINING = re.compile(
    r"no[-_ ]?(?:ai[-_ ]?)?train|ntdl|test[-_ ]?(?:set[-_ ]?)?only|eval(?:uation)?[-_ ]?only", re.I
)


def identifier(license: str) -> str:
    """The licence as the Hugging Face hub spells it: ``"CC BY-NC 4.0 International"`` -> ``"cc-by-nc-4.0"``, ``"The MIT
    License"`` -> ``"mit"``. One that is not known is only tidied. Empty if unstated."""
    tidy = re.sub(r"[^a-z0-9.]+", "-", license.strip().casefold()).strip("-")
    short = f"-{tidy}-"
    for long, word in _SHORT:
        short = re.sub(long, word, short)
    for name, spelling in _NAMED.items():
        if re.fullmatch(spelling, short.strip("-")):
            return name
    parts = set(short.split("-")) - {""}
    version = next((part for part in sorted(parts) if re.fullmatch(r"[1-4](\.[05])?", part)), "")
    known = ["cc", *(part for part in ("by", "nc", "sa", "nd") if part in parts)]
    if {"cc", "by"} <= parts <= {*known, version}:
        return "-".join([*known, *([version if "." in version else f"{version}.0"] if version else [])])
    return tidy


def non_commercial(license: str) -> bool:
    """Whether a licence forbids commercial use (``CC-BY-NC-4.0``); what is derived from such a row inherits it."""
    return any(_NON_COMMERCIAL.search(name) for name in (license, identifier(license)))


def no_derivatives(license: str) -> bool:
    """Whether a licence allows no derived works (``CC-BY-ND-4.0``), which dialogues of its rows are."""
    return identifier(license).startswith("cc-by") and "-nd" in identifier(license)


def forbids_training(source: str, license: str) -> bool:
    """Whether rows of this source, or under this licence, may not be trained on."""
    return (source in SETS and not SETS[source].training) or _NO_TRAINING.search(license) is not None


def training_forbidden(sources: Iterable[SourceSettings], splits: SplitSettings) -> str | None:
    """Why a build of these sources would train on what it must not; ``None`` if it would not."""
    if splits.sft == splits.rl == 0:
        return None
    for number, source in enumerate(sources):
        name = source.name or source.set
        if name not in splits.bench_sources and forbids_training(source.set, source.license or ""):
            title, license = SETS[source.set].title, source.license or SETS[source.set].license
            return (
                f"sources[{number}]: {source.set} ({title}, {one_line(license, MAX_NAME)}) is a test set, and its "
                f"terms forbid to train on it; write {name} into splits.bench_sources, or leave it out"
            )
    return None


def use_of(license: str) -> Use:
    """Whether rows under this licence may be put to commercial use; what is not known is unknown."""
    if non_commercial(license):
        return "non-commercial"
    name = identifier(license)
    return "commercial" if name in _NAMED or re.fullmatch(r"cc-by(-sa)?(-[1-4]\.[05])?", name) else "unknown"


def use_of_set(licenses: Iterable[str]) -> Use:
    """Of rows under all of these: the strictest decides, and what is unknown is not allowed either."""
    uses = set(map(use_of, licenses)) or {"unknown"}
    return max(uses, key=("commercial", "unknown", "non-commercial").index)


def consequence(licenses: Iterable[str]) -> str:
    """One or two sentences for the reader of a card."""
    given, parts = sorted(set(licenses)), []
    if not given:
        return "The set is empty."
    if closed := [name for name in given if use_of(name) == "non-commercial"]:
        parts.append(
            f"Non-commercial use only: rows come from sources under {listed(closed)}, and what is derived from them "
            "stays non-commercial, this set as a whole included."
        )
    if unknown := [name for name in given if use_of(name) == "unknown"]:
        parts.append(f"Ask before any use of rows whose licence is not known to this tool: {listed(unknown)}.")
    if any(re.search(r"-(sa|nd)\b", identifier(name)) for name in given):
        parts.append("Some sources are share-alike or allow no derivatives: read their terms before passing rows on.")
    return " ".join(parts) or f"Commercial use is allowed under the terms of {listed(given)}; name the sources."


def hub_fields(licenses: Iterable[str]) -> dict[str, object]:
    """The licence fields of a Hugging Face card's front matter: known identifiers, or ``other`` with a name."""
    names = sorted({identifier(name) for name in licenses})
    if names and all(name in _NAMED or _HUB.fullmatch(name) for name in names):
        return {"license": names[0] if len(names) == 1 else names}
    return {"license": "other", "license_name": "see-the-card"}


def listed(licenses: Sequence[str]) -> str:
    """Some of them in a sentence, fit for a terminal."""
    names = [one_line(name, MAX_NAME) or "none stated" for name in licenses[:MAX_LISTED]]
    if len(licenses) > MAX_LISTED:
        names.append(f"{len(licenses) - MAX_LISTED} more")
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
