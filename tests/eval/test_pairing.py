"""Dialogues of two runs are the same one by what was asked, whatever their ids and folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from steer_verl.errors import DataError
from steer_verl.eval.compare.pairing import keys_of
from steer_verl.eval.records import EvalDialogue
from steer_verl.eval.runs import EvalRun
from steer_verl.types import IMAGE_MARK

from .synthetic import make_run


def run(name: str, *dialogues: EvalDialogue) -> EvalRun:
    made = make_run(name, {"beaver": 1})
    return EvalRun(Path(name), made.about, dialogues)


def asked(
    number: int, digest: str = "", *, text: str = "", images: int = 0, seed: int = 0, gone: bool = False
) -> EvalDialogue:
    (made,) = make_run("x", {"beaver": 1}, gaps=0).dialogues
    question = text or f"Question {number}?"
    user = made.turns[0].user.model_copy(
        update={"text": IMAGE_MARK * images + question, "images": tuple(f"{number}.png" for _ in range(images))}
    )
    turns = (made.turns[0].model_copy(update={"user": user}), *made.turns[1:])
    update = {"id": f"beaver/{number:03}", "digest": digest, "run": seed, "turns": () if gone else turns}
    return made.model_copy(update=update)


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
    with pytest.raises(DataError, match=r"beaver: one \(one\) and other \(other\).*2 ids stand for other questions"):
        keys_of([one, run("other", asked(1, "x"), asked(2, "y"))])
    with pytest.raises(DataError, match=r"nor one id"):
        keys_of([one, run("other", asked(5, "x"))])


def test_what_does_not_match_is_counted() -> None:
    one = run("one", asked(1, "a"), asked(2, "b"), asked(3, "c"))
    other = run("other", asked(1, "a"), asked(2, "y"), asked(4, "z"))
    _, (note,) = keys_of([one, other])
    assert "1 of 2 ids stand for other questions or images in one (one) and other (other)" in note
    assert keys_of([one, run("other", asked(1, "b"), asked(2, "a"), asked(3, "c"))])[1] == [], "renamed, not changed"


def test_without_digests_the_first_question_counts() -> None:
    one = run("one", asked(1, "a", images=1), asked(2, "b"), asked(3, "c", gone=True))
    log = run("log", asked(8, images=1, text="question 1"), asked(9, text="Question 2?"), asked(3))
    assert pairs(one, log) == [("001", "008"), ("002", "009")]
    _, (note,) = keys_of([one, log])
    assert note == "beaver: records without our digest; dialogues are paired by their first question."
    with pytest.raises(DataError, match="1 ids stand for other"):
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
