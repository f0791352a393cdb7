"""Exact and near-duplicates against a search through all pairs."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from steer_verl.data import duplicates
from steer_verl.data.duplicates import ENDS, FULL, WINDOW, DuplicateIndex, Item, bands, normalised, shingles
from steer_verl.data.sources.settings import DuplicateSettings
from steer_verl.errors import ConfigError

WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "po", "ra", "ste") for b in ("n", "r", "t", "lan", "mir", "vos")]
SIGNS = ["+", "-", "<", ">", "3", "17", "x", "(", ")"]


def index(**settings: Any) -> DuplicateIndex:
    return DuplicateIndex(DuplicateSettings(**settings))


def alike(one: str, other: str, **options: Any) -> bool:
    found = index()
    found.add(Item("a", one, **options))
    return found.first_like(Item("b", other, **options)) == "a"


def generated(seed: int, count: int) -> list[Item]:
    """Items of which many are others' texts with some words changed, over few images, or with none."""
    rng = random.Random(seed)
    items: list[Item] = []
    for number in range(count):
        lines = [" ".join(rng.choices(WORDS, k=rng.randint(1, 45))) for _ in range(rng.randint(1, 3))]
        if items and rng.random() < 0.7:
            lines = rng.choice(items).text.split("\n")
            for _ in range(rng.choice((0, 0, 0, 1, 1, 4))):
                line = rng.randrange(len(lines))
                words = lines[line].split()
                words[rng.randrange(len(words))] = rng.choice(WORDS if rng.random() < 0.8 else SIGNS)
                lines[line] = " ".join(words)
        items.append(Item(str(number), "\n".join(lines), rng.choice(("", "p1", "p2")), seed % 2 == 0))
    return items


@cache
def estimate(one: str, other: str) -> float:
    return float(np.mean(duplicates._signature(one, 3, 128) == duplicates._signature(other, 3, 128)))


def near(one: list[str], other: list[str]) -> bool:
    a, b = shingles(one, 3), shingles(other, 3)
    return len(a & b) >= 0.8 * len(a | b)


def twin(item: Item, before: Sequence[Item]) -> list[str]:
    """Every earlier item that is like it, by the rules as they are told, compared with all of them."""
    found = []
    text = normalised(item.text)
    for other in before:
        theirs = normalised(other.text)
        one, two = text.split(), theirs.split()
        exact = [[t for t in tokens if t[0].isdigit() or (len(t) == 1 and t not in "ai")] for tokens in (one, two)]
        if item.pixels != other.pixels or exact[0] != exact[1] or estimate(text, theirs) < 0.8:
            continue
        windows = (ENDS, WINDOW) if item.by_line else (WINDOW,)
        ends = all(near(one[:n], two[:n]) and near(one[-n:], two[-n:]) for n in windows)
        if max(len(one), len(two)) > WINDOW and text != theirs and not ends:
            continue
        own, rest = (Counter(a.split("\n")) - Counter(b.split("\n")) for a, b in ((text, theirs), (theirs, text)))
        lines = [" ".join(part.elements()).split() for part in (own, rest)]
        if not item.by_line or lines == [[], []] or near(*lines):
            found.append(other.id)
    return found


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_index_finds_what_a_search_through_all_finds(seed: int) -> None:
    found, items = index(), generated(seed, 250)
    expected = missed = 0
    for place, item in enumerate(items):
        like = twin(item, items[:place])
        answer = found.first_like(item)
        assert answer is None or answer in like, "nothing is like it, or another one"
        expected += bool(like)
        missed += bool(like) and answer != like[0]
        found.add(item)
    assert expected > 30 and missed <= 0.03 * expected, (missed, expected)


TEXT = "What would somebody need to know about the red kettle on the shelf before they clean it with vinegar at home?"


@pytest.mark.parametrize(
    "planted",
    [
        TEXT.upper(),
        f"  {TEXT}\n",
        TEXT.replace("?", "!!"),
        TEXT.replace("kettle", "ke\u200bttle"),
        TEXT + " Please",
        f"<image>{TEXT}",
        TEXT.replace("red", "\uff52\uff45\uff44"),
    ],
)
def test_planted_duplicates_are_found(planted: str) -> None:
    assert alike(TEXT, planted) and alike(TEXT, planted, by_line=True)


@pytest.mark.parametrize(
    "other",
    [TEXT[:40], TEXT.replace("red kettle", "old copper pan").replace("vinegar at home", "sand"), "", "?", TEXT + " 2"],
)
def test_harmless_neighbours_are_not(other: str) -> None:
    assert not alike(TEXT, other)


def test_another_image_is_another_item() -> None:
    found = index()
    found.add(Item("a", TEXT, "p"))
    assert found.first_like(Item("b", TEXT, "q")) is None
    assert found.first_like(Item("b", TEXT)) is None and found.first_like(Item("b", TEXT, "p")) == "a"


LONG = (
    "In the lesson on numbers we were given this line, and each of us had to say whether the sum is right: {} as it is."
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-5 + 3", "5 - 3"),
        ("5 - 3", "3 - 5"),
        ("5 + 3", "5 - 3"),
        ("5 \u2212 3", "5 + 3"),
        ("3 < 5", "3 > 5"),
        ("3 \u2264 5", "3 \u2265 5"),
        ("2 * (3 + 4)", "(2 * 3) + 4"),
        ("1.5 m", "15 m"),
        ("5\u00b2", "52"),
        ("5!", "5"),
        ("20 %", "20"),
        ("$20", "\u20ac20"),
        ("3:4", "3 4"),
        ("10", "100"),
        ("find x", "find y"),
        ("H2O", "HO"),
        ("\U0001f34e", "\U0001f34c"),
        ("\u0915\u093f\u0924\u093e\u092c", "\u0915\u0940\u0924\u093e\u092c"),  # Hindi: i and ii
        ("\u0e01\u0e34\u0e19", "\u0e01\u0e31\u0e19"),  # Thai: i and a
        ("\u0e44\u0e01\u0e25", "\u0e43\u0e01\u0e25\u0e49"),  # far and near
    ],
)
def test_what_means_another_thing_is_not_alike(one: str, other: str) -> None:
    assert normalised(one) != normalised(other) and not alike(one, other)
    if not any(ord(char) > 0x900 for char in one):
        assert not alike(LONG.format(one), LONG.format(other))


def test_three_questions_under_one_long_hint_stay_three() -> None:
    hint = "The passage tells how a whale breathes and what it eats, where it lives in winter and who hunts it. " * 6
    options = "\n(A) the blue whale\n(B) the grey seal"
    questions = ["Which animal is the largest?", "Which animal is the smallest?", "Which animal sleeps in water?"]
    found = index()
    for number, question in enumerate(questions):
        item = Item(str(number), f"{hint}\n{question}{options}", by_line=True)
        assert found.first_like(item) is None, question
        found.add(item)
    again = Item("b", f"{hint}\n{questions[1].upper()}{options}", by_line=True)
    assert found.first_like(again) == "1"
    # on one line it is the ends that tell
    assert not alike(f"{hint} What do seals do all day long?", f"{hint} Who was the first to paint a whale?")
    assert not alike(f"What do seals do all day long? {hint}", f"Who was the first to paint a whale? {hint}")
    assert alike(f"{hint} What do seals do all day long?", f"{hint.upper()} what do seals do, all day long")


@pytest.mark.parametrize("text", ["", "?", "\u2764", "Why?", "one two", "\u4f60\u597d\u4e16\u754c"])
def test_odd_and_short_texts_are_like_themselves_only(text: str) -> None:
    found = index()
    found.add(Item("other", "something else entirely"))
    assert found.first_like(Item("b", text)) is None
    found.add(Item("a", text))
    assert found.first_like(Item("b", text)) == "a"


def test_texts_without_spaces_are_compared_by_their_signs() -> None:
    assert normalised("\u4f60\u597d\u4e16\u754c") == "\u4f60 \u597d \u4e16 \u754c"
    assert normalised("\u0e01\u0e47\u0e14\u0e35") == "\u0e01\u0e47 \u0e14\u0e35", "a mark stays with its letter"
    assert shingles(["a", "b", "c", "d"], 3) == {"a b c", "b c d"} and shingles(["one", "two"], 3) == {"one two"}


def test_an_id_added_twice_keeps_its_first_text() -> None:
    found = index()
    found.add(Item("a", "one two three four five"))
    found.add(Item("a", "six seven eight nine ten"))
    assert found.first_like(Item("b", "one two three four five")) == "a"
    assert found.first_like(Item("b", "six seven eight nine ten")) is None


def test_bands_find_nearly_all_at_the_threshold_and_few_far_below() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9, 1.0):
        count, width = bands(threshold, 128)
        assert count * width <= 128
        shares = [1 - (1 - s**width) ** count for s in (min(threshold, 0.99), threshold / 3)]
        assert shares[0] > 0.9 and shares[1] < 0.25, (threshold, count, width, shares)


def test_one_question_over_many_images_is_not_compared_with_each() -> None:
    found = index()
    for number in range(300):
        found.add(Item(str(number), "Find the value of x in the image.", f"p{number}"))
    most = found._base.execute("SELECT max(n) FROM (SELECT count(*) AS n FROM band GROUP BY key)").fetchone()
    assert most == (1,)
    assert found.first_like(Item("new", "Find the value of x in the image.", "p7")) == "7"


@pytest.mark.parametrize("form", ["{hint}\n{question}", "{question} {hint}", "{hint} {question}"])
def test_a_short_question_beside_a_long_hint_is_its_own_and_looked_for_in_few(form: str) -> None:
    hint = "The passage tells how a whale breathes and what it eats, where it lives in winter and who hunts it. " * 4
    words = ["ka", "lo", "mi", "nu", "po", "ra", "ste", "va", "wo", "xi", "yu", "za", "ble"]
    asked = dict.fromkeys(f"{a} {b} {c} tell" for a in words for b in words for c in words[:3] if len({a, b, c}) == 3)
    texts = [form.format(hint=hint, question=question) for question in [*asked][:300]]
    found = index()
    for number, text in enumerate(texts):
        assert found.first_like(Item(f"n{number}", text, by_line=True)) is None, text
        found.add(Item(str(number), text, by_line=True))
    (most,) = found._base.execute("SELECT max(n) FROM (SELECT count(*) AS n FROM band GROUP BY key)").fetchone()
    assert most <= FULL, "time must not grow with the square of the items"
    for number in (0, 5, 299):
        assert found.first_like(Item("again", texts[number].upper() + "!", by_line=True)) == str(number)


def test_a_missing_library_is_told_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    duplicates.bands.cache_clear()
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(ConfigError, match=r"pip install .*datasketch"):
        index()
