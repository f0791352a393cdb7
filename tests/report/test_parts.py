"""The parts a page is made of: blocks, images, rows and chunks, charts."""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from steer_verl.eval.images import image_folders
from steer_verl.eval.records import EvalDialogue, Rating, Refusal, Unrated
from steer_verl.eval.runs import EvalRun
from steer_verl.report.charts import Frame, Line, chart, room, short, thinned, ticks
from steer_verl.report.dialogues import CHUNK, chunks, first_failure, rows
from steer_verl.report.images import album
from steer_verl.report.page import packed
from steer_verl.report.survival import held
from steer_verl.types import IMAGE_MARK, DialogueKind, UserTurn
from tests.data.cards.reading import Page
from tests.report import samples

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def unpacked(text: str) -> object:
    """What the page's script reads of a block."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


@given(JSON)
def test_a_block_gives_back_what_was_packed_and_spells_no_markup(value: object) -> None:
    text = packed(value)
    assert unpacked(text) == value
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")


def test_half_a_surrogate_pair_survives() -> None:
    assert unpacked(packed("\ud800 \u2028")) == "\ud800 \u2028"


def run_with(folder: Path, *paths: str, benchmarks: dict[str, dict[str, object]] | None = None) -> EvalRun:
    """A run in ``folder`` whose only dialogue shows ``paths``."""
    dialogue = marked(3)
    shown = UserTurn(text=IMAGE_MARK * len(paths), images=paths)
    dialogue = dialogue.model_copy(update={"turns": (dialogue.turns[0].model_copy(update={"user": shown}),)})
    about = samples.about("a").model_copy(update={"benchmarks": benchmarks or {}})
    return EvalRun(folder, about, (dialogue,))


def test_an_image_is_small_and_there_once(tmp_path: Path) -> None:
    one, two = samples.images(tmp_path, 2, random.Random(0), (400, 500))
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(Path(one).read_bytes())
    runs = [run_with(tmp_path, one, two, one, str(copy)), run_with(tmp_path, two)]
    images, places = album(runs, side=64)
    assert places == [{one: 0, two: 1, str(copy): 0}, {two: 1}] and len(images) == 2
    image = Image.open(io.BytesIO(base64.b64decode(images[0])))
    assert image.format == "WEBP" and max(image.size) == 64 and not image.getexif()


def test_an_image_that_cannot_be_shown_says_why(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n")
    paths = [str(tmp_path / "gone.png"), str(tmp_path / "torn.png"), "https://x.example/a.png", "a\0b"]
    images, (places,) = album([run_with(tmp_path, *paths)], side=64)
    assert not images and all(isinstance(places[path], str) for path in paths)
    assert "no such file" in str(places[paths[0]])


def test_no_images_opens_none() -> None:
    assert album([run_with(Path("/x"), "/nowhere.png")], side=0) == (
        [],
        [{"/nowhere.png": "images were left out of this page"}],
    )


def test_images_are_embedded_from_the_runs_own_folders_alone(tmp_path: Path) -> None:
    run, bench, home = tmp_path / "run", tmp_path / "bench", tmp_path / "home"
    folders = (run / "images", bench / "sets", home)
    inside, benchmark, private = (samples.images(folder, 1, random.Random(str(folder)))[0] for folder in folders)
    link = run / "link.jpg"
    link.symlink_to(private)
    paths = (inside, benchmark, private, str(link), f"{run}/../home/00000.jpg", "/etc/hostname")
    named = {"beaver": {"file": str(bench / "rows.jsonl")}, "odd": {"images": 5, "file": "a\0b"}}
    images, (places,) = album([run_with(run, *paths, benchmarks=named)], side=32)
    assert [places[path] for path in paths[:2]] == [0, 1] and len(images) == 2
    for path in paths[2:]:
        assert places[path] == f"{Path(path).name} lies outside the folders of this run's images"
    only = {"beaver": {"file": str(tmp_path / "x.jsonl"), "images": str(bench / "else")}}
    assert isinstance(album([run_with(run, benchmark, benchmarks=only)], side=32)[1][0][benchmark], str)


def test_the_images_of_a_log_are_its_own(tmp_path: Path) -> None:
    (cached,) = samples.images(tmp_path / "cache", 1, random.Random(0))
    log = tmp_path / "logs" / "a.eval"
    log.parent.mkdir()
    log.write_bytes(b"")
    assert album([run_with(log, cached)], side=32)[1] == [{cached: 0}]


@pytest.mark.parametrize("folder", ["/", "~", "~/..", "/proc/self/root"])
def test_a_run_cannot_name_a_folder_with_a_home_as_its_images(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "homes" / "me"))
    named = {"beaver": {"images": os.path.expanduser(folder)}}
    run = tmp_path / "run"
    assert image_folders(run_with(run, benchmarks=named)) == [run.resolve()]


def marked(*marks: int | None, kind: DialogueKind = DialogueKind.RED_TEAM, planned: int | None = None) -> EvalDialogue:
    """A dialogue with these marks; ``None``: unrated."""
    rng = random.Random(0)
    judged = [
        Unrated(reason="timeout")
        if mark is None
        else Rating(judge="j", harmless=mark, helpful=0, refusal=Refusal.PARTIAL if mark == 1 else Refusal.NONE)
        for mark in marks
    ]
    turns = tuple(samples.turn(rng, n, each) for n, each in enumerate(judged, start=1))
    whole = samples.dialogue(rng, "beaver/m", 1, turns=1, kind=kind)
    return whole.model_copy(update={"turns": turns, "planned": planned or len(turns)})


@pytest.mark.parametrize(
    ("marks", "kind", "first"),
    [
        ((3, 2, 1), DialogueKind.RED_TEAM, 3),
        ((3, None, -1, -3), DialogueKind.OBFUSCATED, 3),
        ((3, 2), DialogueKind.RED_TEAM, 0),
        ((-3,), DialogueKind.BENIGN, 0),
        ((), DialogueKind.RED_TEAM, 0),
    ],
)
def test_the_first_failure(marks: tuple[int | None, ...], kind: DialogueKind, first: int) -> None:
    assert first_failure(marked(*marks, kind=kind), fail_below=2) == first


def test_a_row_tells_what_lists_and_filters_ask() -> None:
    (row,) = rows([marked(3, None, 1, planned=5)], {"beaver/m": "k"}, fail_below=2)
    assert row["marks"] == (3, None, 1, None, None) and (row["played"], row["first"], row["same"]) == (3, 3, "k")
    assert (row["refusal"], row["unrated"]) == ("partial", ["timeout"])
    (unplayed,) = rows([marked(planned=4)], {"beaver/m": "k"}, fail_below=2)
    assert unplayed["marks"] == (None,) * 4 and unplayed["played"] == 0 and unplayed["refusal"] == ""


def test_chunks_hold_every_dialogue_in_the_order_of_the_rows() -> None:
    rng = random.Random(0)
    made = [samples.dialogue(rng, f"beaver/{n:03}", 0.5, turns=2) for n in range(CHUNK + 7)]
    found = list(chunks(made, {}))
    assert [len(chunk) for chunk in found] == [CHUNK, 7]
    assert [told["id"] for chunk in found for told in chunk] == [
        row["id"] for row in rows(made, dict.fromkeys((d.id for d in made), ""), 2)
    ]


def test_a_whole_dialogue_as_the_page_is_told_it() -> None:
    dialogue = marked(3, -1)
    shown = UserTurn(text="<image>Look at <image>this", images=("/a.png", "/b.png"))
    words = {"user": shown, "answer": "<thinking>t</thinking><answer>a</answer>", "seconds": math.nan}
    first = dialogue.turns[0].model_copy(update=words)
    second = dialogue.turns[1].model_copy(update={"answer": "<thinking>never closed"})
    dialogue = dialogue.model_copy(update={"turns": (first, second), "facts": {"sign": "<7>"}})
    ((told,),) = chunks([dialogue], {"/a.png": 0, "/b.png": "b cannot be shown"})
    json.dumps(told, allow_nan=False)  # else a browser would read none of the dialogues that lie beside it
    one, two = told["turns"]
    assert (one["question"], one["images"]) == ("Look at this", [0, "b cannot be shown"])
    assert (one["thinking"], one["answer"], one["formed"]) == ("t", "a", True)
    assert (two["thinking"], two["answer"], two["formed"]) == ("", "<thinking>never closed", False)
    assert json.loads(told["facts"]) == {"sign": "<7>"} and two["judged"]["harmless"] == -1


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_ticks_span_what_they_are_for(low: float, width: float) -> None:
    found = ticks(low, low + width)
    room = 1e-9 * max(abs(low), abs(low + width), 1)
    assert found[0] <= low + room and found[-1] >= low + width - room and 2 <= len(found) <= 8


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.35, "0.35"), (1e-5, "1e-05"), (12345.6, "12,346"), (2, "2")])
def test_a_figure_in_few_letters(value: float, text: str) -> None:
    assert short(value) == text


def test_readings_are_thinned_evenly_and_keep_their_ends() -> None:
    items = [(float(n), str(n)) for n in range(1000)]
    few = thinned(items, 11)
    assert len(few) == 11 and few[0] == items[0] and few[-1] == items[-1]
    assert thinned(items[:5], 11) == items[:5]


def test_a_stepped_curve_holds_its_value_until_the_next_point() -> None:
    frame = Frame((0, 2), (0, 1), width=120, height=120, left=10, right=10, top=10, bottom=10)
    line = Line("a", held([1, 0.5, 0], 1))
    figure = Page(chart("S", "", frame, [line], [(0, "S 1")], across=[0, 2], up=[0, 1]))
    (path,) = [found["d"] for found in figure.all("path") if found["class"] == "line c0 d0"]
    assert path == "M10.0 10.0L60.0 10.0L60.0 60.0L82.5 60.0"


def test_a_chart_says_its_first_reading_to_who_cannot_see_it() -> None:
    frame = Frame((0, 1), (0, 1))
    figure = Page(chart("<Title>", "note", frame, [], [(0, "step 0: <1>"), (1, "step 1: 2")], across=[], up=[]))
    (slider,) = [found for found in figure.all("div") if found.get("role") == "slider"]
    assert slider["aria-label"] == "<Title>. note" and slider["aria-valuetext"] == "step 0: <1>"
    assert json.loads(slider["data-points"] or "")[1] == [390.0, "step 1: 2"]


@pytest.mark.parametrize(
    ("up", "names"),
    [
        ((-0.0004, 0.0, 0.0004), ["-0.0004", "0", "0.0004"]),
        ((-1.5e-09, 0.0), ["-1.5e-09", "0"]),
        ((12000000.0, 12000200.0), ["12000000", "12000200"]),
        ((0.69312, 0.69314), ["0.69312", "0.69314"]),
    ],
)
def test_the_names_of_an_axis_are_whole_and_differ(up: tuple[float, ...], names: list[str]) -> None:
    frame = Frame((0, 1), (up[0], up[-1]), left=room(up))
    figure = Page(chart("KL", "", frame, [], [], across=[], up=up))
    told = [found for found in figure.all("text") if found["text-anchor"] == "end"]
    assert [name for name in names if name in figure.text] == names
    longest = max(map(len, names))
    assert all(float(found["x"] or 0) > 6.3 * longest for found in told), "a minus sign must not be cut off"


def test_a_single_point_is_drawn() -> None:
    figure = Page(chart("S", "", Frame((0, 2), (0, 1)), [Line("a", [(1, 0.5)])], [], across=[], up=[]))
    (path,) = [found["d"] for found in figure.all("path") if found["class"] == "line c0 d0"]
    assert path == "M217.0 88.0h0"
