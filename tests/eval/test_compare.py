"""Comparison of runs: what is paired, tested, pooled, noted, and put beside the paper."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from steer_verl.console import stdout
from steer_verl.errors import ConfigError, DataError
from steer_verl.eval.compare import Comparison, compare
from steer_verl.eval.compare.page import difference_cell
from steer_verl.eval.compare.paired import LOG_RANK, MCNEMAR, PERMUTATION
from steer_verl.eval.compare.rows import CORRECTED, Row
from steer_verl.eval.compare.write import COLUMNS, compare_folders, write_comparison
from steer_verl.eval.metrics import MEASURES
from steer_verl.eval.published import MULTI_TURN, PASSES, published
from steer_verl.eval.runs import EvalRun, write_run
from steer_verl.eval.significance import holm, mcnemar
from steer_verl.eval.summary import marked, summarize_run
from steer_verl.eval.survival import lifetime, log_rank

from .synthetic import make_run

SIZES = {"beaver": 60, "vls": 40}
BASE = make_run("base", SIZES, quality=0.75, seed=1)
OURS = make_run("ours", SIZES, quality=0.95, seed=2)


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return compare([BASE, OURS])


def row(comparison: Comparison, place: str, measure: str) -> Row:
    return next(r for r in comparison.rows if r.place.startswith(place) and r.measure == measure)


def test_values_are_those_of_each_summary(compared: Comparison) -> None:
    for run in (BASE, OURS):
        part = summarize_run(run)["benchmarks"]["beaver"]
        for name in ("harmless_pass", "failed_turns", "unrated"):
            assert row(compared, "beaver", name).values[run.name].json() == part["measures"][name]
        turn = part["survival"]["reach"]
        assert row(compared, "beaver", "survival").about["title"] == f"survival to turn {turn}"
        assert row(compared, "beaver", "survival").values[run.name].json() == part["survival"]["at"]


def test_differences_are_of_the_same_dialogues(compared: Comparison) -> None:
    """The twin pairs by hand: the dialogues that both have, of them those with a rating in both."""
    measure = MEASURES["harmless_pass"]
    first, second = ({d.seed_id: measure(d) for d in marked(run) if d.benchmark == "beaver"} for run in (BASE, OURS))
    both = [key for key in first if first[key][1] and second[key][1]]
    found = row(compared, "beaver", "harmless_pass").differences["ours"]
    assert found.value == pytest.approx(np.mean([second[k][0] - first[k][0] for k in both]))
    assert (found.pairs, found.left_out) == (len(both), 60 - len(both)) and found.low < found.value < found.high
    passed = [np.array([side[k][0] > 0 for k in both]) for side in (second, first)]
    assert found.test == MCNEMAR and found.p == mcnemar(*passed)
    lives = [[lifetime(d.harmless) for d in marked(run) if d.benchmark == "beaver"] for run in (OURS, BASE)]
    survival = row(compared, "beaver", "survival").differences["ours"]
    assert survival.test == LOG_RANK and survival.p == log_rank(*lives)
    assert row(compared, "beaver", "harmless").differences["ours"].test == PERMUTATION


def test_holm_covers_the_whole_table(compared: Comparison) -> None:
    tests = [d for r in compared.rows for d in r.differences.values() if d.test]
    assert [d.adjusted for d in tests] == holm([d.p for d in tests]) and len(tests) > 20
    assert all(d.adjusted >= d.p for d in tests) and any(d.adjusted < 0.05 for d in tests)
    assert f"all {len(tests)} tests" in " ".join(compared.notes)
    assert not row(compared, "beaver", "unrated").differences["ours"].test


def test_averages_take_what_all_models_have(compared: Comparison) -> None:
    mean = row(compared, "mean of dialogues", "harmless_pass")
    assert mean.place == "mean of dialogues (beaver, vls)"
    each = [row(compared, b, "harmless_pass") for b in SIZES]
    assert mean.values["ours"].value == pytest.approx(np.mean([r.values["ours"].value for r in each]))
    assert mean.differences["ours"].value == pytest.approx(np.mean([r.differences["ours"].value for r in each]))
    narrow = compare([BASE, make_run("narrow", {"vls": 40}, seed=3)])
    assert not any(r.place.startswith("mean") for r in narrow.rows)
    assert set(row(narrow, "beaver", "harmless").values) == {"base"}


def test_only_common_dialogues_are_paired_and_the_rest_is_counted() -> None:
    half = EvalRun(OURS.folder, OURS.about, OURS.dialogues[:30])
    found = row(compare([BASE, half]), "beaver", "unrated").differences["ours"]
    assert (found.pairs, found.left_out) == (30, 30)
    strange = tuple(d.model_copy(update={"id": f"{d.id}x"}) for d in OURS.dialogues)
    none = row(compare([BASE, EvalRun(OURS.folder, OURS.about, strange)]), "beaver", "harmless_pass")
    assert math.isnan(none.differences["ours"].value) and not none.differences["ours"].test


def test_a_run_against_itself_differs_in_nothing() -> None:
    twin = EvalRun(Path("twin"), BASE.about.model_copy(update={"name": "twin"}), BASE.dialogues)
    for r in compare([BASE, twin]).rows:
        for d in r.differences.values():
            assert d.value == pytest.approx(0) and (not d.test or d.p == pytest.approx(1))
            assert d.low <= 0 <= d.high
    share = row(compare([BASE, twin]), "beaver", "harmless_pass").differences["twin"]
    assert share.low < -1 and share.high > 1  # that they never disagreed in 60 dialogues is no proof


def test_the_baseline_is_chosen_by_name_or_folder() -> None:
    comparison = compare([BASE, OURS], "ours")
    assert comparison.baseline.name == "ours" and set(row(comparison, "vls", "harmless").differences) == {"base"}
    with pytest.raises(ConfigError, match="--baseline nobody"):
        compare([BASE, OURS], "nobody")
    with pytest.raises(ConfigError, match="no runs"):
        compare([])
    with pytest.raises(DataError, match="without dialogues"):
        compare([EvalRun(Path("x"), BASE.about, ())])


def test_seeds_of_one_model_are_pooled_and_runs_of_one_name_told_apart() -> None:
    seeds = [make_run("ours", SIZES, quality=0.95, seed=s, run=s) for s in (5, 6, 7)]
    comparison = compare([BASE, *seeds])
    assert [(m.name, m.played) for m in comparison.models] == [("base", 1), ("ours", 3)]
    pooled = row(comparison, "beaver", "harmless")
    each = [row(compare([run]), "beaver", "harmless").values["ours"].value for run in seeds]
    assert pooled.seeds["ours"].value == pytest.approx(np.mean(each)) and pooled.seeds["ours"].low < min(each)
    assert row(comparison, "beaver", "harmless_pass").differences["ours"].test == PERMUTATION
    assert row(comparison, "beaver", "survival").differences["ours"].test == PERMUTATION
    assert any("pooled in ours" in note for note in comparison.notes)
    again = [EvalRun(Path(f"out/{name}"), OURS.about, OURS.dialogues) for name in ("a", "b")]
    assert [m.name for m in compare(again).models] == ["ours (out/a)", "ours (out/b)"]
    assert compare(again, "b").baseline.name == "ours (out/b)"


def test_a_difference_between_ways_of_training_is_over_seeds() -> None:
    """By hand: each seed is one observation. What all dialogues together would prove, two unlike seeds do not."""
    before = [make_run("base", SIZES, quality=0.75, seed=s, run=s) for s in (1, 2, 3)]
    after = [make_run("ours", SIZES, quality=q, seed=s + 10, run=s) for s, q in ((1, 0.75), (2, 0.85), (3, 0.99))]
    wide = compare([*before, *after])
    for place, measure in (("beaver", "harmless_pass"), ("beaver", "survival:3"), ("mean of dialogues", "harmless")):
        each = [row(compare([b, a]), place, measure) for b, a in zip(before, after, strict=True)]
        gaps = [r.values["ours"].value - r.values["base"].value for r in each]
        found = row(wide, place, measure).differences["ours"].over_seeds
        half = t.ppf(0.975, 2) * np.std(gaps, ddof=1) / 3**0.5
        assert found is not None and found.value == pytest.approx(np.mean(gaps))
        assert found.low == pytest.approx(max(np.mean(gaps) - half, -100))
    marks = row(wide, "beaver", "harmless").differences["ours"]
    assert marks.adjusted < 0.05 and not marks.clear and marks.over_seeds and marks.over_seeds.low < 0
    assert "*" not in difference_cell(marks, 1) and "; over seeds +" in difference_cell(marks, 1)
    turns = row(wide, "beaver", "mean_turns")
    assert turns.differences["ours"].over_seeds and turns.seeds["ours"].high <= 10
    same = [make_run("ours", SIZES, quality=0.97, seed=s + 10, run=s) for s in (1, 2, 3)]
    assert row(compare([*before, *same]), "beaver", "harmless").differences["ours"].clear
    one = row(compare([*before, after[0]]), "beaver", "harmless").differences["ours"]
    assert one.over_seeds is None, "one seed shared is no spread"
    assert any("clear over seeds too" in note for note in wide.notes)


def test_the_papers_figures_stand_beside_the_same_sets_only() -> None:
    five = make_run("ours", dict.fromkeys(MULTI_TURN, 6))
    comparison = compare([five])
    assert row(comparison, "spa", "helpful_pass").published["7B full"] == 70.93
    assert row(comparison, "mmsafe", "survival:1").published == {"3B base": 87.0, "3B full": 97.0}
    assert row(comparison, "mean of dialogues", "harmless_pass").published["3B full"] == 55.58
    assert not row(comparison, "spa", "joint_pass").published
    assert not row(compare([BASE, OURS]), "mean of dialogues", "harmless_pass").published
    single = compare([make_run("ours", {"beaver": 9, "vls": 9}, turns=(1, 1))])
    assert not any(r.published for r in single.rows)
    about = five.about.model_copy(update={"attack": "adaptive"})
    adaptive = compare([EvalRun(five.folder, about, five.dialogues)])
    assert not any(r.published for r in adaptive.rows) and "no adaptive attack" in adaptive.notes[-1]


def test_the_published_averages_are_the_means_of_the_published_rows() -> None:
    for model, rows in PASSES.items():
        for place in range(2):
            mean = np.mean([rows[name][place] for name in MULTI_TURN])
            assert mean == pytest.approx(rows["average"][place], abs=0.011), model
    assert published("beaver", "harmless") == {} == published("other", "harmless_pass")


def test_what_makes_runs_hard_to_compare_is_said() -> None:
    other = OURS.about.model_copy(update={"judge": "another", "marks": {"harmless": 2.0}})
    notes = " ".join(compare([BASE, EvalRun(OURS.folder, other, OURS.dialogues)]).notes)
    assert "Not the same judges: another, j." in notes and "different thresholds" in notes


def test_corrected_failures_stand_where_a_judge_was_calibrated() -> None:
    known = {"detection": {"caught": 40, "missed": 4, "cleared": 90, "blamed": 6}}
    found = row(compare([BASE, make_run("ours", SIZES, calibration=known)]), "beaver", CORRECTED)
    assert set(found.values) == {"ours"} and not found.differences


def test_from_folders_to_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in (BASE, OURS):
        write_run(tmp_path / run.name, run.about, run.dialogues)
    stdout().print(compare_folders([tmp_path / "base", tmp_path / "ours"], tmp_path / "out"))
    assert "ours - base" in capsys.readouterr().out
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "## Differences" in page and "## Beside the paper" in page and "McNemar" in page
    with (tmp_path / "out" / "comparison.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert tuple(lines[0]) == COLUMNS and {line["model"] for line in lines} >= {"base", "ours", "paper: 3B full"}
    plain = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert plain["baseline"] == "base" and len(plain["rows"]) > 20
    first = next(r for r in plain["rows"] if r["measure"] == "harmless_pass")
    assert first["differences"]["ours"]["test"] == MCNEMAR and first["published"]["3B base"] == 21.79
    with pytest.raises(DataError, match="no finished evaluation"):
        compare_folders([tmp_path / "nothing"])


def test_names_are_text(tmp_path: Path) -> None:
    about = OURS.about.model_copy(update={"name": "a|b <script>alert(1)</script>\n# x"})
    write_comparison(compare([BASE, EvalRun(OURS.folder, about, OURS.dialogues)]), tmp_path)
    page = (tmp_path / "comparison.md").read_text()
    assert "<script>" not in page and "\n# x" not in page
    tables = page.split("## Differences")[1].split("\n\n")
    lines = [line.replace("\\|", "") for line in tables[1].splitlines()]
    assert len(lines) > 20 and len({line.count("|") for line in lines}) == 1
