"""The README of the folder of the sets: valid for the hub, and the folder can be loaded as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard

from steer_verl.data.cards.readme import BENCH_FEATURES, readme, size_category
from steer_verl.data.seed import SetName
from steer_verl.errors import ConfigError
from steer_verl.types import UserTurn
from tests.data.cards.samples import account, card_of, many, seeds
from tests.data.sets.samples import image, put_together, seed


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


def test_the_front_matter_is_what_the_hub_reads(tmp_path: Path) -> None:
    sets = {SetName.SFT: card_of(many(30)), SetName.BENCH: card_of(seeds(5, SetName.BENCH))}
    (tmp_path / "README.md").write_text(readme(sets, account()))
    data = DatasetCard.load(tmp_path / "README.md").data
    assert data.license == "other" and data.size_categories == ["n<1K"]  # one of the sources states none
    assert "non-commercial" in data.tags
    configs = data.to_dict()["configs"]
    assert [(config["config_name"], config["data_files"]) for config in configs] == [
        ("sft", [{"split": "train", "path": "sft.jsonl"}]),
        ("bench", [{"split": "test", "path": "bench.jsonl"}]),
    ]


def test_the_card_speaks_of_the_sets_that_are_there() -> None:
    text = readme({SetName.BENCH: card_of(seeds(5, SetName.BENCH))}, account())
    assert "questions of other sets: `bench`." in text and '"bench", split="test"' in text
    assert '"sft", split="train"' in readme({SetName.SFT: card_of(many(3))}, account())


def test_a_whole_card_holds_every_count() -> None:
    card = card_of(many(30))
    text = readme({SetName.SFT: card}, account())
    for length, count in card.lengths.items():
        assert f"| {length} | {count} |" in text
    for heading in ("## STEER-SFT", "### Intended use", "### Limits", "**Licence.**", "## How it came about"):
        assert heading in text
    plain = text.replace("\\", "")
    for said in ("expert-model", "near_duplicate", "| bootstrap | unsafe | 3 |", "420", "1.25"):
        assert said in plain


def test_without_the_hubs_package_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install '?datasets"):
        put_together(tmp_path / "images", rl=[seed("s:1/benign")])
    assert not (tmp_path / "out").exists()


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    yield tmp_path / "cache"


def test_the_folder_loads_as_it_is_uploaded(tmp_path: Path, offline: Path) -> None:
    """What a row alone has (an image, a risk trajectory) may come after any number of rows without it."""
    datasets = pytest.importorskip("datasets")
    shown = {name: f"aa/{name}.png" for name in ("sft", "rl", "bench")}
    for name in shown.values():
        image(tmp_path / "images" / name)
    facts = [{}, {"risk_curve": [1, 2, 5], "source_category": "x"}, {"note": "a"}, {"note": [1]}]
    rows = {
        side: [
            seed(f"s:{side}{n}/red_team", image=shown[side] if n % 2 else None, facts=fact)
            for n, fact in enumerate(facts)
        ]
        for side in shown
    }
    put_together(tmp_path / "images", **rows)
    out = tmp_path / "out" / "sets"
    splits = {"sft": "train", "rl": "train", "bench": "test"}
    loaded = {
        side: datasets.load_dataset(str(out), side, split=split, cache_dir=str(offline))
        for side, split in splits.items()
    }
    assert {side: len(found) for side, found in loaded.items()} == dict.fromkeys(shown, 4)
    builder = datasets.load_dataset_builder(str(out), "rl", cache_dir=str(offline))
    assert builder.config.chunksize == 2**30, "else a fact that a row behind the first 10 MB alone has is an error"
    bench = {row["question_id"]: row for row in loaded["bench"]}
    written = {key for line in (out / "bench.jsonl").read_text().splitlines() for key in json.loads(line)}
    assert written == {feature["name"] for feature in BENCH_FEATURES}
    assert bench["s:bench1/red_team"]["risk_trajectory"] == [1, 2, 5]
    assert bench["s:bench0/red_team"]["risk_trajectory"] in (None, [])
    for row in loaded["bench"]:
        assert row["image"] is None or (out / row["image"]).is_file()
    for row in [*loaded["rl"], *loaded["sft"]]:
        assert all((out / name).is_file() for name in row["images"])
    assert any(row["images"] for row in loaded["rl"]) and any(row["images"] for row in loaded["sft"])
    assert {row["messages"][1]["role"] for row in loaded["sft"]} == {"assistant"}


def test_the_hub_is_told_of_columns_that_some_rows_alone_have(tmp_path: Path, offline: Path) -> None:
    """``datasets`` reads ten megabytes at a time, and takes the first ones for all."""
    datasets = pytest.importorskip("datasets")
    image(tmp_path / "images" / "a.png")
    rows = []
    for number in range(250):
        long = seed(f"s:{number}/red_team", topic=f"{number} " + "x" * 15_000)
        if number % 100 == 99:
            turns = (UserTurn(text="<image>See?", images=("a.png",)), *long.turns[1:])
            long = long.model_copy(update={"turns": turns, "facts": {"risk_curve": [1, 2, 3]}})
        rows.append(long)
    put_together(tmp_path / "images", bench=rows)
    out = tmp_path / "out" / "sets"
    lines = (out / "bench.jsonl").read_text().splitlines(keepends=True)
    lines.sort(key=lambda line: "risk_trajectory" in line)
    (out / "bench.jsonl").write_text("".join(lines))
    assert sum(map(len, lines)) > 12 << 20
    found = datasets.load_dataset(str(out), "bench", split="test", cache_dir=str(offline))
    assert [row["risk_trajectory"] for row in found.select([len(found) - 1])] == [[1, 2, 3]]
