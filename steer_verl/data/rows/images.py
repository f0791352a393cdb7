"""The images that the rows of one file name: each is opened once, through the one door, and remembered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from steer_verl.data.image_store import Look, look, path_below, pixel_digest
from steer_verl.data.rows.flaws import Flaw
from steer_verl.errors import DataError
from steer_verl.images import Change, image_and_changes


class Opened(NamedTuple):
    """An image that decodes."""

    name: str
    """Its absolute path; of one by value, what it is called."""
    changes: frozenset[Change]
    """What of it models will see otherwise than it lies in the file."""
    pixels: str = ""
    """Digest of its pixels, if it was asked for."""
    look: Look | None = None
    """What is left of it in another format or size, if digests were asked for and it has anything to be known by."""


class Images:
    """Opens images; memory grows with the paths alone.

    Paths begin at the ``root`` and may not leave it, absolute ones either, unless they are ``trusted``. Without a root
    they are taken as they are, relative to where the process stands, as verl takes them.
    """

    def __init__(self, root: Path | None, *, trusted: bool = False, digests: bool = False) -> None:
        self.root, self.trusted, self.digests = root, trusted, digests
        self._found: dict[str, Opened | Flaw] = {}

    def open(self, image: str | bytes, name: str = "") -> Opened | Flaw:
        """An image by its path, or by its bytes, which are then called ``name``; or what is wrong with it."""
        if not image:
            return Flaw("images", "no image", "give its path or its bytes")
        if isinstance(image, bytes):
            return self._opened(image, None, name)
        if image not in self._found:
            self._found[image] = self._by_path(image)
        return self._found[image]

    def _by_path(self, image: str) -> Opened | Flaw:
        if self.root is None or self.trusted:
            path = os.path.join(self.root or "", image)
            return self._opened(path, None, os.path.abspath(path))
        path = path_below(image, self.root)
        return self._opened(path, self.root, str((self.root / path).absolute()))

    def _opened(self, source: str | bytes, root: Path | None, name: str) -> Opened | Flaw:
        try:
            image, changes = image_and_changes(source, root=root, name=name)
            name.encode()  # a table holds it as text
        except UnicodeEncodeError:
            return Flaw(
                "images", f"image {name}: its path is not UTF-8", "rename the file, or the folder that it is in"
            )
        except DataError as error:
            what, _, hint = str(error).partition("; ")
            return Flaw("images", what, hint)
        name = name if isinstance(source, bytes) else str(Path(name).resolve())
        return Opened(name, changes, pixel_digest(image), look(image)) if self.digests else Opened(name, changes)
