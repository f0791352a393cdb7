"""Files in the exact forms of public sets, read: ``python -m benchmarks.data.public_sets [--write]``.

Prints what became of every file of tests/public_data as one Markdown table. ``--write`` puts it into docs/data.md,
between the marks ``<!-- public sets -->`` and ``<!-- /public sets -->``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks import pages
from steer_verl.data.image_store import ImageStore
from steer_verl.data.licences import use_of
from steer_verl.data.seed import SourceSeed
from steer_verl.data.sources.images import SourceImages
from steer_verl.data.sources.read import read_source
from steer_verl.data.sources.sets import BadRow
from steer_verl.data.sources.settings import SourceSettings
from steer_verl.records import write_whole

ROOT = Path(__file__).parents[2]
FILES = ROOT / "tests" / "public_data"
PAGE = ROOT / "docs" / "data.md"
BEGIN, END = "<!-- public sets -->", "<!-- /public sets -->"

PUBLIC: tuple[tuple[str, str], ...] = (
    ("xstest", "xstest_safe.csv"),
    ("geometry3k", "hub/geometry3k"),
    ("scienceqa", "keyed_json/scienceqa_form.json"),
    ("align_anything", "hub/align-anything"),
    ("beavertails_v", "hub/BeaverTails-V"),
    ("beavertails_v", "hub/BeaverTails-V-pref"),
    ("spa_vl", "hub/SPA-VL"),
    ("spa_vl", "hub/spa_vl_rlhf"),
    ("vlguard", "vlguard/test.json"),
    ("mm_safetybench", "hub/MM-SafetyBench"),
    ("mm_safetybench", "hub/mmsb_github"),
    ("vlsbench", "hub/vlsbench"),
    ("vlsbench", "hub/vlsbench_old"),
    ("mossbench", "keyed_json/mossbench_form.json"),
)
"""Name of the set, and its file or folder below tests/public_data."""


def read(name: str, place: str) -> tuple[int, list[SourceSeed], list[BadRow]]:
    """Rows of a file or folder, and the seeds and bad rows that they became."""
    rows: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        images = SourceImages(ImageStore(Path(folder)))
        found = list(read_source(SourceSettings(set=name, path=FILES / place), images, rows.append))
    bad = [one for one in found if isinstance(one, BadRow)]
    return len(rows), [one for one in found if isinstance(one, SourceSeed)], bad


def table() -> str:
    """The Markdown table."""
    rows = []
    for name, place in PUBLIC:
        count, seeds, bad = read(name, place)
        labels = _listed({True: "unsafe", False: "safe", None: "not said"}[seed.unsafe] for seed in seeds)
        licence = f"{seeds[0].license} ({use_of(seeds[0].license)})"
        rows.append([f"`{name}`", f"`{place}`", count, len(seeds), _listed(map(_told, bad)) or "-", labels, licence])
    return pages.table(["set", "form", "rows", "seeds", "rejected", "label", "licence"], rows)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(names).items())


def _told(bad: BadRow) -> str:
    plain = {"other_form": "table of another form", "duplicate": "of the same content"}
    return plain.get(bad.reason) or f"{bad.reason}: {bad.what.rpartition(': ')[2]}"


def main() -> None:
    """Print the table, or put it into its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/data.md")
    if not parser.parse_args().write:
        print(table())
        return
    before, rest = PAGE.read_text().split(BEGIN)
    write_whole(PAGE, f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
