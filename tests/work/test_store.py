"""What a shard keeps, and what it does not."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.errors import ConfigError, DataError, SteerError
from steer_verl.models.failure import Failure
from steer_verl.models.request import Reply
from steer_verl.records import append
from steer_verl.types import Usage
from steer_verl.work import outcomes as outcomes_module
from steer_verl.work import store as store_module
from steer_verl.work.outcomes import (
    outcome_files,
    outcome_pointers,
    read_at,
    read_outcomes,
    shard_of,
)
from steer_verl.work.shards import Shards
from steer_verl.work.step import Kept, Outcome, Rejected, WorkSettings
from steer_verl.work.store import GONE, RETRIED, STATE, Counts, Store
from tests.work.scripted import CALL

SAID = Reply(content="yes", usage=Usage(requests=1, prompt_tokens=5))


def kept(item: str) -> Outcome:
    return Outcome(id=item, done=Kept(value={"id": item}))


def given_up(item: str) -> Outcome:
    return Outcome(id=item, done=Rejected(reason="timeout", given_up=True))


def ids(path: Path) -> list[str]:
    return [Outcome.model_validate_json(line).id for line in path.read_bytes().splitlines()]


class Killed(BaseException):
    """The process would have been killed here."""


def killed(*_: Any) -> Any:
    raise Killed


def test_a_reply_outlives_its_process_and_its_item(tmp_path: Path) -> None:
    shards_of_one = WorkSettings(shards=1)
    with Shards(tmp_path, "s", shards_of_one) as shards:
        [store] = shards.stores.values()
        store.meet("i/j")
        place = shards.place("i/j")
        assert place.key == "s/i%2Fj"
        shards.put(place.part("turn 1").key, "d", SAID)
        store.finish(kept("i/j"))
    with Shards(tmp_path, "s", shards_of_one) as shards:
        assert shards.get("s/i%2Fj/turn 1", "d", Reply) == SAID
        assert shards.get("s/i%2Fj/turn 1", "other", Reply) is None
        assert shards.get("s/i%2Fj/turn 2", "d", Reply) is None
        assert shards.get("s/i/j/turn 1", "d", Reply) is None
        assert shards.get("t/i%2Fj/turn 1", "d", Reply) is None
        assert shards.get("s/i%2Fj/turn 1", "d", Failure) is None, "an entry of another form is none"


@pytest.mark.parametrize("key", ["", "s", "s/", "other/i", "check/0123"])
def test_what_belongs_to_no_item_is_not_kept(tmp_path: Path, key: str) -> None:
    with Shards(tmp_path, "s", WorkSettings(shards=2)) as shards:
        shards.put(key, "d", SAID)
        assert shards.get(key, "d", Reply) is None


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, max_size=8, unique=True))
@settings(max_examples=20, deadline=None)
def test_no_id_is_taken_for_the_place_of_another(ids: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, Shards(Path(folder), "s", WorkSettings(shards=3)) as shards:
        for item in ids:
            shards.put(shards.place(item).part("a").key, "d", SAID.model_copy(update={"content": item}))
        for item in ids:
            found = shards.get(shards.place(item).part("a").key, "d", Reply)
            assert found is not None and found.content == item


def test_a_process_has_the_replies_of_its_own_shards(tmp_path: Path) -> None:
    two = WorkSettings(shards=2)
    mine, other = ("item 0", "item 1") if shard_of("item 0", 2) == 0 else ("item 1", "item 0")
    assert shard_of(other, 2) == 1
    with Shards(tmp_path, "s", two, [0]) as first, Shards(tmp_path, "s", two, [1]) as second:
        for item in (mine, other):
            first.put(f"s/{quote(item)}/a", "d", SAID)
        assert first.get(f"s/{quote(mine)}/a", "d", Reply) == SAID
        assert first.get(f"s/{quote(other)}/a", "d", Reply) is second.get(f"s/{quote(other)}/a", "d", Reply) is None
        assert first.secret == second.secret and len(first.secret) == 32
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_who_would_make_a_new_call_while_the_run_stops_is_called_off(tmp_path: Path) -> None:
    with Shards(tmp_path, "s", WorkSettings(shards=1)) as shards:
        shards.put("s/i/a", "d", SAID)
        shards.stopping = True
        assert shards.get("s/i/a", "d", Reply) == SAID and shards.get("s/i/a", "d", Failure) is None
        with pytest.raises(asyncio.CancelledError):
            shards.get("s/i/b", "d", Reply)


def test_costs_add_up_whatever_becomes_of_the_call(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.meet("i")
        for _ in range(3):
            store.spend("i", CALL)
    with Store(tmp_path) as store:
        store.spend("i", CALL)
        assert store.usage("i") == store.counts().usage == CALL + CALL + CALL + CALL
        assert store.usage("another") == Usage()
        store.finish(kept("i").model_copy(update={"usage": store.usage("i")}))
        assert store.counts().usage == CALL + CALL + CALL + CALL
    (tmp_path / STATE).unlink()
    with Store(tmp_path) as store:
        assert store.counts().usage == CALL + CALL + CALL + CALL, "and without the table it is what the outcomes say"


def test_an_item_that_has_ended_leaves_one_line(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for n in range(8):
            assert store.meet(f"{n}")
            store.finish(kept(f"{n}"))
        assert store.counts() == Counts(None, [("", None, False, 8, 0.0)], 0, Usage())
    with Store(tmp_path) as store:
        assert not any(store.meet(f"{n}") for n in range(8))
        store.meet("new")
        store.finish(kept("new"))
    assert [outcome.id for outcome, _ in outcome_pointers(tmp_path)] == [*"01234567", "new"]
    assert [path.name for path in outcome_files(tmp_path)] == ["outcomes-000000.jsonl", "outcomes-000001.jsonl"]


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_a_kill_on_either_side_of_the_line_leaves_one_outcome(tmp_path: Path, cut: int) -> None:
    with Store(tmp_path) as store:
        for item in ("before", "line but no table", "torn"):
            store.meet(item)
            store.keep(item, "ask", b"paid")
        store.finish(kept("before"))
    (path,) = outcome_files(tmp_path)
    append(path, kept("line but no table"))
    with path.open("ab") as file:
        file.write(kept("torn").model_dump_json().encode()[:cut])
    with Store(tmp_path) as store:
        assert [store.meet(item) for item in ("before", "line but no table", "torn")] == [False, False, True]
        assert store.reply("torn", "ask") == store.reply("line but no table", "ask") == b"paid"
        assert store.counts() == Counts(None, [("", None, False, 2, 0.0)], 1, Usage())
        store.finish(kept("torn"))
    assert [outcome.id for outcome, _ in outcome_pointers(tmp_path)] == ["before", "line but no table", "torn"]


def test_a_table_that_runs_ahead_of_the_lines_is_not_believed(tmp_path: Path) -> None:
    with Store(tmp_path) as store:  # a power cut may keep the table and lose the line
        store.meet("i")
        store.finish(kept("i"))
    outcome_files(tmp_path)[0].write_bytes(b"")
    with Store(tmp_path) as store:
        assert store.meet("i")


def test_outcomes_are_read_again_only_if_they_changed_or_the_end_was_no_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def reading(folder: Path) -> Any:
        reads.append(folder)
        return outcome_pointers(folder)

    monkeypatch.setattr(store_module, "outcome_pointers", reading)
    with Store(tmp_path) as store:
        for item in "abc":
            store.meet(item)
            store.finish(kept(item))
    reads.clear()
    for _ in range(2):
        with Store(tmp_path) as store:
            assert not store.meet("a") and not reads
    (path,) = outcome_files(tmp_path)
    os.utime(path, ns=(1, 1))
    with Store(tmp_path) as store:
        assert len(reads) == 1
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Store, "_end", killed)  # the line is there, and the table does not know it
            store.finish(kept("d"))
        store.meet("e")
        store.finish(kept("e"))
    with Store(tmp_path) as store:
        assert len(reads) == 2 and [store.meet(item) for item in "def"] == [False, False, True]
        store._db.close()  # a kill
    with Store(tmp_path) as store:
        assert len(reads) == 3


def test_without_its_table_a_shard_still_knows_what_has_ended(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for item in "ab":
            store.meet(item)
        store.finish(kept("a"))
    (tmp_path / STATE).unlink()
    with Store(tmp_path) as store:
        assert [store.meet(item) for item in "ab"] == [False, True]


def test_bad_files_are_named_with_how_to_fix_them(tmp_path: Path) -> None:
    (tmp_path / "outcomes-000000.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(DataError, match=r"outcomes-000000.jsonl:1: not an outcome, nor is any other line"):
        Store(tmp_path)
    (tmp_path / "outcomes-000000.jsonl").write_text(2 * (kept("x").model_dump_json() + "\n"))
    with pytest.raises(DataError, match="the item 'x' ended twice"):
        Store(tmp_path)
    (tmp_path / "outcomes-000000.jsonl").unlink()
    (tmp_path / STATE).write_text("no database " * 100)
    with pytest.raises(DataError, match=r"state.sqlite: .* remove it"):
        Store(tmp_path)


def test_an_item_whose_line_cannot_be_read_is_worked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Store(tmp_path) as store:
        for item in "abc":
            store.meet(item)
            store.finish(kept(item))
    (path,) = outcome_files(tmp_path)
    first, second, third = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([first, second[:9] + third, third, b""]))
    with Store(tmp_path) as store:
        assert [store.meet(item) for item in "abc"] == [False, True, False]
        store.finish(kept("b"))
    assert [outcome.id for outcome, _ in outcome_pointers(tmp_path)] == ["a", "c", "b"]
    assert f"{path}: line 2 cannot be read" in caplog.text


def test_a_line_that_cannot_be_read_does_not_stay_behind_alone(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for item in "ab":
            store.finish(given_up(item))
    (path,) = outcome_files(tmp_path)
    path.write_bytes(b"no outcome\n" + path.read_bytes())
    with Store(tmp_path) as store:
        store.take_out(lambda outcome: True, RETRIED)
    with Store(tmp_path) as store:
        assert store.counts().undone == 2 and list(outcome_pointers(tmp_path)) == []


def test_an_id_that_stands_twice_is_told(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.meet("i")
        with pytest.raises(DataError, match="the id 'i' stands twice"):
            store.meet("i")


def test_a_disk_that_is_full_ends_nothing(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.meet("i")
        store.keep("i", "ask", b"paid")
        (tmp_path / "outcomes-000000.jsonl").symlink_to("/dev/full")
        with pytest.raises(SteerError, match="cannot be written"):
            store.finish(kept("i"))
        (tmp_path / "outcomes-000000.jsonl").unlink()
    with Store(tmp_path) as store:
        assert store.meet("i") and store.reply("i", "ask") == b"paid"


def _hold(folder: Path, ready: Any, go: Any) -> None:
    with Store(folder):
        ready.set()
        go.wait(30)


def test_a_database_that_is_full_says_so(tmp_path: Path) -> None:
    with Store(tmp_path) as store, pytest.raises(SteerError, match=r"state\.sqlite: database or disk is full"):
        store._do(f"PRAGMA max_page_count={store._one('PRAGMA page_count')}")
        for number in range(1000):
            store.finish(kept(f"{number:0400}"))


def test_a_second_run_in_the_same_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LOCK_WAIT", 0.1)
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, go))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(ConfigError, match="another run is at work"):
            Store(tmp_path)
    finally:
        go.set()
        other.join(30)
    Store(tmp_path).close()


def test_outcomes_are_found_again_where_they_lie(tmp_path: Path) -> None:
    with Store(tmp_path / "shard-000") as one, Store(tmp_path / "shard-001") as two:
        for n in range(9):
            (one if n % 2 else two).finish(kept(f"\u00e9 {n}"))
    found = list(outcome_pointers(tmp_path))
    assert [outcome for outcome, _ in found] == list(read_outcomes(tmp_path)) and len(found) == 9
    assert all(read_at(pointer) == outcome for outcome, pointer in found)
    pointer = found[-1][1]
    pointer.path.write_text("")
    with pytest.raises(DataError, match="was changed while it was read"):
        read_at(pointer)


def test_items_that_left_the_source_count_no_more_once_it_was_read_whole(tmp_path: Path) -> None:
    def read(source: str, items: str, whole: bool = True) -> list[str]:
        """The items that have work left on them."""
        with Store(tmp_path) as store:
            store.begin_reading()
            left = [item for item in items if store.meet(item)]
            for item in left:
                store.spend(item, CALL)
                store.keep(item, "ask", b"paid")
                store.finish(kept(item))
            if whole:
                store.read_whole(source)
            store.counts()
            return left

    def here() -> str:
        return "".join(sorted(outcome.id for outcome, _ in outcome_pointers(tmp_path)))

    assert read("one", "abcd") == [*"abcd"] and here() == "abcd"
    assert read("two", "bce", whole=False) == ["e"] and here() == "abcde", "nobody knows yet what else is in it"
    assert read("two", "bce") == [] and here() == "bce"
    with Store(tmp_path) as store:
        assert store.counts() == Counts("two", [("", None, False, 3, 0.0)], 0, CALL + CALL + CALL)
        assert store.reply("a", "ask") == b"paid", "its replies stay: it may come back"
    assert read("one", "abcd") == [*"ad"] and here() == "abcd"
    assert ids(tmp_path / GONE) == [*"ade"]


def test_killed_while_outcomes_are_taken_out_nothing_is_lost_or_stands_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for items in ("abc", "def", "gh"):  # a file for each
        with Store(tmp_path) as store:
            for item in items:
                store.finish(given_up(item) if item in "bfg" else kept(item))
    replaced = 0

    def replace(old: Any, new: Any) -> None:
        nonlocal replaced
        replaced += 1
        if replaced == 2:
            raise Killed
        os.rename(old, new)

    with monkeypatch.context() as patch, Store(tmp_path) as store:
        patch.setattr(outcomes_module.os, "replace", replace)
        with pytest.raises(Killed):
            store.take_out(lambda outcome: outcome.done != kept(outcome.id).done, RETRIED)
    with Store(tmp_path) as store:
        assert [store.meet(item) for item in "abcdefgh"] == [item == "b" for item in "abcdefgh"]
        store.take_out(lambda outcome: outcome.done != kept(outcome.id).done, RETRIED)
        assert store.counts().undone == 3 and sum(row[3] for row in store.counts().ended) == 5
    assert [outcome.id for outcome, _ in outcome_pointers(tmp_path)] == [*"acdeh"]
    assert {Outcome.model_validate_json(line).id for line in (tmp_path / RETRIED).read_bytes().splitlines()} == {*"bfg"}
