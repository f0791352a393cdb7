"""A run as a log of Inspect: nothing is lost on the way there and back, and Inspect's own tools read it."""

from __future__ import annotations

import base64
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspect_ai.analysis import samples_df
from inspect_ai.log import read_eval_log, write_eval_log
from inspect_ai.model import ContentImage

from steer_verl.errors import DataError
from steer_verl.eval.inspect.messages import image_folder
from steer_verl.eval.inspect.read import read_log
from steer_verl.eval.inspect.write import JUDGE, write_log
from steer_verl.eval.records import EvalDialogue, EvalEnd, Rating, Unrated
from steer_verl.eval.runs import EvalRun, RunAbout, read_run, write_run
from steer_verl.types import DialogueKind
from tests.data.samples import picture
from tests.eval.inspect.runs import runs, turn
from tests.eval.synthetic import make_run

GOOD = Rating(judge="j", harmless=3, helpful=2, why="firm")
ABOUT = RunAbout(name="ours", student="ours@1", judge="j", attack="static", benchmarks={"own": {"file": "own.jsonl"}})


def dialogue(name: str, *turns: object, planned: int = 0, **more: object) -> EvalDialogue:
    """A dialogue of the benchmark ``own``."""
    values = {"benchmark": "own", "kind": DialogueKind.RED_TEAM, "end": EvalEnd.COMPLETED, **more}
    return EvalDialogue(id=f"own/{name}", planned=planned or len(turns), turns=turns, **values)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_run_comes_back_as_it_was(data: st.DataObject, tmp_path: Path) -> None:
    images = [str(picture(tmp_path / f"{n}.png", (8 + n, 8))) for n in range(2)]
    run = data.draw(runs([*images, str(tmp_path / "gone.png")]))
    write_log(run, tmp_path / "run.eval")
    back = read_log(tmp_path / "run.eval")
    assert back.about == run.about and back.dialogues == run.dialogues
    again = read_eval_log(tmp_path / "run.eval", resolve_attachments=True)
    write_eval_log(again, tmp_path / "run.json")  # as Inspect writes it itself, in an order of its own
    by_json = EvalDialogue.model_dump_json
    assert sorted(read_run(tmp_path / "run.json").dialogues, key=by_json) == sorted(run.dialogues, key=by_json)


def test_what_a_log_says_to_inspect(tmp_path: Path) -> None:
    unrated = Unrated(judge="j", reason="timeout")
    rated = [turn("One?", "1", GOOD), turn("Two?", "2", GOOD.model_copy(update={"harmless": 1}))]
    found = [
        dialogue("a", *rated, category="drugs"),
        dialogue("b", turn("One?", "1", GOOD), turn("Two?", "2", unrated)),
        dialogue("c", turn("One?", "1", GOOD), planned=2, end=EvalEnd.STUDENT_FAILED, detail="gone"),
        dialogue("d", planned=2, end=EvalEnd.UNPLAYABLE, detail="no image"),
    ]
    write_log(EvalRun(tmp_path, ABOUT, tuple(found)), tmp_path / "run.eval")
    log = read_eval_log(tmp_path / "run.eval")
    scores = {str(sample.id): (sample.scores or {})[JUDGE] for sample in log.samples or []}
    values = {"harmless": 2.0, "helpful": 2.0, "harmless_pass": 0.0, "helpful_pass": 0.0, "survived": 0.0}
    assert scores["own/a"].value == values and "Turn 2: harmless 1" in (scores["own/a"].explanation or "")
    assert {name: score.reason for name, score in scores.items()} == {
        "own/a": None,
        "own/b": "timeout",
        "own/c": "student_failed",
        "own/d": "unplayable",
    }
    assert all(isinstance(scores[f"own/{n}"].value, float) and math.isnan(scores[f"own/{n}"].as_float()) for n in "bcd")
    assert log.results is not None and {(one.scored_samples, one.unscored_samples) for one in log.results.scores} == {
        (1, 3)
    }
    table = samples_df(tmp_path / "run.eval")
    assert list(table["id"]) == [one.id for one in found] and table["metadata_category"][0] == "drugs"
    assert log.eval.model == "ours@1" and log.eval.dataset.name == "own"


def test_images_of_later_turns_are_in_the_messages(tmp_path: Path, cache: Path) -> None:
    first, later = picture(tmp_path / "a.png", (9, 9)), picture(tmp_path / "b.png", (12, 12))
    told = [turn("One?", "1", GOOD, str(first)), turn("Two?", "2", GOOD, str(later), str(tmp_path / "gone.png"))]
    data = later.read_bytes()
    write_log(EvalRun(tmp_path, ABOUT, (dialogue("a", *told),)), tmp_path / "run.eval")
    (sample,) = read_eval_log(tmp_path / "run.eval").samples or []
    shown = [part.image for part in sample.messages[2].content if isinstance(part, ContentImage)]
    assert [base64.b64decode(uri.partition(",")[2]) for uri in shown] == [data]
    assert read_log(tmp_path / "run.eval").dialogues[0].turns == tuple(told) and not cache.exists()
    later.write_bytes(first.read_bytes())  # the log was taken elsewhere, or an image has changed
    back = read_log(tmp_path / "run.eval").dialogues[0].turns
    assert back[0] == told[0] and back[1].user.images[1] == str(tmp_path / "gone.png")
    assert Path(back[1].user.images[0]).read_bytes() == data
    assert Path(back[1].user.images[0]).is_relative_to(image_folder())


def test_a_path_that_a_log_only_names_is_not_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    write_log(EvalRun(tmp_path, ABOUT, (dialogue("a", turn("One?", "1", GOOD, str(secret))),)), tmp_path / "run.eval")
    picture(secret, (8, 8))
    (path,) = read_log(tmp_path / "run.eval").dialogues[0].turns[0].user.images
    assert path != str(secret) and not Path(path).exists()


def test_a_folder_and_its_log_are_the_same_run(tmp_path: Path) -> None:
    run = make_run(sizes={"beaver": 30, "spa": 3})
    write_run(tmp_path / "run", run.about, run.dialogues)
    write_log(read_run(tmp_path / "run"), tmp_path / "run.eval")
    assert read_run(tmp_path / "run.eval").dialogues == read_run(tmp_path / "run").dialogues


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"PK\x03\x04", b'{"version": 2}'])
@pytest.mark.parametrize("name", ["a.eval", "a.json"])
def test_what_is_no_log_is_told_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read as a log of Inspect") as told:
        read_run(tmp_path / name)
    assert "\n" not in str(told.value)
