"""What a desk and its store keep, and what they do not."""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from steer_verl.errors import ConfigError, DataError, SteerError
from steer_verl.models.failure import AgentFailed
from steer_verl.records import append
from steer_verl.types import Scores, Usage
from steer_verl.work import store as store_module
from steer_verl.work.desk import ItemDesk
from steer_verl.work.outcomes import outcome_files, read_kept, read_shard
from steer_verl.work.step import Kept, Outcome, Rejected
from steer_verl.work.store import STATE, Store
from tests.work.scripted import CALL, Thing


def kept(item: str) -> Outcome:
    return Outcome(id=item, done=Kept(value={"id": item}))


async def says(value: Any) -> Any:
    return value


async def never() -> Any:
    raise AssertionError("asked again")


async def test_a_result_outlives_its_process_and_comes_back_as_what_it_was(tmp_path: Path) -> None:
    values: list[tuple[Any, Any]] = [
        (str, 'a "text"\n é'),
        (tuple[str, ...], ("a", "b")),
        (Scores, Scores(safety=1, usefulness=2, faithfulness=3)),
        (int | None, None),
        (dict[str, list[float]], {"x": [0.1, 2.0]}),
    ]
    with Store(tmp_path) as store:
        store.meet("i")
        for n, (kind, value) in enumerate(values):
            assert await ItemDesk(store, "s", "i").once(str(n), kind, lambda value=value: says(value)) == value
    with Store(tmp_path) as store:
        assert store.meet("i")
        for n, (kind, value) in enumerate(values):
            assert await ItemDesk(store, "s", "i").once(str(n), kind, never) == value


async def test_what_a_failed_call_cost_is_on_the_account_and_its_result_is_not_kept(tmp_path: Path) -> None:
    async def fails() -> str:
        desk.spend(CALL)
        desk.spend(CALL)
        raise AgentFailed("timeout", transient=True)

    async def succeeds() -> str:
        desk.spend(CALL)
        return "good"

    with Store(tmp_path) as store:
        desk = ItemDesk(store, "s", "i")
        with pytest.raises(AgentFailed):
            await desk.once("ask", str, fails)
        assert await desk.once("ask", str, succeeds) == "good"
        desk.spend(CALL)  # outside of any call
        assert store.usage("i") == CALL + CALL + CALL + CALL
        assert store.usage("another") == Usage()


async def test_calls_at_the_same_time_have_a_bill_each(tmp_path: Path) -> None:
    async def asks(requests: int) -> int:
        desk.spend(Usage(requests=requests))
        await asyncio.sleep(0.01)
        desk.spend(Usage(requests=requests))
        return requests

    with Store(tmp_path) as store:
        desk = ItemDesk(store, "s", "i")
        await asyncio.gather(*(desk.once(f"{n}", int, lambda n=n: asks(10**n)) for n in range(5)))  # type: ignore[misc]
        assert store.usage("i").requests == 22222


async def test_the_same_name_twice_at_the_same_time_is_told(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        desk = ItemDesk(store, "s", "i")

        async def asks() -> int:
            await asyncio.sleep(0.01)
            return 1

        with pytest.raises(RuntimeError, match="'ask' is asked for twice at the same time"):
            await asyncio.gather(desk.once("ask", int, asks), desk.once("ask", int, asks))


async def test_a_kept_result_of_another_kind_is_told_and_not_asked_again(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        desk = ItemDesk(store, "s", "i")
        await desk.once("ask", str, lambda: says("a text"))
        with pytest.raises(DataError, match="s/i/ask: the kept result cannot be read"):
            await desk.once("ask", int, never)


def test_an_item_that_has_ended_leaves_one_line_and_no_results(tmp_path: Path) -> None:
    with Store(tmp_path, lines_per_file=3) as store:
        for n in range(8):
            assert store.meet(f"{n}")
            store.keep(f"{n}", "ask", '"x"', CALL)
            store.finish(kept(f"{n}"))
            assert store.result(f"{n}", "ask") is None
        assert store.counts() == (8, 0, False)
    assert [path.name for path in outcome_files(tmp_path)] == [f"outcomes-{n:06d}.jsonl" for n in range(3)]
    with Store(tmp_path, lines_per_file=3) as store:
        assert not any(store.meet(f"{n}") for n in range(8))
        store.meet("new")
        store.finish(kept("new"))
    assert [outcome.id for outcome in read_shard(tmp_path)] == [*"01234567", "new"]


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_a_kill_on_either_side_of_the_line_leaves_one_outcome(tmp_path: Path, cut: int) -> None:
    with Store(tmp_path) as store:
        for item in ("before", "line but no table", "torn"):
            store.meet(item)
            store.keep(item, "ask", '"paid"', CALL)
        store.finish(kept("before"))
    (path,) = outcome_files(tmp_path)
    append(path, kept("line but no table"))
    with path.open("ab") as file:
        file.write(kept("torn").model_dump_json().encode()[:cut])
    with Store(tmp_path) as store:
        assert [store.meet(item) for item in ("before", "line but no table", "torn")] == [False, False, True]
        assert store.result("torn", "ask") == '"paid"' and store.result("line but no table", "ask") is None
        assert store.counts() == (3, 1, False)
        store.finish(kept("torn"))
    assert [outcome.id for outcome in read_shard(tmp_path)] == ["before", "line but no table", "torn"]


def test_a_table_that_runs_ahead_of_the_lines_is_not_believed(tmp_path: Path) -> None:
    with Store(tmp_path) as store:  # a power cut may keep the table and lose the line
        store.meet("i")
        store.finish(kept("i"))
    outcome_files(tmp_path)[0].write_bytes(b"")
    with Store(tmp_path) as store:
        assert store.meet("i")


def test_without_its_table_a_shard_still_knows_what_has_ended(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for item in "ab":
            store.meet(item)
        store.finish(kept("a"))
    (tmp_path / STATE).unlink()
    with Store(tmp_path) as store:
        assert [store.meet(item) for item in "ab"] == [False, True]


def test_bad_files_are_named_with_a_cure(tmp_path: Path) -> None:
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
    assert [outcome.id for outcome in read_shard(tmp_path)] == ["a", "c", "b"]
    assert f"{path}: line 2 cannot be read" in caplog.text


def test_an_id_that_stands_twice_is_told(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.meet("i")
        with pytest.raises(DataError, match="the id 'i' stands twice"):
            store.meet("i")


def test_a_disk_that_is_full_ends_nothing(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.meet("i")
        store.keep("i", "ask", '"paid"', CALL)
        (tmp_path / "outcomes-000000.jsonl").symlink_to("/dev/full")
        with pytest.raises(SteerError, match="cannot be written"):
            store.finish(kept("i"))
        (tmp_path / "outcomes-000000.jsonl").unlink()
    with Store(tmp_path) as store:
        assert store.meet("i") and store.result("i", "ask") == '"paid"'


def _hold(folder: Path, ready: Any, go: Any) -> None:
    with Store(folder):
        ready.set()
        go.wait(30)


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


def test_kept_values_come_back_as_records_and_others_are_told(tmp_path: Path) -> None:
    shard = tmp_path / "shard-000"
    with Store(shard) as store:
        for item in "abc":
            store.meet(item)
        store.finish(Outcome(id="a", done=Kept(value={"id": "a", "size": 2})))
        store.finish(Outcome(id="b", done=Rejected(reason="no", value={"id": "b"})))
        assert list(read_kept(tmp_path, Thing)) == [Thing(id="a", size=2)]
        store.finish(Outcome(id="c", done=Kept(value={"size": "two"})))
    with pytest.raises(DataError, match="item 'c' is no Thing"):
        list(read_kept(tmp_path, Thing))
