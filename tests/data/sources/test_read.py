"""Bad input of every kind: each row ends as seeds or as an account, and the rest goes on."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from steer_verl.data.sources.bad import BadRow
from steer_verl.data.sources.pictures import PictureStore
from steer_verl.data.sources.read import Ids, read_sources, read_table
from steer_verl.data.sources.sets import Origin
from steer_verl.data.sources.settings import SourceSettings
from steer_verl.errors import DataError
from tests.data.samples import picture, write_rows
from tests.data.sources.samples import PICTURE, beavertails, inline, picture_bytes, read, sort, spa_vl, write_parquet
from tests.test_images import png_header


def plain(**changes: Any) -> dict[str, Any]:
    return {"question": "What is it?", "license": "MIT", **changes}


def test_every_kind_of_bad_line_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        json.dumps(plain()).encode(),
        b'{"question": "caf\xe9", "license": "MIT"}',
        b"\xef\xbb\xbf{}",
        b'{"question": "a", "question": "b"}',
        b'{"question": NaN}',
        b'{"question": "\\ud800", "license": "MIT"}',
        b"[1]",
        json.dumps(plain(question="Say <image> twice")).encode(),
        json.dumps(plain(question="x" * 9000)).encode(),
        json.dumps(plain(source_id="a\x00b")).encode(),
        json.dumps(plain(question="Last?")).encode(),
        b'{"question": "torn',
    ]
    path.write_bytes(b"\n".join(lines))
    seeds, bad = read(tmp_path, set="plain", path=path)
    assert [seed.question for seed in seeds] == ["What is it?", "Last?"]
    assert {row.row: row.reason for row in bad} == {
        2: "line",
        3: "line",
        4: "line",
        5: "line",
        6: "line",
        7: "line",
        8: "text",
        9: "text",
        10: "field",
        12: "line",
    }
    for row in bad:
        assert row.what and row.cure and str(path) in str(row) and "\n" not in str(row)
        assert BadRow.model_validate_json(row.model_dump_json()) == row


def test_hostile_pictures_are_told_each_and_nothing_of_them_is_stored(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    picture(tmp_path / "outside.png")
    picture(tmp_path / "set/good.png")
    (tmp_path / "set/bomb.png").write_bytes(png_header(60_000, 60_000))
    (tmp_path / "set/page.png").write_text("<html>404</html>")
    (tmp_path / "set/torn.jpg").write_bytes(picture_bytes(kind="JPEG")[:300])
    (tmp_path / "set/link.png").symlink_to(tmp_path / "outside.png")
    picture(tmp_path / "set/a.gif")
    faults = {
        "bomb.png": "a decompression bomb",
        "page.png": "not a PNG",
        "torn.jpg": "broken or truncated",
        "link.png": "leads out",
        "a.gif": "not a PNG",
        "no.png": "no such file",
        "../outside.png": "'..'",
        str(tmp_path / "outside.png"): "absolute",
        "http://127.0.0.1:9/a.png": "URL",
        "data:image/png;base64,AAAA": "URL",
        "a\x00.png": "NUL",
    }
    names = [*faults, "good.png", str(tmp_path / "set/good.png")]
    path = write_rows(tmp_path / "set/rows.jsonl", [plain(image=name) for name in names])
    seeds, bad = read(tmp_path, set="plain", path=path)
    assert [row.row for row in bad] == list(range(1, len(faults) + 1))
    for row, (name, fault) in zip(bad, faults.items(), strict=True):
        assert row.reason == "picture" and fault in row.what, (name, row.what)
    assert len(seeds) == 2 and seeds[0].image == seeds[1].image
    stored = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert stored == [tmp_path / "out" / str(seeds[0].image)]


@pytest.mark.parametrize("value", [{"bytes": b"\x89PNG", "path": None}, {"bytes": None, "path": "no.png"}])
def test_pictures_by_value_are_as_hostile(tmp_path: Path, value: dict[str, Any]) -> None:
    schema = pa.schema({"question": pa.string(), "license": pa.string(), "image": PICTURE})
    rows = [plain(image=value), plain(image=inline()), plain(image=None)]
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "rows.parquet")
    (seed, without), (bad,) = read(tmp_path, set="plain", path=tmp_path / "rows.parquet")
    assert bad.row == 1 and bad.reason == "picture" and seed.image and without.image is None


@pytest.mark.parametrize("value", [5, ["a.png"], {"url": "a.png"}, True])
def test_other_values_are_no_pictures(tmp_path: Path, value: Any) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [plain(), plain(image=value)])
    seeds, (bad,) = read(tmp_path, set="plain", path=path)
    assert len(seeds) == 1 and bad.reason == "picture" and "give a path" in bad.cure


def test_duplicate_ids_are_told_with_the_first_row_and_across_sources(tmp_path: Path) -> None:
    rows = [plain(source_id="a", image="no.png"), plain(source_id="a"), plain(source_id="b"), plain(source_id="a")]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    sources = [SourceSettings(set="plain", path=path, name=name) for name in ("one", "two", "one")]
    seeds, bad = sort(read_sources(sources, tmp_path / "out"))
    assert [seed.id for seed in seeds] == ["one:a", "one:b", "two:a", "two:b"]
    repeated = [row for row in bad if row.reason == "duplicate_id"]
    assert [row.row for row in repeated] == [4, 4, 2, 3, 4]
    assert all("row 2's already" in row.what for row in repeated if "one:a" in row.what or "two:a" in row.what)


def test_shards_that_are_cut_or_broken_inside_are_told_and_the_others_are_read(tmp_path: Path) -> None:
    rows = [beavertails(question=f"Question number {n}?") for n in range(40)]
    whole = write_parquet(tmp_path / "set/train-00000-of-00003.parquet", rows, row_group_size=10, compression="zstd")
    data = whole.read_bytes()
    (tmp_path / "set/train-00001-of-00003.parquet").write_bytes(data[: len(data) // 2])
    start = pq.ParquetFile(whole).metadata.row_group(1).column(0).data_page_offset
    broken = bytearray(data)
    broken[start : start + 60] = b"\xff" * 60
    (tmp_path / "set/train-00002-of-00003.parquet").write_bytes(bytes(broken))
    seeds, bad = read(tmp_path, set="beavertails_v", path=tmp_path / "set")
    first = [seed for seed in seeds if seed.source_id.startswith("train-00000")]
    third = [seed for seed in seeds if seed.source_id.startswith("train-00002")]
    assert (len(first), len(third), len(seeds)) == (40, 30, 70)
    assert [(Path(row.file).name[:11], row.row, row.reason) for row in bad] == [
        ("train-00001", 0, "file"),
        ("train-00002", 11, "file"),
    ]
    assert "rows 11 to 20" in bad[1].what
    assert [seed.question for seed in third] == [f"Question number {n}?" for n in [*range(10), *range(20, 40)]]


def test_texts_that_are_no_utf8_are_the_fault_of_their_row(tmp_path: Path) -> None:
    texts = pa.array([b"What?", b"caf\xe9?", b"And?"], pa.binary()).cast(pa.string(), safe=False)
    texts = pa.StringArray.from_buffers(3, *pa.array([b"What?", b"caf\xe9?", b"And?"], pa.binary()).buffers()[1:])
    table = pa.table({"question": texts, "license": ["MIT"] * 3})
    pq.write_table(table, tmp_path / "rows.parquet")
    seeds, (bad,) = read(tmp_path, set="plain", path=tmp_path / "rows.parquet")
    assert [seed.question for seed in seeds] == ["What?", "And?"]
    assert (bad.row, bad.reason) == (2, "line") and "UTF-8" in bad.what


def test_files_without_a_readable_row_are_told(tmp_path: Path) -> None:
    for name, text in (("a.jsonl", ""), ("b.jsonl", "\x00\n" * 300), ("c.jsonl", json.dumps(plain()))):
        (tmp_path / name).write_text(text)
    seeds, bad = read(tmp_path, set="plain", path=tmp_path)
    assert len(seeds) == 1 and [(Path(row.file).name, row.row, row.reason) for row in bad] == [
        ("a.jsonl", 0, "file"),
        ("b.jsonl", 0, "file"),
    ]


def test_a_place_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path, set="plain", path=tmp_path / "no.jsonl")
    (tmp_path / ".cache").mkdir()
    write_rows(tmp_path / ".cache/rows.jsonl", [plain()])
    with pytest.raises(DataError, match="found: none"):
        read(tmp_path, set="plain", path=tmp_path)
    write_parquet(tmp_path / "data/train-0.parquet", [spa_vl()])
    with pytest.raises(DataError, match="found: data/train"):
        read(tmp_path, set="spa_vl", path=tmp_path, split="test")


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong in ({"set": "vlgard", "path": "a"}, {"set": "plain"}, {"set": "plain", "path": "a", "dataset": "b"}):
        with pytest.raises(ValidationError, match=r"choose one of|either path or dataset"):
            SourceSettings(**wrong)  # type: ignore[arg-type]


def test_a_limit_counts_seeds(tmp_path: Path) -> None:
    rows = [plain(question=""), *(plain(question=f"Number {n}?") for n in range(5))]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    seeds, bad = read(tmp_path, set="plain", path=path, limit=2)
    assert [seed.question for seed in seeds] == ["Number 0?", "Number 1?"] and len(bad) == 1


class OpenedPictures:
    """A table whose rows hold pictures that somebody opened."""

    name, part, origin, root = "memory", "memory", Origin(), Path()

    def __init__(self, *images: Any) -> None:
        self.images = images

    def columns(self) -> list[str]:
        return ["question", "image", "license"]

    def rows(self, wanted: object) -> Any:
        yield from enumerate((plain(image=image) for image in self.images), start=1)


def test_opened_pictures_pass_the_same_door(tmp_path: Path) -> None:
    gif = Image.open(picture(tmp_path / "a.gif"))
    torn = tmp_path / "torn.png"
    Image.effect_noise((64, 64), 80).save(torn)
    torn.write_bytes(torn.read_bytes()[:-2000])
    big, drawn = Image.new("L", (20_000, 2)), Image.new("RGBA", (30, 30), (255, 0, 0, 0))
    table = OpenedPictures(gif, Image.open(torn), big, drawn)
    store = PictureStore(tmp_path / "out")
    (seed,), bad = sort(read_table(table, SourceSettings(set="plain", path=Path("x")), store, Ids()))
    assert [row.row for row in bad] == [1, 2, 3] and {row.reason for row in bad} == {"picture"}
    with Image.open(store.folder / str(seed.image)) as stored:
        assert stored.format == "PNG" and stored.convert("RGB").getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, suffix: str) -> None:
    peaks = []
    for rows in (500, 10_000):
        many = [plain(question=f"What is number {n}? " + "Really? " * 20) for n in range(rows)]
        path = tmp_path / f"rows{rows}.{suffix}"
        write_parquet(path, many, row_group_size=1000) if suffix == "parquet" else write_rows(path, many)
        del many
        tracemalloc.start()
        assert sum(1 for _ in read_sources([SourceSettings(set="plain", path=path)], tmp_path / "out")) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5 + 2**19, peaks
