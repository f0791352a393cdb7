"""The images of rows, brought into a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from steer_verl.data.image_store import ImageStore, path_below
from steer_verl.data.sources.sets import Refused, is_empty
from steer_verl.errors import DataError
from steer_verl.images import decode_image, load_image, plain_image, resolve_image


class SourceImages:
    """Finds the images of rows and puts each into the store; ``seen`` is told of each, with its path there."""

    def __init__(self, store: ImageStore, seen: Callable[[str, Image.Image], None] = lambda path, image: None) -> None:
        self.store, self._seen = store, seen
        self.folders: set[Path] = set()
        """Where rows have looked for their images."""

    def find(self, value: Any, root: Path, places: Sequence[str], name: str) -> str | None:
        """The path in the store of a row's image; ``None`` when the row has none; Refused: broken, hostile, no image.

        ``value`` is as in :class:`~steer_verl.data.sources.sets.Draft`. No path leaves ``root``, an absolute one
        neither; it begins in the first of ``places``, folders below ``root``, where it is there. ``name`` stands in
        errors where there is no path.
        """
        if is_empty(value):
            return None
        if isinstance(value, dict) and set(value) <= {"bytes", "path"}:
            name = str(value.get("path") or name)
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        paths = value if isinstance(value, tuple) else (value,)
        try:
            if isinstance(value, bytes):
                image = decode_image(value, name)
            elif isinstance(value, Image.Image):
                image = plain_image(value, name)
            elif all(isinstance(path, str) for path in paths):
                image = load_image(self._file(paths, root, places))
            else:
                raise Refused("image", f"image: a {type(value).__name__}", "give a path, or the bytes of an image file")
        except DataError as error:
            what, _, hint = str(error).partition("; ")
            hint = "check the path, or set `images` of the source" if what.endswith("no such file") else hint
            raise Refused("image", what, hint) from None
        path = self.store.add(image)
        self._seen(path, image)
        return path

    def _file(self, paths: tuple[str, ...], root: Path, places: Sequence[str]) -> Path:
        """The first that is there; else the first one's fault."""
        faults = []
        for path in (path_below(os.path.join(place, path), root) for path in paths for place in places):
            self.folders.add((root / path).parent)
            try:
                return resolve_image(path, root=root)
            except DataError as error:
                faults.append(error)
        raise faults[0]
