"""card.md: front matter as the hub reads it, and tables that somebody else's names cannot break."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from steer_verl.data.cards.about import ABOUT
from steer_verl.data.cards.entry import Entry, entry_of
from steer_verl.data.cards.markdown import card_markdown, front_matter, inline, size_category, table_markdown
from steer_verl.data.cards.statistics import Statistics, statistics_of
from steer_verl.data.cards.tables import Table, by_name
from steer_verl.data.stage2.splits import SetName
from tests.data.cards.samples import many


def fields(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1].removesuffix("---"))


def test_front_matter() -> None:
    stats = statistics_of(Entry(str(n), license="CC-BY-NC-4.0") for n in range(5))
    found = fields(front_matter("STEER: #1", stats, {"train": "sft.parquet"}) + "\n")
    assert found["license"] == "cc-by-nc-4.0" and found["pretty_name"] == "STEER: #1"
    assert found["size_categories"] == ["n<1K"] and found["tags"][-1] == "non-commercial"
    assert found["configs"][0]["data_files"] == [{"split": "train", "path": "sft.parquet"}]
    assert "configs" not in fields(front_matter("x", Statistics(), {}) + "\n")


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (12_934, "10K<n<100K"),
        (999_999, "100K<n<1M"),
        (1_000_000, "1M<n<10M"),
        (10**9 - 1, "100M<n<1B"),
        (10**9, "n>1B"),
        (10**12, "n>1B"),
    ],
)
def test_the_hubs_sizes(rows: int, name: str) -> None:
    assert size_category(rows) == name


HOSTILE = "a|b\n# c <script>x</script> [l](http://x.example) `d` **e** ![p](y)"


def test_a_hostile_name_stays_in_its_cell() -> None:
    text = table_markdown(
        by_name("Categories", "category", statistics_of([Entry("1", facts={"category": HOSTILE})]).categories)
    )
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 3 and all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)
    bare = re.sub(r"\\.", "", rows[-1])  # what is left may be markup
    assert not re.search(r"[<>\[\]`*#]", bare) and "://" not in bare


def test_inline_is_one_line_of_words() -> None:
    assert inline("plain words, 3.5 and so-on") == "plain words, 3.5 and so-on"
    assert inline("two\nlines\x00") == "two lines"


def test_a_whole_card_holds_every_count() -> None:
    stats = statistics_of(entry_of(t, s) for s, t in many(30))
    table = Table("Turns", ("turns", "count"), tuple(stats.lengths.items()), stats.dialogues)
    text = card_markdown("STEER-SFT", ABOUT[SetName.SFT], stats, {"Composition": [table], "Empty": []}, {})
    assert text.startswith("---\n") and "## Empty" not in text
    for length, count in stats.lengths.items():
        assert f"| {length} | {count} |" in text
    for heading in ("## Intended use", "## Limits", "**Licence.**"):
        assert heading in text
