"""Collecting seeds: who is kept and why not, what each is for, and that nothing is read twice or lost."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from rich.console import Console

from steer_verl.data.collect import collect as module
from steer_verl.data.collect.collect import Collected, collect, read_seeds
from steer_verl.data.collect.pool import kind_of
from steer_verl.data.drawn import drawn
from steer_verl.data.image_store import ImageStore
from steer_verl.data.seed import SetName, SourceSeed, seed_id
from steer_verl.data.sources import images as images_module
from steer_verl.data.sources.sets import BadRow
from steer_verl.data.sources.settings import DuplicateSettings, ShareSettings, SourceSettings, SplitSettings
from steer_verl.errors import ConfigError, DataError, SteerError
from steer_verl.types import DialogueKind
from tests.data.samples import picture, write_rows
from tests.data.sources.samples import draw, mossbench, vlguard_safe, write_csv, write_json

COUNT = 4000
SHARES = ShareSettings(benign_of_unsafe=0.0)


def run(
    folder: Path, *sources: dict[str, Any], shares: ShareSettings = SHARES, rows: Any = None, **splits: Any
) -> Collected:
    return collect(
        folder / "seeds",
        folder / "images",
        [SourceSettings(**source) for source in sources],
        duplicates=DuplicateSettings(),
        kinds=shares,
        splits=SplitSettings(**splits),
        rows=rows,
    )


def seeds(folder: Path) -> list[SourceSeed]:
    return list(read_seeds(folder / "seeds"))


def left_out(folder: Path) -> list[BadRow]:
    return [BadRow.model_validate_json(line) for line in (folder / "seeds/left_out.jsonl").read_text().splitlines()]


def scene(path: Path, number: int, size: int = 64) -> Path:
    """An image with a look of its own."""
    noise = np.random.default_rng(number).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC).save(path)
    return path


def plain(question: str, **more: Any) -> dict[str, Any]:
    return {"question": question, "license": "MIT", "unsafe": False, **more}


def test_every_row_is_kept_or_told_and_the_counts_add_up(tmp_path: Path) -> None:
    scene(tmp_path / "a.png", 1)
    rows = [
        plain("What is it?", image="a.png"),
        plain("what is IT", image="a.png"),
        plain("What is it?"),
        plain("What is it?", image="gone.png"),
        plain("And what is this?", unsafe=True),
        '{"torn',
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    other = write_rows(tmp_path / "other.jsonl", [plain("What is it?", source_id="7"), plain("New?")])
    account = run(
        tmp_path,
        {"set": "plain", "path": path},
        {"set": "plain", "path": other, "name": "other"},
        shares=ShareSettings(benign_of_unsafe=0, obfuscated=0, red_team=0),
    )
    assert [seed.question for seed in seeds(tmp_path)] == ["What is it?", "What is it?", "New?"]
    told = {(bad.reason, bad.row, bad.source, bad.source_id) for bad in left_out(tmp_path)}
    assert told == {
        ("near_duplicate", 0, "plain", ""),
        ("image", 4, "", ""),
        ("not_claimed", 0, "plain", ""),
        ("line", 6, "", ""),
        ("duplicate", 0, "other", "7"),
    }
    assert (account.entered, account.kept) == (8, 3) and account.rejected == Counter(reason for reason, *_ in told)
    assert account.kinds == {"benign": 3} and sum(account.sides.values()) == 3
    assert all(len(seed.id) == 24 and seed.id == seed_id(seed.question, seed.image) for seed in seeds(tmp_path))


def test_a_row_with_a_missing_image_is_told_twice_and_every_start_is_the_same(tmp_path: Path) -> None:
    list(draw(tmp_path, "train/garden.png"))
    rows = [vlguard_safe(id="g0", image="train/gone.png"), vlguard_safe()]
    source = {"set": "vlguard", "path": write_json(tmp_path / "train.json", rows)}
    first = run(tmp_path, source)
    assert (first.kept, first.rejected) == (2, {"image": 2}) and [bad.unsafe for bad in left_out(tmp_path)] == [0, 1]
    (tmp_path / "seeds/account.json").unlink()
    assert run(tmp_path, source) == first == run(tmp_path, source)


class TestSides:
    """Which set a seed serves."""

    def test_all_seeds_about_an_image_or_one_nearly_the_same_serve_one_set(self, tmp_path: Path) -> None:
        rows = []
        for number in range(150):
            image = Image.open(scene(tmp_path / f"{number}.png", number))
            image.resize((48, 48)).save(tmp_path / f"{number}.jpg", quality=80)
            rows += [plain(f"What is {n} in it?", image=f"{number}.{s}") for n, s in enumerate(("png", "png", "jpg"))]
        account = run(tmp_path, {"set": "plain", "path": write_rows(tmp_path / "rows.jsonl", rows)})
        sides, clusters = defaultdict(set), defaultdict(set)
        for at, seed in enumerate(seeds(tmp_path)):
            sides[at // 3].add(seed.side)
            clusters[at // 3].add(seed.cluster)
        assert len(sides) == 150 and all(len(side) == 1 for side in (*sides.values(), *clusters.values()))
        assert len(set.union(*clusters.values())) == 150 and set(account.sides) == {"bench", "rl", "sft"}

    def test_a_text_is_a_cluster_of_its_own_and_weights_are_kept(self, tmp_path: Path) -> None:
        rows = [plain(f"What is number {number} of them?") for number in range(1500)]
        account = run(
            tmp_path, {"set": "plain", "path": write_rows(tmp_path / "rows.jsonl", rows)}, sft=6, rl=3, bench=1
        )
        assert all(seed.cluster == seed.id for seed in seeds(tmp_path))
        for side, share in (("sft", 0.6), ("rl", 0.3), ("bench", 0.1)):
            assert abs(account.sides[side] - 1500 * share) <= 5 * math.sqrt(1500 * share * (1 - share))

    def test_the_images_of_a_bench_source_are_the_benchmarks_alone(self, tmp_path: Path) -> None:
        image = Image.open(scene(tmp_path / "a.png", 1))
        image.save(tmp_path / "again.jpg", quality=70)
        scene(tmp_path / "b.png", 2)
        mine = [
            plain("What is it?", image="a.png"),
            plain("And it?", image="again.jpg"),
            plain("And b?", image="b.png"),
        ]
        test = [plain("What is it?", image="a.png"), plain("What is the title?", image="a.png")]
        sources = [
            {"set": "plain", "path": write_rows(tmp_path / "mine.jsonl", mine)},
            {"set": "plain", "path": write_rows(tmp_path / "test.jsonl", test), "name": "test"},
        ]
        account = run(tmp_path, *sources, bench=0, bench_sources=("test",))
        assert account.rejected == {"duplicate": 1, "benchmark_image": 1}
        assert [(seed.source, seed.question, seed.side is SetName.BENCH) for seed in seeds(tmp_path)] == [
            ("plain", "And b?", False),
            ("test", "What is it?", True),
            ("test", "What is the title?", True),
        ]

    @pytest.mark.parametrize("named", [{"name": "own_test"}, {}])
    @pytest.mark.parametrize("own", ["mine", ""])
    def test_a_bench_source_is_known_by_its_name_in_the_settings(
        self, tmp_path: Path, named: dict[str, str], own: str
    ) -> None:
        path = write_rows(tmp_path / "rows.jsonl", [plain(f"What is number {n}?", source=own) for n in range(20)])
        names = (named.get("name", "plain"), "Own_test")
        account = run(tmp_path, {"set": "plain", "path": path, **named}, bench=0, bench_sources=names)
        assert account.sides == {"bench": 20} and {seed.source for seed in seeds(tmp_path)} == {own or names[0]}
        (note,) = account.notes
        assert "no seed is of Own_test" in note
        account = run(tmp_path, {"set": "plain", "path": path}, bench=0, bench_sources=(own or "plain",))
        assert account.sides == {"bench": 20} and not account.notes, "by what its rows say too"

    def test_what_the_benchmark_does_not_claim_is_not_trained_on_either(self, tmp_path: Path) -> None:
        for number in range(3):
            scene(tmp_path / f"{number}.png", number)
        told = "Which of these many colours comes first in the picture that is shown here"
        test = [plain("What is it?", image="0.png"), plain(f"{told}?")]
        mine = [
            plain("What else?", image="0.png"),
            plain(f"{told} now?"),
            plain("Who?", image="1.png"),
        ]
        for row in test:
            del row["unsafe"]
        test.append(plain(f"{told} today?"))
        sources = [
            {"set": "plain", "path": write_rows(tmp_path / "mine.jsonl", mine)},
            {"set": "plain", "path": write_rows(tmp_path / "test.jsonl", test), "name": "test"},
        ]
        shares = ShareSettings(unknown="leave_out")
        account = run(tmp_path, *sources, shares=shares, bench=0, bench_sources=("test",))
        assert account.rejected == {"benchmark_image": 1, "near_duplicate": 1, "not_claimed": 2}
        assert [(seed.question, seed.source) for seed in seeds(tmp_path)] == [
            ("Who?", "plain"),
            (f"{told} today?", "test"),
        ], "and an unclaimed row takes no place of a claimed one"

    def test_kind_and_side_stay_when_other_rows_come(self, tmp_path: Path) -> None:
        rows = [plain(f"What is number {n} of them?", unsafe=n % 2 == 0, image=f"{n % 20}.png") for n in range(200)]
        for number in range(25):
            scene(tmp_path / f"{number}.png", number)
        path = write_rows(tmp_path / "rows.jsonl", rows)
        run(tmp_path, {"set": "plain", "path": path})
        before = {seed.id: seed for seed in seeds(tmp_path)}
        write_rows(path, [plain("Entirely new?", image="24.png"), plain("And this?"), *reversed(rows)])
        account = run(tmp_path, {"set": "plain", "path": path})
        after = {seed.id: seed for seed in seeds(tmp_path)}
        assert account.kept == 202 and {name: after[name] for name in before} == before
        assert seeds(tmp_path)[0].question == "Entirely new?"


@pytest.mark.parametrize("order", [1, -1])
class TestOneContentOfSeveralOrigins:
    """The same question about the same pixels, in rows of several sources or licences."""

    def test_an_open_licence_takes_nothing_from_a_closed_one(self, tmp_path: Path, order: int) -> None:
        rows = [
            plain("What?", source="web", license="CC0-1.0"),
            plain("What?", source="nc", license="CC-BY-NC-4.0", answer="A cup.", facts={"shows": "a cup"}),
        ]
        path = write_rows(tmp_path / "rows.jsonl", rows[::order])
        account = run(tmp_path, {"set": "plain", "path": path})
        (seed,) = seeds(tmp_path)
        first = rows[::order][0]
        found = (seed.source, seed.license, seed.answer, seed.facts)
        assert found == (first["source"], first["license"], first.get("answer", ""), first.get("facts", {}))
        assert account.rejected == {"duplicate": 1}

    def test_a_row_of_the_benchmark_comes_first(self, tmp_path: Path, order: int) -> None:
        rows = [plain(f"What is {n}?", source=source) for n in range(9) for source in ("web", "heldout")]
        path = write_rows(tmp_path / "rows.jsonl", rows[::order])
        account = run(tmp_path, {"set": "plain", "path": path}, bench=0, bench_sources=("heldout",))
        assert account.sides == {"bench": 9} and account.rejected == {"duplicate": 9}

    def test_what_one_of_them_calls_unsafe_is_unsafe(self, tmp_path: Path, order: int) -> None:
        said: list[dict[str, Any]] = [{"unsafe": False}, {"unsafe": True, "license": "no training"}, {"unsafe": None}]
        sources = [
            {"set": "plain", "path": write_rows(tmp_path / f"{n}.jsonl", [plain("What?", **more)])}
            for n, more in enumerate(said)
        ]
        account = run(tmp_path, *sources[::order], shares=ShareSettings(benign_of_unsafe=0, red_team=0, obfuscated=1))
        assert [seed.unsafe for seed in seeds(tmp_path)] == [True] and account.kinds == {"obfuscated": 1}


class TestKinds:
    """What is made of a seed."""

    def seed(self, number: int, unsafe: bool | None) -> SourceSeed:
        name = seed_id(f"What is {number}?", None)
        return SourceSeed(id=name, question="?", unsafe=unsafe, source="s", license="MIT")

    def dealt(self, unsafe: bool | None, **shares: Any) -> Counter[DialogueKind | None]:
        settings = ShareSettings(**shares)
        return Counter(kind_of(self.seed(n, unsafe), settings) for n in range(COUNT))

    def close(self, count: int, share: float) -> bool:
        """Within five standard deviations."""
        return abs(count - COUNT * share) <= 5 * math.sqrt(COUNT * share * (1 - share))

    def test_shares_are_kept(self) -> None:
        shares = {"benign": 0.3, "obfuscated": 0.2, "red_team": 0.5, "benign_of_unsafe": 0.0}
        safe, unsafe = self.dealt(False, **shares), self.dealt(True, **shares)
        assert set(safe) == {DialogueKind.BENIGN, None} and self.close(safe[DialogueKind.BENIGN], 0.3)
        assert self.close(unsafe[DialogueKind.OBFUSCATED], 0.2) and self.close(unsafe[DialogueKind.RED_TEAM], 0.5)
        assert self.close(unsafe[None], 0.3) and not unsafe[DialogueKind.BENIGN]

    def test_a_share_of_the_unsafe_seeds_makes_benign_dialogues(self) -> None:
        unsafe = self.dealt(True)
        assert self.close(unsafe[DialogueKind.BENIGN], 0.2) and unsafe[None] == 0
        assert self.close(unsafe[DialogueKind.OBFUSCATED], 0.4) and self.close(unsafe[DialogueKind.RED_TEAM], 0.4)
        assert self.dealt(False) == {DialogueKind.BENIGN: COUNT}

    @pytest.mark.parametrize(("unknown", "as_if"), [("unsafe", True), ("safe", False)])
    def test_unknown_seeds_count_as_the_setting_says(self, unknown: str, as_if: bool) -> None:
        shares = ShareSettings(unknown=unknown)  # type: ignore[arg-type]
        for n in range(200):
            assert kind_of(self.seed(n, None), shares) is kind_of(self.seed(n, as_if), shares)
        assert self.dealt(None, unknown="leave_out") == {None: COUNT}

    def test_a_greater_share_keeps_what_it_had(self) -> None:
        small, great = (ShareSettings(obfuscated=s, red_team=s, benign=s) for s in (0.2, 0.45))
        for unsafe in (True, False):
            for n in range(500):
                had = kind_of(self.seed(n, unsafe), small)
                assert had is None or kind_of(self.seed(n, unsafe), great) is had

    def test_lots_are_the_same_everywhere(self) -> None:
        """Fixed for good: a build that goes on after an update must deal as before."""
        assert drawn("kind", "vlguard", "train/1/instruction") == 0.4434588869101965
        assert drawn("a", "bc") != drawn("ab", "c") and 0 <= drawn() < 1 and 0 <= drawn("\ud800") < 1

    def test_shares_of_more_than_all_are_refused(self) -> None:
        with pytest.raises(ValidationError, match="at most 1"):
            ShareSettings(obfuscated=0.6, red_team=0.5)


class TestAgain:
    """The same command, started again."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> dict[str, Any]:
        for number in range(5):
            scene(tmp_path / f"set/images/{number}.png", number)
        rows = [plain(f"What is {n}?", image=f"images/{n}.png") for n in range(6)]
        return {"set": "plain", "path": write_rows(tmp_path / "set/rows.jsonl", rows)}

    def test_nothing_is_opened_when_nothing_changed(
        self, tmp_path: Path, source: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = run(tmp_path, source)
        state = {path: path.stat().st_mtime_ns for path in (tmp_path / "seeds").iterdir()}

        def fail(*_: object, **__: object) -> None:
            raise AssertionError("read again")

        monkeypatch.setattr(images_module, "load_image", fail)
        monkeypatch.setattr(module, "read_source", fail)
        began = time.perf_counter()
        assert run(tmp_path, source) == first and time.perf_counter() - began < 0.5
        os.utime(source["path"])  # touched, with the same rows in it
        assert run(tmp_path, source) == first
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "seeds").iterdir()} == state

    def test_whatever_changed_is_seen(self, tmp_path: Path, source: dict[str, Any]) -> None:
        first, path = run(tmp_path, source), tmp_path / "set/rows.jsonl"
        assert first.rejected == {"image": 1}
        scene(tmp_path / "set/images/5.png", 5)
        assert run(tmp_path, source).kept == 6, "an image that was missing came"
        path.write_text(path.read_text().replace("What is 1?", "What is 9?"))
        assert any(seed.question == "What is 9?" for seed in (run(tmp_path, source), seeds(tmp_path))[1])
        scene(tmp_path / "set/images/5.png", 77, size=80)
        before = seeds(tmp_path)
        run(tmp_path, source)
        assert seeds(tmp_path) != before
        for colour in ("red", "blue"):  # in as many bytes
            Image.new("RGB", (64, 64), colour).save(tmp_path / "set/images/5.png", compress_level=0)
            before = seeds(tmp_path)
            run(tmp_path, source)
            assert seeds(tmp_path) != before
        assert run(tmp_path, source, shares=ShareSettings(benign=0)).kept == 0
        (tmp_path / "seeds/seeds.jsonl").write_text("half")
        assert run(tmp_path, source).kept == 6 and len(seeds(tmp_path)) == 6

    def test_a_row_at_the_top_is_one_more_seed_and_all_others_keep_their_ids(
        self, tmp_path: Path, source: dict[str, Any]
    ) -> None:
        run(tmp_path, source)
        before, path = seeds(tmp_path), Path(source["path"])
        path.write_text(json.dumps(plain("The first of all?")) + "\n" + path.read_text())
        run(tmp_path, source)
        assert seeds(tmp_path)[0].question == "The first of all?" and seeds(tmp_path)[1:] == before

    def test_a_killed_run_leaves_nothing_half_and_the_next_one_makes_all(self, tmp_path: Path) -> None:
        for number in range(60):
            scene(tmp_path / f"set/{number}.png", number, size=200)
        rows = [plain(f"What is {n}?", image=f"set/{n}.png") for n in range(60)]
        source = {"set": "plain", "path": str(write_rows(tmp_path / "rows.jsonl", rows))}
        program = (
            "import sys; from pathlib import Path; from tests.data.test_collect import run;"
            f"run(Path({str(tmp_path)!r}), {source!r})"
        )
        process = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2], env=os.environ)
        until = time.monotonic() + 60
        while not list((tmp_path / "images").glob("??/*.png")) and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "seeds/account.json").exists()
        account = run(tmp_path, source)
        shutil.rmtree(tmp_path / "seeds")
        assert account.kept == 60 and run(tmp_path, source).digest == account.digest


def test_a_test_set_is_refused_before_its_first_row(tmp_path: Path) -> None:
    source = {"set": "mossbench", "path": tmp_path / "not there at all.json"}
    with pytest.raises(ConfigError, match=r"sources\[0\]: mossbench .*bench_sources"):
        run(tmp_path, source)
    list(draw(tmp_path, "images/1.png"))
    source = {"set": "mossbench", "path": write_json(tmp_path / "rows.json", [mossbench()])}
    assert run(tmp_path, source, bench_sources=("mossbench",)).sides == {"bench": 1}


def test_rows_that_must_not_be_trained_on_are_told_and_so_are_those_without_derived_works(tmp_path: Path) -> None:
    rows = [
        plain("What?", source="mossbench"),
        plain("Why?", license="NTDL-1.0 (no training)"),
        plain("Who?", license="CC BY-ND 4.0"),
        plain("How?"),
    ]
    account = run(tmp_path, {"set": "plain", "path": write_rows(tmp_path / "rows.jsonl", rows)})
    assert account.rejected == {"licence": 2} and account.kept == 2
    assert len(account.notes) == 1 and "1 seeds are under CC BY-ND 4.0" in account.notes[0]


def test_seeds_may_be_handed_in(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    stored = store.add(Image.open(scene(tmp_path / "a.png", 1)).convert("RGB"))
    given = [
        SourceSeed(id=f"mini-{n}", question=f"What is {n}?", image=stored, unsafe=False, source="mini", license="MIT")
        for n in range(4)
    ]
    account = run(tmp_path, rows=lambda: iter([*given, given[0]]))
    assert (account.kept, account.rejected) == (4, {"duplicate": 1})
    assert [seed.id for seed in seeds(tmp_path)] == [seed.id for seed in given] and len(
        {s.side for s in seeds(tmp_path)}
    ) == 1
    assert seeds(tmp_path)[0].cluster == Path(stored).stem
    assert run(tmp_path, rows=lambda: iter([*given, given[0]])).digest == account.digest
    with pytest.raises(DataError, match="no such file"):
        run(tmp_path, rows=lambda: iter([given[0].model_copy(update={"image": "gone.png"})]))


def test_progress_tells_the_rows_and_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAY_EVERY", 0.0)
    path = write_csv(tmp_path / "rows.csv", [plain(f"What is {n}?", unsafe="false") for n in range(100)])
    write_csv(tmp_path / "more/other.csv", [{"x": "\x1b[31m"}])
    with (tmp_path / "said").open("w") as stream:
        collect(
            tmp_path / "seeds",
            tmp_path / "images",
            [SourceSettings(set="plain", path=path), SourceSettings(set="plain", path=tmp_path)],
            duplicates=DuplicateSettings(),
            kinds=ShareSettings(),
            splits=SplitSettings(),
            console=Console(file=stream, width=200),
        )
    said = (tmp_path / "said").read_text()
    assert "100 rows read" in said and " % · " in said.replace("%", " %") and "left" in said
    assert "1 tables" in said and "\x1b" not in said


def test_a_disk_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [plain("What?")])

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(SteerError, match="No space left"):
        run(tmp_path, {"set": "plain", "path": path})
    assert not (tmp_path / "seeds/seeds.jsonl").exists()


def test_a_seeds_file_that_was_changed_by_hand_is_told(tmp_path: Path) -> None:
    run(tmp_path, {"set": "plain", "path": write_rows(tmp_path / "rows.jsonl", [plain("What?")])})
    (tmp_path / "seeds/seeds.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="row 1: no seed"):
        seeds(tmp_path)


def test_images_by_value_need_no_folder(tmp_path: Path) -> None:
    picture(tmp_path / "unrelated.png")
    account = run(tmp_path, {"set": "plain", "path": write_rows(tmp_path / "rows.jsonl", [plain("What?")])})
    assert account.folders == {} and list(account.files) == [str(tmp_path / "rows.jsonl")]


def test_what_is_wrong_with_rows_is_told_with_the_first_and_where_the_others_are(tmp_path: Path) -> None:
    rows = [plain("What?"), plain("Why?", image="no.png"), plain("Who?", image="nor.png"), plain("What?")]
    account = run(tmp_path, {"set": "plain", "path": write_rows(tmp_path / "rows.jsonl", rows)})
    assert account.rejected == {"duplicate": 1, "image": 2}
    (note,) = account.notes
    assert note.startswith("2 rows have faults (left_out.jsonl has them all); the first: ")
    assert "rows.jsonl: row 2: image " in note and "no.png: no such file" in note
