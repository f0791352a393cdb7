"""``steer data``: exit status, messages, reports, and that a target appears whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from steer_verl.data import duplicates
from steer_verl.data.commands import app
from steer_verl.data.rows import parquet
from steer_verl.data.rows.parquet import load_seeds, write_parquet
from steer_verl.data.student_format import STUDENT_FORMAT
from steer_verl.errors import DataError
from tests.data.samples import picture, row, write_rows
from tests.odd_images import write_odd_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "a.png")
    write_rows(tmp_path / "good.jsonl", [row(i, turns=2 + i) for i in range(3)])
    write_rows(tmp_path / "bad.jsonl", [row(0), row(1, images=["no.png"]), row(2), {"x": 1}])
    return tmp_path


def steer_data(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_convert_writes_verls_columns(folder: Path) -> None:
    target = folder / "deep" / "out.parquet"
    result = steer_data("convert", folder / "good.jsonl", target, "--split", "val", "--data-source", "mine")
    assert result.exit_code == 0, result.output
    rows = pq.read_table(target).to_pylist()
    assert [r["extra_info"]["index"] for r in rows] == [0, 1, 2]
    assert {r["agent_name"] for r in rows} == {"steer_dialogue"} and {r["data_source"] for r in rows} == {"mine"}
    assert rows[0]["prompt"] == [{"role": "user", "content": "<image>What is this?"}]
    assert rows[0]["images"] == [str(folder / "a.png")]
    assert rows[0]["reward_model"] == {"style": "steer", "ground_truth": "benign"}
    assert rows[2]["extra_info"]["split"] == "val"
    assert [m["content"] for m in rows[2]["extra_info"]["interaction_kwargs"]["rest_messages"]] == [
        f"And then, question {t}?" for t in (2, 3, 4)
    ]
    assert steer_data("check", target).exit_code == 0


def test_one_bad_row_and_nothing_is_written(folder: Path) -> None:
    before = set(folder.iterdir())
    result = steer_data("convert", folder / "bad.jsonl", folder / "out.parquet")
    assert result.exit_code == 1 and "--skip-bad" in result.output
    assert "row 2: images[0]" in result.output and "row 4: x: unknown key" in result.output
    assert set(folder.iterdir()) == before


def test_skip_bad_writes_the_good_rows_and_reports_the_bad(folder: Path) -> None:
    target, report = folder / "out.parquet", folder / "report.jsonl"
    result = steer_data("convert", folder / "bad.jsonl", target, "--skip-bad", "--report", report)
    assert result.exit_code == 0, result.output
    assert [seed.id for seed in load_seeds(target)] == ["0", "2"]
    told = [json.loads(line) for line in report.read_text().splitlines()]
    assert {t["row"] for t in told} == {2, 4} and all(t["what"] and t["hint"] for t in told)
    assert {t["field"] for t in told if t["row"] == 4} == {"x", "question", "metadata"}


def test_many_problems_are_cut_on_the_screen_but_not_in_the_report(folder: Path) -> None:
    file = write_rows(folder / "many.jsonl", ["[]"] * 120)
    result = steer_data("check", file, "--report", folder / "report.jsonl")
    assert result.exit_code == 1
    assert "70 more problems" in result.output
    assert len((folder / "report.jsonl").read_text().splitlines()) == 120


def test_kinds_and_licences_are_told_without_escapes_and_markup(folder: Path) -> None:
    rows = [row(i) for i in range(20)]
    for number, value in enumerate(rows):
        value["metadata"]["license"] = f"\x1b]0;title\x07\u202ecc-by-{number:02} [red] " + "x" * 500
    result = steer_data("check", write_rows(folder / "licences.jsonl", rows))
    told = next(line for line in result.output.splitlines() if line.startswith("licences: "))
    assert "1 cc-by-00 [red] xxx" in told and "and 12 more" in told and len(told) < 1000
    assert not any(mark in result.output for mark in ("\x1b]", "title", "\u202e"))


def test_the_name_of_a_file_reaches_the_terminal_without_escapes_and_markup(folder: Path) -> None:
    name = "\x1b]0;title\x07[red]rows\u202e"
    good, bad = (
        write_rows(folder / f"{name}-{n}.jsonl", [row(n, images=[image])])
        for n, image in enumerate(["a.png", "no.png"])
    )
    for words in (("check", good, bad), ("convert", bad, folder / "x.parquet"), ("check", folder / f"{name}.jsonl")):
        result = steer_data(*words)
        assert result.exit_code == 1 and "[red]rows" in result.output
        assert not any(mark in result.output for mark in ("\x1b", "\x07", "\u202e"))


def test_images_that_models_see_otherwise_are_told_once_each_with_an_example(folder: Path) -> None:
    odd = {name: Path(path).name for name, path in write_odd_images(folder).items()}
    names = ["a.png", odd["photo"], odd["exif_6"], odd["exif_3"], odd["exif_6"], odd["deep"], odd["la"], odd["big"]]
    source = write_rows(folder / "rows.jsonl", [row(i, images=[name]) for i, name in enumerate(names)])
    told = [
        "2 turned upright, as EXIF says (first: {}/exif_6.jpg)",
        "1 laid on white, where transparent (first: {}/la.png)",
        "1 brought from 16 bits of grey to 8 (first: {}/deep.png)",
        "1 shrunk to 1536 pixels, the longer side (first: {}/big.png)",
    ]
    converted = steer_data("convert", source, folder / "out.parquet")
    for result in (converted, steer_data("check", source), steer_data("check", folder / "out.parquet")):
        lines = [line for line in result.output.splitlines() if "every model" in line]
        assert lines == [f"images, as every model will see them: {line.format(folder)}" for line in told]
    assert "every model" not in steer_data("check", folder / "good.jsonl").output


def test_rows_without_an_image_are_counted_in_one_line_and_refused_when_asked(folder: Path) -> None:
    """Half of ScienceQA's questions have none."""
    file = write_rows(folder / "some.jsonl", [row(0), row(1, images=[]), row(2, images=[])])
    target = folder / "out.parquet"
    for words in (("check", file), ("convert", file, target), ("check", target)):
        result = steer_data(*words)
        assert result.exit_code == 0, result.output
        assert result.output.splitlines().count("text alone: 2 of them have no image") == 1
        refused = steer_data(*words, "--require-images")
        assert refused.exit_code == 1 and "row 2: images: no image; " in refused.output
    assert "text alone" not in steer_data("check", folder / "good.jsonl").output


def test_no_good_row_is_an_error_even_when_skipping(folder: Path) -> None:
    file = write_rows(folder / "none.jsonl", ["[]"])
    empty = write_rows(folder / "empty.jsonl", [])
    for source, told in ((file, "row 1: line: "), (file, "1 of 1 rows are bad; fix them"), (empty, "no row to write")):
        result = steer_data("convert", source, folder / "out.parquet", "--skip-bad")
        assert result.exit_code == 1 and told in result.output, result.output
        assert steer_data("check", source).exit_code == 1
    assert not (folder / "out.parquet").exists()


@pytest.mark.parametrize(
    "words", [("check", "no.jsonl"), ("convert", "no.jsonl", "x.parquet"), ("check", "no.parquet")]
)
def test_a_missing_file_is_one_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = steer_data(words[0], *(tmp_path / word for word in words[1:]))
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert len(result.output.strip().splitlines()) == 1 and "no." in result.output


def test_the_system_prompt_comes_first_and_from_one_place(folder: Path) -> None:
    (folder / "system.txt").write_text("\ufeffBe brief.", encoding="utf-8")
    own = ("--system-prompt", folder / "system.txt")
    for flags, expected in ((own, "Be brief."), (("--student-format",), STUDENT_FORMAT)):
        assert steer_data("convert", folder / "good.jsonl", folder / "out.parquet", *flags).exit_code == 0
        for item in pq.read_table(folder / "out.parquet").to_pylist():
            assert item["prompt"][0] == {"role": "system", "content": expected}
            assert item["prompt"][1]["role"] == "user" and len(item["prompt"]) == 2
    both = steer_data("convert", folder / "good.jsonl", folder / "out.parquet", *own, "--student-format")
    assert both.exit_code == 1 and "exclude each other" in both.output
    for mark in ("<image>", "<video>"):
        (folder / "system.txt").write_text(f"Look: {mark}")
        marked = steer_data("convert", folder / "good.jsonl", folder / "out.parquet", *own)
        assert marked.exit_code == 1 and f"holds {mark}" in marked.output


def test_a_failed_write_leaves_the_old_file(folder: Path) -> None:
    target = folder / "out.parquet"
    write_parquet(load_seeds(folder / "good.jsonl"), target)
    before = target.read_bytes()

    def seeds():  # type: ignore[no-untyped-def]
        yield from load_seeds(folder / "good.jsonl")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_parquet(seeds(), target)
    with pytest.raises(DataError, match="no row"):
        write_parquet([], target)
    assert target.read_bytes() == before
    assert not list(folder.glob(".*tmp"))


def test_batches_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = load_seeds(folder / "good.jsonl")
    for batch in (1, 2, 3, 100):
        monkeypatch.setattr(parquet, "BATCH", batch)
        assert write_parquet(seeds, folder / "out.parquet") == 3
        assert load_seeds(folder / "out.parquet") == seeds


def test_a_report_that_cannot_be_written_is_one_line(folder: Path) -> None:
    result = steer_data("check", folder / "good.jsonl", "--report", folder / "no" / "where.jsonl")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert "where.jsonl" in result.output


def test_sft_files_are_opened_by_verls_own_loader_and_that_is_said(folder: Path) -> None:
    odd = write_odd_images(folder)
    said = [
        {"role": "user", "content": "<image>What is this?"},
        {"role": "assistant", "content": "<thinking>A box.</thinking><answer>A box.</answer>"},
    ]
    table = pa.Table.from_pylist([{"messages": said, "images": [{"bytes": Path(odd["exif_3"]).read_bytes()}]}])
    pq.write_table(table, folder / "sft.parquet")
    lines = write_rows(folder / "sft.jsonl", [{"id": "a", "messages": said, "images": ["exif_6.jpg"]}])
    for file, first in ((folder / "sft.parquet", f"{folder}/sft.parquet row 1"), (lines, f"{folder}/exif_6.jpg")):
        result = steer_data("check", file)
        assert result.exit_code == 0, result.output
        told = "images, as all but verl's SFT trainer will see them: 1 turned upright, as EXIF says"
        assert f"{told} (first: {first})" in result.output.splitlines()


def test_no_file_of_the_user_is_written_over(folder: Path) -> None:
    source, before = folder / "good.jsonl", (folder / "good.jsonl").read_text()
    for words, told in (
        (("convert", source, source), "ends in .parquet"),
        (("convert", source, folder), "ends in .parquet"),
        (("convert", source, folder / "o.parquet", "--report", folder / "o.parquet"), "give another name"),
        (("convert", source, folder / "o.parquet", "--report", folder / "." / source.name), "give another name"),
        (("check", folder / "bad.jsonl", source, "--report", source), "give another name"),
    ):
        result = steer_data(*words)
        assert result.exit_code == 1 and told in result.output, result.output
    assert source.read_text() == before and not (folder / "o.parquet").exists()


def test_a_folder_whose_name_is_no_text_is_told(folder: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))
    odd.mkdir()
    (odd / "a.png").write_bytes((folder / "a.png").read_bytes())
    source = write_rows(odd / "rows.jsonl", [row(0), "{"])
    for words in (("check", source), ("convert", source, odd / "o.parquet", "--skip-bad")):
        result = steer_data(*words, "--report", folder / "report.jsonl")
        assert isinstance(result.exception, SystemExit) and "its path is not UTF-8" in result.output, result.output
    assert len((folder / "report.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_a_full_disk_of_temporary_files_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = f"PRAGMA page_size=512; PRAGMA max_page_count=8; {duplicates._TABLES}"
    monkeypatch.setattr(duplicates, "_TABLES", tables)
    result = steer_data("check", folder / "good.jsonl", write_rows(folder / "other.jsonl", [row("other")]))
    assert result.exit_code == 1 and "disk is full; make room" in result.output


def test_a_place_that_cannot_be_written_is_one_line(folder: Path) -> None:
    for words in (
        ("convert", folder / "good.jsonl", "/proc/none/x.parquet"),
        ("check", folder / "bad.jsonl", "--report", "/dev/full"),
        ("check", folder / "bad.jsonl", "--report", folder),
    ):
        result = steer_data(*words)
        assert result.exit_code == 1 and "cannot be read or written" in result.output and "Errno" not in result.output
