"""The sets that can be read, and which form of a set a table has."""

from __future__ import annotations

from collections.abc import Iterable

from steer_verl.data.sources.sets import Form, SourceSet
from steer_verl.data.sources.sets_benign import BENIGN
from steer_verl.data.sources.sets_risky import RISKY

SETS = {source.name: source for source in (*RISKY, *BENIGN)}
"""By name. A set of your own: add it here under a name of yours before the settings are read."""


def form_of(source: SourceSet, heads: Iterable[Iterable[str]]) -> Form | None:
    """The form that the first of these rows that fits one fits, by its columns; ``None`` if none does."""
    return next((form for head in heads for form in source.forms if form.fits(head)), None)


def other_set(heads: Iterable[Iterable[str]]) -> SourceSet | None:
    """The set that these look like: all columns of one of its forms are there, and of no set more; never our own."""
    fitting = [
        (len(form.columns), source)
        for head in heads
        for source in SETS.values()
        for form in source.forms
        if not form.exact and form.fits(head)
    ]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None
