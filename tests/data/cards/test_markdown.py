"""Tables that somebody else's names cannot break."""

from __future__ import annotations

import re

from steer_verl.data.cards.figures import figures
from steer_verl.data.cards.markdown import inline, table_markdown
from steer_verl.data.cards.tables import Table
from tests.data.cards.samples import card_of, seeds

HOSTILE = "a|b\n# c <script>x</script> [l](http://x.example) `d` **e** ![p](y)"


def test_a_hostile_name_stays_in_its_cell() -> None:
    (row,) = seeds(1)
    row = row.model_copy(update={"seed": row.seed.model_copy(update={"facts": {"category": HOSTILE}})})
    (table,) = (table for table in figures(card_of([row]))["Composition"] if table.title == "By category")
    text = table_markdown(table)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 3 and all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows)
    bare = re.sub(r"\\.", "", rows[-1])  # what is left may be markup
    assert not re.search(r"[<>\[\]`*#]", bare) and "://" not in bare


def test_inline_is_one_line_of_words() -> None:
    assert inline("plain words, 3.5 and so-on") == "plain words, 3.5 and so-on"
    assert inline("two\nlines\x00") == "two lines"


def test_counts_of_a_whole_get_their_share() -> None:
    text = table_markdown(Table("Turns", ("turns", "count"), ((2, 30), (3, 10)), 40))
    assert text.splitlines()[2:] == [
        "| turns | count | share |",
        "| ---: | ---: | ---: |",
        "| 2 | 30 | 75.0 % |",
        "| 3 | 10 | 25.0 % |",
    ]
