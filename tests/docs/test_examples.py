"""Every example is read by the reader of its file, and every piece of Python runs."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import BaseModel

from steer_verl.config import steer_config
from steer_verl.data.image_store import ImageStore
from steer_verl.data.rows.check import check_file
from steer_verl.data.rows.schema import RlRow
from steer_verl.data.rows.verl import verl_row
from steer_verl.data.seed import SourceSeed
from steer_verl.data.sources.images import SourceImages
from steer_verl.data.sources.read import read_source
from steer_verl.data.sources.settings import SourceSettings
from steer_verl.eval.compare import compare as compare_runs
from steer_verl.eval.compare.write import comparison_dict
from steer_verl.eval.config import EvalConfig
from steer_verl.eval.estimate import Estimate
from steer_verl.eval.records import EvalDialogue
from steer_verl.eval.runs import RunAbout, read_run
from steer_verl.eval.shape import Subset, Summary
from steer_verl.tutor.labelled import LabelledSet, read_labelled
from steer_verl.types import Seed, Trajectory
from tests.docs.pages import DOCS, PAGES, ROOT, SPAN, blocks, name, section
from tests.eval.evaluations import evaluation
from tests.tutor.dialogues import simple


def objects(text: str) -> list[Any]:
    """One value spread over lines, or one a line."""
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


def draw(folder: Path, paths: Iterable[str]) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (56, 56), (200, 90, 40)).save(folder / path)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_json_and_yaml_load(page: Path) -> None:
    for text in blocks(page, "json"):
        assert objects(text)
    for text in blocks(page, "yaml"):
        assert yaml.safe_load(text)


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("formats.md", "RL row"),
        ("formats.md", "SFT row"),
        ("formats.md", "Bench row"),
        ("your_data.md", "Dialogues of your own"),
        ("your_benchmark.md", "Dialogues of your own"),
    ],
)
def test_rows_pass_the_check_of_sets(tmp_path: Path, page: str, title: str) -> None:
    (row,) = objects(section(page, title))
    draw(tmp_path, row["images"] if "images" in row else [row["image"]])
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    (checked,) = check_file(file)
    assert not checked.problems and checked.told is not None


def keys(value: Any) -> Any:
    """The names in a value, without what they hold."""
    if isinstance(value, dict):
        return {key: keys(inner) for key, inner in value.items()}
    return [keys(value[0])] if isinstance(value, list) and value else None


def test_the_parquet_row_has_the_columns_that_are_written() -> None:
    (shown,) = objects(section("formats.md", "RL parquet"))
    seed = RlRow.read(objects(section("formats.md", "RL row"))[0]).seed()
    written = verl_row(seed, 0, split="train")
    assert keys(shown) == keys(written)
    assert Seed.model_validate_json(written["extra_info"]["seed"]) == seed


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("formats.md", "Source seed"),
        ("your_data.md", "Sets from single questions"),
        ("your_benchmark.md", "Single questions of your own"),
    ],
)
def test_source_seeds_are_read(tmp_path: Path, page: str, title: str) -> None:
    rows = objects(section(page, title))
    draw(tmp_path, [row["image"] for row in rows if "image" in row])
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = SourceSettings(set="plain", path=file)
    found = list(read_source(settings, SourceImages(ImageStore(tmp_path / "store"))))
    assert len(found) == len(rows) and all(isinstance(seed, SourceSeed) for seed in found)


RECORDS: dict[str, type[BaseModel]] = {
    "Transcripts": Trajectory,
    "Evaluated dialogues": EvalDialogue,
    "run.json": RunAbout,
}


@pytest.mark.parametrize("title", RECORDS)
def test_records_are_read(title: str) -> None:
    record = RECORDS[title].model_validate_json(section("formats.md", title))
    assert RECORDS[title].model_validate_json(record.model_dump_json()) == record


def labelled(folder: Path) -> LabelledSet:
    """The example of scored answers, with its pictures."""
    text = section("formats.md", "Labelled CSV", "csv")
    draw(folder, [row["image"] for row in csv.DictReader(text.splitlines()) if row["image"]])
    (folder / "labelled.csv").write_text(text)
    return read_labelled(folder / "labelled.csv")


def test_labelled_answers_are_read(tmp_path: Path) -> None:
    assert len(labelled(tmp_path).rows) == 2


def test_the_summary_is_told_whole() -> None:
    (shown,) = objects(section("formats.md", "summary.json"))
    assert shown.keys() == Estimate.model_fields.keys()
    page = (ROOT / "docs" / "formats.md").read_text().split("## summary.json")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", page, re.M)
    assert {key for first, _ in rows for key in SPAN.findall(first)} == Summary.model_fields.keys()
    named = next(SPAN.findall(told) for first, told in rows if first == "`benchmarks`")
    assert set(named) <= Subset.model_fields.keys()


def test_the_comparison_is_told_whole(tmp_path: Path) -> None:
    for model, broken in (("weak", 0.6), ("strong", 0.1)):
        evaluation(tmp_path / model, broken)
    written = comparison_dict(compare_runs([read_run(tmp_path / model) for model in ("weak", "strong")]))
    (shown,) = objects(section("formats.md", "comparison.json"))
    assert shown.keys() == written["rows"][0]["differences"]["strong"].keys()
    page = (ROOT / "docs" / "formats.md").read_text().split("## comparison.json")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| (`.*?) \| (.*) \|$", page, re.M))
    assert {key for first in rows for key in SPAN.findall(first)} == written.keys()
    assert set(SPAN.findall(rows["`rows`"])) == written["rows"][0].keys()


def test_the_calibration_has_the_fields_that_are_written(tmp_path: Path) -> None:
    from steer_verl.eval.judging.calibrate import JudgeCalibration

    (shown,) = objects(section("formats.md", "calibration.json"))
    written = JudgeCalibration("judge", labelled(tmp_path), [3, "bad_json"]).as_dict()
    assert keys({**shown, "unrated": {}}) == keys({**written, "unrated": {}})


def test_the_agreement_has_the_fields_that_are_written() -> None:
    from steer_verl.eval.judging.agreement import agreement_of

    (shown,) = objects(section("formats.md", "agreement.json"))
    assert keys(shown) == keys(agreement_of([], shown["fail_below"]).as_dict())
    marks = np.array(shown["harmless_VV"])
    assert marks.shape == (7, 7) and marks.sum() == shown["turns"]
    assert shown["figures"]["harmless"]["equal"]["value"] == np.trace(marks) / shown["turns"]


A_TUTOR = {"endpoint": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}
AN_EVALUATION = {
    "out": "out",
    "student": {"path": "model"},
    "benchmarks": {"mine": {"file": "bench.jsonl"}},
    "judge": {"endpoint": A_TUTOR["endpoint"]},
}


def test_yaml_sections_are_settings() -> None:
    seen = 0
    for page in DOCS:
        for values in map(yaml.safe_load, blocks(page, "yaml")):
            if isinstance(values, dict) and values.keys() == {"tutor"}:
                steer_config({"tutor": {**A_TUTOR, **values["tutor"]}})
            elif isinstance(values, dict):
                EvalConfig.model_validate({**AN_EVALUATION, **values})
            seen += 1
    assert seen >= 6


def run_blocks(page: str, keep: Callable[[str], bool] = lambda text: True) -> dict[str, Any]:
    """The page's Python, in one namespace."""
    space: dict[str, Any] = {"__name__": "docs"}
    for text in filter(keep, blocks(ROOT / "docs" / page, "python")):
        exec(compile(text, page, "exec"), space)
    return space


def test_the_tutor_of_ones_own_plays(capsys: pytest.CaptureFixture[str]) -> None:
    space = run_blocks("your_tutor.md", lambda text: "agent_loop" not in text)
    assert capsys.readouterr().out.startswith("completed ['What is a tide?', 'Say it again in at most")
    unscored = asyncio.run(space["BrevityTutor"]().respond(simple("")))
    assert unscored.verdict.status == "unscored"


@pytest.mark.slow
def test_the_loop_of_ones_own_is_an_agent_loop() -> None:
    pytest.importorskip("verl")
    from rollout.agent_loop import SteerAgentLoop

    assert issubclass(run_blocks("your_tutor.md")["BrevityLoop"], SteerAgentLoop)


def test_the_set_of_ones_own_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steer_verl.data.sources import registry

    monkeypatch.setitem(registry.SETS, "my_set", None)
    run_blocks("your_benchmark.md")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "What is this?", "uid": "1", "picture": null}\n')
    settings = SourceSettings(set="my_set", path=tmp_path / "rows.jsonl")
    (seed,) = read_source(settings, SourceImages(ImageStore(tmp_path / "store")))
    assert isinstance(seed, SourceSeed) and seed.source == "my_set"


@pytest.mark.slow
def test_the_cost_table_is_what_the_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mistral_common")
    from benchmarks.cost import main

    main(["--prompt-price", "1", "--cached-price", "0.1", "--completion-price", "3"])
    printed = capsys.readouterr().out.split("\n\n", 1)[1].strip()
    assert printed in (ROOT / "docs" / "operations.md").read_text()
