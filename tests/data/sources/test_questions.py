"""The text of questions: trimmed and normalised, or refused."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.data.sources.questions import MARKS, clean_answer, clean_question, plain_text
from steer_verl.data.sources.sets import Refused

PIECES = st.sampled_from(
    [*MARKS, " ", "\n", "\x00", "\x85", "\u2028", "e\u0301", "a", "word", "?", "\u200b", "<", "image>"]
)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  What is it?\r\n", "What is it?"),
        ("<image>\nWhat is it?", "What is it?"),
        (" <image> <video><image> What is it? <audio>\n<image>", "What is it?"),
        ("caf\u0065\u0301?", "caf\u00e9?"),
        ("What\x00 is\x1b it?\x7f", "What is it?"),
        ("One\u2028two\rthree\tfour", "One\ntwo\nthree\tfour"),
        ("<im\x00age>What?", "What?"),  # a mark that only shows once a control character is gone
        ("2 + 2 = ?", "2 + 2 = ?"),
        ("\u4f60\u597d", "\u4f60\u597d"),
    ],
)
def test_what_becomes_of_a_question(text: str, clean: str) -> None:
    assert clean_question(text, 100) == clean


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What is <image> in here?", "<image>"),
        ("See <video> now", "<video>"),
        ("", "no words"),
        ("<image>", "no words"),
        ("?!\u200b", "no words"),
        ("a" * 101, "101 characters"),
        ("half \ud800 of it", "surrogate"),
    ],
)
def test_what_is_refused(text: str, found: str) -> None:
    with pytest.raises(Refused, match=found) as caught:
        clean_question(text, 100)
    assert caught.value.reason == "text" and caught.value.hint


@settings(deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_clean_text_is_clean_and_stays_so(text: str) -> None:
    clean = plain_text(text)
    assert plain_text(clean) == clean == clean.strip() == unicodedata.normalize("NFC", clean)
    assert not any(clean.startswith(mark) or clean.endswith(mark) for mark in MARKS)
    assert not any(unicodedata.category(sign) == "Cc" and sign not in "\n\t" for sign in clean)


def test_an_answer_that_would_ask_for_an_image_is_no_answer() -> None:
    assert clean_answer(" A <image> there ") == "" and clean_answer(" Jam. <image>") == "Jam."


def test_hostile_lengths_take_no_time() -> None:
    start = time.perf_counter()
    for text in (" " * 10**6, "a" + " " * 10**6 + "b", "<image>" * 10**5, "a" + "<image> " * 10**5 + "b"):
        plain_text(text)
    assert time.perf_counter() - start < 5
