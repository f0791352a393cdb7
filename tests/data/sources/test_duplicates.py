"""Exact and near-duplicates against a search through all pairs."""

from __future__ import annotations

import random
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from steer_verl.data.sources.duplicates import DuplicateIndex, Item, item_of
from steer_verl.data.sources.pictures import PictureStore
from steer_verl.data.sources.settings import DuplicateSettings
from steer_verl.data.sources.sketch import bands, look, normalised, shingles, signature
from steer_verl.errors import ConfigError
from steer_verl.images import load_image

WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "po", "ra", "ste") for b in ("n", "r", "t", "lan", "mir", "vos")]


def index(path: Path, **settings: Any) -> DuplicateIndex:
    return DuplicateIndex(path / "index.sqlite", DuplicateSettings(**settings))


def generated(seed: int, count: int) -> list[Item]:
    """Items of which many are others' texts with some words changed, over few pictures with looks near each other."""
    rng = random.Random(seed)
    looks = [rng.getrandbits(64) for _ in range(4)]
    items: list[Item] = []
    for number in range(count):
        words = rng.choices(WORDS, k=rng.randint(1, 90))
        if items and rng.random() < 0.7:
            words = rng.choice(items).text.split()
            for _ in range(rng.choice((0, 0, 0, 1, 1, 4))):
                words[rng.randrange(len(words))] = rng.choice(WORDS)
        picture = rng.randrange(4)
        seen = looks[picture]
        for _ in range(rng.randrange(4)):
            seen ^= 1 << rng.randrange(64)
        items.append(Item(str(number), " ".join(words), f"p{picture}", rng.choice((seen, seen, seen, None))))
    return items


def jaccard(one: Item, other: Item, words: int = 3) -> float:
    a, b = shingles(one.text, words), shingles(other.text, words)
    return len(a & b) / len(a | b)


@cache
def values(text: str, settings: DuplicateSettings) -> np.ndarray:
    return signature(text, settings.words, settings.permutations)


def estimate(one: Item, other: Item, settings: DuplicateSettings) -> float:
    a, b = (values(item.text, settings) for item in (one, other))
    return float(np.mean(a == b))


def pictures_alike(one: Item, other: Item, settings: DuplicateSettings) -> bool:
    if settings.pictures == "look":
        if one.look is None or other.look is None:
            return one.look is other.look
        return bin(one.look ^ other.look).count("1") <= settings.look_bits
    return settings.pictures == "any" or one.pixels == other.pixels


def twin(item: Item, before: Sequence[Item], settings: DuplicateSettings) -> list[str]:
    """Every earlier item that is like it, by comparing with all of them."""
    return [
        other.id
        for other in before
        if pictures_alike(item, other, settings) and estimate(item, other, settings) >= settings.threshold
    ]


@pytest.mark.parametrize("pictures", ["pixels", "look", "any"])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_index_finds_what_a_search_through_all_finds(tmp_path: Path, pictures: str, seed: int) -> None:
    settings = DuplicateSettings(pictures=pictures)  # type: ignore[arg-type]
    found = DuplicateIndex(tmp_path / "a.sqlite", settings)
    items = generated(seed, 250)
    expected = missed = 0
    for place, item in enumerate(items):
        alike = twin(item, items[:place], settings)
        answer = found.first_like(item)
        assert answer is None or answer in alike, "nothing is like it, or another one"
        expected += bool(alike)
        missed += bool(alike) and answer != alike[0]
        found.add(item)
    assert expected > 30 and missed <= 0.03 * expected, (missed, expected)


def test_the_first_same_one_is_exact(tmp_path: Path) -> None:
    items = generated(3, 200)
    found = index(tmp_path)
    for place, item in enumerate(items):
        same = [o.id for o in items[:place] if (o.pixels, normalised(o.text)) == (item.pixels, normalised(item.text))]
        assert found.first_same(item) == (same[0] if same else None)
        if same:
            assert found.first_like(item) is not None, "what is the same is alike"
        found.add(item)


def test_estimates_are_near_the_truth() -> None:
    items = generated(4, 60)
    settings = DuplicateSettings()
    errors = [estimate(a, b, settings) - jaccard(a, b) for a in items for b in items]
    assert abs(np.mean(errors)) < 0.02 and np.max(np.abs(errors)) < 0.2


def test_planted_duplicates_are_found_and_harmless_neighbours_are_not(tmp_path: Path) -> None:
    text = (
        "What would somebody need to know about the red kettle on the shelf before they clean it with vinegar at home?"
    )
    item = Item("a", text, "p")
    found = index(tmp_path)
    found.add(item)
    for planted in (
        text.upper(),
        f"  {text}\n",
        text.replace("?", "!!"),
        text.replace("kettle", "ke\u200bttle"),
        text + " Please",
    ):
        assert found.first_like(Item("b", planted, "p")) == "a", planted
    for other in (text[:40], text.replace("red kettle", "old copper pan").replace("vinegar at home", "sand"), "", "?"):
        assert found.first_like(Item("b", other, "p")) is None, other
    assert found.first_like(Item("b", text, "q")) is None and found.first_same(Item("b", text, "q")) is None


@pytest.mark.parametrize("text", ["", "?", "\u2764", "Why?", "one two", "\u4f60\u597d\u4e16\u754c"])
def test_odd_and_short_texts_are_like_themselves_only(tmp_path: Path, text: str) -> None:
    found = index(tmp_path, pictures="any")
    found.add(Item("other", "something else entirely"))
    assert found.first_like(Item("b", text)) is None
    found.add(Item("a", text))
    assert found.first_like(Item("b", text)) == "a" == found.first_same(Item("b", text))


def test_texts_without_spaces_are_compared_by_their_signs() -> None:
    assert shingles("\u4f60\u597d\u4e16\u754c", 3) == {"\u4f60 \u597d \u4e16", "\u597d \u4e16 \u754c"}
    assert shingles("One, two", 3) == {"one two"} and shingles("a b c d", 3) == {"a b c", "b c d"}


def test_a_run_started_again_hears_the_same(tmp_path: Path) -> None:
    items = generated(5, 150)

    def through(upto: int) -> list[str | None]:
        found = index(tmp_path)
        answers = []
        for item in items[:upto]:
            answers.append(found.first_like(item))
            found.add(item)  # all of them, the duplicates too
        assert len(found) == max(upto, len(found))
        found.close()
        return answers

    half = through(70)
    whole = through(150)
    assert whole[:70] == half and through(150) == whole
    with sqlite3.connect(tmp_path / "index.sqlite") as base:
        assert base.execute("SELECT count(*), count(DISTINCT id) FROM item").fetchone() == (150, 150)


def test_an_id_added_twice_keeps_its_first_text(tmp_path: Path) -> None:
    found = index(tmp_path)
    found.add(Item("a", "one two three four five"))
    found.add(Item("a", "six seven eight nine ten"))
    assert len(found) == 1
    assert found.first_like(Item("b", "one two three four five")) == "a"
    assert found.first_like(Item("b", "six seven eight nine ten")) is None


def test_what_was_added_is_there_although_nobody_closed(tmp_path: Path) -> None:
    found = index(tmp_path)
    found.add(Item("a", "one two three four five"))
    assert index(tmp_path).first_like(Item("b", "one two three four five")) == "a"


def test_a_batch_is_seen_at_once_and_written_together(tmp_path: Path) -> None:
    settings, path = DuplicateSettings(), tmp_path / "index.sqlite"
    found = DuplicateIndex(path, settings, batch=3)
    for number, text in enumerate(("one two three four", "five six seven eight")):
        found.add(Item(str(number), text))
    assert found.first_like(Item("b", "one two three four")) == "0" and len(DuplicateIndex(path, settings)) == 0
    found.add(Item("2", "nine ten eleven twelve"))
    assert len(DuplicateIndex(path, settings)) == 3
    found.add(Item("3", "thirteen fourteen fifteen"))
    found.close()
    assert len(DuplicateIndex(path, settings)) == 4


def test_an_index_of_other_settings_is_refused(tmp_path: Path) -> None:
    index(tmp_path).close()
    with pytest.raises(ConfigError, match=r"index\.sqlite: made with .*remove the file"):
        index(tmp_path, threshold=0.7)
    index(tmp_path).close()


def test_bands_find_nearly_all_at_the_threshold_and_few_far_below() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9, 1.0):
        count, width = bands(threshold, 128)
        assert count * width <= 128
        shares = [1 - (1 - s**width) ** count for s in (min(threshold, 0.99), threshold / 3)]
        assert shares[0] > 0.9 and shares[1] < 0.25, (threshold, count, width, shares)


def test_the_look_stays_when_a_picture_is_saved_otherwise_and_differs_between_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)

    def blobs() -> Image.Image:
        small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        return small.resize((240, 200), Image.Resampling.BICUBIC)

    pictures = [blobs() for _ in range(12)]
    for image in pictures:
        image.save(tmp_path / "a.jpg", quality=60)
        for other in (
            load_image(tmp_path / "a.jpg"),
            image.resize((120, 100)),
            ImageEnhance.Brightness(image).enhance(0.8),
        ):
            assert (look(image) ^ look(other)).bit_count() <= 4
    apart = [(look(a) ^ look(b)).bit_count() for place, a in enumerate(pictures) for b in pictures[:place]]
    assert min(apart) > 8


def test_an_item_of_stored_pictures(tmp_path: Path) -> None:
    store = PictureStore(tmp_path)
    names = [store.add(Image.linear_gradient("L").convert("RGB")), store.add(Image.new("RGB", (9, 9), "blue"))]
    pixels = item_of("a", "What?", names, tmp_path, DuplicateSettings())
    assert pixels == Item("a", "What?", "+".join(Path(name).stem for name in names))
    seen = item_of("a", "What?", names, tmp_path, DuplicateSettings(pictures="look"))
    assert seen == replace(pixels, look=look(load_image(tmp_path / names[0])))
    assert item_of("a", "What?", [], tmp_path, DuplicateSettings(pictures="look")).look is None


def test_one_question_over_many_pictures_is_not_compared_with_each(tmp_path: Path) -> None:
    found = index(tmp_path)
    for number in range(300):
        found.add(Item(str(number), "Find the value of x in the picture.", f"p{number}"))
    keys = list(found._keys(Item("new", "Find the value of x in the picture.", "p7"), np.zeros(128, np.uint32)))
    with sqlite3.connect(tmp_path / "index.sqlite") as base:
        assert base.execute("SELECT max(n) FROM (SELECT count(*) AS n FROM band GROUP BY key)").fetchone() == (1,)
    assert len(keys) == len(set(keys)) == bands(0.8, 128)[0]
    assert found.first_like(Item("new", "Find the value of x in the picture.", "p7")) == "7"


def test_a_missing_library_is_told_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steer_verl.data.sources import sketch

    sketch.bands.cache_clear()
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(ConfigError, match=r"steer-verl\[data\]"):
        DuplicateIndex(tmp_path / "index.sqlite", DuplicateSettings())
