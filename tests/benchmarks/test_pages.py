"""What all pages of figures share."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import pages


def test_a_page_says_what_wrote_it_and_ends_in_one_line_break(tmp_path: Path) -> None:
    said = pages.written("python -m benchmarks.x", "torch", "no-such-package")
    assert re.fullmatch(
        r"Written by `python -m benchmarks.x` on \d{4}-\d\d-\d\d "
        r"\(\d+ cores, \d+ GiB, Python [\d.]+, torch [\d.+a-z]+, no-such-package not installed\); "
        r"no figure is written by hand\.",
        said,
    )
    cells = pages.table(["", "ms"], [["one", 7], ["two", 0.5]])
    page = pages.write(tmp_path / "new" / "x.md", "# X", said, "", cells)
    assert (tmp_path / "new" / "x.md").read_text() == page
    assert page == f"# X\n\n{said}\n\n|  | ms |\n| --- | --- |\n| one | 7 |\n| two | 0.5 |\n"


def test_three_figures_count() -> None:
    assert [pages.number(x) for x in (0.06667, 31.41, 9.0, 2349793.0, 123.4, -2.345, 0.0)] == [
        "0.0667",
        "31.4",
        "9",
        "2,349,793",
        "123",
        "-2.35",
        "0",
    ]
