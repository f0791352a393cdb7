"""What a user may set of the sources: which, near-duplicates, and how seeds are dealt to the three sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from steer_verl.config import Settings
from steer_verl.data.rows import MAX_TURN_CHARS
from steer_verl.data.sources.registry import SETS

Share = Annotated[float, Field(ge=0, le=1)]


class SourceSettings(Settings):
    """One set, from files or from the ``datasets`` library."""

    set: str
    """Its name (steer_verl/data/sources/registry.py); ``plain`` is a file of your own."""
    path: Path | None = None
    """A parquet, JSONL or JSON file, a folder of them, or a folder that ``datasets`` saved."""
    dataset: str | None = None
    """Instead of ``path``: a name for ``datasets.load_dataset``, which downloads it (extra ``data``)."""
    config: str | None = None
    """Of the dataset; in a folder, only files whose own folder is called so. Unset: all."""
    split: str | None = None
    """Of the dataset; in a folder, only files whose name begins so, as ``train-00000-of-00004``. Unset: all."""
    files: str | None = None
    """Pattern of the files in a folder, as ``data/*.json``. Unset: every parquet file, or else JSONL, or else JSON."""
    images: Path | None = None
    """Folder of the pictures, which no path may leave. Unset: the folder of the set."""
    name: str | None = None
    """``source`` of the seeds in place of the set's name: needed when a build reads two sources with the same ids."""
    license: str | None = None
    """In place of the set's own; a row that says its own keeps it."""
    unsafe: bool | None = None
    """What holds of the seeds of which the set says nothing."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Seeds at most: the first ones."""
    max_chars: Annotated[int, Field(ge=1)] = MAX_TURN_CHARS
    """Characters of a question."""

    @field_validator("set")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in SETS:
            raise ValueError(f"{value!r} is no set; choose one of {', '.join(SETS)}")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> SourceSettings:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give either path or dataset")
        return self


class DuplicateSettings(Settings):
    """When two items count as one (see steer_verl/data/sources/duplicates.py)."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Jaccard similarity of their word shingles from which texts are alike."""
    words: Annotated[int, Field(ge=1, le=10)] = 3
    """Words of a shingle; a shorter text is one shingle."""
    pictures: Literal["pixels", "look", "any"] = "pixels"
    """And the pictures: the same pixels; or nearly the same look; or whatever they show."""
    look_bits: Annotated[int, Field(ge=0, le=16)] = 4
    """Bits of 64 in which the difference hashes of two pictures of the same look may differ."""
    permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    """Length of a signature: the similarity is known to about ``0.4 / sqrt(permutations)`` at the default threshold."""


class ShareSettings(Settings):
    """How seeds are dealt to the three seed sets; what no share claims is left out."""

    benign: Share = 1.0
    """Of the safe seeds."""
    obfuscated: Share = 0.5
    """Of the unsafe seeds."""
    red_team: Share = 0.5
    """Of the unsafe seeds."""
    unknown: Literal["unsafe", "safe", "leave_out"] = "unsafe"
    """What a seed counts as when neither its set nor the source's settings say; ``unsafe`` is the cautious reading."""

    @model_validator(mode="after")
    def _at_most_all(self) -> ShareSettings:
        if self.obfuscated + self.red_team > 1 + 1e-9:
            raise ValueError(f"obfuscated and red_team sum to {self.obfuscated + self.red_team:g}; at most 1 is there")
        return self
