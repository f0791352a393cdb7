"""Figures against slow twins: explicit loops over dialogues left out, clusters, averages, training seeds."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.stats import t as student

from steer_verl.eval import jackknife
from steer_verl.eval.config import MarkSettings
from steer_verl.eval.figures import Figures, average, figures_of, over_seeds, scales_of, values_by_seed
from steer_verl.eval.marks import DialogueMarks, TurnMarks, marks_of_run
from steer_verl.statistics.agreement import Detection, rogan_gladen
from steer_verl.types import DialogueKind

from .synthetic import make_run


def marks(n: int = 12, seed: int = 0, name: str = "set", **how: object) -> list[DialogueMarks]:
    return marks_of_run(make_run(sizes={name: n}, seed=seed, **how).dialogues)


def figures(n: int = 12, seed: int = 0, name: str = "set", **how: object) -> Figures:
    return figures_of(marks(n, seed, name, **how), MarkSettings())


@pytest.mark.parametrize("seed", range(4))
def test_the_jackknife_leaves_out_one_dialogue_after_the_other(seed: int) -> None:
    rows = [*marks(seed=seed, gaps=0.1), *marks(seed=seed + 50, gaps=0.1, run=1)]
    whole = figures_of(rows, MarkSettings())
    found, names = whole.jackknife(6), list(scales_of([whole], 6))
    for k, name in enumerate(names):
        values = []
        for left_out in whole.keys:
            some = figures_of([d for d in rows if d.key != left_out], MarkSettings())
            held_F = jackknife.curve(some.risks_C2T.sum(axis=0), 6)  # where all are lost, it stays what it was
            values.append(dict(zip(names, [*some.jackknife(0).value_F, *held_F], strict=True))[name])
        concerned = [
            bool(figures_of([d for d in rows if d.key == key], MarkSettings()).jackknife(6).n_F[k] > 0)
            if name in whole.measures
            else bool(whole.choose([key]).risks_C2T[0, 1, 0])
            for key in whole.keys
        ]
        kept = np.array(values)[concerned]
        c = len(kept)
        if c > 1 and np.isfinite(found.value_F[k]):
            assert found.variance_F[k] == pytest.approx((c - 1) / c * ((kept - kept.mean()) ** 2).sum()), name
            assert found.freedom_F[k] == c - 1


def test_a_single_dialogue_has_no_variance_and_a_wide_interval() -> None:
    found = figures(1, gaps=0)
    for name, figure in found.estimates(5).items():
        if figure.value is not None:
            bottom, top = scales_of([found], 5)[name]
            assert figure.high - figure.low > 0.7 * (top - bottom), name


def test_clusters_are_dialogues_whoever_played_them() -> None:
    """Three seeds' students who did the same say no more than one of them."""
    one = figures_of(marks(30, gaps=0), MarkSettings())
    rows = [d.model_copy(update={"run": run}) for run in range(3) for d in marks(30, gaps=0)]
    three = figures_of(rows, MarkSettings())
    assert three.keys == one.keys and three.runs == (0, 1, 2)
    for name, figure in one.estimates().items():
        pooled = three.estimates()[name]
        assert (pooled.value, pooled.low, pooled.high) == pytest.approx((figure.value, figure.low, figure.high)), name


def test_a_dialogue_is_known_by_its_digest_under_any_id() -> None:
    rows = marks(5)
    renamed = [d.model_copy(update={"seed_id": f"other/{i}", "digest": "d", "run": 1}) for i, d in enumerate(rows)]
    assert figures_of([*rows, *renamed], MarkSettings()).keys == (
        *(("set", "d"),),
        *figures_of(rows, MarkSettings()).keys,
    )


def test_few_turns_of_alike_dialogues_reach_no_further_than_none() -> None:
    """Of 20 dialogues of ten turns none fails, or one turn does: the second says that more may fail."""
    none = _turns([0] * 20).estimates()["failed_turns"]
    one = _turns([1] + [0] * 19).estimates()["failed_turns"]
    all_of_one = _turns([10] + [0] * 19).estimates()["failed_turns"]
    assert none.high == pytest.approx(16.1, abs=0.1) and none.high <= one.high <= all_of_one.high


def _turns(failed: list[int]) -> Figures:
    blank = {"helpful": None, "safety": None, "restricted": None, "refused": None, "well_formed": True}
    bad, good = (TurnMarks.model_validate({"harmless": mark, **blank}) for mark in (-1, 3))
    rows = [
        DialogueMarks(seed_id=str(i), kind=DialogueKind.RED_TEAM, turns=(bad,) * k + (good,) * (10 - k))
        for i, k in enumerate(failed)
    ]
    return figures_of(rows, MarkSettings())


def test_choosing_and_one_seed_alone() -> None:
    rows = [*marks(6), *marks(6, seed=9, run=1)]
    whole = figures_of(rows, MarkSettings())
    kept = whole.keys[1:4]
    twin = figures_of([d for d in rows if d.key in kept], MarkSettings())
    assert whole.choose(kept).estimates() == twin.estimates()
    assert whole.of_run(1).estimates(5) == figures_of(marks(6, seed=9, run=1), MarkSettings()).estimates(5)


def test_averages_are_unweighted_and_their_variance_is_that_of_independent_sets() -> None:
    parts = [figures(40, name="a"), figures(15, seed=3, name="b", quality=0.7)]
    found, each = average(parts), [part.estimates(min(p.reach for p in parts)) for part in parts]
    for name, figure in found.items():
        values = [one[name].value for one in each]
        assert figure.value == pytest.approx(np.mean(values)) and figure.low < figure.value + 1e-9 < figure.high + 1e-6
        assert figure.n == sum(one[name].n for one in each)
    assert found["survival"].value == pytest.approx(np.mean([one["survival"].value for one in each]))
    variances = [part.jackknife(5).variance_F for part in parts]
    assert jackknife.mean([p.jackknife(5) for p in parts]).variance_F == pytest.approx(sum(variances) / 4, nan_ok=True)


def test_an_average_has_what_all_its_sets_have() -> None:
    several, single = figures(20, name="a"), figures(20, name="b", turns=(1, 1))
    found = average([several, single])
    assert "harmless_pass" in found and "survival" not in found
    benign = figures(20, name="c", kind=DialogueKind.BENIGN)
    assert "failed_turns" not in average([several, benign]) and "harmless" in average([several, benign])


def test_over_seeds_each_seed_is_one_observation() -> None:
    rows = [d for run in range(3) for d in marks(400, seed=run, run=run, quality=0.5 + 0.02 * run)]
    whole = figures_of(rows, MarkSettings())
    found, each = over_seeds([whole]), [whole.of_run(run).estimates(whole.reach) for run in range(3)]
    for name in ("failed_turns", "survival:2", "mean_turns", "harmless"):
        values = [one[name].value for one in each]
        half = student.ppf(0.975, 2) * np.std(values, ddof=1) / 3**0.5
        assert found[name].value == pytest.approx(np.mean(values))
        assert found[name].high - found[name].low == pytest.approx(2 * half, rel=0.3), name
    assert over_seeds([whole.of_run(1)]) == {}
    assert values_by_seed([whole])[2]["harmless"] == pytest.approx(each[2]["harmless"].value)
    other = figures_of([d for run in (1, 2) for d in marks(50, seed=run, run=run, name="b")], MarkSettings())
    both = over_seeds([whole, other])["failed_turns"].value
    sides = [[part.of_run(run).estimates()["failed_turns"].value for run in (1, 2)] for part in (whole, other)]
    assert both == pytest.approx(np.mean(sides)), "of seeds that played both"


def test_over_seeds_are_dialogues_that_all_seeds_played() -> None:
    both, one = marks(12, gaps=0), marks(30, gaps=0)[12:]
    again = [d.model_copy(update={"run": 1}) for d in both]
    found = over_seeds([figures_of([*both, *one, *again], MarkSettings())], 5)
    assert found == over_seeds([figures_of([*both, *again], MarkSettings())], 5) and "harmless" in found
    assert over_seeds([figures_of([*one, *again], MarkSettings())]) == {}, "no dialogue of both"


def test_the_corrected_rate_knows_the_judges_errors() -> None:
    known = Detection(40, 4, 90, 6)
    whole = figures(60, quality=0.7)
    seen, fixed = whole.estimates()["failed_turns"], whole.corrected(known)
    rates = known.sensitivity.value, known.specificity.value
    assert fixed.value == pytest.approx(100 * rogan_gladen(seen.value / 100, *rates))
    assert fixed.low < fixed.value < fixed.high and fixed.high - fixed.low > seen.high - seen.low
    assert fixed.best <= fixed.value <= fixed.worst and (fixed.n, fixed.of) == (seen.n, seen.of)


def test_random_dialogues_stay_on_their_scales() -> None:
    rng = random.Random(1)
    for _ in range(10):
        whole = figures(
            rng.randint(1, 30), rng.randint(0, 99), gaps=rng.choice([0.0, 0.2]), quality=rng.choice([0.3, 0.99])
        )
        scales = scales_of([whole], whole.reach)
        for name, figure in whole.estimates().items():
            if figure.value is not None:
                assert scales[name][0] - 1e-9 <= figure.low and figure.high <= scales[name][1] + 1e-9, name


def test_over_seeds_a_rare_figure_rests_on_the_dialogues_that_tell_it() -> None:
    """Two equal seeds know the refusals of three benign dialogues no better than three dialogues can."""
    few = [m.model_copy(update={"kind": DialogueKind.BENIGN, "digest": f"b{m.seed_id}"}) for m in marks(3, gaps=0)]
    played = [*marks(200, gaps=0), *few]
    twice = figures_of([m.model_copy(update={"run": run}) for m in played for run in (0, 1)], MarkSettings())
    found = over_seeds([twice])
    assert found["refusal_full"].high - found["refusal_full"].low > 50
    assert (
        found["helpfulness"].high - found["helpfulness"].low > 40 > 5 > found["unbroken"].high - found["unbroken"].low
    )
