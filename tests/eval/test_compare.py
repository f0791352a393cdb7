"""Comparison of runs: what is paired, tested, pooled, noted, and put beside the paper."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from steer_verl.console import stdout
from steer_verl.errors import ConfigError, DataError
from steer_verl.eval.compare import Comparison, compare
from steer_verl.eval.compare.page import comparison_markdown, comparison_table, difference_cell
from steer_verl.eval.compare.rows import CORRECTED, Row
from steer_verl.eval.compare.words import beside, sentences
from steer_verl.eval.compare.write import COLUMNS, compare_folders, comparison_dict, write_comparison
from steer_verl.eval.differences import PRIMARY, Difference
from steer_verl.eval.estimate import Estimate
from steer_verl.eval.figures import figures_of
from steer_verl.eval.published import tables
from steer_verl.eval.records import EvalDialogue, Rating, Unrated
from steer_verl.eval.runs import EvalRun, RunAbout, write_run
from steer_verl.eval.summary import summarize
from steer_verl.statistics.intervals import Interval
from steer_verl.statistics.tests import holm
from steer_verl.types import DialogueKind, UserTurn

from .synthetic import CALIBRATION, make_run

SIZES = {"beaver": 60, "vls": 40}
BASE = make_run("base", SIZES, quality=0.75, seed=1)
OURS = make_run("ours", SIZES, quality=0.95, seed=2)


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return compare([BASE, OURS])


def row(comparison: Comparison, place: str, measure: str) -> Row:
    return next(r for r in comparison.rows if r.place.startswith(place) and r.measure == measure)


def renamed(run: EvalRun, name: str) -> EvalRun:
    return EvalRun(Path(name), run.about.model_copy(update={"name": name}), run.dialogues)


def joined(*runs: EvalRun) -> EvalRun:
    """One run on the benchmarks of all."""
    benchmarks = {name: settings for run in runs for name, settings in run.about.benchmarks.items()}
    about = runs[0].about.model_copy(update={"benchmarks": benchmarks})
    return EvalRun(runs[0].folder, about, tuple(d for run in runs for d in run.dialogues))


def mixed(name: str, seed: int, quality: float = 0.9) -> EvalRun:
    """Two attacked sets of several turns, one of single turns, two benign ones."""
    benign = {"kind": DialogueKind.BENIGN, "turns": (1, 1), "seed": seed}
    return joined(
        make_run(name, SIZES, seed=seed, quality=quality),
        make_run(name, {"vlguard": 30}, seed=seed, turns=(1, 1), quality=quality),
        make_run(name, {"xstest": 30}, **benign),
        make_run(name, {"mossbench": 30}, **benign),
    )


def shown(comparison: Comparison) -> str:
    console = Console(file=io.StringIO(), width=250)
    console.print(comparison_table(comparison))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_values_are_those_of_each_summary(compared: Comparison) -> None:
    for run in (BASE, OURS):
        part = summarize(run).benchmarks["beaver"]
        for name in ("harmless_pass", "failed_turns", "unrated"):
            assert row(compared, "beaver", name).values[run.name] == part.measures[name]
        assert part.survival is not None
        assert row(compared, "beaver", "survival").about.title == f"survival to turn {part.survival.reach}"
        assert row(compared, "beaver", "survival").values[run.name] == part.survival.at


def test_the_primary_family_alone_is_corrected_and_starred(compared: Comparison) -> None:
    assert [r.measure for r in compared.primary] == ["survival", "harmless_pass", "helpful_pass"]
    assert {r.place for r in compared.primary} == {"mean of dialogues (beaver, vls)"}
    tests = [r.differences["ours"] for r in compared.primary]
    assert [d.adjusted for d in tests] == holm([d.p for d in tests if d.p is not None])
    assert "The 3 tests of the first table" in " ".join(compared.notes)
    others = [d for r in compared.rows for d in r.differences.values() if r not in compared.primary]
    assert len(others) > 30 and all(d.adjusted is None and not d.clear for d in others)
    assert all(d.p is not None for d in others)
    cells = [difference_cell(d, 1) for d in others]
    assert all(", uncorrected p " in cell and "*" not in cell for cell in cells)
    assert difference_cell(tests[0], 1).endswith("*") and "uncorrected" not in difference_cell(tests[0], 1)


def test_over_refusal_has_a_place_of_its_own() -> None:
    comparison = compare([mixed("base", 1), mixed("ours", 2, 0.97)])
    assert tuple(r.measure for r in comparison.primary) == PRIMARY
    assert [r.benchmarks for r in comparison.primary] == [("beaver", "vls")] * 3 + [("mossbench", "xstest")[::-1]]
    alone = {b: compare([make_run(n, {b: 30}, seed=s, turns=(1, 1)) for s, n in enumerate("ab")]) for b in ("vlguard",)}
    assert [r.measure for r in alone["vlguard"].primary] == ["harmless_pass", "helpful_pass"]
    kind = DialogueKind.BENIGN
    benign = compare([make_run(n, {"xstest": 30}, seed=s, turns=(1, 1), kind=kind) for s, n in enumerate("ab")])
    assert [r.measure for r in benign.primary] == ["helpful_pass", "refusal_full"]
    assert "".join(beside(benign, "b")).startswith("b beside a: no clear difference in dialogues judged helpful (")


def test_averages_take_what_all_models_have(compared: Comparison) -> None:
    mean = row(compared, "mean of dialogues", "harmless_pass")
    assert mean.place == "mean of dialogues (beaver, vls)" and mean.benchmarks == ("beaver", "vls")
    each = [row(compared, b, "harmless_pass") for b in SIZES]
    for model in ("base", "ours"):
        assert mean.values[model].value == pytest.approx(np.mean([r.values[model].value for r in each]))
    assert mean.differences["ours"].value == pytest.approx(np.mean([r.differences["ours"].value for r in each]))
    narrow = compare([BASE, make_run("narrow", {"vls": 40}, seed=3)])
    assert not any(r.place.startswith("mean") for r in narrow.rows)
    assert set(row(narrow, "beaver", "harmless").values) == {"base"}
    assert {r.place for r in narrow.primary} == {"vls"}, "what most models have"


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.4, 0.99), st.floats(0, 0.6), st.integers(1, 3))
def test_differences_are_antisymmetric(seed: int, quality: float, gaps: float, training_seeds: int) -> None:
    sizes = {"beaver": 12, "vls": 9}
    runs = [make_run("base", sizes, quality=0.8, seed=seed)]
    runs += [make_run("ours", sizes, quality=quality, gaps=gaps, seed=seed + s, run=s) for s in range(training_seeds)]
    there = compare(runs, "base")
    for r in compare(runs, "ours").rows:
        if r.measure in {row.measure for row in there.rows if row.place == r.place and row.differences}:
            one, back = row(there, r.place, r.measure).differences["ours"], r.differences["base"]
            assert (back.pairs, back.left_out) == (one.pairs, one.left_out)
            if one.value is not None:
                assert back.value == pytest.approx(-one.value) and back.p == pytest.approx(one.p, abs=0.02)
                assert (back.low, back.high) == pytest.approx((-one.high, -one.low))


def test_identical_students_differ_in_nothing() -> None:
    comparison = compare([BASE, renamed(BASE, "twin")])
    found = [d for r in comparison.rows for d in r.differences.values()]
    assert len(found) > 40
    for d in found:
        assert d.value == pytest.approx(0) and d.p == pytest.approx(1) and d.low <= 0 <= d.high
    assert row(comparison, "beaver", "harmless_pass").differences["twin"].high > 1  # 60 dialogues are no proof
    assert beside(comparison, "twin")[0] == "twin is neither clearly safer nor clearly less safe than base: "
    told = comparison_markdown(comparison) + shown(comparison) + json.dumps(comparison_dict(comparison))
    assert not re.search(r"\bnan\b", told, re.I) and "\\*" not in comparison_markdown(comparison).split("## Notes")[0]


def failing_at(name: str, turn: int) -> EvalRun:
    """Thirty dialogues of six turns that go well until they fail at ``turn``; beyond the last one: never."""
    made = make_run(name, {"beaver": 30}, turns=(6, 6), gaps=0, quality=0.9)
    judged = [Rating(judge="j", harmless=1 if t == turn else 3, helpful=3) for t in range(1, 7)]
    rated = [
        d.model_copy(
            update={"turns": tuple(t.model_copy(update={"judged": j}) for t, j in zip(d.turns, judged, strict=True))}
        )
        for d in made.dialogues
    ]
    return EvalRun(made.folder, made.about, tuple(rated))


def test_a_test_is_of_the_difference_beside_it() -> None:
    """What happens after turn 3 says nothing of survival to turn 3."""
    comparison = compare([failing_at("base", 4), failing_at("ours", 9)])
    early = row(comparison, "beaver", "survival:3").differences["ours"]
    assert (early.value, early.p, early.clear) == (0, 1, False) and early.low < 0 < early.high
    late = row(comparison, "beaver", "survival").differences["ours"]
    assert (late.value, late.clear) == (100, True) and late.p < 0.001 and late.low < 100


def test_only_common_dialogues_are_paired_and_the_rest_is_counted() -> None:
    half = EvalRun(OURS.folder, OURS.about, OURS.dialogues[:30])
    found = row(compare([BASE, half]), "beaver", "unrated").differences["ours"]
    assert (found.pairs, found.left_out) == (30, 30)
    strange = tuple(d.model_copy(update={"digest": f"{d.digest}x"}) for d in OURS.dialogues)
    with pytest.raises(DataError, match="not one dialogue of it in common"):
        compare([BASE, EvalRun(OURS.folder, OURS.about, strange)])
    some = compare([BASE, EvalRun(OURS.folder, OURS.about, (*strange[:10], *OURS.dialogues[10:]))])
    assert row(some, "beaver", "unrated").differences["ours"].pairs == 50
    assert "beaver: 10 of 60 ids stand for dialogues with other questions" in some.notes[0]


def test_other_max_turns_make_no_difference() -> None:
    """The same marks, but played to three turns alone: only dialogues that end there anyway are paired."""
    base = make_run("base", {"beaver": 200}, quality=0.8, gaps=0, seed=1)
    cut = tuple(d.model_copy(update={"planned": min(d.planned, 3), "turns": d.turns[:3]}) for d in base.dialogues)
    comparison = compare([base, EvalRun(Path("ours"), renamed(base, "ours").about, cut)])
    short = sum(d.planned <= 3 for d in base.dialogues)
    found = row(comparison, "beaver", "harmless_pass").differences["ours"]
    assert (found.value, found.pairs, found.left_out) == (0, short, 2 * (200 - short))
    assert "neither clearly safer" in beside(comparison, "ours")[0] and "number of turns" in comparison.notes[0]


def test_the_baseline_is_chosen_by_name_or_folder() -> None:
    comparison = compare([BASE, OURS], "ours")
    assert comparison.baseline.name == "ours" and set(row(comparison, "vls", "harmless").differences) == {"base"}
    assert [m.name for m in comparison.models] == ["base", "ours"], "columns stand as they were given"
    for runs, wanted, told in (([BASE, OURS], "nobody", "--baseline nobody"), ([], None, "no runs")):
        with pytest.raises(ConfigError, match=told):
            compare(runs, wanted)
    with pytest.raises(ConfigError, match="one name and one folder"):
        compare([BASE, BASE])
    with pytest.raises(DataError, match="without dialogues"):
        compare([EvalRun(Path("x"), BASE.about, ())])


def test_one_model_alone_is_shown() -> None:
    comparison = compare([BASE])
    assert comparison.rivals == () and comparison.primary[0].measure == "survival"
    assert "## Differences" not in comparison_markdown(comparison) and "survival to turn" in shown(comparison)
    ((_, rest),) = sentences(compare([make_run("base", SIZES, gaps=1.0)]))
    assert rest == "nothing is known of safety, helpfulness or over-refusal: no rated dialogue tells it."


def test_many_models_keep_their_order() -> None:
    names = ["base", "sft", "grpo", "again"]
    comparison = compare([renamed(make_run("x", SIZES, seed=i), name) for i, name in enumerate(names)])
    assert [m.name for m in comparison.models] == names and comparison.rivals == ("sft", "grpo", "again")
    adjusted = [d.adjusted for r in comparison.primary for d in r.differences.values()]
    assert len(adjusted) == 9 and adjusted == holm(
        [d.p or 0 for r in comparison.primary for d in r.differences.values()]
    )


def test_runs_of_one_name_on_other_benchmarks_are_one_model() -> None:
    two = [EvalRun(Path(b), run.about, run.subset(b)) for run in (BASE, OURS) for b in SIZES]
    comparison = compare(two)
    assert [m.name for m in comparison.models] == ["base", "ours"] and not comparison.models[0].pooled
    whole = compare([BASE, OURS])
    for r in whole.rows:
        assert row(comparison, r.place, r.measure).values == r.values


def test_seeds_of_one_model_are_pooled_and_runs_of_one_name_told_apart() -> None:
    seeds = [make_run("ours", SIZES, quality=0.95, seed=s, run=s) for s in (5, 6, 7)]
    comparison = compare([BASE, *seeds])
    assert [(m.name, m.pooled) for m in comparison.models] == [("base", False), ("ours", True)]
    pooled = row(comparison, "beaver", "harmless")
    each = [row(compare([run]), "beaver", "harmless").values["ours"].value for run in seeds]
    assert pooled.seeds["ours"].value == pytest.approx(np.mean(each)) and pooled.seeds["ours"].low < min(each)
    assert pooled.differences["ours"].over_seeds is None, "one seed shared is no spread"
    assert any("pooled in ours" in note for note in comparison.notes)
    again = [EvalRun(Path(f"out/{name}"), OURS.about, OURS.dialogues) for name in ("a", "b")]
    assert [m.name for m in compare(again).models] == ["ours (out/a)", "ours (out/b)"]
    for told in ("b", "out/b/", str(Path("out/b").resolve())):
        assert compare(again, told).baseline.name == "ours (out/b)"
    nested = [replace(run, folder=run.folder / "ours") for run in again]
    with pytest.raises(ConfigError, match="more than one of the runs is called that"):
        compare(nested, "ours")


def test_seeds_that_played_other_dialogues_are_told_and_compared_on_common_ones() -> None:
    """The second seed played ten dialogues alone, and failed in all."""
    base, whole = failing_at("base", 9), failing_at("ours", 9)
    bad = [d.model_copy(update={"run": 1}) for d in failing_at("ours", 1).dialogues[:10]]
    comparison = compare([base, whole, EvalRun(Path("ours1"), whole.about, tuple(bad))])
    found = row(comparison, "beaver", "unbroken")
    assert found.values["ours"].value == 75 and found.seeds["ours"].value == 50
    assert [note for note in comparison.notes if note.startswith("The training seeds of ours did not play the same")]


def test_a_seed_is_compared_with_itself_on_the_dialogues_of_all_seeds() -> None:
    first = [d.model_copy(update={"run": 0}) for d in failing_at("x", 9).dialogues]
    bad = [d.model_copy(update={"run": 1}) for d in failing_at("x", 1).dialogues[:10]]
    good = [d.model_copy(update={"run": 1}) for d in failing_at("x", 9).dialogues]
    broken = [d.model_copy(update={"run": 0}) for d in failing_at("x", 1).dialogues[10:]]
    ours = [*first, *bad]
    theirs = [*first[:10], *broken, *good]
    made = [EvalRun(Path(n), renamed(BASE, n).about, tuple(some)) for n, some in (("base", theirs), ("ours", ours))]
    over = row(compare(made), "beaver", "unbroken").differences["ours"].over_seeds
    assert over is not None and over.value == -50, "0 and -100 on the ten dialogues that all four played"


def test_different_students_of_one_name_are_two_models() -> None:
    """A label such as global_step_100 is every training's."""
    one = EvalRun(Path("a"), BASE.about.model_copy(update={"student": "hf@aaa"}), BASE.subset("beaver"))
    two = EvalRun(Path("b"), BASE.about.model_copy(update={"student": "hf@bbb"}), BASE.subset("vls"))
    assert [m.name for m in compare([one, two]).models] == ["base (a)", "base (b)"]
    seeded = EvalRun(Path("b"), two.about, tuple(d.model_copy(update={"run": 1}) for d in BASE.dialogues))
    assert [m.name for m in compare([one, seeded]).models] == ["base"], "a student of another seed is another one"


def test_a_difference_between_ways_of_training_is_over_seeds() -> None:
    """What all dialogues together would prove, unlike seeds do not."""
    before = [make_run("base", SIZES, quality=0.75, seed=s, run=s) for s in (1, 2, 3)]
    after = [make_run("ours", SIZES, quality=q, seed=s + 10, run=s) for s, q in ((1, 0.75), (2, 0.85), (3, 0.99))]
    wide = compare([*before, *after])
    each = [row(compare([b, a]), "mean of dialogues", "harmless_pass") for b, a in zip(before, after, strict=True)]
    gaps = [r.differences["ours"].value for r in each]
    found = row(wide, "mean of dialogues", "harmless_pass").differences["ours"]
    assert found.over_seeds is not None and found.over_seeds.value == pytest.approx(np.mean(gaps))
    assert found.adjusted < 0.05 and not found.clear and found.over_seeds.low < 0
    assert "*" not in difference_cell(found, 1) and "; over seeds +" in difference_cell(found, 1)
    assert any("clear over seeds too" in note for note in wide.notes)


def test_a_log_of_another_program_is_paired_by_its_questions() -> None:
    """It has other ids and no digests, and names no settings."""

    def asked(d: EvalDialogue, name: str, digest: str) -> EvalDialogue:
        turns = [t.model_copy(update={"user": UserTurn(text=f"{d.digest}?")}) for t in d.turns]
        return d.model_copy(update={"turns": tuple(turns), "id": name, "digest": digest, "sampling": None})

    ours = EvalRun(BASE.folder, BASE.about, tuple(asked(d, d.id, d.digest) for d in BASE.dialogues))
    about = RunAbout(name="log", student="s", judge="grader", attack="static", benchmarks={})
    log = EvalRun(
        Path("x.eval"), about, tuple(asked(d, f"beaver/{i}", "") for i, d in enumerate(OURS.subset("beaver")))
    )
    comparison = compare([ours, log])
    found = row(comparison, "beaver", "harmless_pass").differences["log"]
    plain = row(compare([BASE, OURS]), "beaver", "harmless_pass").differences["ours"]
    assert (found.value, found.pairs) == (plain.value, plain.pairs)
    assert "paired by their first question" in comparison.notes[0] and {r.place for r in comparison.primary} == {
        "beaver"
    }


def test_nothing_rated_is_no_figure() -> None:
    comparison = compare([make_run(name, SIZES, gaps=1.0, seed=s) for s, name in enumerate(("base", "ours"))])
    for r in comparison.primary:
        assert all(estimate.value is None or estimate.n for estimate in r.values.values())
    assert sentences(comparison) == [
        (
            "ours beside base: ",
            "nothing is known of safety, helpfulness or over-refusal: no rated dialogue of both tells it.",
        )
    ]
    assert not re.search(r"\bnan\b", comparison_markdown(comparison) + shown(comparison), re.I)


def test_a_judge_that_died_after_the_first_turn_makes_nobody_safer() -> None:
    base = failing_at("base", 4)
    died = tuple(
        d.model_copy(
            update={
                "turns": tuple(
                    t.model_copy(update={"judged": Unrated(reason="timeout")}) if i else t
                    for i, t in enumerate(d.turns)
                )
            }
        )
        for d in failing_at("ours", 4).dialogues
    )
    ours = EvalRun(Path("ours"), renamed(base, "ours").about, died)
    comparison = compare([base, ours])
    found = row(comparison, "beaver", "survival")
    assert found.values["ours"].text(1) == "-" and found.differences["ours"].p is None
    assert "".join(beside(comparison, "ours")).startswith("ours beside base: nothing is known of safety")
    curve = summarize(ours).all.survival
    assert (curve.survival[1:4], curve.low[2:4], curve.high[3], curve.at.value) == ([1, 1, 1], [0, 0], 1, None)


def test_the_papers_figures_stand_beside_the_same_sets_only() -> None:
    five = make_run("ours", dict.fromkeys(tables().multi_turn.benchmarks, 6))
    comparison = compare([five])
    assert row(comparison, "spa", "helpful_pass").published["7B full"] == 70.93
    assert row(comparison, "mmsafe", "survival:1").published == {
        "3B base": 87.0, "3B full": 97.0, "7B base": 95.0, "7B full": 98.0,
    }  # fmt: skip
    assert row(comparison, "mean of dialogues", "harmless_pass").published["3B full"] == 55.58
    assert not row(comparison, "spa", "joint_pass").published
    assert not row(compare([BASE, OURS]), "mean of dialogues", "harmless_pass").published
    dialogues = compare([make_run("ours", {"beaver": 9, "vls": 9}, turns=(1, 1))])
    assert not any(r.published for r in dialogues.rows), "one turn of a set of dialogues is another thing"
    adaptive = EvalRun(five.folder, five.about.model_copy(update={"attack": "adaptive"}), five.dialogues)
    assert not any(r.published for r in compare([adaptive]).rows)
    assert "no adaptive attack" in compare([adaptive]).notes[-1]
    for marks, told in (({"helpful": 2.0}, False), ({"fail_below": 1}, False), ({"horizon": 8}, True)):
        found = compare([EvalRun(five.folder, five.about.model_copy(update={"marks": marks}), five.dialogues)])
        assert any(r.published for r in found.rows) == told
        assert ("paper's thresholds" in found.notes[-1]) != told
    spa = [d.model_copy(update={"oddities": ("shortened",)} if d.benchmark == "spa" else {}) for d in five.dialogues]
    cut = compare([EvalRun(five.folder, five.about, tuple(spa))])
    assert "`max_turns` shortened" in cut.notes[-1]
    assert not row(cut, "spa", "helpful_pass").published and row(cut, "vls", "helpful_pass").published
    assert not row(cut, "mean of dialogues", "harmless_pass").published, "it is a mean over spa too"


def test_the_five_single_turn_sets_have_their_figures_and_their_average() -> None:
    five = tables().single_turn.benchmarks
    comparison = compare([make_run("ours", dict.fromkeys(five, 6), turns=(1, 1))])
    assert row(comparison, "vlguard", "harmless_pass").published["7B SFT"] == 84.20
    assert row(comparison, "mean of single turns", "helpful_pass").published["3B base"] == 45.86
    assert "81.84" in comparison_markdown(comparison)
    four = compare([make_run("ours", dict.fromkeys(five[:4], 6), turns=(1, 1))])
    assert not row(four, "mean of single turns", "harmless_pass").published


def test_seeds_that_played_other_dialogues_make_no_difference() -> None:
    """Two students that answer every dialogue alike do not differ, whichever dialogues each seed played."""
    base = make_run("base", {"beaver": 60}, quality=0.6, gaps=0, seed=1)
    easy = tuple(d for d in base.dialogues if min(t.judged.harmless for t in d.turns if t.judged.status == "ok") > 1)
    assert 5 < len(easy) < 55

    def seeds(name: str, *played: tuple[EvalDialogue, ...]) -> list[EvalRun]:
        rows = [[d.model_copy(update={"run": seed}) for d in some] for seed, some in enumerate(played)]
        return [EvalRun(Path(f"{name}{i}"), renamed(base, name).about, tuple(some)) for i, some in enumerate(rows)]

    whole, less = seeds("base", base.dialogues, base.dialogues), seeds("ours", base.dialogues, easy)
    for runs in ([*whole, *less], [whole[0], *less]):
        for d in (r.differences["ours"] for r in compare(runs).rows if r.differences):
            assert d.value == pytest.approx(0) and d.p == pytest.approx(1) and d.low < 0 < d.high
            assert d.over_seeds is None or d.over_seeds.value == pytest.approx(0)


def test_copies_of_a_dialogue_are_no_evidence() -> None:
    few = [make_run(name, {"beaver": 20}, quality=q, seed=s) for s, (name, q) in enumerate((("a", 0.8), ("b", 0.9)))]
    copied = [
        EvalRun(
            run.folder,
            run.about,
            tuple(d.model_copy(update={"id": f"{d.id}-{i}"}) for d in run.dialogues for i in range(9)),
        )
        for run in few
    ]
    plain, many = compare(few), compare(copied)
    for one, other in zip(plain.rows, many.rows, strict=True):
        assert one.differences.get("b") == other.differences.get("b")
        for model, value in one.values.items():
            ends = other.values[model].low, other.values[model].high
            assert ends == pytest.approx((value.low, value.high), nan_ok=True)


def test_a_run_on_the_short_dialogues_is_measured_as_one_on_all() -> None:
    """A set of dialogues stays one, though a run took only those of one turn."""
    whole = make_run("base", {"beaver": 40}, turns=(1, 3), gaps=0, quality=0.5)
    short = tuple(
        d.model_copy(
            update={
                "turns": tuple(
                    t.model_copy(update={"judged": Rating(judge="j", harmless=3, helpful=2)}) for t in d.turns
                )
            }
        )
        for d in whole.dialogues
    )
    two = EvalRun(Path("x"), renamed(whole, "ours").about, tuple(d for d in short if d.planned == 1))
    lenient = whole.about.model_copy(update={"marks": {"helpful": 2.0}})
    found = row(compare([EvalRun(whole.folder, lenient, short), two]), "beaver", "helpful_pass")
    assert found.values["base"].value == found.values["ours"].value == 100, "a mean of 2, not a mark of 3"
    assert found.differences["ours"].value == 0


def test_survival_is_of_one_turn_for_all_that_have_it() -> None:
    """A rival that played the benign half alone has none, and the others' keeps its turn."""
    attacked = make_run("base", {"beaver": 30}, gaps=0)
    benign = [
        d.model_copy(update={"id": f"{d.id}b", "digest": f"{d.digest}b", "kind": DialogueKind.BENIGN})
        for d in attacked.dialogues
    ]
    both = EvalRun(attacked.folder, attacked.about, (*attacked.dialogues, *benign))
    comparison = compare([both, EvalRun(Path("x"), renamed(attacked, "ours").about, tuple(benign))])
    found = row(comparison, "beaver", "survival")
    assert set(found.values) == {"base"} and re.fullmatch(r"survival to turn \d+", found.about.title)
    assert "None" not in comparison_markdown(comparison) + shown(comparison)


def test_the_first_table_stands_where_the_baseline_has_rivals() -> None:
    there = [make_run("base", {"beaver": 30}, seed=1), make_run("ours", {"beaver": 30, "vls": 30}, seed=2)]
    comparison = compare([*there, *(make_run(name, {"vls": 30}, seed=3) for name in "xyz")])
    assert {r.place for r in comparison.primary} == {"beaver"}
    assert "".join(beside(comparison, "x")).endswith("no rated dialogue of both tells it.")


def test_a_calibration_corrects_the_benchmarks_of_its_own_run() -> None:
    first = make_run("ours", {"beaver": 30}, calibration=CALIBRATION)
    for marks, calibration in (({}, None), ({"fail_below": 1}, CALIBRATION)):
        second = make_run("ours", {"vls": 30}, calibration=calibration)
        about = second.about.model_copy(update={"marks": marks})
        rows = compare([BASE, first, EvalRun(Path("x"), about, second.dialogues)]).rows
        assert [r.place for r in rows if r.measure == CORRECTED] == ["beaver"]


def test_what_makes_runs_hard_to_compare_is_said() -> None:
    other = OURS.about.model_copy(update={"judge": "another", "marks": {"harmless": 2.0}})
    comparison = compare([BASE, EvalRun(OURS.folder, other, OURS.dialogues)])
    notes = " ".join(comparison.notes)
    assert "Not the same judges: another, j." in notes and "all are measured under those of base" in notes
    assert row(comparison, "vls", "harmless_pass").values == row(compare([BASE, OURS]), "vls", "harmless_pass").values


def test_corrected_failures_stand_where_a_judge_was_calibrated() -> None:
    run = make_run("ours", SIZES, calibration=CALIBRATION)
    found = row(compare([BASE, run]), "beaver", CORRECTED)
    assert found.values == {"ours": summarize(run).benchmarks["beaver"].corrected["failed_turns"]}
    assert not found.differences


def test_a_calibration_for_another_threshold_corrects_nothing() -> None:
    run = make_run("ours", SIZES, calibration={**CALIBRATION, "thresholds": {"harmless_below": 1}})
    other = EvalRun(run.folder, run.about.model_copy(update={"marks": {"fail_below": 1}}), run.dialogues)
    assert not any(r.measure == CORRECTED for r in compare([BASE, other]).rows)
    assert not any(r.measure == CORRECTED for r in compare([run]).rows)
    assert any(r.measure == CORRECTED for r in compare([other]).rows)


def test_models_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    monkeypatch.setattr(
        "steer_verl.eval.compare.models.figures_of", lambda rows, to: measured.append(len(rows)) or figures_of(rows, to)
    )
    compare([BASE, OURS], "ours")
    assert measured == [60, 40, 60, 40]


def test_a_sentence_says_who_is_safer_by_how_much_and_at_what_price() -> None:
    weak, strong = mixed("base", 1, 0.7), mixed("ours", 2, 0.98)
    head, rest = beside(compare([weak, strong]), "ours")
    assert head == "ours is safer than base: "
    more = r"\d+ points more dialogues unbroken to turn \d+ \(\d+ to \d+\)"
    same = r"no clear difference in dialogues judged helpful \(.* points fewer to .*\) or in benign requests refused"
    assert re.fullmatch(rf"{more}; {same} in full \(.*\)\.", rest)
    head, rest = beside(compare([strong, weak]), "base")
    assert head == "base is less safe than ours: " and "points fewer dialogues unbroken" in rest
    (head, rest), *_ = sentences(compare([weak]))
    assert head.startswith("base, with no other") and " % of dialogues unbroken to turn " in rest


def test_a_sentence_tells_what_training_seeds_or_gaps_could_undo() -> None:
    def said(gap: Difference, worst: float = 60) -> str:
        b = Estimate(value=50, low=None, high=None, n=9, of=9, worst=50, best=50)
        values = {"a": b.model_copy(update={"value": 70, "worst": worst, "best": 70}), "b": b}
        comparison = compare([renamed(BASE, "b")])
        old = next(r for r in comparison.primary if r.measure == "harmless_pass")
        one = old.model_copy(update={"values": values, "differences": {"a": gap}})
        return beside(replace(comparison, primary=(one,)), "a")[1]

    gap = Difference(value=20, low=10, high=30, pairs=9, left_out=0, p=0.001, adjusted=0.004)
    assert said(gap).startswith("20 points more dialogues judged harmless (10 to 30); nothing is known of helpful")
    assert "though what was not rated could undo that" in said(gap, worst=45)
    unlike = gap.model_copy(update={"over_seeds": Interval(20.0, -5.0, 45.0)})
    assert "training seeds do not bear it out" in said(unlike)
    for contrary in (Interval(-5.0, -9.0, -1.0), Interval(0.0, 0.0, 0.0)):
        assert not gap.model_copy(update={"over_seeds": contrary}).clear


def test_from_folders_to_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in (BASE, OURS):
        write_run(tmp_path / run.name, run.about, run.dialogues)
    stdout().print(compare_folders([tmp_path / "base", tmp_path / "ours"], tmp_path / "out"))
    said = capsys.readouterr().out
    assert said.startswith("ours is safer than base: ") and "Safety and its price" in said
    page = (tmp_path / "out" / "comparison.md").read_text()
    headings = re.findall("^#+ (.*)", page, re.M)
    assert headings == ["Comparison", "Models", "Every figure", "Differences", "Beside the paper", "Notes"]
    assert page.index("ours is safer") < page.index("ours - base") < page.index("## Models")
    with (tmp_path / "out" / "comparison.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert tuple(lines[0]) == COLUMNS and {line["model"] for line in lines} >= {"base", "ours", "paper: 3B full"}
    plain = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert plain["baseline"] == "base" and len(plain["rows"]) > 20
    first = next(r for r in plain["rows"] if r["measure"] == "harmless_pass")
    assert first["differences"]["ours"]["adjusted"] is None and first["published"]["3B base"] == 21.79
    assert [r["measure"] for r in plain["primary"]] == ["survival", "harmless_pass", "helpful_pass"]
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


@pytest.mark.parametrize(
    "name", ["=HYPERLINK(1)", "@SUM(A1)", "+1+2", "-2+3", "\t=1", "\x1b]0;x\x07=1", "\uff1d1", "'=1", " =1", "\u202e=1"]
)
def test_no_cell_is_a_formula_or_holds_what_a_terminal_obeys(name: str, tmp_path: Path) -> None:
    about = OURS.about.model_copy(update={"name": name})
    sets = {"beaver": BASE.subset("beaver")}
    bad = tuple(d.model_copy(update={"benchmark": f"={d.benchmark}"}) for d in sets["beaver"])
    comparison = compare([BASE, EvalRun(OURS.folder, about, (*OURS.dialogues, *bad))])
    write_comparison(comparison, tmp_path)
    with (tmp_path / "comparison.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    words = {line[column] for line in lines for column in ("place", "measure", "unit", "model")}
    assert not [word for word in words if re.match(r"[=+@\t\uff1d]|-(?![\d.]+$)", word)]
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", (tmp_path / "comparison.csv").read_text())
    numbers = [line[c] for line in lines for c in ("value", "low", "difference", "difference_low", "p")]
    assert all(not text or float(text) is not None for text in numbers)
    assert any(text.startswith("-") for text in numbers), "a negative number stays one"
    assert "\x1b" not in shown(comparison) and "\u202e" not in shown(comparison)
