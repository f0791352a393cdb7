"""The sets that can be read, and which form of a set a table has."""

from __future__ import annotations

from collections.abc import Iterable

from steer_verl.data.sources.benign import ALIGN_ANYTHING, GEOMETRY3K, PLAIN, SCIENCEQA
from steer_verl.data.sources.risky import BEAVERTAILS_V, MM_SAFETYBENCH, MOSSBENCH, SPA_VL, VLGUARD, VLSBENCH
from steer_verl.data.sources.sets import Form, SourceSet
from steer_verl.errors import DataError

SETS = {
    source.name: source
    for source in (
        BEAVERTAILS_V,
        SPA_VL,
        VLGUARD,
        MM_SAFETYBENCH,
        VLSBENCH,
        MOSSBENCH,
        GEOMETRY3K,
        SCIENCEQA,
        ALIGN_ANYTHING,
        PLAIN,
    )
}
"""By name. A set of your own: add it here under a name of yours before the settings are read."""


def form_of(source: SourceSet, found: Iterable[str], file: str) -> Form:
    """The form whose columns these are.

    Raises:
        DataError: there is none; it names the columns found and wanted, and the set that they look like instead.
    """
    columns = set(found)
    for form in source.forms:
        if form.fits(columns):
            return form
    wanted = " or ".join(form.wanted for form in source.forms)
    like = looks_like(columns)
    cure = f"it looks like {like.title}: set: {like.name}" if like else "give the set's own files, or change `set`"
    shown = ", ".join(sorted(columns)[:20]) or "none"
    raise DataError(f"{file}: columns {shown}, but {source.name} has {wanted}; {cure}")


def looks_like(columns: set[str]) -> SourceSet | None:
    """The set with most columns among these, if all that one of its forms needs are there; our own form is none."""
    fitting = [
        (len(form.columns), source)
        for source in SETS.values()
        for form in source.forms
        if not form.exact and form.fits(columns)
    ]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None
