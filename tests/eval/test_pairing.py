"""Dialogues of two runs are the same one by what was asked, whatever their ids and folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer_verl.errors import DataError
from steer_verl.eval.compare.pairing import COPY, keys_of
from steer_verl.eval.records import EvalDialogue
from steer_verl.eval.runs import EvalRun
from steer_verl.types import IMAGE_MARK

from .synthetic import make_run


def run(name: str, *dialogues: EvalDialogue) -> EvalRun:
    made = make_run(name, {"beaver": 1})
    return EvalRun(Path(name), made.about, dialogues)


def asked(
    number: int,
    digest: str = "",
    *,
    text: str = "",
    images: int = 0,
    seed: int = 0,
    gone: bool = False,
    planned: int | None = None,
    name: str = "",
) -> EvalDialogue:
    (made,) = make_run("x", {"beaver": 1}, gaps=0).dialogues
    question = text or f"Question {number}?"
    user = made.turns[0].user.model_copy(
        update={"text": IMAGE_MARK * images + question, "images": tuple(f"{number}.png" for _ in range(images))}
    )
    turns = (made.turns[0].model_copy(update={"user": user}), *made.turns[1:])
    update = {"id": name or f"beaver/{number:03}", "digest": digest, "run": seed, "turns": () if gone else turns}
    return made.model_copy(update={**update, "planned": planned or made.planned})


def pairs(one: EvalRun, other: EvalRun) -> list[tuple[str, str]]:
    """Ids of the dialogues that are paired."""
    (first, second), _ = keys_of([one, other])
    back = {key: name for name, key in second.items()}
    assert len(back) == len(second), "no two dialogues of a run have one key"
    return [(name[-3:], back[key][-3:]) for name, key in first.items() if key in back]


def test_the_digest_is_what_counts_and_not_the_id() -> None:
    one = run("one", asked(1, "a"), asked(2, "b"), asked(3, "c"))
    other = run("other", asked(7, "b"), asked(1, "a"), asked(9, "z"))
    assert pairs(one, other) == [("001", "001"), ("002", "007")]
    assert keys_of([one, other])[1] == []


def test_equal_dialogues_are_paired_in_their_order() -> None:
    one = run("one", asked(1, "a"), asked(2, "a"), asked(3, "a"))
    other = run("other", asked(5, "a"), asked(4, "a"))
    assert pairs(one, other) == [("001", "004"), ("002", "005")]


def test_training_seeds_share_their_keys() -> None:
    (keys,), _ = keys_of([run("one", asked(1, "a", seed=1), asked(2, "a", seed=1))])
    (again,), _ = keys_of([run("one", asked(1, "a", seed=2), asked(2, "a", seed=2))])
    assert keys == again


def test_nothing_in_common_is_refused_and_says_why() -> None:
    one = run("one", asked(1, "a"), asked(2, "b"))
    with pytest.raises(DataError, match=r"beaver: one \(one\) and other \(other\).*2 ids stand for dialogues with"):
        keys_of([one, run("other", asked(1, "x"), asked(2, "y"))])
    with pytest.raises(DataError, match=r"nor one id"):
        keys_of([one, run("other", asked(5, "x"))])


def test_what_does_not_match_is_counted() -> None:
    one = run("one", asked(1, "a"), asked(2, "b"), asked(3, "c"))
    other = run("other", asked(1, "a"), asked(2, "y"), asked(4, "z"))
    _, (note,) = keys_of([one, other])
    assert "1 of 2 ids stand for dialogues with other questions" in note and "in one (one) and other (other)" in note
    assert keys_of([one, run("other", asked(1, "b"), asked(2, "a"), asked(3, "c"))])[1] == [], "renamed, not changed"


def test_a_dialogue_that_is_cut_is_another_one() -> None:
    """Its first three turns have nothing to do with what comes after them."""
    whole = run("one", asked(1, "a", planned=8), asked(2, "b", planned=3), asked(3, "c", planned=8))
    cut = run("cut", *(asked(i, digest, planned=3) for i, digest in ((1, "a"), (2, "b"), (3, "c"))))
    assert pairs(whole, cut) == [("002", "002")]
    _, (note,) = keys_of([whole, cut])
    assert "2 of 3 ids stand for dialogues with other" in note and "number of turns" in note
    with pytest.raises(DataError, match=r"number of turns\).*under the same kind, exact_match and max_turns"):
        keys_of([run("one", asked(1, "a", planned=8)), run("cut", asked(1, "a", planned=3))])


def test_a_log_without_digests_says_how_many_pairs_are_not_as_long() -> None:
    one = run("one", asked(1, "a", planned=8), asked(2, "b", planned=8))
    log = run("log", asked(1, planned=3), asked(2, planned=8))
    assert pairs(one, log) == [("001", "001"), ("002", "002")]
    _, (note,) = keys_of([one, log])
    assert note.endswith("by their first question, though 1 of them have more turns in one run than in another.")


def test_epochs_without_our_digests_are_copies() -> None:
    """A sample that is played twice is not a question that is asked of two images."""
    twice = run("twice", asked(1, "x"), asked(1, "x", name="beaver/001#2"), asked(2, "y"))
    (first, second), _ = keys_of([twice, run("once", asked(1), asked(2))])
    assert first["beaver/001#2"].partition(COPY)[0] == first["beaver/001"] == second["beaver/001"]


def test_without_digests_the_first_question_counts() -> None:
    one = run("one", asked(1, "a", images=1), asked(2, "b"), asked(3, "c", gone=True))
    log = run("log", asked(8, images=1, text="question 1"), asked(9, text="Question 2?"), asked(3))
    assert pairs(one, log) == [("001", "008"), ("002", "009")]
    _, (note,) = keys_of([one, log])
    assert note == "beaver: records without our digest; dialogues are paired by their first question."
    with pytest.raises(DataError, match="1 ids stand for dialogues with other"):
        keys_of([one, run("log", asked(2, text="What else?"))])


def test_a_log_with_digests_and_ids_of_its_own_is_paired_by_the_first_question() -> None:
    log = run("log", asked(8, "z", text="Question 1?"), asked(9, "y"))
    assert pairs(run("one", asked(1, "a"), asked(2, "b")), log) == [("001", "008")]


def test_a_question_asked_of_several_images_is_told_apart_by_id() -> None:
    one = run("one", asked(1, text="Same?"), asked(2, text="Same?"), asked(3))
    log = run("log", asked(2, text="Same?"), asked(3))
    assert pairs(one, log) == [("002", "002"), ("003", "003")]


def test_one_run_needs_nothing() -> None:
    assert keys_of([run("one", asked(1), asked(2))])[1] == []


def test_what_was_not_played_needs_no_digest() -> None:
    log = run("log", asked(1, gone=True), asked(2, "b", text="Same?"), asked(3, "c", text="Same?"))
    one = run("one", asked(8, "c", text="Same?"), asked(7, "b", text="Same?"), asked(1, "a"))
    assert pairs(one, log) == [("007", "002"), ("008", "003")]
    assert keys_of([one, log])[1] == []
