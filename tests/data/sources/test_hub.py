"""What the ``datasets`` library saved or loads from a folder, without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.sources import hub
from steer_verl.errors import DataError
from tests.data.samples import picture
from tests.data.sources.samples import beavertails, inline, read, write_parquet

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def made(*rows: dict[str, Any]) -> Any:
    features = datasets.Features(
        {
            name: datasets.Image()
            if name == "image"
            else datasets.Value("int64" if isinstance(value, int) else "string")
            for name, value in rows[0].items()
        }
    )
    return datasets.Dataset.from_list(list(rows), features=features)


def test_a_saved_dataset_and_its_splits(tmp_path: Path) -> None:
    dataset = made(beavertails(), beavertails(image={"bytes": b"no picture", "path": None}))
    dataset.save_to_disk(str(tmp_path / "one/train"))
    (seed,), (bad,) = read(tmp_path, set="beavertails_v", path=tmp_path / "one/train")
    assert seed.image and (bad.row, bad.reason, bad.file) == (2, "image", f"{tmp_path / 'one/train'}[train]")
    other = made(beavertails(question="Another?"))
    datasets.DatasetDict({"train": dataset, "evaluation": other}).save_to_disk(str(tmp_path / "two"))
    seeds, _ = read(tmp_path, set="beavertails_v", path=tmp_path / "two")
    assert [seed.question for seed in seeds] == [seed.question, "Another?"]
    (seed,), _ = read(tmp_path, set="beavertails_v", path=tmp_path / "two", split="evaluation", config="theft")
    assert seed.question == "Another?"
    with pytest.raises(DataError, match="no split test; it has train, evaluation"):
        read(tmp_path, set="beavertails_v", path=tmp_path / "two", split="test")


def test_a_dataset_loaded_by_name_all_splits_or_one(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_parquet(tmp_path / f"set/data/{split}-00000-of-00001.parquet", [beavertails(question=f"A {split}?")])
    seeds, bad = read(tmp_path, set="beavertails_v", dataset=str(tmp_path / "set"))
    assert [seed.question for seed in seeds] == ["A train?", "A test?"] and not bad
    (seed,), _ = read(tmp_path, set="beavertails_v", dataset=str(tmp_path / "set"), split="test")
    assert seed.question == "A test?"
    with pytest.raises(DataError, match="set: beavertails_v"):
        read(tmp_path, set="spa_vl", dataset=str(tmp_path / "set"))


def test_a_folder_of_pictures_with_its_table(tmp_path: Path) -> None:
    """As MOSSBench lies on the hub: metadata.csv beside the pictures, which come as absolute paths."""
    picture(tmp_path / "set/train/1.png")
    lines = ["file_name,pid,question,short description", "1.png,1,Help me cut this cake.,a cake"]
    (tmp_path / "set/train/metadata.csv").write_text("\n".join(lines))
    (seed,), bad = read(tmp_path, set="mossbench", dataset=str(tmp_path / "set"))
    assert not bad and seed.image and seed.facts == {"short description": "a cake"} and seed.unsafe is False


def test_pictures_that_a_dataset_names_elsewhere_are_refused(tmp_path: Path) -> None:
    outside = picture(tmp_path / "outside.png")
    rows = [beavertails(image={"bytes": None, "path": str(outside)}), beavertails(image=inline())]
    dataset = datasets.Dataset.from_list(rows)  # of its Image type it would save the bytes
    dataset.save_to_disk(str(tmp_path / "saved"))
    seeds, (bad,) = read(tmp_path, set="beavertails_v", path=tmp_path / "saved")
    assert len(seeds) == 1 and bad.row == 1 and "absolute" in bad.what and "\n" not in str(bad)


def test_what_cannot_be_loaded_is_one_line_with_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "set/train.parquet", [beavertails()])
    with pytest.raises(DataError, match=r"dataset .*set: ValueError: .*give `path`") as caught:
        read(tmp_path, set="spa_vl", dataset=str(tmp_path / "set"), split="no-such-split")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install .?datasets"):
        next(iter(hub.hub_tables("a", None, None, None)))
