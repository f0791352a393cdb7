"""Bad input of every kind: each row ends as seeds or as an account, and the rest goes on."""

from __future__ import annotations

import csv
import datetime
import decimal
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from steer_verl.data.image_store import ImageStore
from steer_verl.data.seed import SourceSeed
from steer_verl.data.sources.images import SourceImages
from steer_verl.data.sources.read import merged, read_source
from steer_verl.data.sources.registry import SETS
from steer_verl.data.sources.sets import BadRow, Refused
from steer_verl.data.sources.settings import SourceSettings
from steer_verl.errors import DataError
from tests.data.samples import picture, write_rows
from tests.data.sources.samples import (
    PICTURE,
    beavertails,
    inline,
    picture_bytes,
    read,
    science,
    spa_vl,
    vlguard_safe,
    write_csv,
    write_json,
    write_parquet,
)
from tests.test_images import png_header


def plain(**changes: Any) -> dict[str, Any]:
    return {"question": "What is it?", "license": "MIT", **changes}


def test_every_kind_of_bad_line_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        json.dumps(plain()).encode(),
        b'{"question": "caf\xe9", "license": "MIT"}',
        b"\xff\xfe{}",
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
        assert row.what and row.hint and str(path) in str(row) and "\n" not in str(row)
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
    rows = [plain(image=name, question=f"What is {number}?") for number, name in enumerate(names)]
    path = write_rows(tmp_path / "set/rows.jsonl", rows)
    seeds, bad = read(tmp_path, set="plain", path=path)
    assert [row.row for row in bad] == list(range(1, len(faults) + 1))
    for row, (name, fault) in zip(bad, faults.items(), strict=True):
        assert row.reason == "image" and fault in row.what, (name, row.what)
    assert len(seeds) == 2 and seeds[0].image == seeds[1].image
    stored = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert stored == [tmp_path / "out" / str(seeds[0].image)]


def test_an_image_is_looked_for_beside_its_table_first_and_below_a_given_folder_there_first(tmp_path: Path) -> None:
    for name, colour in {"d/1.png": "red", "d/more/1.png": "blue", "d/2.png": "green"}.items():
        picture(tmp_path / name, colour=colour)
    rows = [plain(question=f"{n}?", image=name) for n, name in enumerate(("1.png", "2.png", str(tmp_path / "d/1.png")))]
    for folder in ("d", "d/more"):
        write_rows(tmp_path / folder / "rows.jsonl", [plain(question=f"{folder}?", image="1.png"), *rows])

    def colours(**settings: Any) -> list[Any]:
        seeds, _ = read(tmp_path, set="plain", **settings)
        return [Image.open(tmp_path / "out" / str(seed.image)).getpixel((0, 0)) for seed in seeds]

    red, blue, green = (255, 0, 0), (0, 0, 255), (0, 128, 0)
    assert colours(path=tmp_path / "d/more", images=tmp_path / "d") == [red, red, green, red]
    assert colours(path=tmp_path / "d/more/rows.jsonl", images=tmp_path / "d") == [red, red, green, red]
    assert colours(path=tmp_path / "d") == [blue, blue, green, red, red, red]


def test_absolute_paths_below_the_folder_are_known_by_whatever_link(tmp_path: Path) -> None:
    picture(tmp_path / "real/i/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    rows = [plain(question=f"{name}?", image=str(tmp_path / name / "i/a.png")) for name in ("real", "link")]
    write_rows(tmp_path / "real/rows.jsonl", rows)
    for name in ("real", "link"):
        seeds, bad = read(tmp_path, set="plain", path=tmp_path / name / "rows.jsonl")
        assert len(seeds) == 2 and not bad


@pytest.mark.parametrize("value", [{"bytes": b"\x89PNG", "path": None}, {"bytes": None, "path": "no.png"}])
def test_pictures_by_value_are_as_hostile(tmp_path: Path, value: dict[str, Any]) -> None:
    schema = pa.schema({"question": pa.string(), "license": pa.string(), "image": PICTURE})
    rows = [plain(image=value), plain(image=inline()), plain(image=None)]
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "rows.parquet")
    (seed, without), (bad,) = read(tmp_path, set="plain", path=tmp_path / "rows.parquet")
    assert bad.row == 1 and bad.reason == "image" and seed.image and without.image is None


@pytest.mark.parametrize("value", [5, ["a.png"], {"url": "a.png"}, True])
def test_other_values_are_no_pictures(tmp_path: Path, value: Any) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [plain(), plain(image=value)])
    seeds, (bad,) = read(tmp_path, set="plain", path=path)
    assert len(seeds) == 1 and bad.reason == "image" and "give a path" in bad.hint


def test_rows_of_one_content_are_one_seed_with_what_any_of_them_says(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "copies/b.png")
    rows = [
        plain(image="a.png", source_id="1", facts={"a": 1}),
        plain(image="gone.png", source_id="2"),
        plain(question=" What is it?\n", image="copies/b.png", source_id="3", answer="A box.", facts={"a": 2, "b": 3}),
        plain(image="a.png", answer="Another.", category="boxes", unsafe=False),
        plain(source_id="4"),
        plain(image="a.png", unsafe=True),
    ]
    seeds, bad = read(tmp_path, set="plain", path=write_rows(tmp_path / "rows.jsonl", rows))
    assert [(seed.source_id, seed.answer, seed.category, seed.unsafe) for seed in seeds] == [
        ("1", "A box.", "boxes", True),
        ("4", "", "", None),
    ]
    told = [(2, "image"), (3, "duplicate"), (4, "duplicate"), (6, "duplicate")]
    assert seeds[0].facts == {"a": 1, "b": 3} and [(row.row, row.reason) for row in bad] == told


def test_a_letter_comes_with_its_answer() -> None:
    one = SourceSeed(id="a", question="?", source="s", license="MIT", choice="A")
    other = one.model_copy(update={"answer": "quartz", "choice": "B"})
    assert (merged(one, other).choice, merged(other, one).choice) == ("B", "B")


def test_an_image_that_is_missing_rejects_its_own_seeds_alone_every_time(tmp_path: Path) -> None:
    picture(tmp_path / "train/garden.png")
    path = write_json(tmp_path / "train.json", [vlguard_safe(image="train/gone.png"), vlguard_safe()])
    first, second = (read(tmp_path, set="vlguard", path=path) for _ in range(2))
    assert first == second and len(first[0]) == 2
    assert [(row.row, row.reason, row.unsafe) for row in first[1]] == [(1, "image", False), (1, "image", True)]


def test_shards_that_are_cut_or_broken_inside_are_told_and_the_others_are_read(tmp_path: Path) -> None:
    rows = [beavertails(question=f"Question number {n}?", image=inline("red")) for n in range(40)]
    whole = write_parquet(tmp_path / "set/train-00000-of-00003.parquet", rows, row_group_size=10, compression="zstd")
    data = write_parquet(
        tmp_path / "other", [{**r, "image": inline("blue")} for r in rows], row_group_size=10
    ).read_bytes()
    whole = tmp_path / "other"
    (tmp_path / "set/train-00001-of-00003.parquet").write_bytes(data[: len(data) // 2])
    start = pq.ParquetFile(whole).metadata.row_group(1).column(0).data_page_offset
    broken = bytearray(data)
    broken[start : start + 60] = b"\xff" * 60
    (tmp_path / "set/train-00002-of-00003.parquet").write_bytes(bytes(broken))
    seeds, bad = read(tmp_path, set="beavertails_v", path=tmp_path / "set")
    assert len(seeds) == 40 + 30
    assert [(Path(row.file).name[:11], row.row, row.reason) for row in bad] == [
        ("train-00001", 0, "file"),
        ("train-00002", 11, "file"),
    ]
    assert "rows 11 to 20" in bad[1].what
    third = seeds[40:]
    assert [seed.question for seed in third] == [f"Question number {n}?" for n in [*range(10), *range(20, 40)]]


def test_a_text_without_end_is_the_fault_of_its_row_in_a_table_too(tmp_path: Path) -> None:
    rows = [plain(answer="A."), plain(question="And?", answer="x" * (5 * 2**20)), plain(question="Last?")]
    seeds, (bad,) = read(tmp_path, set="plain", path=write_parquet(tmp_path / "rows.parquet", rows))
    assert len(seeds) == 2 and (bad.row, bad.reason) == (2, "line") and "characters of text" in bad.what


def test_texts_that_are_no_utf8_are_the_fault_of_their_row(tmp_path: Path) -> None:
    texts = pa.array([b"What?", b"caf\xe9?", b"And?"], pa.binary()).cast(pa.string(), safe=False)
    texts = pa.StringArray.from_buffers(3, *pa.array([b"What?", b"caf\xe9?", b"And?"], pa.binary()).buffers()[1:])
    table = pa.table({"question": texts, "license": ["MIT"] * 3})
    pq.write_table(table, tmp_path / "rows.parquet")
    seeds, (bad,) = read(tmp_path, set="plain", path=tmp_path / "rows.parquet")
    assert [seed.question for seed in seeds] == ["What?", "And?"]
    assert (bad.row, bad.reason) == (2, "line") and "UTF-8" in bad.what


def test_files_without_a_readable_row_are_told(tmp_path: Path) -> None:
    files = {"a.jsonl": "", "b.jsonl": "\x00\n" * 300, "c.jsonl": json.dumps(plain()), "d.csv": "", "e.json": "["}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    seeds, bad = read(tmp_path, set="plain", path=tmp_path)
    assert len(seeds) == 1 and [(Path(row.file).name, row.row, row.reason) for row in bad] == [
        ("a.jsonl", 0, "file"),
        ("b.jsonl", 0, "file"),
        ("d.csv", 0, "file"),
        ("e.json", 0, "file"),
    ]
    for name in ("a.jsonl", "b.jsonl", "d.csv", "e.json"):
        with pytest.raises(DataError, match=r"no seed; looked for question .*the first of 1 faults"):
            read(tmp_path, set="plain", path=tmp_path / name)


def test_a_place_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path, set="plain", path=tmp_path / "no.jsonl")
    (tmp_path / ".cache").mkdir()
    write_rows(tmp_path / ".cache/rows.jsonl", [plain()])
    with pytest.raises(DataError, match="found: none"):
        read(tmp_path, set="plain", path=tmp_path)
    write_parquet(tmp_path / "data/train-0.parquet", [spa_vl()])
    with pytest.raises(DataError, match="looked for the split test; found splits train"):
        read(tmp_path, set="spa_vl", path=tmp_path, split="test")
    with pytest.raises(DataError, match="found: data/train"):
        read(tmp_path, set="spa_vl", path=tmp_path, config="other")
    for pattern in ("", "/etc/*", "../*", "**.json"):
        with pytest.raises(DataError, match="no pattern of files"):
            read(tmp_path, set="spa_vl", path=tmp_path, files=pattern)


def test_of_a_folder_the_sets_own_tables_are_read_and_others_are_told(tmp_path: Path) -> None:
    write_parquet(tmp_path / "b/train.parquet", [spa_vl()])
    write_json(tmp_path / "helper.json", [{"unrelated": 1}])
    (tmp_path / "config.json").write_text('{"lr": 1}')
    (tmp_path / "notes.txt").write_text("not a table")
    write_csv(tmp_path / "a.csv", [{"x": 1}])
    (seed,), bad = read(tmp_path, set="spa_vl", path=tmp_path)
    assert seed.answer == "Jam."
    assert [(Path(row.file).name, row.reason) for row in bad] == [
        ("config.json", "other_form"),
        ("a.csv", "other_form"),
        ("helper.json", "other_form"),
    ]
    with pytest.raises(DataError, match=r"looked for columns id, image, safe.*columns x.*set: spa_vl"):
        read(tmp_path, set="vlguard", path=tmp_path)


def test_linked_folders_are_read_each_once(tmp_path: Path) -> None:
    for folder in ("elsewhere", "set"):
        (tmp_path / folder).mkdir()
    write_rows(tmp_path / "elsewhere/rows.jsonl", [plain()])
    for name, place in (("train", "elsewhere"), ("again", "elsewhere"), ("loop", "set")):
        (tmp_path / "set" / name).symlink_to(tmp_path / place)
    (seed,), bad = read(tmp_path, set="plain", path=tmp_path / "set")
    assert seed.question == "What is it?" and not bad


def test_a_bad_first_row_does_not_stop_the_reading(tmp_path: Path) -> None:
    rows = [plain(quesiton="typo"), plain(question="Good?"), "[1]", plain(question="Better?")]
    seeds, bad = read(tmp_path, set="plain", path=write_rows(tmp_path / "rows.jsonl", rows))
    assert [seed.question for seed in seeds] == ["Good?", "Better?"] and [row.row for row in bad] == [1, 3]
    assert "quesiton" in bad[0].what


def test_a_source_without_a_seed_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = write_json(tmp_path / "train.json", [vlguard_safe(), vlguard_safe(id="g2")])
    with pytest.raises(DataError) as caught:
        read(tmp_path, set="vlguard", path=path)
    for part in (str(path), "id, image, safe, instr-resp", "4 faults", "row 1", "garden.png: no such file"):
        assert part in str(caught.value), part


def test_special_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path("/dev/zero")):
        with pytest.raises(DataError, match="not a regular file"):
            read(tmp_path, set="plain", path=path)
    write_rows(tmp_path / "rows.jsonl", [plain()])
    seeds, _ = read(tmp_path, set="plain", path=tmp_path)
    assert len(seeds) == 1, "in a folder they are passed over"


def test_a_csv_says_what_is_wrong_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    text = (
        '\ufeffquestion,license,unsafe\r\n"One, two?",MIT,true\r\nToo,few\r\n\r\nToo,many,true,values\r\n'
        '"Two\nlines?",MIT,\r\ncaf\xff?,MIT,\r\nLast?,MIT,no\r\nTorn'
    )
    path.write_bytes(text.replace("\xff", "\udcff").encode("utf-8", "surrogateescape"))
    seeds, bad = read(tmp_path, set="plain", path=path)
    assert [(seed.question, seed.unsafe) for seed in seeds] == [("One, two?", True), ("Two\nlines?", None)]
    assert [(row.row, row.reason) for row in bad] == [(2, "line"), (3, "line"), (5, "line"), (6, "field"), (7, "line")]
    for broken in ("question,question\nWhat?,b\n", "\n"):
        path.write_text(broken)
        with pytest.raises(DataError, match="name the columns"):
            read(tmp_path, set="plain", path=path)


def test_a_field_of_a_csv_has_a_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steer_verl.data.sources.tables.MAX_LINE_BYTES", 1000)
    for long in ("long " * 500, "\n".join(["several lines"] * 300)):
        rows = [plain(question=text) for text in ("Short?", long, "Again?")]
        seeds, (bad,) = read(tmp_path, set="plain", path=write_csv(tmp_path / "rows.csv", rows))
        assert [seed.question for seed in seeds] == ["Short?"] and (bad.row, bad.reason) == (2, "file")
    csv.field_size_limit(131072)


@pytest.mark.parametrize(
    "facts",
    [{"a": [[[[0]]] * 2] * 3}, {"a": 10**30}, {"deep": {"er": "\u00e9"}}],
)
def test_facts_are_json(tmp_path: Path, facts: dict[str, Any]) -> None:
    (seed,), _ = read(tmp_path, set="plain", path=write_rows(tmp_path / "rows.jsonl", [plain(facts=facts)]))
    assert seed.facts == facts


def test_names_that_would_write_on_a_terminal_are_refused_or_made_plain(tmp_path: Path) -> None:
    escape = "\x1b]0;owned\x07\u202e"
    rows = [
        plain(license=f"MIT{escape}"),
        plain(source_id=escape),
        plain(source=escape),
        plain(image=f"{escape}.png"),
        plain(**{f"{escape}key": 1}),
    ]
    (seed,), bad = read(tmp_path, set="plain", path=write_rows(tmp_path / "rows.jsonl", rows))
    assert seed.license == "MIT" and [row.row for row in bad] == [2, 3, 4, 5]
    assert all(str(row).isprintable() for row in bad), [str(row) for row in bad]


DATES = datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1), datetime.timedelta(days=1)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.sampled_from([*DATES, decimal.Decimal("1.5"), "", "yes", "1", "a.png"]),
)
ONE_KIND = st.sampled_from(
    [
        st.integers(-5, 5), st.floats(), st.text(max_size=8), st.binary(max_size=8), st.booleans(), st.none(),
        st.sampled_from(DATES[:1]), st.sampled_from(DATES[1:2]), st.just(decimal.Decimal("1.5")),
        st.lists(st.text(max_size=3), max_size=3), st.lists(st.lists(st.integers(0, 3), max_size=2), max_size=2),
        st.fixed_dictionaries({"bytes": st.binary(max_size=5), "path": st.text(max_size=5)}),
        st.fixed_dictionaries({"instruction": st.text(max_size=5), "deep": st.lists(st.just({"a": 1}), max_size=2)}),
    ]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(sorted(SETS)))
def test_columns_of_any_type_are_told_and_never_a_traceback(tmp_path: Path, data: st.DataObject, name: str) -> None:
    form = data.draw(st.sampled_from(SETS[name].forms))
    columns = [*form.columns, *data.draw(st.lists(st.sampled_from(form.more or form.columns), max_size=4, unique=True))]
    kinds = {column: data.draw(ONE_KIND) for column in columns}
    rows = [{column: data.draw(st.none() | kind) for column, kind in kinds.items()} for _ in range(3)]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = _whatever(tmp_path, set=name, path=path, license="MIT")
    assert len(found) <= 20
    for item in found:
        assert type(item).model_validate_json(item.model_dump_json()) == item


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(sorted(SETS)))
def test_values_of_any_type_in_json_and_csv_are_told_too(tmp_path: Path, data: st.DataObject, name: str) -> None:
    form = data.draw(st.sampled_from(SETS[name].forms))
    values = st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    )
    rows = [{column: data.draw(values) for column in form.columns} for _ in range(3)]
    text = json.dumps(rows, default=str)
    (tmp_path / "rows.json").write_text(text)
    keyed = json.dumps({str(n): row for n, row in enumerate(rows)}, default=str)
    (tmp_path / "keyed.json").write_text(keyed)
    write_csv(
        tmp_path / "rows.csv", [{key: str(value).replace("\x00", "") for key, value in row.items()} for row in rows]
    )
    for file in ("rows.json", "keyed.json", "rows.csv"):
        for item in _whatever(tmp_path, set=name, path=tmp_path / file, license="MIT"):
            assert type(item).model_validate_json(item.model_dump_json()) == item


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=200),
    suffix=st.sampled_from(["parquet", "json", "jsonl", "csv", "other"]),
    damage=st.booleans(),
)
def test_bytes_of_any_kind_are_one_line(tmp_path: Path, data: bytes, suffix: str, damage: bool) -> None:
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet" and damage:
        whole = bytearray(write_parquet(path, [plain(question=f"{n}?") for n in range(40)]).read_bytes())
        start = len(data) * 7 % max(len(whole) - 40, 1)
        whole[start : start + len(data) % 40] = data[: len(data) % 40]
        data = bytes(whole)
    path.write_bytes(data)
    _whatever(tmp_path, set="plain", path=path, license="MIT")


def _deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)


def _whatever(folder: Path, **source: Any) -> list[SourceSeed | BadRow]:
    """What is read, or nothing where one line says why."""
    images = SourceImages(ImageStore(folder / "out"))
    try:
        return list(read_source(SourceSettings(**source), images))
    except DataError as error:
        assert "\n" not in str(error) and str(error)
        return []


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong in ({"set": "vlgard", "path": "a"}, {"set": "plain"}, {"set": "plain", "path": "a", "dataset": "b"}):
        with pytest.raises(ValidationError, match=r"choose one of|either path or dataset"):
            SourceSettings(**wrong)  # type: ignore[arg-type]


def test_a_path_may_begin_at_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    picture(tmp_path / "pictures" / "a.png")
    write_rows(tmp_path / "rows.jsonl", [plain(image="a.png")])
    (seed,), _ = read(tmp_path, set="plain", path="~/rows.jsonl", images="~/pictures")
    assert seed.image


def test_a_limit_counts_seeds(tmp_path: Path) -> None:
    rows = [plain(question=""), *(plain(question=f"Number {n}?") for n in range(5))]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    seeds, bad = read(tmp_path, set="plain", path=path, limit=2)
    assert [seed.question for seed in seeds] == ["Number 0?", "Number 1?"] and len(bad) == 1


def test_opened_images_pass_the_same_door(tmp_path: Path) -> None:
    gif = Image.open(picture(tmp_path / "a.gif"))
    torn = tmp_path / "torn.png"
    Image.effect_noise((64, 64), 80).save(torn)
    torn.write_bytes(torn.read_bytes()[:-2000])
    images = SourceImages(ImageStore(tmp_path / "out"))
    for hostile in (gif, Image.open(torn), Image.new("L", (20_000, 2))):
        with pytest.raises(Refused) as caught:
            images.find(hostile, tmp_path, ("",), "it")
        assert caught.value.reason == "image"
    stored = images.find(Image.new("RGBA", (30, 30), (255, 0, 0, 0)), tmp_path, ("",), "it")
    with Image.open(tmp_path / "out" / str(stored)) as opened:
        assert opened.format == "PNG" and opened.convert("RGB").getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, suffix: str) -> None:
    peaks = []
    for rows in (500, 10_000):
        many = [plain(question=f"What is number {n}? " + "Really? " * 20) for n in range(rows)]
        path = tmp_path / f"rows{rows}.{suffix}"
        if suffix == "parquet":
            write_parquet(path, many, row_group_size=1000)
        else:
            (write_csv if suffix == "csv" else write_rows)(path, many)
        del many
        tracemalloc.start()
        images = SourceImages(ImageStore(tmp_path / "out"))
        assert sum(1 for _ in read_source(SourceSettings(set="plain", path=path), images)) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5 + 2**20, peaks  # pydantic keeps some thousand short texts


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["rows.csv", "ROWS.CSV", "rows.tsv"])
def test_a_csv_file_by_any_name_and_delimiter_is_read(tmp_path: Path, name: str, delimiter: str) -> None:
    lines = [["question", "license"], ['"Is it, or\nis it not?"', "MIT"], ["Why; how?", "MIT"]]
    if delimiter == ";":
        lines[2][0] = '"Why; how?"'
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_text("\ufeff" + "\r\n".join(map(delimiter.join, lines)), encoding="utf-8")
    for path in (tmp_path / "set", tmp_path / "set" / name):
        seeds, bad = read(tmp_path, set="plain", path=path)
        assert [seed.question for seed in seeds] == ["Is it, or\nis it not?", "Why; how?"] and not bad


@pytest.mark.parametrize(
    "text",
    [
        ',question,license\n0,"What, then?",MIT\n',
        'question, license ,,\n"What, then?", MIT,,\n',
        'license; question\nMIT; "What, then?"\n',
    ],
)
def test_a_csv_file_as_pandas_or_a_spreadsheet_writes_it_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.csv").write_text(text)
    (seed,), bad = read(tmp_path, set="plain", path=tmp_path / "rows.csv")
    assert (seed.question, seed.license, bad) == ("What, then?", "MIT", [])


def test_a_quote_that_is_not_closed_swallows_no_rows_unsaid(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('license,question\nMIT,One?\nMIT,"Two?\nMIT,Three?\nMIT,Four?\n')
    (seed,), (bad,) = read(tmp_path, set="plain", path=path)
    assert seed.question == "One?" and bad.row == 2 and "not closed" in bad.what


def test_a_csv_file_in_another_encoding_is_told_as_that(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,license\nWhat?,MIT\n", encoding="utf-16")
    with pytest.raises(DataError, match="not UTF-8; save the file as UTF-8"):
        read(tmp_path, set="plain", path=path)


def test_packed_tables_are_told_and_never_passed_over(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_rows(tmp_path / "set/a.jsonl", [plain()])
    (tmp_path / "set/images.zip").write_bytes(b"PK")
    (tmp_path / "set/b.jsonl.gz").write_bytes(b"\x1f\x8b")
    _, (bad,) = read(tmp_path, set="plain", path=tmp_path / "set")
    assert Path(bad.file).name == "b.jsonl.gz" and bad.reason == "other_form" and "unpack" in bad.hint
    with pytest.raises(DataError, match="packed; unpack it"):
        read(tmp_path, set="plain", path=tmp_path / "set/b.jsonl.gz")
    (tmp_path / "set/a.jsonl").unlink()
    with pytest.raises(DataError, match=r"b\.jsonl\.gz, which must be unpacked"):
        read(tmp_path, set="plain", path=tmp_path / "set")


def test_numbers_of_a_column_with_gaps_are_what_they_were(tmp_path: Path) -> None:
    rows = [plain(source_id=3.0, answer=None), plain(question="And?", source_id=float("nan"), answer=float("nan"))]
    path = write_parquet(tmp_path / "rows.parquet", rows)
    seeds, bad = read(tmp_path, set="plain", path=path)
    assert [(seed.source_id, seed.answer) for seed in seeds] == [("3", ""), ("", "")] and not bad


def test_an_image_that_should_be_there_is_never_a_question_without_one(tmp_path: Path) -> None:
    rows = [spa_vl(), spa_vl(image=None), spa_vl(question="And?", image={"bytes": b"", "path": None})]
    path = write_parquet(tmp_path / "train.parquet", rows)
    (seed,), bad = read(tmp_path, set="spa_vl", path=path)
    assert seed.image and [(row.row, row.reason) for row in bad] == [(2, "image"), (3, "image")]


NOTHING: list[Any] = [{"bytes": None, "path": None}, {"bytes": None, "path": ""}, {}, "", None]


@pytest.mark.parametrize("nothing", NOTHING)
def test_an_image_with_neither_bytes_nor_path_is_none_whatever_the_set(tmp_path: Path, nothing: Any) -> None:
    picture(tmp_path / "a.png")
    problem = {"images": ["a.png"], "problem": "Find x.", "answer": "3"}
    sets = {
        "beavertails_v": [beavertails(image="a.png"), beavertails(image=nothing, question="And?")],
        "geometry3k": [problem, {**problem, "images": [nothing]}],
        "mm_safetybench": [{"id": n, "question": "?" * n + "A", "image": ("a.png", nothing)[n]} for n in range(2)],
    }
    for name, rows in sets.items():
        (seed,), (bad,) = read(tmp_path, set=name, path=write_json(tmp_path / "rows.json", rows), split="SD")
        assert seed.image and (bad.row, bad.reason) == (2, "image"), name
    text_only = [{"id": n, "question": f"{n}?", "image": nothing} for n in range(2)]
    path = write_json(tmp_path / "rows.json", text_only)
    assert len(read(tmp_path, set="mm_safetybench", path=path, split="Text_only")[0]) == 2
    (seed,), bad = read(tmp_path, set="plain", path=write_json(tmp_path / "rows.json", [plain(image=nothing)]))
    assert seed.image is None and not bad


def test_an_empty_field_that_may_be_left_out_is_left_out(tmp_path: Path) -> None:
    row = plain(**dict.fromkeys(("image", "unsafe", "category", "answer", "source", "source_id", "facts"), ""))
    for path in (write_rows(tmp_path / "rows.jsonl", [row]), write_parquet(tmp_path / "rows.parquet", [row])):
        (seed,), bad = read(tmp_path, set="plain", path=path)
        assert (seed.image, seed.unsafe, seed.source, seed.source_id) == (None, None, "plain", "") and not bad


def test_a_file_of_ones_own_may_be_an_image_folders_table_and_say_the_split(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [  # an empty field is one left out: the image is the file's, and the row may be of any split
        {**plain(question=f"Empty {empty}?", image=empty), "file_name": "a.png", "split": empty} for empty in ("", None)
    ]
    rows += [{**plain(question=f"{split}?"), "file_name": "a.png", "split": split} for split in ("train", "test")]
    for path in (write_csv(tmp_path / "metadata.csv", rows), write_rows(tmp_path / "rows.jsonl", rows)):
        seeds, bad = read(tmp_path, set="plain", path=path, split="train")
        assert [seed.question for seed in seeds] == ["Empty ?", "Empty None?", "train?"] and not bad
        assert all(seed.image for seed in seeds)


def test_columns_that_should_not_be_there_are_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", [{**plain(), "file_name": "a.png", "colour": "red", "tone": "dark"}])
    with pytest.raises(DataError, match=r"found .*file_name, license.*; take out colour, tone, or"):
        read(tmp_path, set="plain", path=path)


def test_blanks_around_a_name_are_none_of_it(tmp_path: Path) -> None:
    rows = [plain(source_id=" 7", source=" mine "), plain(question="And?", source_id="  ", source=" ")]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    seeds, _ = read(tmp_path, set="plain", path=path, name=" own")
    assert [(seed.source, seed.source_id) for seed in seeds] == [("mine", "7"), ("own", "")]


def test_a_split_that_no_row_is_of_is_told_with_those_there_are(tmp_path: Path) -> None:
    rows = {str(n): science(question=f"{n}?", split="train" if n else "test", image=None) for n in range(3)}
    write_json(tmp_path / "set/problems.json", rows)
    write_json(tmp_path / "set/pid_splits.json", {"train": ["1", "2"], "test": ["0"]})
    with pytest.raises(DataError, match="looked for the split val; found splits test, train"):
        read(tmp_path, set="scienceqa", path=tmp_path / "set", split="val")
    seeds, (bad,) = read(tmp_path, set="scienceqa", path=tmp_path / "set", split="train")
    assert [seed.source_id for seed in seeds] == ["1", "2"] and bad.reason == "other_form"
