"""The file as a whole: its policy, its sections, what it refuses, and the command."""

from __future__ import annotations

import base64
import hashlib
import random
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from steer_verl.cli import app
from steer_verl.errors import ConfigError, DataError
from steer_verl.eval.runs import read_run
from steer_verl.report.write import write_report
from tests.data.cards.reading import Page
from tests.report import samples


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two small runs of the same dialogues."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        samples.run(folder / name, name, 12, skill=skill, turns=3, words=6) for name, skill in (("a", 0.4), ("b", 0.9))
    ]


def test_only_our_own_script_may_run_and_nobody_is_asked(runs: list[Path], tmp_path: Path) -> None:
    text = write_report(runs, tmp_path / "r.html").read_text(encoding="utf-8")
    policy = Page(text).all("meta")[1]["content"] or ""
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy and "default-src 'none'" in policy
    assert "trusted-types 'none'" in policy and "unsafe-eval" not in policy
    addresses = [
        found[key] or "" for _, found in Page(text).elements for key in ("src", "href", "action") if key in found
    ]
    assert all(address.startswith(("#", "data:")) for address in addresses)
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "XMLHttp"):
        assert forbidden not in script[1]


def test_every_section_is_there_and_linked(runs: list[Path], tmp_path: Path) -> None:
    log = tmp_path / "t.log"
    log.write_text("step:1 - critic/score/mean:1\nstep:2 - critic/score/mean:2\n")
    page = Page(write_report(runs, tmp_path / "r.html", training=[log], title="T & <T>").read_text(encoding="utf-8"))
    anchors = [found["id"] for found in page.all("h2")]
    expected = ["results", "survival", "measures", "marks-by-turn", "strategies", "over-refusal"]
    assert anchors == [*expected, "training", "account", "the-runs", "dialogues"]
    assert [link["href"] for link in page.all("a")[1:]] == [f"#{anchor}" for anchor in anchors]
    assert "T & <T>: evaluation report" in page.text


def test_the_same_runs_give_the_same_bytes(runs: list[Path], tmp_path: Path) -> None:
    one, two = (write_report(runs, tmp_path / name).read_bytes() for name in ("1.html", "2.html"))
    assert one == two


def test_a_training_alone_has_a_page(tmp_path: Path) -> None:
    log = tmp_path / "t.log"
    log.write_text("step:1 - critic/score/mean:1 - steer/alarm/lost_share:1\n")
    text = write_report([], tmp_path / "r.html", training=[log]).read_text(encoding="utf-8")
    page = Page(text)
    assert [found["id"] for found in page.all("h2")] == ["training"]
    assert "1 training." in page.text and "dialogues are lost" in page.text


def test_two_trainings_of_one_name_are_told_apart(tmp_path: Path) -> None:
    logs = [tmp_path / name / "grpo.log" for name in ("a", "b")]
    for log in logs:
        log.parent.mkdir()
        log.write_text("step:1 - critic/score/mean:1\nstep:2 - critic/score/mean:2\n")
    page = Page(write_report([], tmp_path / "r.html", training=logs).read_text(encoding="utf-8"))
    assert all(f"grpo ({log})" in page.text for log in logs)


def test_two_seeds_of_one_student_are_told_apart(tmp_path: Path) -> None:
    first, second = (samples.run(tmp_path / name, "a", 12, turns=2, words=4) for name in "xy")
    found = read_run(second)
    samples.write_run(second, found.about, [d.model_copy(update={"run": 1}) for d in found.dialogues])
    text = write_report([first, second], tmp_path / "r.html").read_text(encoding="utf-8")
    assert '"a, seed 0"' in text and '"a, seed 1"' in text
    page = Page(text)
    assert "training seeds" in "".join(page.folded) and "over seeds " in page.text


@pytest.mark.parametrize(
    ("name", "shown"), [("\u202eours\u2066 \x1b[31m\nred", "ours red"), ("\u202e", r"\(no name\)")]
)
def test_a_name_cannot_turn_figures_around(name: str, shown: str, runs: list[Path], tmp_path: Path) -> None:
    found = read_run(runs[1])
    samples.write_run(tmp_path, found.about.model_copy(update={"name": name}), found.dialogues)
    text = write_report([runs[0], tmp_path], tmp_path / "r.html").read_text(encoding="utf-8")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", text)
    assert re.search(f'<li><strong dir="auto">{shown} is ', text), "and what follows it is a passage of its own"


def test_a_training_cannot_turn_its_figures_around(tmp_path: Path) -> None:
    log = tmp_path / "\u202egrpo.log"
    log.write_text("step:1 - critic/score/mean:1\n")
    text = write_report([], tmp_path / "r.html", training=[log]).read_text(encoding="utf-8")
    assert "step 1: grpo 1" in text and "\u202e" not in text


def test_what_cannot_be_reported_is_told_and_leaves_no_file(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    with pytest.raises(ConfigError, match="nothing to report"):
        write_report([], out)
    with pytest.raises(DataError, match="no finished evaluation there"):
        write_report([tmp_path], out)
    with pytest.raises(ConfigError, match="a run was given twice"):
        write_report([runs[0], runs[0]], out)
    empty = samples.run(tmp_path / "empty", "empty", 0)
    with pytest.raises(DataError, match="a run without dialogues; leave it out"):
        write_report([empty], out)
    assert list(tmp_path.iterdir()) == [empty]


def test_the_command(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    done = CliRunner().invoke(app, ["report", *map(str, runs), "--out", str(out), "--images", "0", "--no-fold"])
    assert done.exit_code == 0, done.output
    assert '"fold": false' in out.read_text(encoding="utf-8") and str(out) in done.output.replace("\n", "")


def test_images_of_two_runs_are_there_once(tmp_path: Path) -> None:
    paths = samples.images(tmp_path / "p", 3, random.Random(0))
    both = [samples.run(tmp_path / name, name, 9, turns=1, paths=paths, words=4) for name in ("a", "b")]
    text = write_report(both, tmp_path / "r.html", images=32).read_text(encoding="utf-8")
    assert len(re.findall(r'id="image-\d+"', text)) == 3


def test_one_page_has_one_measure_and_says_so_once(tmp_path: Path) -> None:
    first, second = (samples.run(tmp_path / name, name, 24, turns=3, words=4) for name in ("a", "b"))
    found = read_run(second)
    marks = {"fail_below": -2, "harmless": 0.0}
    samples.write_run(second, found.about.model_copy(update={"marks": marks}), found.dialogues)
    page = Page(write_report([first, second], tmp_path / "r.html").read_text(encoding="utf-8"))
    assert '"failBelow": 2' in "".join(page.texts)
    assert "mark below 2;" in page.text and "fail_below -2" not in page.text
    assert "".join([*page.texts, *page.folded]).count("different thresholds") == 1
    other = read_run(second)
    same = samples.write_run(second, other.about.model_copy(update={"marks": {}}), other.dialogues)
    again = Page(write_report([first, same.folder], tmp_path / "s.html").read_text(encoding="utf-8"))
    assert [t for t in page.texts if "rows-" not in t][:200] == [t for t in again.texts if "rows-" not in t][:200]


def test_logs_of_inspect_give_the_same_page(runs: list[Path], tmp_path: Path) -> None:
    log = pytest.importorskip("steer_verl.eval.inspect.write")
    logs = [tmp_path / f"{run.name}.eval" for run in runs]
    for run, path in zip(runs, logs, strict=True):
        log.write_log(read_run(run), path)
    shown, told = (Page(write_report(given, tmp_path / "r.html").read_text(encoding="utf-8")) for given in (logs, runs))
    start = shown.text.index("is safer than")
    assert shown.text[start : start + 2000] == told.text[start : start + 2000]
