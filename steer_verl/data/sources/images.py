"""The images of rows, brought into a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from steer_verl.data.image_store import ImageStore
from steer_verl.data.sources.sets import Refused
from steer_verl.errors import DataError
from steer_verl.images import decode_image, load_image, plain_image, resolve_image


class SourceImages:
    """Finds the images of rows.

    Args:
        store: gets each image, re-encoded and named by its pixels.
        seen: is told of each, with its path in the store.
    """

    def __init__(self, store: ImageStore, seen: Callable[[str, Image.Image], None] = lambda path, image: None) -> None:
        self.store, self._seen = store, seen
        self.folders: set[Path] = set()
        """Where rows have looked for their images."""

    def find(self, value: Any, root: Path, near: str, name: str) -> str | None:
        """The path in the store of a row's image; ``None`` when the row has none.

        Args:
            value: as :class:`~steer_verl.data.sources.sets.Draft` has it.
            root: folder that a path may not leave; an absolute path must lie in it too.
            near: the table's folder below it; a path may begin there too.
            name: says in errors which image it is, where there is no path.

        Raises:
            Refused: missing, broken, hostile or of another type.
        """
        if isinstance(value, dict) and set(value) <= {"bytes", "path"}:
            name = str(value.get("path") or name)
            value = value.get("bytes") or value.get("path")
        if value is None:
            return None
        paths = value if isinstance(value, tuple) else (value,)
        try:
            if isinstance(value, bytes):
                image = decode_image(value, name)
            elif isinstance(value, Image.Image):
                image = plain_image(value, name)
            elif all(isinstance(path, str) for path in paths):
                image = load_image(self._file([place for path in paths for place in _places(path, root, near)], root))
            else:
                raise Refused("image", f"image: a {type(value).__name__}", "give a path, or the bytes of an image file")
        except DataError as error:
            what, _, hint = str(error).partition("; ")
            raise Refused("image", what, hint) from None
        path = self.store.add(image)
        self._seen(path, image)
        return path

    def _file(self, places: list[str], root: Path) -> Path:
        """The first that is there; else the first one's fault is told."""
        faults = []
        for place in places:
            self.folders.add((root / place).parent)
            try:
                return resolve_image(place, root=root)
            except DataError as error:
                faults.append(error)
        raise faults[0]


def _places(path: str, root: Path, near: str) -> Iterator[str]:
    """Where below the root a path may lead. An absolute one is one from there, if it lies in it."""
    if Path(path).is_absolute() and Path(path).is_relative_to(root.absolute()):
        path = str(Path(path).relative_to(root.absolute()))
    yield path
    if near and not Path(path).is_absolute():
        yield f"{near}/{path}"
