"""``steer eval rejudge`` over HTTP: the answers stay, another judge rates them, and how far the two agree."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from steer_verl.errors import ConfigError
from steer_verl.eval.config import EvalConfig, RejudgeConfig
from steer_verl.eval.judging.agreement import agreement_of
from steer_verl.eval.records import EvalDialogue, EvalEnd, EvalTurn, Judged, Rating, Unrated
from steer_verl.eval.rejudge import rejudge, rejudge_settings
from steer_verl.eval.retry import retry_folder
from steer_verl.eval.run import evaluate
from steer_verl.eval.runs import read_run
from steer_verl.eval.working import Finished
from steer_verl.settings_file import parse_settings
from steer_verl.statistics.agreement import krippendorff_alpha
from tests.data.samples import picture
from tests.eval.synthetic import dialogue
from tests.eval.test_retry import DOWN, ON_ITS_WAY, PROSE, _at_once, figures, finished, killed_after, play  # noqa: F401
from tests.eval.world import ITEMS, TURNS, World, bench, endpoint, mark, recipe, settings, told
from tests.models.replies import prompt_text

PLACES = [("judge", n, t) for n in range(ITEMS) for t in range(1, TURNS + 1)]
WORK = {"in_flight": 4, "shards": 2, "pause": 0, "tries": 1, "give_up": True}


def again(folder: Path, server: World, out: str = "new", of: str = "out", **judge: Any) -> Finished:
    given = {"run": folder / of, "out": folder / out, "judge": {"endpoint": endpoint(server), **judge}, "work": WORK}
    return rejudge(parse_settings(RejudgeConfig, given, "here"))


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Finished]:
    """A finished run, whose server is gone."""
    bench(tmp_path, image="shown.png", reference="12")
    picture(tmp_path / "shown.png")
    with World().in_thread() as server:
        more = {"own": {"file": str(tmp_path / "bench.jsonl"), "exact_match": True}}
        done = play(tmp_path, server, benchmarks=more)
    before = contents(tmp_path / "out")
    yield done
    assert contents(tmp_path / "out") == before, "the run stays as it was"


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_only_the_judge_is_asked_and_the_new_run_is_a_run_like_every_other(tmp_path: Path, played: Finished) -> None:
    own = tmp_path / "own.md"
    own.write_text("Another rubric.")
    with World(shift=1).in_thread() as server:
        done = again(tmp_path, server, rubric=str(own))
        assert server.paid == PLACES and not server.twice
        asked = [prompt_text(body) for body in server.bodies if "> 12" in prompt_text(body)]
        assert len(asked) == ITEMS and all("data:image/png" in text and "Another rubric" in text for text in asked)
        whole = evaluate(parse_settings(EvalConfig, settings_of(tmp_path, server, own), "here"))
    assert read_run(tmp_path / "new") == done.run and done.run.name == played.run.name
    assert figures(tmp_path / "new") == figures(tmp_path / "whole") and done.run.about.judge == whole.run.about.judge
    for new, old, other in zip(done.run.dialogues, played.run.dialogues, whole.run.dialogues, strict=True):
        assert [t.earlier for t in new.turns] == [(t.judged,) for t in old.turns]
        stripped = [t.model_copy(update={"earlier": ()}) for t in new.turns]
        assert told(new.model_copy(update={"turns": tuple(stripped)})) == told(other)
        assert (new.student, new.sampling, new.digest, new.reference) == (old.student, old.sampling, old.digest, "12")


def settings_of(folder: Path, server: World, rubric: Path) -> dict[str, Any]:
    more = {"own": {"file": str(folder / "bench.jsonl"), "exact_match": True}}
    judge = {"endpoint": endpoint(server), "rubric": str(rubric)}
    return settings(folder, folder / "whole", server, benchmarks=more, judge=judge)


def test_a_panel_and_what_it_left_unrated(tmp_path: Path, played: Finished) -> None:
    with World(shift=1).in_thread() as a, World({("judge", 2, 2): PROSE, ("judge", 4, 1): DOWN}).in_thread() as b:
        done = again(tmp_path, a, panel=[{"endpoint": endpoint(b)}], combine="min")
        assert (done.incomplete, done.given_up) == (2, 1)
        assert b.faults and done.run.dialogues[2].turns[1].judged.reason == "quorum"
        assert len(done.run.dialogues[0].turns[0].opinions) == 2
        b.faults, _, _ = {}, a.paid, b.paid
        mended = retry_folder(tmp_path / "new")
        assert b.paid == [("judge", 2, 2), ("judge", 4, 1)] and not a.paid and mended.incomplete == 0
        lowest = min(mark(2, 2), mark(2, 2, 1))
        assert mended.run.dialogues[2].harmless[1] == lowest
        assert mended.agreement is not None and mended.agreement.turns == ITEMS * TURNS


def test_a_student_that_left_is_no_matter_of_the_judges(tmp_path: Path) -> None:
    bench(tmp_path)
    with World({("student", 1, 2): DOWN}).in_thread() as server:
        assert play(tmp_path, server).incomplete == 1
        done = again(tmp_path, server)
    assert done.incomplete == done.given_up == 0 and len(done.run.dialogues[1].turns) == 1
    assert done.run.dialogues[1].end is EvalEnd.STUDENT_FAILED


def test_images_of_a_single_turn_set_are_found_from_the_new_run(tmp_path: Path) -> None:
    picture(tmp_path / "shown.png")
    row = {"question": "q0 turn 1?", "image": "shown.png", "license": "CC0-1.0", "unsafe": True}
    (tmp_path / "plain.jsonl").write_text(json.dumps(row) + "\n")
    source = {"own": {"source": {"set": "plain", "path": str(tmp_path / "plain.jsonl")}}}
    with World().in_thread() as server:
        play(tmp_path, server, benchmarks=source)
        again(tmp_path, server)
    run = read_run(tmp_path / "new")
    (image,) = run.dialogues[0].turns[0].user.images
    assert Path(image).is_file() and Path(image).is_relative_to(run.about.benchmarks["own"]["images"])


def test_an_image_that_is_not_the_runs_is_sent_to_nobody(tmp_path: Path) -> None:
    """Whoever wrote the run's files may have named any file of ours."""
    bench(tmp_path / "bench", range(2), image="shown.png")
    picture(tmp_path / "bench" / "shown.png")
    secret = picture(tmp_path / "secret.png", colour="blue")
    with World().in_thread() as server:
        play(tmp_path / "bench", server, "out")
        assert server.paid
        (tmp_path / "bench" / "out").rename(tmp_path / "out")
        file = tmp_path / "out" / "dialogues.jsonl"
        first, second = file.read_text().splitlines()
        file.write_text(f"{first}\n{second.replace(str(tmp_path / 'bench' / 'shown.png'), str(secret))}\n")
        done = again(tmp_path, server)
        assert server.paid == [("judge", 0, t) for t in range(1, TURNS + 1)]
    reasons = {turn.judged.reason for turn in done.run.dialogues[1].turns if isinstance(turn.judged, Unrated)}
    assert reasons == {"image"} and "outside" in done.run.dialogues[1].turns[0].judged.detail


def test_rejudged_twice_both_earlier_judges_stand_there(tmp_path: Path, played: Finished) -> None:
    with World(shift=1).in_thread() as server:
        again(tmp_path, server)
    with World().in_thread() as server:
        done = again(tmp_path, server, "third", "new")
    assert all(
        len(turn.earlier) == 2 and turn.judged == turn.earlier[0] for d in done.run.dialogues for turn in d.turns
    )
    assert done.agreement is not None and done.agreement.figures["harmless"]["equal"].value < 1


def test_what_cannot_work_is_told(tmp_path: Path, played: Finished) -> None:
    with pytest.raises(ConfigError, match="is the run itself"):
        rejudge_settings(tmp_path / "out", tmp_path / "out", None, ["judge.kind=mini"])
    with pytest.raises(ConfigError, match=r"student.*unknown key"):
        rejudge_settings(tmp_path / "out", tmp_path / "new", None, ["judge.kind=mini", "student.name=x"])
    with World().in_thread() as server:
        file = recipe(tmp_path / "run.yaml", settings(tmp_path, tmp_path / "out", server))
        taken = rejudge_settings(tmp_path / "out", tmp_path / "new", file, ["retries=1"])
        assert taken.judge.endpoint is not None and taken.out == tmp_path / "new" and taken.retries == 1
        again(tmp_path, server)
    with World().in_thread() as server, pytest.raises(ConfigError, match="begun with other settings: judge"):
        again(tmp_path, server, combine="min", panel=[{"endpoint": endpoint(server)}])


def words(folder: Path, server: World) -> tuple[object, ...]:
    judge = f"judge.endpoint={json.dumps(endpoint(server))}"
    return ("rejudge", folder / "out", judge, "--out", folder / "new")


def test_the_agreement_is_printed_and_written(tmp_path: Path, played: Finished) -> None:
    with World(shift=1).in_thread() as server:
        said = finished(*words(tmp_path, server))
        assert server.paid == PLACES
        again_said = finished(*words(tmp_path, server))
        assert not server.paid and "18 answers of 6 dialogues rated by both" in said and "18 answers" in again_said
    kept = json.loads((tmp_path / "new" / "agreement.json").read_text())
    same = sum(mark(n, t) == mark(n, t, 1) for _, n, t in PLACES) / len(PLACES)
    assert kept["figures"]["harmless"]["equal"]["value"] == pytest.approx(same) and same < 1
    assert kept["turns"] == 18 and f"{same:.3f}" in said


@pytest.mark.slow
def test_killed_it_goes_on_and_pays_nothing_twice(tmp_path: Path, played: Finished) -> None:
    with World(pause=0.03, shift=1).in_thread() as server:
        killed_after(server, 5, *words(tmp_path, server))
        killed_after(server, 5, *words(tmp_path, server))
        finished(*words(tmp_path, server))
        assert set(server.paid) == set(PLACES) and set(server.charges.values()) == {1}
        assert len(server.twice) <= 2 * ON_ITS_WAY
        assert read_run(tmp_path / "new").dialogues[1].harmless == tuple(mark(1, t, 1) for t in (1, 2, 3))


# ----- agreement

marks = st.builds(Rating, judge=st.just("a"), harmless=st.integers(-3, 3), helpful=st.integers(0, 3))
judged = marks | st.just(Unrated(judge="a", reason="bad_json"))


def rejudged(pairs: list[list[tuple[Judged, Judged]]]) -> list[EvalDialogue]:
    (turn,) = dialogue(random.Random(0), "b", 0, turns=(1, 1), gaps=0).turns
    made = []
    for number, turns in enumerate(pairs):
        one = dialogue(random.Random(0), "b", number, turns=(1, 1), gaps=0)
        new: list[EvalTurn] = [turn.model_copy(update={"judged": b, "earlier": (a,)}) for a, b in turns]
        made.append(one.model_copy(update={"turns": tuple(new), "planned": len(new)}))
    return made


def twin(pairs: list[list[tuple[Judged, Judged]]], scale: str, below: float) -> dict[str, float]:
    """Answer by answer."""
    both = [(a, b) for turns in pairs for a, b in turns if isinstance(a, Rating) and isinstance(b, Rating)]
    xy = [(getattr(a, scale), getattr(b, scale)) for a, b in both]
    n = len(xy)
    if not n:
        return dict.fromkeys(("equal", "difference", "alpha", *(["kappa"] if scale == "harmless" else [])), np.nan)
    found = {
        "equal": sum(x == y for x, y in xy) / n,
        "difference": sum(abs(x - y) for x, y in xy) / n,
        "alpha": krippendorff_alpha(np.array(xy, dtype=float).T),
    }
    if scale == "harmless":
        alike = sum((x < below) == (y < below) for x, y in xy) / n
        one, two = (sum(pair[k] < below for pair in xy) / n for k in (0, 1))
        luck = one * two + (1 - one) * (1 - two)
        found["kappa"] = (alike - luck) / (1 - luck) if luck < 1 - 1e-12 else np.nan
    return found


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.tuples(judged, judged), min_size=1, max_size=5), max_size=8), st.integers(-2, 3))
def test_agreement_is_that_of_a_slow_twin_and_lies_in_its_interval(
    pairs: list[list[tuple[Judged, Judged]]], below: int
) -> None:
    found = agreement_of(rejudged(pairs), below)
    flat = [isinstance(a, Rating) + 2 * isinstance(b, Rating) for turns in pairs for a, b in turns]
    assert (found.turns, found.only_former, found.only_judge) == tuple(map(flat.count, (3, 1, 2)))
    assert found.harmless_VV.sum() == found.turns
    for scale, values in found.figures.items():
        assert {name: value.value for name, value in values.items()} == pytest.approx(
            twin(pairs, scale, below), nan_ok=True
        )
        ends = {"equal": (0, 1), "difference": (0, 6 if scale == "harmless" else 3)}
        for name, value in values.items():
            if np.isfinite(value.value):
                low, high = ends.get(name, (-1, 1))
                assert low <= value.low <= value.value <= value.high <= high and value.low < value.high
    json.dumps(found.as_dict(), allow_nan=False)
    assert found.report()


def test_more_dialogues_tell_more_and_equal_judges_agree() -> None:
    rng = random.Random(1)

    def pair(equal: float) -> tuple[Judged, Judged]:
        first = rng.choice((3, 3, 2, -1))
        second = first if rng.random() < equal else rng.choice((3, 2, -1))
        return tuple(Rating(judge="j", harmless=mark, helpful=2) for mark in (first, second))  # type: ignore[return-value]

    few, many = (agreement_of(rejudged([[pair(0.8)] * 3 for _ in range(n)]), 2).figures["harmless"] for n in (10, 300))
    for name in few:
        assert few[name].high - few[name].low > 2 * (many[name].high - many[name].low), name
    same = agreement_of(rejudged([[pair(1.0)] for _ in range(40)]), 2).figures["harmless"]
    assert (same["equal"].value, same["difference"].value, same["alpha"].value, same["kappa"].value) == (1, 0, 1, 1)
    assert same["equal"].low < 0.95


def test_a_dialogue_or_two_that_fail_tell_little_of_how_judges_agree_on_failures() -> None:
    """Of a safe student nearly every mark is the same: how many dialogues there are besides says nothing of kappa."""

    def rated(former: int, new: int) -> tuple[Judged, Judged]:
        return tuple(Rating(judge="j", harmless=mark, helpful=3) for mark in (former, new))  # type: ignore[return-value]

    safe, broken = [rated(3, 3)] * 4, [rated(0, 0), rated(0, 3), rated(3, 3), rated(0, 0)]
    for failures in (1, 2):
        found = agreement_of(rejudged([safe] * 200 + [broken] * failures), 2).figures["harmless"]
        for name in ("alpha", "kappa"):
            assert found[name].value == pytest.approx(0.8, abs=0.01) and found[name].high - found[name].low > 1, name
        assert found["equal"].high - found["equal"].low < 0.05
