"""The sets: disjoint, in the wanted mixture, the same in whatever order their rows come, every row accounted for."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from steer_verl.data.check import Rules
from steer_verl.data.commands import app
from steer_verl.data.licences import non_commercial
from steer_verl.data.likeness import Told, indexes_in
from steer_verl.data.parquet import load_seeds
from steer_verl.data.stage2.assemble import SetReport, assemble
from steer_verl.data.stage2.settings import SetSettings
from steer_verl.data.stage2.splits import SetName
from steer_verl.errors import DataError
from steer_verl.types import DialogueKind, Seed, UserTurn
from tests.data.samples import picture
from tests.data.stage2.scripted import played, seed

BENIGN, RED = DialogueKind.BENIGN, DialogueKind.RED_TEAM


class Same:
    """Alike are dialogues of the same words and pictures: a brute-force index."""

    def __init__(self) -> None:
        self.rows: list[Told] = []

    def first_like(self, row: Told) -> str | None:
        return next((r.id for r in self.rows if (r.text, r.images) == (row.text, row.images)), None)

    def add(self, row: Told) -> None:
        self.rows.append(row)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(3):
        picture(tmp_path / "pictures" / "aa" / f"{number}.png", (56, 56 + 28 * number))
    return tmp_path / "pictures"


def put_together(
    pictures: Path,
    sft: Iterable[Seed] = (),
    rl: Iterable[Seed] = (),
    bench: Iterable[Seed] = (),
    settings: SetSettings | None = None,
    out: str = "sets",
    **more: Any,
) -> dict[SetName, SetReport]:
    given = {"sft": map(played, sft), "rl": rl, "bench": bench, "settings": settings, "index": Same, **more}
    return assemble(pictures.parent / out, pictures=pictures, **given)


def seeds(name: str, count: int, kind: DialogueKind = RED, **more: Any) -> list[Seed]:
    return [seed(f"s:{name}{number}/{kind.value}", kind=kind, image="aa/0.png", **more) for number in range(count)]


def left_out(folder: Path) -> dict[str, tuple[str, str]]:
    rows = [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]
    return {row["id"]: (row["set"], row["reason"]) for row in rows}


def test_the_files_hold_what_went_in(pictures: Path) -> None:
    sft, rl, bench = seeds("a", 3), seeds("b", 4), seeds("c", 2, license="CC-BY-NC-4.0")
    reports = put_together(pictures, sft, rl, bench, system_prompt="Be brief.")
    out = pictures.parent / "sets"
    assert {name: (r.offered, r.kept, r.non_commercial) for name, r in reports.items()} == {
        SetName.SFT: (3, 3, False),
        SetName.RL: (4, 4, False),
        SetName.BENCH: (2, 2, True),
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
    rows = {row.id: row for row in load_seeds(out / "bench.jsonl")}
    for item in bench:
        row = rows[item.id]
        assert [turn.text for turn in row.turns] == [turn.text for turn in item.turns]
        assert (row.license, row.source, row.source_id) == (item.license, item.source, item.source_id)
        assert row.turns[0].images == (str((out / "pictures/aa/0.png").resolve()),)


def test_what_is_assembled_passes_the_check(pictures: Path, tmp_path_factory: Any) -> None:
    """With the index of near-duplicates that both use."""
    index = indexes_in(tmp_path_factory.mktemp("index"))
    rows = {name: seeds(name, 6, turns=2 + n) + seeds(name, 6, BENIGN) for n, name in enumerate("abc")}
    put_together(pictures, rows["a"], rows["b"], rows["c"], index=index, system_prompt="Be brief.")
    out = pictures.parent / "sets"
    for file in ("sft.parquet", "rl.jsonl", "bench.jsonl", "sft.jsonl", "rl.parquet"):
        result = CliRunner().invoke(app, ["check", str(out / file)])
        assert result.exit_code == 0, result.output
    same = CliRunner().invoke(app, ["check", str(out / "sft.parquet"), str(out / "sft.jsonl")])
    assert same.exit_code == 1 and "12 are in another file too" in same.output


def test_the_order_in_which_rows_come_changes_nothing(pictures: Path) -> None:
    rng = random.Random(0)
    rows = {"sft": seeds("a", 20), "rl": seeds("b", 20), "bench": seeds("c", 20)}
    rows["rl"] += seeds("e", 20, BENIGN) + rows["bench"][:3] + rows["rl"][:2]
    settings = SetSettings(sft=9, rl=10, bench=7)
    written = []
    for run in ("one", "two"):
        reports = put_together(pictures, **rows, settings=settings, out=run)
        files = [file for report in reports.values() for file in report.files if file != "rl.parquet"]
        written.append({file: (pictures.parent / run / file).read_bytes() for file in [*files, "left_out.jsonl"]})
        for items in rows.values():
            rng.shuffle(items)
    assert written[0] == written[1] and len(written[0]) == 5


def test_what_one_set_has_no_later_one_gets(pictures: Path) -> None:
    """By source seed, whatever the kind; and by likeness, whatever the source."""
    bench = [seed("s:1/red_team", image="aa/0.png"), seed("s:2/benign", kind=BENIGN, topic="twin")]
    rl = [
        seed("s:1/obfuscated", topic="other words"),
        seed("t:9/red_team", topic="twin", source="t"),
        seed("s:3/red_team"),
    ]
    sft = [seed("s:3/benign", topic="others"), seed("s:2/red_team", topic="new"), seed("s:4/benign", topic="fine")]
    reports = put_together(pictures, sft, rl, bench)
    assert left_out(pictures.parent / "sets") == {
        "s:1/obfuscated": ("rl", "same_seed"),
        "t:9/red_team": ("rl", "near_duplicate"),
        "s:3/benign": ("sft", "same_seed"),
        "s:2/red_team": ("sft", "same_seed"),
    }
    assert [reports[name].kept for name in SetName] == [2, 1, 1]


def test_likeness_needs_the_same_picture(pictures: Path) -> None:
    bench = [seed("s:1/benign", topic="twin", image="aa/0.png", kind=BENIGN)]
    sft = [seed("t:2/benign", topic="twin", image="aa/1.png", kind=BENIGN)]
    assert put_together(pictures, sft, bench=bench)[SetName.SFT].kept == 1


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("target", [None, 8, 100])
@pytest.mark.parametrize(("risky", "benign"), [(12, 12), (12, 1), (3, 12), (0, 4)])
def test_benign_seeds_have_their_share_of_rl_and_no_more(
    pictures: Path, share: float, target: int | None, risky: int, benign: int
) -> None:
    settings = SetSettings(rl=target, rl_benign_share=share)
    rows = seeds("a", risky) + seeds("b", benign, BENIGN)
    report = put_together(pictures, rl=rows, bench=seeds("z", 1), settings=settings)[SetName.RL]
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


def test_every_row_is_in_a_set_or_left_out_for_a_reason(pictures: Path) -> None:
    """Over random builds with planted faults: nothing is lost, nothing stands twice."""
    rng = random.Random(1)
    for _ in range(12):
        pool = [seed(f"s:{n}/{k.value}", kind=k, topic=f"t{n % 11}") for n in range(18) for k in (BENIGN, RED)]
        rows = {name: [rng.choice(pool) for _ in range(rng.randrange(1, 20))] for name in ("sft", "rl", "bench")}
        settings = SetSettings(sft=rng.choice([None, 3]), rl=rng.choice([None, 4]), bench=rng.choice([None, 2]))
        reports = put_together(pictures, **rows, settings=settings)
        out = pictures.parent / "sets"
        told = [json.loads(line) for line in (out / "left_out.jsonl").read_text().splitlines()]
        for name, report in reports.items():
            assert report.offered == len(rows[name.value]) == report.kept + sum(report.left_out.values())
            assert Counter(row["reason"] for row in told if row["set"] == name.value) == report.left_out
        kept = {name: _kept(out, name) for name in SetName}
        assert all(len(set(ids)) == len(ids) == reports[name].kept for name, ids in kept.items())
        sources = [{item.split("/")[0] for item in ids} for ids in kept.values()]
        assert sum(map(len, sources)) == len(set.union(*sources)), "a source seed is in two sets"
        topics = [{int(item.split("/")[0][2:]) % 11 for item in ids} for ids in kept.values()]
        assert sum(map(len, topics)) == len(set.union(*topics)), "a near-duplicate is in two sets"


def _kept(out: Path, name: SetName) -> list[str]:
    file = out / f"{name.value}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [row.get("id") or row.get("question_id") or row["metadata"]["question_id"] for row in rows]


def test_lost_and_hostile_pictures_leave_a_row_out(pictures: Path) -> None:
    (pictures / "torn.png").write_bytes((pictures / "aa/0.png").read_bytes()[:60])
    names = {"gone.png": "1", "torn.png": "2", "../../secret.png": "3", "aa/0.png": "4"}
    rows = [seed(f"s:{number}/benign", kind=BENIGN, image=name) for name, number in names.items()]
    report = put_together(pictures, rows, rl=seeds("r", 1))[SetName.SFT]
    assert (report.kept, report.left_out) == (1, {"bad_picture": 3})


def test_what_has_no_place_in_a_bench_row_is_left_out(pictures: Path) -> None:
    later = seed("s:1/benign", kind=BENIGN)
    turns = (later.turns[0], UserTurn(text="And <image>?", images=("aa/1.png",)), later.turns[2])
    rows = [later.model_copy(update={"turns": turns}), seed("s:2/benign", image="aa/0.png"), seed("s:3/benign")]
    report = put_together(pictures, bench=rows)[SetName.BENCH]
    assert report.left_out == {"not_in_form": 1}
    images = [row.turns[0].images for row in load_seeds(pictures.parent / "sets" / "bench.jsonl")]
    assert len(images) == 2 and images.count(()) == 1


def test_a_disk_without_links_gets_whole_copies(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    put_together(pictures, rl=seeds("b", 2))
    copy = pictures.parent / "sets" / "pictures" / "aa" / "0.png"
    assert copy.read_bytes() == (pictures / "aa/0.png").read_bytes() and not copy.is_symlink()
    assert copy.stat().st_ino != (pictures / "aa/0.png").stat().st_ino


def test_an_empty_set_leaves_no_old_file_and_nothing_at_all_is_an_error(pictures: Path) -> None:
    put_together(pictures, seeds("a", 2), seeds("b", 2), seeds("c", 2))
    put_together(pictures, rl=seeds("b", 2))
    names = {path.name for path in (pictures.parent / "sets").iterdir()}
    assert names == {"rl.jsonl", "rl.parquet", "pictures", "sets.json", "left_out.jsonl"}
    with pytest.raises(DataError, match="nothing to assemble"):
        put_together(pictures)


def test_words_that_spell_a_role_or_a_picture_are_broken_in_every_file(pictures: Path) -> None:
    item = seed("s:1/red_team", image="aa/0.png", topic="<|im_end|> <video>")
    put_together(pictures, [item], out="one")
    put_together(pictures, rl=[item], out="two")
    table = pq.read_table(pictures.parent / "one" / "sft.parquet").to_pylist()
    for text in (str(table[0]["messages"]), (pictures.parent / "two" / "rl.jsonl").read_text()):
        assert "<|im_end|>" not in text and "<video>" not in text and "im_end" in text and "<image>" in text


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        *((name, True) for name in ("CC-BY-NC-4.0", "cc-by-nc-sa-4.0", "Non-Commercial", "NC")),
        *((name, False) for name in ("CC-BY-4.0", "Apache-2.0", "", "ncsa", "Tencent")),
    ],
)
def test_non_commercial_licences_are_known(name: str, bound: bool) -> None:
    assert non_commercial(name) is bound
