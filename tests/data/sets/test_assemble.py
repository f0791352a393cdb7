"""The sets: disjoint, in the wanted mixture, the same in whatever order their rows come, every row accounted for."""

from __future__ import annotations

import io
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from steer_verl.data.commands import app
from steer_verl.data.rows.check import Rules
from steer_verl.data.rows.parquet import load_seeds
from steer_verl.data.seed import SetName
from steer_verl.data.sets.settings import SetSettings
from steer_verl.data.student_format import STUDENT_FORMAT
from steer_verl.errors import DataError
from steer_verl.types import DialogueKind, Seed, UserTurn
from steer_verl.work.step import Kept, Outcome, Rejected, value_of
from tests.data.sets.samples import BENCH, BENIGN, RED, RL, SFT, image, made, put_together, seed


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(4):
        image(tmp_path / "images" / "aa" / f"{number}.png", (56, 56 + 28 * number))
    return tmp_path / "images"


SHOWN = {"a": "aa/0.png", "b": "aa/1.png", "c": "aa/2.png"}
"""An image for each side's seeds."""


def seeds(name: str, count: int, kind: DialogueKind = RED, **more: Any) -> list[Seed]:
    shown = SHOWN.get(name)
    return [seed(f"s:{name}{number}/{kind.value}", kind, image=shown, **more) for number in range(count)]


def left_out(folder: Path) -> dict[str, tuple[str, str]]:
    rows = [json.loads(line) for line in (folder / "sets" / "left_out.jsonl").read_text().splitlines()]
    return {row["id"]: (row["set"], row["reason"]) for row in rows}


def ids(out: Path, name: SetName) -> list[str]:
    file = out / "sets" / f"{name.value}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [row.get("id") or row.get("question_id") or row["metadata"]["question_id"] for row in rows]


def test_the_files_hold_what_went_in(images: Path) -> None:
    sft, rl, bench = seeds("a", 3), seeds("b", 4), seeds("c", 2, license="CC-BY-NC-4.0")
    reports = put_together(images, sft, rl, bench, system_prompt="Be brief.")
    out = images.parent / "out" / "sets"
    assert {name: (r.offered, r.kept, r.non_commercial) for name, r in reports.items()} == {
        SFT: (3, 3, False),
        RL: (4, 4, False),
        BENCH: (2, 2, True),
    }
    table = pq.read_table(out / "sft.parquet").to_pylist()
    assert sorted(row["id"] for row in table) == [item.id for item in sft]
    for row, line in zip(table, map(json.loads, (out / "sft.jsonl").read_text().splitlines()), strict=True):
        assert row["messages"] == line["messages"] and row["messages"][0] == {"role": "system", "content": "Be brief."}
        assert [m["role"] for m in row["messages"][1:]] == ["user", "assistant"] * 3
        assert sum(m["content"].count("<image>") for m in row["messages"]) == len(row["images"]) == len(line["images"])
        assert Image.open(io.BytesIO(row["images"][0]["bytes"])).size == Image.open(out / line["images"][0]).size
        assert (row["source"], row["license"], row["source_id"]) == ("s", "CC-BY-4.0", row["id"][2:4])
        assert line["scores"] == [{"safety": 10, "usefulness": 10, "faithfulness": 9}] * 3
    assert {s.id: len(s.turns) for s in load_seeds(out / "rl.jsonl")} == {item.id: 3 for item in rl}
    assert load_seeds(out / "rl.parquet", rules=Rules(trust_paths=True)) == load_seeds(out / "rl.jsonl")
    for found in load_seeds(out / "bench.jsonl"):
        item = next(item for item in bench if item.id == found.id)
        assert [turn.text for turn in found.turns] == [turn.text for turn in item.turns]
        assert (found.license, found.source, found.source_id) == (item.license, item.source, item.source_id)
        assert found.turns[0].images == (str((out / "images/aa/2.png").resolve()),)


def test_what_is_assembled_passes_the_check_all_sets_at_once(images: Path) -> None:
    rows = {name: seeds(name, 6, turns=2 + n) + seeds(name, 6, BENIGN) for n, name in enumerate("abc")}
    rows = {name: [seed for seed in items if seed.id[3] in "02468" or seed.kind is RED] for name, items in rows.items()}
    put_together(images, rows["a"], rows["b"], rows["c"], system_prompt="Be brief.")
    out = images.parent / "out" / "sets"
    for files in (["sft.parquet", "rl.jsonl", "bench.jsonl"], ["sft.jsonl", "rl.parquet", "bench.jsonl"]):
        result = CliRunner().invoke(app, ["check", *(str(out / file) for file in files)])
        assert result.exit_code == 0, result.output
    same = CliRunner().invoke(app, ["check", str(out / "sft.parquet"), str(out / "sft.jsonl")])
    assert same.exit_code == 1 and "are in another file too" in same.output


@pytest.mark.parametrize("prompt", [None, STUDENT_FORMAT])
def test_a_folder_of_sets_that_was_moved_trains_after_the_command_of_its_card(
    images: Path, prompt: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_together(images, rl=seeds("b", 2), system_prompt=prompt)
    was, here = images.parent / "out" / "sets", images.parent / "elsewhere"
    rows = pq.read_table(was / "rl.parquet").to_pylist()
    was.rename(here)
    monkeypatch.chdir(here)
    lost = CliRunner().invoke(app, ["check", "rl.parquet"])
    assert lost.exit_code == 1 and "write the file again with `steer data convert`" in lost.output
    (command,) = re.findall(r"^steer data (convert .*)$", (here / "README.md").read_text(), re.MULTILINE)
    assert CliRunner().invoke(app, command.split()).exit_code == 0
    assert CliRunner().invoke(app, ["check", "rl.parquet"]).exit_code == 0
    again = json.dumps(pq.read_table("rl.parquet").to_pylist())
    assert json.loads(again.replace(str(here), str(was))) == rows


def test_the_order_in_which_rows_come_changes_nothing(images: Path) -> None:
    rng = random.Random(0)
    rows = {"sft": seeds("a", 20), "rl": seeds("b", 20), "bench": seeds("c", 20)}
    rows["rl"] += seeds("e", 20, BENIGN) + rows["bench"][:3] + rows["rl"][:2]
    settings = SetSettings(sft=9, rl=10, bench=7)
    written = []
    for run in ("one", "two"):
        put_together(images, **rows, settings=settings, out=run)
        out = images.parent / run
        files = [path for path in out.rglob("*") if path.is_file() and path.name != "rl.parquet"]
        written.append({str(path.relative_to(out)): path.read_bytes() for path in files})
        for items in rows.values():
            rng.shuffle(items)
    assert written[0] == written[1]
    assert {"sets/README.md", "sets/left_out.jsonl", "sets/rl.jsonl", "cards/rl/card.html"} <= set(written[0])


def test_what_one_set_has_no_later_one_gets(images: Path) -> None:
    """By source seed, whatever the kind; and by likeness, whatever the source."""
    bench = [seed("s:1/red_team", image="aa/0.png"), seed("s:2/benign", kind=BENIGN, topic="twin")]
    rl = [
        seed("s:1/obfuscated", topic="other words"),
        seed("t:9/red_team", topic="twin", source="t"),
        seed("s:3/red_team"),
    ]
    sft = [seed("s:3/benign", topic="others"), seed("s:2/red_team", topic="new"), seed("s:4/benign", topic="fine")]
    reports = put_together(images, sft, rl, bench)
    assert left_out(images.parent / "out") == {
        "s:1/obfuscated": ("rl", "same_seed"),
        "t:9/red_team": ("rl", "near_duplicate"),
        "s:3/benign": ("sft", "same_seed"),
        "s:2/red_team": ("sft", "same_seed"),
    }
    assert [reports[name].kept for name in SetName] == [2, 1, 1]


def test_rows_that_share_an_id_of_their_source_are_different_seeds(images: Path) -> None:
    rows = [seed(f"{n}/red_team", source_id="7") for n in range(6)]
    reports = put_together(images, rows[:2], rows[2:4], rows[4:])
    assert [report.kept for report in reports.values()] == [2, 2, 2]


def test_a_dialogue_stands_once_in_its_set(images: Path) -> None:
    """By its content: the same words, or nearly, about the same image; other images make another dialogue."""
    words = "a wooden box with a brass lid and two iron hinges stands beside the third lamp from the door"
    first = seed("s:1/benign", BENIGN, topic=words, image="aa/0.png")
    nearly = seed("s:2/benign", BENIGN, topic=words, image="aa/0.png")
    turns = (*nearly.turns[:2], nearly.turns[2].with_text(nearly.turns[2].text + " Please."))
    rows = [
        first,
        nearly.model_copy(update={"turns": turns}),
        first.model_copy(update={"id": "s:3/benign", "source_id": "3"}),
        seed("s:4/benign", BENIGN, topic=words, image="aa/1.png"),
        seed("s:5/benign", BENIGN, topic="something else altogether", image="aa/0.png"),
    ]
    report = put_together(images, sft=rows)[SFT]
    assert (report.kept, report.left_out) == (3, {"duplicate": 2})
    assert {"s:4/benign", "s:5/benign"} < set(ids(images.parent / "out", SFT))


def test_an_image_of_one_set_is_in_no_later_one(images: Path) -> None:
    """Sides are dealt by image, so that no build comes to this; wrong input is caught, a perturbed image's too."""
    changed = {"perturbation": {"kind": "noise", "original": "aa/0.png"}}
    bench = [seed("s:1/red_team", image="aa/1.png", facts=changed)]
    rl = [seed("s:2/red_team", image="aa/0.png"), seed("s:3/red_team", image="aa/1.png"), seed("s:4/red_team")]
    sft = [seed("s:5/red_team", image="aa/2.png", facts=changed), seed("s:6/red_team", image="aa/2.png")]
    put_together(images, sft, rl, bench)
    found = left_out(images.parent / "out")
    assert found == {
        "s:2/red_team": ("rl", "same_image"),
        "s:3/red_team": ("rl", "same_image"),
        "s:5/red_team": ("sft", "same_image"),
    }


def test_likeness_needs_the_same_image(images: Path) -> None:
    bench = [seed("s:1/benign", topic="twin", image="aa/0.png", kind=BENIGN)]
    sft = [seed("t:2/benign", topic="twin", image="aa/1.png", kind=BENIGN)]
    assert put_together(images, sft, bench=bench)[SFT].kept == 1


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("target", [None, 8, 100])
@pytest.mark.parametrize(("risky", "benign"), [(12, 12), (12, 1), (3, 12), (0, 4)])
def test_benign_seeds_have_their_share_of_rl_and_no_more(
    images: Path, share: float, target: int | None, risky: int, benign: int
) -> None:
    settings = SetSettings(rl=target, rl_benign_share=share)
    rows = seeds("a", risky) + seeds("b", benign, BENIGN)
    report = put_together(images, rl=rows, bench=seeds("z", 1), settings=settings)[RL]
    kept = Counter(report.kinds)
    assert kept[BENIGN.value] <= share * report.kept + 1e-9
    assert report.kept <= (target or 100) and report.kept + sum(report.left_out.values()) == report.offered
    wanted = min(risky, target or 100)
    if share == 0:
        assert kept[RED.value] == wanted
    # nothing that may enter stays out: one more benign seed would break the share, or the set is full
    if kept[BENIGN.value] < benign and report.kept < (target or 100):
        assert kept[BENIGN.value] + 1 > share * (report.kept + 1)
    if target and risky + benign <= target:
        assert kept[RED.value] == risky


def test_benign_seeds_are_spread_over_the_rl_set(images: Path) -> None:
    """The beginning of the file is such a mixture as the whole."""
    put_together(images, rl=seeds("b", 28) + seeds("b", 30, BENIGN), settings=SetSettings(rl_benign_share=0.3))
    kinds = [name.endswith("benign") for name in ids(images.parent / "out", RL)]
    assert (len(kinds), sum(kinds)) == (40, 12)
    assert all(sum(kinds[:n]) == int(0.3 * n + 1e-9) for n in range(41))


def test_places_that_benign_seeds_cannot_fill_go_to_others(images: Path) -> None:
    """All benign ones stand in the benchmark already."""
    twins = {"topic": "a brass lamp beside the door"}
    bench, benign = seeds("y", 1, BENIGN, **twins), seeds("z", 9, BENIGN, **twins)
    settings = SetSettings(rl=8, rl_benign_share=0.5)
    report = put_together(images, rl=seeds("b", 12) + benign, bench=bench, settings=settings)[RL]
    assert (report.kept, report.left_out) == (8, {"near_duplicate": 9, "over_target": 4})


def test_every_row_is_in_a_set_or_left_out_for_a_reason(images: Path) -> None:
    """Over random builds with planted faults: nothing is lost, nothing stands twice."""
    rng = random.Random(1)
    out = images.parent / "out"
    for _ in range(12):
        pool = [seed(f"s:{n}/{k.value}", kind=k, topic=f"t{n % 11}") for n in range(18) for k in (BENIGN, RED)]
        rows = {name: [rng.choice(pool) for _ in range(rng.randrange(1, 20))] for name in ("sft", "rl", "bench")}
        settings = SetSettings(sft=rng.choice([None, 3]), rl=rng.choice([None, 4]), bench=rng.choice([None, 2]))
        reports = put_together(images, **rows, settings=settings)
        told = [json.loads(line) for line in (out / "sets" / "left_out.jsonl").read_text().splitlines()]
        for name, report in reports.items():
            assert report.offered == len(rows[name.value]) == report.kept + sum(report.left_out.values())
            assert Counter(row["reason"] for row in told if row["set"] == name.value) == report.left_out
        kept = {name: ids(out, name) for name in SetName}
        assert all(len(set(found)) == len(found) == reports[name].kept for name, found in kept.items())
        sources = [{item.split("/")[0] for item in found} for found in kept.values()]
        assert sum(map(len, sources)) == len(set.union(*sources)), "a source seed is in two sets"
        topics = [int(item.split("/")[0][2:]) % 11 for found in kept.values() for item in found]
        assert len(set(topics)) == len(topics), "a dialogue is in the sets twice"


def test_a_set_holds_what_its_target_allows(images: Path) -> None:
    settings = SetSettings(sft=2, bench=1)
    reports = put_together(images, seeds("a", 5), bench=seeds("c", 3, BENIGN), settings=settings)
    assert [(r.kept, r.left_out) for r in (reports[SFT], reports[BENCH])] == [
        (2, {"over_target": 3}),
        (1, {"over_target": 2}),
    ]


def test_lost_and_hostile_images_leave_a_row_out(images: Path) -> None:
    (images / "torn.png").write_bytes((images / "aa/0.png").read_bytes()[:60])
    names = {"gone.png": "1", "torn.png": "2", "../../secret.png": "3", "aa/0.png": "4"}
    rows = [seed(f"s:{number}/benign", kind=BENIGN, image=name) for name, number in names.items()]
    report = put_together(images, rows, rl=seeds("r", 1))[SFT]
    assert (report.kept, report.left_out) == (1, {"bad_image": 3})


def test_what_has_no_place_in_a_row_is_left_out(images: Path) -> None:
    later = seed("s:1/benign", kind=BENIGN)
    turns = (later.turns[0], UserTurn(text="And <image>?", images=("aa/1.png",)), later.turns[2])
    rows = [later.model_copy(update={"turns": turns}), seed("s:2/benign", image="aa/0.png"), seed("s:3/benign")]
    unplayed = made(RL, seed("s:4/benign")).model_copy(update={"side": SFT})
    others = [Outcome(id="x", done=Kept(value=value_of(unplayed)))]
    reports = put_together(images, bench=rows, others=others)
    assert reports[BENCH].left_out == reports[SFT].left_out == {"not_in_form": 1}
    found = [seed.turns[0].images for seed in load_seeds(images.parent / "out" / "sets" / "bench.jsonl")]
    assert len(found) == 2 and found.count(()) == 1


@pytest.mark.parametrize(
    ("curve", "told"),
    [([1, 3, 5], [1, 3, 5]), ("low", None), ([1, 2], None), ([0, 1, 2], None), ([True, 1, 2], None), (["1"] * 3, None)],
)
def test_a_risk_trajectory_is_a_level_for_every_turn_and_nothing_else(images: Path, curve: Any, told: Any) -> None:
    """A source may have a fact of that name, and anything in it."""
    put_together(images, bench=[seed("s:1/benign", facts={"risk_curve": curve, "source_category": 7})])
    (found,) = load_seeds(images.parent / "out" / "sets" / "bench.jsonl")
    assert found.facts == {"source_category": "7", **({"risk_trajectory": told} if told else {})}


def test_a_disk_without_links_gets_whole_copies(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    put_together(images, rl=seeds("b", 2))
    copy = images.parent / "out" / "sets" / "images" / "aa" / "1.png"
    assert copy.read_bytes() == (images / "aa/1.png").read_bytes() and not copy.is_symlink()
    assert copy.stat().st_ino != (images / "aa/1.png").stat().st_ino


def test_an_empty_set_leaves_nothing_of_an_earlier_build(images: Path) -> None:
    put_together(images, seeds("a", 2), seeds("b", 2), seeds("c", 2))
    out = images.parent / "out"
    (out / "sets" / "sft.mine.jsonl").write_text("of the user's own")
    put_together(images, rl=seeds("b", 2))
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    files = ("rl.jsonl", "rl.parquet", "sft.mine.jsonl", "images/aa/1.png", "sets.json", "left_out.jsonl", "README.md")
    assert names == {"cards/rl/card.html", *(f"sets/{name}" for name in files)}


def test_nothing_at_all_is_an_error_and_touches_nothing(images: Path) -> None:
    put_together(images, rl=seeds("b", 2))
    before = (images.parent / "out" / "sets" / "rl.jsonl").read_bytes()
    rejected = Outcome(id="x", done=Rejected(reason="refused"))
    with pytest.raises(DataError, match="no dialogue was kept"):
        put_together(images, others=[rejected])
    assert (images.parent / "out" / "sets" / "rl.jsonl").read_bytes() == before


def test_an_outcome_of_another_version_is_named(images: Path) -> None:
    with pytest.raises(DataError, match=r"item old: no dialogue .*build in a new folder"):
        put_together(images, others=[Outcome(id="old", done=Kept(value={"side": "sft"}))])


def test_words_that_spell_a_role_or_an_image_are_broken_in_every_file(images: Path) -> None:
    item = seed("s:1/red_team", image="aa/0.png", topic="<|im_end|> <video>")
    put_together(images, [item], out="one")
    put_together(images, rl=[item], out="two")
    table = pq.read_table(images.parent / "one" / "sets" / "sft.parquet").to_pylist()
    for text in (str(table[0]["messages"]), (images.parent / "two" / "sets" / "rl.jsonl").read_text()):
        assert "<|im_end|>" not in text and "<video>" not in text and "im_end" in text and "<image>" in text
