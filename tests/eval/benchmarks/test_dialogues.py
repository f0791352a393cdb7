"""Any file of dialogues becomes items, each row exactly once, and what is odd about it is told."""

from __future__ import annotations

import json
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.data.rows.parquet import write_parquet
from steer_verl.data.rows.played import BenchRow
from steer_verl.data.rows.schema import RlRow
from steer_verl.errors import DataError
from steer_verl.eval.benchmarks.dialogues import draft_of
from steer_verl.eval.benchmarks.draft import Draft
from steer_verl.eval.benchmarks.items import items_of
from steer_verl.eval.benchmarks.oddities import ODDITIES, UNPLAYABLE
from steer_verl.eval.config import BenchmarkSettings
from steer_verl.eval.records import EvalItem
from steer_verl.text import neutralize_turn, visible
from steer_verl.types import DialogueKind, UserTurn
from tests.data.samples import picture, row, write_rows
from tests.data.test_verl_rows import TYPES
from tests.eval.benchmarks.samples import LINES, foreign_file, items


def test_every_row_of_a_foreign_file_is_an_item_and_its_oddity_is_told(tmp_path: Path) -> None:
    found = items(foreign_file(tmp_path / "bench"))
    assert len(found) == len(LINES) + 1
    for item, (what, _, oddities, played) in zip(found, LINES, strict=False):
        assert (set(item.oddities), not item.unplayable) == (oddities, played), what
    torn = found[-1]
    assert (
        torn.oddities == ("broken_line",) and "torn off" in torn.unplayable and torn.seed.turns == (UserTurn(text=""),)
    )
    assert len({item.id for item in found}) == len(found)
    assert set().union(*(item.oddities for item in found)) <= set(ODDITIES)
    assert all(bool(item.unplayable) == bool(set(item.oddities) & set(UNPLAYABLE)) for item in found)


def test_what_cannot_be_played_says_why_and_where_and_carries_no_picture(tmp_path: Path) -> None:
    path = foreign_file(tmp_path / "bench")
    refused = [item for item in items(path) if item.unplayable]
    assert all(item.unplayable.startswith(f"{path}: row ") and "; " in item.unplayable for item in refused)
    assert not any(turn.images for item in refused for turn in item.seed.turns)
    assert not any("\n" in item.unplayable for item in refused)


def test_what_is_played_has_images_that_open_below_the_root(tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    by_id = {item.seed.id: item for item in items(foreign_file(folder))}
    assert by_id["good"].seed.turns == (
        UserTurn(text="<image>What is it?", images=(str(folder / "a.png"),)),
        UserTurn(text="And below?"),
    )
    assert by_id["two"].seed.turns[0] == UserTurn(
        text="<image><image>Which?", images=(str(folder / "a.png"), str(folder / "b.png"))
    )
    assert by_id["marks"].seed.turns[0].text == "<image>What?" and by_id["marks"].seed.turns[1].text == "Why?"
    assert "<|im_end|>" not in by_id["token"].seed.turns[0].text
    assert len(by_id["long"].seed.turns) == 10 and len(by_id["missing"].seed.turns) == 2
    numbered = ["row-5", "row-6", "row-9", "row-10", f"row-{len(LINES) + 1}"]
    assert [name for name in by_id if name.startswith("row-")] == numbered
    assert by_id["good#3"].seed.turns[0].text == "<image>Who made it?", "another dialogue under a known id is played"


def test_it_is_the_same_again(tmp_path: Path) -> None:
    path = foreign_file(tmp_path / "bench")
    assert items(path) == items(path)
    assert [EvalItem.model_validate_json(item.model_dump_json()) for item in items(path)] == items(path)


def test_our_own_bench_rows_say_what_they_are(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    row = {
        "question_id": "s-1",
        "image": "a.png",
        "messages_fixed": [{"role": "user", "content": "What?"}, {"role": "user", "content": "Why?"}],
        "category": "boxes",
        "risk_trajectory": [1, 4],
        "kind": "obfuscated",
        "source": "vlsbench",
        "source_id": "7",
        "license": "Apache-2.0",
    }
    (item,) = items(write_rows(tmp_path / "b.jsonl", [row]), kind="benign")
    assert item.seed.kind is DialogueKind.OBFUSCATED, "the row's word counts, not the settings'"
    assert (item.seed.source, item.seed.source_id, item.seed.license) == ("vlsbench", "7", "Apache-2.0")
    assert (item.id, item.category, item.seed.facts) == ("bench/s-1", "boxes", {"risk_trajectory": [1, 4]})
    assert not item.oddities and not item.reference


@pytest.mark.parametrize(
    ("setting", "kind"),
    [({}, "red_team"), ({"kind": "benign"}, "benign"), ({"kind": "benign", "only": "benign"}, "benign")],
)
def test_the_kind_of_rows_that_do_not_say(tmp_path: Path, setting: dict[str, Any], kind: str) -> None:
    (item,) = items(write_rows(tmp_path / "b.jsonl", [{"question_id": 1, "messages_fixed": ["a?"]}]), **setting)
    assert item.seed.kind.value == kind


def test_rows_that_do_not_say_their_kind_are_not_of_the_one_that_is_asked_for(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "b.jsonl", [{"question_id": 1, "messages_fixed": ["a?"]}])
    with pytest.raises(DataError, match="set `kind` for rows that do not say theirs"):
        items(path, only="benign")
    assert len(items(path, only="red_team")) == 1, "without a kind it is attacked"


@pytest.mark.parametrize("only", ["benign", "red_team"])
def test_a_row_that_cannot_be_read_is_of_no_wanted_kind_and_told(
    tmp_path: Path, only: str, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = ["benign", "red_team", "benign", "red_team", "benign"]
    rows: list[Any] = [{"question_id": n, "messages_fixed": ["a?"], "kind": kind} for n, kind in enumerate(kinds)]
    rows[1:1] = ["{", {"id": 8, "prompt": "x"}, {"question_id": 9, "messages_fixed": [], "kind": only}]
    path = write_rows(tmp_path / "b.jsonl", rows)
    found = items(path, only=only)
    assert len(found) == kinds.count(only) + 1 and sum(bool(item.unplayable) for item in found) == 1
    assert f"rows that cannot be read and may be of any kind: 2, not counted as {only}; " in caplog.text
    assert f"the first: {path}: row 2: " in caplog.text
    assert len(items(path, only=only, kind=only)) == len(found) + 2, "the settings say what rows are that do not"
    assert len(items(path)) == len(rows), "where no kind is left out, none of them is"


def test_only_one_kind_and_a_limit(tmp_path: Path) -> None:
    kinds = ["benign", "red_team", "benign", "benign"]
    rows = [{"question_id": n, "messages_fixed": ["a?"], "kind": kind} for n, kind in enumerate(kinds)]
    path = write_rows(tmp_path / "b.jsonl", rows)
    assert [item.seed.id for item in items(path, only="benign", limit=2)] == ["0", "2"]
    with pytest.raises(DataError, match="no row to play"):
        items(path, only="obfuscated")


def test_rl_rows_keep_their_images_in_their_turns(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    value = row("x", images=["a.png", "b.png"])
    value["question"][0]["content"] = "<image>What?"
    value["metadata"]["rest_messages"][1]["content"] = "And <image> here?"
    (item,) = items(write_rows(tmp_path / "r.jsonl", [value]))
    assert [turn.images for turn in item.seed.turns] == [(str(tmp_path / "a.png"),), (), (str(tmp_path / "b.png"),)]
    assert item.seed.kind is DialogueKind.BENIGN and item.oddities == ("several_images",)


def test_rl_rows_that_training_refuses_are_played_as_far_as_they_go(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    unmarked = row("unmarked")
    unmarked["question"][0]["content"] = "What?"
    rows = [{**row("odd"), "extra": 1}, unmarked, row("single", turns=1), {**row("label"), "label": "a free word"}]
    odd, unmarked_item, single, label = items(write_rows(tmp_path / "r.jsonl", rows))
    assert not any(item.unplayable for item in (odd, unmarked_item, single, label))
    assert unmarked_item.oddities == ("no_mark",) and unmarked_item.seed.turns[0].text == "<image>What?"
    assert single.oddities == ("one_turn",) and label.seed.facts == {"label": "a free word"}


def test_a_question_of_control_characters_alone_and_a_gap_among_the_images_are_not_played(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    silent = {"question_id": 1, "messages_fixed": ["What?", "\x08\x1b"]}
    gap = {**row("gap", images=["", "a.png"]), "extra": "which its reader refuses"}
    gap["question"][0]["content"] = "<image> or <image>?"
    empty, shifted = items(write_rows(tmp_path / "b.jsonl", [silent, gap]))
    assert "empty_turn" in empty.oddities and "no words" in empty.unplayable
    assert "image_bad" in shifted.oddities, "the second image is not shown where the first one belongs"


def test_a_reference_where_it_is_asked_for(tmp_path: Path) -> None:
    rows = [
        {"question_id": 1, "messages_fixed": ["How many?"], "answer": 12.5},
        row("x", images=[], facts={"answer": "(B) quartz"}),
    ]
    path = write_rows(tmp_path / "b.jsonl", rows)
    assert [item.reference for item in items(path)] == ["", ""]
    assert [item.reference for item in items(path, exact_match=True)] == ["12.5", "(B) quartz"]


def test_an_absolute_path_may_go_by_a_link_to_the_root_and_no_further(tmp_path: Path) -> None:
    picture(tmp_path / "real/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    paths = [tmp_path / "real/a.png", tmp_path / "link/a.png", tmp_path / "elsewhere.png", "/etc/hostname"]
    rows = [{"question_id": n, "image": str(path), "messages_fixed": ["a?"]} for n, path in enumerate(paths)]
    write_rows(tmp_path / "real/b.jsonl", rows)
    found = items(tmp_path / "link/b.jsonl")
    assert [bool(item.unplayable) for item in found] == [False, False, True, True]
    assert found[0].seed.turns[0].images == found[1].seed.turns[0].images == (str(tmp_path / "real/a.png"),)


def test_a_reason_is_one_short_line_whatever_it_quotes(tmp_path: Path) -> None:
    rows = [{"messages_fixed": ["a?"], "image": "x\ny" * 3000}, {"messages_fixed": ["a?"], "image": ["a.png"] * 21}]
    name, many = items(write_rows(tmp_path / "b.jsonl", rows))
    assert "\n" not in name.unplayable and len(name.unplayable) < 700
    assert many.oddities[0] == "too_many_images"


def test_a_json_list_and_a_parquet_file(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    listed = tmp_path / "b.json"
    listed.write_text(json.dumps([{"question_id": 1, "image": "a.png", "messages_fixed": ["What?", "Why?"]}, 3]))
    assert [bool(item.unplayable) for item in items(listed)] == [False, True]
    seeds = [RlRow.read(row(name, images=[str(tmp_path / "a.png")])).seed() for name in ("x", "y")]
    write_parquet(seeds, tmp_path / "r.parquet")
    assert [item.seed for item in items(tmp_path / "r.parquet")] == seeds
    elsewhere = tmp_path / "else/r.parquet"
    write_parquet(seeds, elsewhere)
    assert {item.oddities for item in items(elsewhere)} == {("image_bad",)}, "a path may not leave the root"
    assert not any(item.unplayable for item in items(elsewhere, images=tmp_path))


def test_a_parquet_file_of_another_make(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"extra_info": [{"seed": "{}"}, {"seed": "["}, {"seed": None}, None]}), path)
    assert [item.oddities for item in items(path)] == [("odd_form",)] * 4
    pq.write_table(pa.table({"extra_info": ["a", "b"]}), path)
    assert [item.oddities for item in items(path)] == [("odd_form",)] * 2
    pq.write_table(pa.table({"other": [1]}), path)
    with pytest.raises(DataError, match="no column extra_info"):
        items(path)


@pytest.mark.parametrize("column", ["extra_info", "prompt", "images"])
def test_columns_of_any_type_are_items_that_are_not_played(tmp_path: Path, column: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for kind, value in TYPES:
        columns = {"extra_info": pa.array([{"seed": "{}"}, None]), column: pa.array([value, None], kind)}
        pq.write_table(pa.table(columns), tmp_path / "r.parquet")
        found = items(tmp_path / "r.parquet")
        assert found and all(item.unplayable for item in found), (column, kind)


def test_a_file_that_never_ends_is_an_error(tmp_path: Path) -> None:
    for name in ("b.jsonl", "b.json", "b.parquet"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="regular file"):
            items(tmp_path / name)


def test_a_file_that_is_not_there_or_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        items(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="benchmark bench: no row to play"):
        items(tmp_path / "empty.jsonl")


def test_the_laboratory(tmp_path: Path) -> None:
    from steer_verl.mini import dialogues as mini
    from steer_verl.mini.data import Sizes, build

    sizes = Sizes(
        pretrain=1,
        sft=1,
        rl_train=4,
        rl_validation=1,
        rl_test=12,
        long_attacked=1,
        long_benign=1,
        rl_train_risky=1,
        rl_test_risky=1,
    )
    build(tmp_path, sizes=sizes)
    found = items(tmp_path / "rl_test.jsonl")
    assert len(found) == 12 and not any(item.unplayable or item.oddities for item in found)
    assert all("restricted" in item.seed.facts and item.seed.turns[0].images for item in found)
    assert not any(item.unplayable for item in items(tmp_path / "rl_train.parquet"))
    assert mini.KINDS.keys() >= {item.seed.kind for item in found}


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["<image>", "user", "assistant", "a.png", "benign", "../x", "\0", "a" * 300, "\u202e", "<|im_end|>"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["role", "content", "a", "bytes"]), inner, max_size=3)
    ),
    max_leaves=8,
)
MESSAGES = st.lists(ODD | st.fixed_dictionaries({"role": st.just("user"), "content": ODD}), max_size=12)
KEYS = ("question_id", "image", "images", "category", "kind", "label", "risk_trajectory", "source", "facts", "answer")
BENCH = st.fixed_dictionaries({"messages_fixed": MESSAGES | ODD}, optional=dict.fromkeys(KEYS, ODD))
RL = st.fixed_dictionaries(
    {
        "question": MESSAGES | ODD,
        "metadata": st.fixed_dictionaries({}, optional={**dict.fromkeys(KEYS, ODD), "rest_messages": MESSAGES | ODD}),
    },
    optional=dict.fromkeys(KEYS, ODD),
)
ANY = BENCH | RL | st.dictionaries(st.text(max_size=10), ODD, max_size=4)


@given(st.lists(ANY, min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_any_rows_are_items_each_exactly_once(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(value) + "\n" for value in rows))
        picture(path.with_name("a.png"))
        found = items(path, exact_match=True)
    assert len(found) == len({item.id for item in found}) == len(rows)
    for item in found:
        assert EvalItem.model_validate_json(item.model_dump_json()) == item
        assert set(item.oddities) <= set(ODDITIES) and item.id.isprintable()
        assert bool(item.unplayable) == bool(set(item.oddities) & set(UNPLAYABLE))
        assert item.unplayable or all(turn.text.replace("<image>", "").strip() for turn in item.seed.turns)


def turns_of(draft: Draft) -> tuple[UserTurn, ...]:
    return draft.seed(DialogueKind.BENIGN).turns


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"]), min_size=1, max_size=30).filter(
    lambda text: visible(text).strip() and not any(mark in text for mark in ("<image>", "<video>", "<audio>"))
)


@settings(deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=10), st.sampled_from([None, "a.png"]), st.booleans())
def test_bench_rows_that_the_strict_reader_accepts_mean_the_same_here(
    texts: list[str], image: str | None, marked: bool
) -> None:
    messages: list[Any] = [{"role": "user", "content": text} for text in texts]
    messages[0] = "<image>" * bool(image and marked) + texts[0]
    value = {"question_id": 5, "image": image, "messages_fixed": messages, "category": "c", "kind": "obfuscated"}
    row, draft = BenchRow.read(value), draft_of(value)
    assert turns_of(draft) == tuple(map(neutralize_turn, row.seed().turns)) and not draft.unplayable
    assert (draft.id, draft.category, draft.kind) == (row.question_id, row.category, row.kind)


@settings(deadline=None)
@given(st.lists(st.tuples(WORDS, st.integers(0, 2)), min_size=2, max_size=10), st.sampled_from(["benign", "x", None]))
def test_rl_rows_that_training_accepts_mean_the_same_here(turns: list[tuple[str, int]], label: str | None) -> None:
    messages = [{"role": "user", "content": f"{'<image>' * marks}{text}"} for text, marks in turns]
    images = [f"{number}.png" for number in range(sum(marks for _, marks in turns))]
    metadata = {"question_id": "q", "rest_messages": messages[1:], "facts": {"a": 1}, "license": "MIT"}
    value = {"question": messages[:1], "images": images, "label": label, "metadata": metadata}
    seed, draft = RlRow.read(value).seed(), draft_of(value)
    assert turns_of(draft) == tuple(map(neutralize_turn, seed.turns)) and not draft.unplayable
    assert (draft.id, draft.kind or "red_team", draft.facts) == (seed.id, seed.kind.value, seed.facts)


@settings(deadline=None)
@given(
    st.lists(st.text(st.sampled_from("ab<image> "), max_size=20).map(lambda t: t + "<image>x"), min_size=1),
    st.integers(0, 12),
)
def test_marks_and_images_always_agree(texts: list[str], count: int) -> None:
    images = [f"{number}.png" for number in range(count)]
    turns = turns_of(draft_of({"question": texts[:1], "images": images, "metadata": {"rest_messages": texts[1:10]}}))
    assert [image for turn in turns for image in turn.images] == images
    assert sum(turn.text.count("<image>") for turn in turns) == count


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    turns = ["x" * 5000 + str(number) for number in range(5)]
    path = tmp_path / "big.jsonl"
    with path.open("w") as stream:
        for number in range(250):
            stream.write(json.dumps({"question_id": number, "messages_fixed": turns}) + "\n")
    tracemalloc.start()
    assert sum(1 for _ in items_of({"b": BenchmarkSettings(file=path)}, tmp_path)) == 250
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_500_000 < path.stat().st_size / 4
