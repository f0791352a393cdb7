"""What a user may set of the sources: which, near-duplicates, and how seeds are dealt to kinds and sets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from steer_verl.config import Settings, UserPath
from steer_verl.data.seed import SetName
from steer_verl.data.sources.registry import SETS

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
MAX_QUESTION_CHARS = 8_000
"""Longer text is a data accident (a dumped file, a repeated string) nearly always."""


class SourceSettings(Settings):
    """One set, from files or from the ``datasets`` library."""

    set: str
    """Its name (steer_verl/data/sources/registry.py); ``plain`` is a file of your own."""
    path: UserPath | None = None
    """A parquet, JSONL, JSON or CSV file, a folder of them, or a folder that ``datasets`` saved."""
    dataset: str | None = None
    """Instead of ``path``: a name for ``datasets.load_dataset``, which downloads it (extra ``data``)."""
    config: str | None = None
    """Of the dataset; in a folder, only files whose own folder is called so. Unset: all."""
    split: str | None = None
    """Of the dataset; in a folder, only files whose name begins so, as ``train-00000-of-00004``, or rows whose column
    ``split`` says so. Unset: all."""
    files: str | None = None
    """Pattern of the files in a folder, as ``data/*.json``. Unset: every table in it."""
    images: UserPath | None = None
    """Folder of the images, which no path may leave. Unset: where the set's authors put it, or the table's folder."""
    name: str | None = None
    """``source`` of the seeds in place of the set's name."""
    license: str | None = None
    """In place of the set's own; a row that says its own keeps it."""
    unsafe: bool | None = None
    """What holds of the seeds of which the set says nothing."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Seeds at most: the first ones."""
    max_chars: Annotated[int, Field(ge=1)] = MAX_QUESTION_CHARS
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

    @property
    def place(self) -> str:
        """For people."""
        return str(self.path) if self.path is not None else f"dataset {self.dataset}"


class DuplicateSettings(Settings):
    """When two items count as one (see steer_verl/data/duplicates.py), and two images as alike."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Jaccard similarity of their word shingles from which texts are alike."""
    words: Annotated[int, Field(ge=1, le=10)] = 3
    """Words of a shingle; a shorter text is one shingle."""
    permutations: Annotated[int, Field(ge=16, le=1024)] = 128
    """Length of a signature: the similarity is known to about ``0.4 / sqrt(permutations)`` at the default threshold."""
    look_bits: Annotated[int, Field(ge=0, le=16)] = 4
    """Bits of 64 in which the difference hashes of two images may differ that are nearly the same: all of their seeds
    serve one set (steer_verl/data/collect/clusters.py)."""


class ShareSettings(Settings):
    """How seeds are dealt to the three kinds of dialogue; what no share claims is left out.

    A lot is drawn by the seed's id alone, so that a greater share takes more seeds and keeps those that it had.
    """

    benign: Share = 1.0
    """Of the safe seeds."""
    benign_of_unsafe: Share = 0.2
    """Of the unsafe seeds: their benign rewrite makes a benign dialogue. The two shares below are of the others."""
    obfuscated: Share = 0.5
    """Of the other unsafe seeds."""
    red_team: Share = 0.5
    """Of the other unsafe seeds."""
    unknown: Literal["unsafe", "safe", "leave_out"] = "unsafe"
    """What a seed counts as when neither its set nor the source's settings say; ``unsafe`` is the cautious reading."""

    @model_validator(mode="after")
    def _at_most_all(self) -> ShareSettings:
        if self.obfuscated + self.red_team > 1 + 1e-9:
            raise ValueError(f"obfuscated and red_team sum to {self.obfuscated + self.red_team:g}; at most 1 is there")
        return self


class SplitSettings(Settings):
    """Which seed serves which set: decided by a hash of its cluster, the images that are alike. Weights need not sum
    to 1."""

    sft: Weight = 0.7
    rl: Weight = 0.2
    bench: Weight = 0.1
    bench_sources: tuple[str, ...] = ()
    """Sources, by their name (or set) in the settings or in rows, that serve the benchmark alone, all of their seeds:
    public test sets are never trained on, and neither are other sources' seeds about their images."""

    @model_validator(mode="after")
    def _some(self) -> SplitSettings:
        if self.sft + self.rl + self.bench <= 0:
            raise ValueError("the shares of sft, rl and bench sum to 0; give at least one of them")
        return self

    def side(self, lot: float) -> SetName:
        """The set of a lot in [0, 1)."""
        place = lot * (self.sft + self.rl + self.bench)
        if place < self.bench:
            return SetName.BENCH
        return SetName.RL if place < self.bench + self.rl else SetName.SFT
