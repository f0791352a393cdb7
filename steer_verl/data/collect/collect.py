"""The first step of a build: every row of every source becomes a seed with a part to play, or is left out.

::

    folder/seeds.jsonl      a SourceSeed a line: its cluster, the kind of dialogue to be made of it, the set it serves
    folder/left_out.jsonl   a BadRow a line: every other row, and why
    folder/account.json     Collected: the counts, and what the two were made of

A run that is killed begins again. Kind and set of a seed are drawn by hashes: they do not depend on other rows, but for
those of the same content or about images that are nearly the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import Field, ValidationError
from rich.console import Console

from steer_verl.data.collect.clusters import Clusters
from steer_verl.data.collect.pool import Pool
from steer_verl.data.image_store import ImageStore
from steer_verl.data.jsonl import regular_file
from steer_verl.data.licences import listed, no_derivatives, training_forbidden
from steer_verl.data.seed import SourceSeed
from steer_verl.data.sources.images import SourceImages
from steer_verl.data.sources.read import read_source, source_files
from steer_verl.data.sources.sets import BadRow
from steer_verl.data.sources.settings import DuplicateSettings, ShareSettings, SourceSettings, SplitSettings
from steer_verl.errors import ConfigError, DataError, SteerError, disk_error
from steer_verl.images import load_image
from steer_verl.records import atomic, write_whole
from steer_verl.text import clock_text
from steer_verl.types import Record

SEEDS, LEFT_OUT, ACCOUNT = "seeds.jsonl", "left_out.jsonl", "account.json"
VERSION = 4
"""Of what this code makes of the same files: another one makes the seeds anew."""
FAULTS = ("file", "line", "field", "text", "image")
"""Reasons to look at one's files; rows that are left out for others are as they should be."""
SAY_EVERY = 10.0
"""Seconds between two lines of progress."""

Rows = Callable[[], Iterable[SourceSeed | BadRow]]


class Collected(Record):
    """What became of the rows."""

    entered: int
    """Rows, or of those that hold several questions, questions."""
    kept: int
    rejected: dict[str, int]
    """By reason."""
    kinds: dict[str, int]
    sides: dict[str, int]
    """Of the kept ones."""
    notes: tuple[str, ...] = ()
    """What a reader should know, a sentence each."""
    digest: str
    """Of the seeds."""
    made_by: str = ""
    """Digest of the settings and of what is in the files."""
    files: dict[str, tuple[str, str]] = Field(default_factory=dict)
    """File of a source -> its size and time, and the digest of what is in it."""
    folders: dict[str, str] = Field(default_factory=dict)
    """Folder of images that rows name -> digest of names, sizes and times."""


def collect(
    folder: Path,
    images: Path,
    sources: Sequence[SourceSettings],
    *,
    duplicates: DuplicateSettings,
    kinds: ShareSettings,
    splits: SplitSettings,
    rows: Rows | None = None,
    console: Console | None = None,
) -> Collected:
    """Make the seeds of a build; nothing is read if neither settings nor files have changed since.

    ``folder`` is the step's, ``images`` gets the images; ``rows``, in place of ``sources``, are seeds whose images lie
    there already. Progress and notes go to the console.

    Raises:
        SteerError: a source must not be trained on, is not there or makes no seed, or the disk cannot be written.
    """
    if rows is None and (why := training_forbidden(sources, splits)):
        raise ConfigError(why)
    with _told(folder):
        before = _account(folder)
        files = {str(file): _file(file, before) for source in sources for file in source_files(source)}
        settings = [section.model_dump(mode="json") for section in (duplicates, kinds, splits, *sources)]
        contents = {name: digest for name, (_, digest) in files.items()}
        made_by = "" if rows is not None else _digest(json.dumps([VERSION, settings, contents]))
        same = made_by and before is not None and before.made_by == made_by
        if before is not None and same and _images_stayed(before, folder, images):
            return before
        (folder / ACCOUNT).unlink(missing_ok=True)
        clusters = Clusters(duplicates.look_bits)
        pool, found = Pool(splits, kinds, duplicates, clusters), SourceImages(ImageStore(images), clusters.see)
        for item, name in _read(sources, found, console) if rows is None else _handed_in(rows, images, clusters):
            pool.add(item, name)
        made = {"made_by": made_by, "files": files, "folders": {str(f): _listing(f) for f in sorted(found.folders)}}
        account = _write(folder, pool.deal(), sorted(pool.missing)).model_copy(update=made)
        write_whole(folder / ACCOUNT, account.model_dump_json(indent=1) + "\n")
    for note in account.notes:
        _say(console, note)
    return account


def read_seeds(folder: Path) -> Iterator[SourceSeed]:
    """The seeds of a folder, in their order; raises DataError if there are none, or a line is none."""
    path = regular_file(folder / SEEDS)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield SourceSeed.model_validate_json(line)
            except ValidationError:
                raise DataError(f"{path}: row {number}: no seed; remove the file, and it is made anew") from None


def _read(
    sources: Sequence[SourceSettings], images: SourceImages, console: Console | None
) -> Iterator[tuple[SourceSeed | BadRow, str]]:
    """Rows, each with its source's name in the settings."""
    sizes = [1 + sum(file.stat().st_size for file in source_files(source)) for source in sources]
    began = said = time.monotonic()
    rows = 0
    for number, source in enumerate(sources):
        before, share = sum(sizes[:number]) / sum(sizes), sizes[number] / sum(sizes)

        def tick(part: float, before: float = before, share: float = share) -> None:
            nonlocal said, rows
            rows, now = rows + 1, time.monotonic()
            if now - said >= SAY_EVERY:
                done, said = before + share * part, now
                left = clock_text((now - began) * (1 - done) / max(done, 1e-6))
                _say(console, f"seeds: {rows:,} rows read · {done:.0%} · about {left} left")

        yield from ((item, source.name or source.set) for item in read_source(source, images, tick))


def _handed_in(rows: Rows, images: Path, clusters: Clusters) -> Iterator[tuple[SourceSeed | BadRow, str]]:
    for item in rows():
        if isinstance(item, SourceSeed) and item.image and not clusters.has(item.image):
            clusters.see(item.image, load_image(item.image, root=images))
        yield item, ""


def _write(folder: Path, dealt: Iterable[SourceSeed | BadRow], missing: Sequence[str]) -> Collected:
    reasons, kinds, sides, licenses = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    faults = list[BadRow]()
    with atomic(folder / SEEDS) as seeds, atomic(folder / LEFT_OUT) as left_out:
        for item in dealt:
            if isinstance(item, BadRow):
                left_out.write(item.model_dump_json(exclude_defaults=True).encode() + b"\n")
                reasons[item.reason] += 1
                faults += [item] if item.reason in FAULTS and not faults else []
                continue
            seeds.write(item.model_dump_json().encode() + b"\n")
            kinds[item.kind.value if item.kind else ""] += 1
            sides[item.side.value if item.side else ""] += 1
            licenses[item.license] += 1
    return Collected(
        entered=kinds.total() + reasons.total(),
        kept=kinds.total(),
        rejected=dict(sorted(reasons.items())),
        kinds=dict(sorted(kinds.items())),
        sides=dict(sorted(sides.items())),
        notes=tuple(_notes(reasons, licenses, faults, missing)),
        digest=_digest_of(folder / SEEDS),
    )


def _notes(
    reasons: Mapping[str, int], licenses: Mapping[str, int], faults: Sequence[BadRow], missing: Sequence[str]
) -> Iterator[str]:
    if missing:
        yield f"no seed is of {listed(missing)}, named in splits.bench_sources; check the spelling"
    if faults:
        count = sum(reasons.get(reason, 0) for reason in FAULTS)
        yield f"{count} rows have faults ({LEFT_OUT} has them all); the first: {faults[0]}"
    if closed := [license for license in sorted(licenses) if no_derivatives(license)]:
        count = sum(licenses[license] for license in closed)
        yield f"{count} seeds are under {listed(closed)}, which allows no derived works: do not pass on what is made."
    if others := reasons.get("other_form"):
        yield f"{others} tables in the folders of sources are of another form or split and were not read ({LEFT_OUT})."


def _account(folder: Path) -> Collected | None:
    """What was made before, if it is whole."""
    with suppress(OSError, ValidationError):
        account = Collected.model_validate_json((folder / ACCOUNT).read_bytes())
        if _digest_of(folder / SEEDS) == account.digest and (folder / LEFT_OUT).is_file():
            return account
    return None


def _images_stayed(before: Collected, folder: Path, images: Path) -> bool:
    """Whether the sources' images are as they were and those of the seeds are there; none is opened."""
    if any(_listing(Path(name)) != seen for name, seen in before.folders.items()):
        return False
    return all((images / path).is_file() for seed in read_seeds(folder) for path in seed.images)


def _file(path: Path, before: Collected | None) -> tuple[str, str]:
    """Size and time, and digest of a file; one that was not touched since is not read again."""
    stat = regular_file(path).stat()
    stamp = f"{stat.st_size}:{stat.st_mtime_ns}"
    known = before.files.get(str(path), ("", "")) if before is not None else ("", "")
    return known if known[0] == stamp else (stamp, _digest_of(path))


def _listing(folder: Path) -> str:
    """Digest of the names, sizes and times of a folder's files; of a folder that is not there too."""
    try:
        with os.scandir(folder) as entries:
            stats = ((entry.name, entry.stat()) for entry in entries if entry.is_file())
            found = sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
    except (OSError, ValueError):
        found = [("", -1, -1)]
    return _digest(repr(found))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _digest_of(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while part := stream.read(2**20):
            digest.update(part)
    return digest.hexdigest()


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Say what the errors of the disk mean here."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, error.filename or folder, "written") from None
    except sqlite3.OperationalError as error:
        raise SteerError(f"{folder}: {error}; mend it, and the same command goes on") from None


def _say(console: Console | None, line: str) -> None:
    if console is not None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
