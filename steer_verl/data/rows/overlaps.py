"""What two files share: training must not see what a benchmark asks, and no dialogue serves two sets."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path

from steer_verl.data.collect.clusters import Clusters
from steer_verl.data.duplicates import DuplicateIndex, Item
from steer_verl.data.rows.check import Checked
from steer_verl.data.rows.flaws import Flaw, Problem
from steer_verl.data.rows.images import Opened
from steer_verl.data.rows.schema import Told, plain_words
from steer_verl.data.sources.settings import DuplicateSettings

HINT = "take it out of one of the two files"
_BUILT = re.compile(r"([0-9a-f]{24})/")
"""A dialogue's id by ``steer data build``: it begins with the digest of its seed's content."""


class Overlaps:
    """The good rows of several files, added file by file. Memory grows with ids and images alone."""

    def __init__(self) -> None:
        settings = DuplicateSettings()
        self._index, self._clusters = DuplicateIndex(settings), Clusters(settings.look_bits)
        self._first_looks: dict[str, str] = {}
        self._forms: dict[Path, str] = {}
        self._first: dict[Hashable, tuple[Path, int]] = {}

    def add(self, file: Path, checked: Checked) -> tuple[Problem, ...]:
        """Remember a row; what it shares with a row of another file, the plainest thing alone."""
        if (told := checked.told) is None:
            return ()
        self._forms[file] = told.form
        looks = [self._first_look(image) for image in checked.images]
        item = Item(f"{len(self._forms)}:{checked.row}", plain_words(told.asked), "+".join(looks))
        flaw = next(self._shared(file, told, checked.images, item), None)
        self._index.add(item)
        for key in (("id", told.id), ("source", _source(told)), *looks, *(image.pixels for image in checked.images)):
            self._first.setdefault(key, (file, checked.row))
        return () if flaw is None else (Problem.of(flaw, file, checked.row),)

    def _shared(self, file: Path, told: Told, images: Iterable[Opened], item: Item) -> Iterator[Flaw]:
        if other := self._elsewhere(file, ("id", told.id)):
            yield Flaw("id", f"{told.id!r} is {other} too", HINT)
        if (source := _source(told)) and (other := self._elsewhere(file, ("source", source))):
            yield Flaw("source_id", f"{source} is the source of {other} too", HINT)
        if like := len(self._forms) > 1 and self._index.first_like(item):
            number, _, row = like.partition(":")  # of another file if any row of one is alike: those came first
            if (found := list(self._forms)[int(number) - 1]) != file:
                yield Flaw("turns", f"nearly the same dialogue and images as row {row} of {_name(found, file)}", HINT)
        for image in images:
            alike = (image.pixels, "the same image as"), (self._first_look(image), "an image that looks like that of")
            for digest, what in alike:
                other = self._elsewhere(file, digest)
                if other and (told.form == "bench" or self._forms[self._first[digest][0]] != told.form):
                    yield Flaw("images", f"{what} {other}", HINT)

    def _first_look(self, image: Opened) -> str:
        """The digest of the first image that this one is, or looks like: in another format or size it is known."""
        if image.pixels not in self._first_looks:
            like = self._clusters.first_like(image.look) if image.look else None
            if like is None:  # what looks like an earlier one is not compared itself: frames of a film are quick
                self._clusters.add(image.pixels, image.look)
            self._first_looks[image.pixels] = like or image.pixels
        return self._first_looks[image.pixels]

    def _elsewhere(self, file: Path, key: Hashable) -> str:
        """The first row of another file that has this, in words."""
        found, row = self._first.get(key, (file, 0))
        return "" if found == file else f"row {row} of {_name(found, file)}"


def _source(told: Told) -> str:
    """What a row was made of; empty where it does not say. A build's ids tell it, where a source's own may repeat."""
    if built := _BUILT.match(told.id):
        return built[1]
    return f"{told.source}:{told.source_id}" if told.source and told.source_id else ""


def _name(file: Path, other: Path) -> str:
    """What tells a file from another one."""
    return file.name if file.name != other.name else str(file)
