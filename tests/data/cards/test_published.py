"""A set's files read back for its card, as assembly writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.cards.card import write_card
from steer_verl.data.cards.published import set_account, set_entries, set_left_out
from steer_verl.data.likeness import Told
from steer_verl.data.stage2.assemble import assemble
from steer_verl.data.stage2.bootstrap import Bootstrapped
from steer_verl.data.stage2.settings import SetSettings
from steer_verl.data.stage2.splits import SetName
from steer_verl.errors import DataError
from steer_verl.types import DialogueKind, Seed
from steer_verl.work.step import Rejected
from tests.data.cards.reading import check
from tests.data.samples import picture
from tests.data.stage2.scripted import played, seed


class Never:
    """Nothing is like anything."""

    def first_like(self, row: Told) -> str | None:
        return None

    def add(self, row: Told) -> None:
        pass


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A small build: 3 dialogues, one of them over the target, 3 RL seeds and 2 of the benchmark."""
    picture(tmp_path / "pictures" / "aa" / "0.png")
    rows: dict[str, list[Any]] = {
        "sft": [made(f"a{n}") for n in range(3)],
        "rl": [one(f"b{n}") for n in range(3)],
        "bench": [one(f"c{n}") for n in range(2)],
    }
    assemble(tmp_path / "sets", **rows, pictures=tmp_path / "pictures", index=Never, settings=SetSettings(sft=2))
    return tmp_path


def one(name: str) -> Seed:
    return seed(f"s:{name}", kind=DialogueKind.OBFUSCATED, image="aa/0.png", facts={"category": "tools"})


def made(name: str) -> Bootstrapped:
    return played(one(name))


def test_a_dialogue_comes_back_as_it_was_played(build: Path) -> None:
    found = {entry.id: entry for entry in set_entries(build / "sets", SetName.SFT)}
    assert len(found) == 2
    for id, entry in found.items():
        was = made(id.removeprefix("s:"))
        assert (entry.license, entry.source, entry.source_id) == (was.seed.license, was.seed.source, was.seed.source_id)
        assert (entry.kind, entry.category) == (was.seed.kind, "tools")
        for turn, before in zip(entry.turns, was.trajectory.turns, strict=True):
            assert (turn.user, turn.answer, turn.origin) == (before.user, before.answer, before.origin)
            assert turn.verdict == before.verdict
        assert entry.asked == tuple(turn.user for turn in was.trajectory.turns)


@pytest.mark.parametrize(("name", "letter", "count"), [(SetName.RL, "b", 3), (SetName.BENCH, "c", 2)])
def test_seeds_come_back_with_pictures_as_the_build_names_them(
    build: Path, name: SetName, letter: str, count: int
) -> None:
    found = {entry.id: entry for entry in set_entries(build / "sets", name)}
    assert set(found) == {f"s:{letter}{n}" for n in range(count)}
    for entry in found.values():
        was = one(entry.id.removeprefix("s:"))
        assert [turn.text for turn in entry.asked] == [turn.text for turn in was.turns]
        assert entry.asked[0].images == ("aa/0.png",) and not entry.turns
        assert (entry.kind, entry.license, entry.category) == (was.kind, was.license, "tools")


def test_assemblys_counts_and_what_it_left_out(build: Path) -> None:
    counts = set_account(build / "sets", SetName.SFT)
    assert counts == {"assemble": {"in": 3, "kept": 2, "rejected": {"over_target": 1}}}
    ((step, outcome),) = set_left_out(build / "sets", SetName.SFT)
    assert step == "assemble" and isinstance(outcome.done, Rejected) and outcome.done.reason == "over_target"
    assert not list(set_left_out(build / "sets", SetName.RL))


def test_the_card_of_a_written_set(build: Path) -> None:
    sets = build / "sets"
    for name in SetName:
        rows, left_out = set_entries(sets, name), set_left_out(sets, name)
        write_card(
            build / name.value,
            name.value,
            rows,
            set_account(sets, name),
            build / "pictures",
            name=name,
            rejected=left_out,
        )
        found = check((build / name.value / "card.html").read_text())
        assert found.all("img") and "cannot be shown" not in "".join([found.text, *found.folded])
        assert ("rejected in assemble: over_target" in found.text) == (name is SetName.SFT)


@pytest.mark.parametrize(
    "line",
    [
        {"id": "x"},
        {"id": "x", "messages": [], "images": [], "scores": [None], "origins": []},
        {"id": "x", "messages": [{"role": "user", "content": "<image>"}], "images": []},
    ],
)
def test_a_row_of_another_form_is_named(build: Path, line: dict[str, Any]) -> None:
    path = build / "sets" / "sft.jsonl"
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    with pytest.raises(DataError, match=r"sft\.jsonl: row 3: not in the set's form"):
        list(set_entries(build / "sets", SetName.SFT))


def test_no_set_is_an_empty_one_but_no_counts_are_an_error(tmp_path: Path) -> None:
    assert not list(set_entries(tmp_path, SetName.RL)) and not list(set_left_out(tmp_path, SetName.RL))
    with pytest.raises(DataError, match="no counts of rl"):
        set_account(tmp_path, SetName.RL)
