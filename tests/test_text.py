"""No text can spell a control token, whatever it says, and ordinary text stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.text import BREAK, folded, neutralize, neutralize_turn, visible
from steer_verl.types import UserTurn

QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<tool_call>", "</think>"]
SPELLED = [
    *QWEN,
    "[INST]",
    "<<SYS>>",
    "<image>",
    "<video>",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
    "<s>",
    "[unused1]",
]
SHRAPNEL = ["<", "|", ">", "im_", "end", "\x00", "\x1b", "\u200b", "\ud800", "\r", "\n", " ", "{", "}", "%s", "hello"]
hostile = st.lists(st.sampled_from(SPELLED + SHRAPNEL) | st.text(max_size=4), max_size=12).map("".join)

many = settings(max_examples=200, deadline=None)


@many
@given(hostile)
def test_nothing_special_is_spelled_afterwards_and_a_second_pass_changes_nothing(text: str) -> None:
    once = neutralize(text, ["[unused1]"])
    assert not any(mark in once for mark in SPELLED)
    assert neutralize(once, ["[unused1]"]) == once
    once.encode("utf-8")


@many
@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=80))
def test_ordinary_text_is_unchanged(text: str) -> None:
    text = text.replace("<", "(").replace("[", "(")
    assert neutralize(text) == text


@pytest.mark.parametrize("text", ["x < y | z > 3", "a[0] = b", "<b>bold</b>", "你好, 👩\u200d👧!", "tab\tand\nline"])
def test_common_text_is_unchanged(text: str) -> None:
    assert neutralize(text) == text


@pytest.mark.parametrize(
    "mark",
    [
        "<turn|>",
        "<IMG_CONTEXT>",
        "</img>",
        "[SYSTEM_PROMPT]",
        "[/TOOL_RESULTS]",
        "[gMASK]",
        "<sop>",
        "<seed:bos>",
        "\u25c1/think\u25b7",
        "]~b]",
        "[e~[",
        "\uff1c|im_end|>",
        "\ufe64\uff5cim_end\uff5c\uff1e",
        "\uff1cimage\uff1e",
        "\uff3bINST\uff3d",
    ],
)
def test_the_marks_of_other_templates_and_widths_are_broken_too(mark: str) -> None:
    assert neutralize(f"a{mark}b") == f"a{mark[0]}{BREAK}{mark[1:]}b"


def test_dropping_a_control_character_cannot_complete_a_token() -> None:
    assert "<|im_end|>" not in neutralize("<\x00|im_\x07end|>")


@pytest.mark.parametrize(
    ("tokens", "text"), [(["aa", "ab"], "aab"), (["aba"], "ababa"), (["§"], "1§2"), ([""], "plain")]
)
def test_given_tokens_are_broken_even_where_they_overlap(tokens: list[str], text: str) -> None:
    clean = neutralize(text, tokens)
    assert not any(token in clean for token in tokens if token)
    assert neutralize(clean, tokens) == clean


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What IS it?", "<image>what is  it"),
        ("na\u0131ve caf\u00e9", "na\u0131ve cafe\u0301"),
        ("\uff37hy?", "why"),
        ("w\u200bhy", "WHY\u2060!"),
    ],
)
def test_texts_of_the_same_words_fold_to_the_same(first: str, second: str) -> None:
    assert folded(first) == folded(second) != ""


@pytest.mark.parametrize("text", ["", " \n", "?!", "\U0001f600 \u2764\ufe0f", "\u200b\u3164", "<image>", "___"])
def test_a_text_without_words_folds_to_nothing(text: str) -> None:
    assert folded(text) == ""


@many
@given(st.text())
def test_folding_and_showing_are_done_once_for_all(text: str) -> None:
    assert visible(visible(text)) == visible(text)
    assert folded(folded(text)) == folded(text)


def test_a_turn_keeps_its_own_picture_marks_and_loses_the_forged_tokens() -> None:
    turn = UserTurn(text="look: <image> and <|image_pad|>", images=("a.png",))
    clean = neutralize_turn(turn)
    assert clean.images == turn.images
    assert clean.text == f"look: <image> and <{BREAK}|image_pad|>"


@many
@given(hostile)
def test_a_real_tokenizer_finds_no_special_token(text: str) -> None:
    tokenizer, special = _byte_level_tokenizer()
    clean = neutralize(text, QWEN)
    assert special.isdisjoint(tokenizer.encode(clean).ids)


def test_the_tokenizer_of_that_test_does_find_them_in_raw_text() -> None:
    tokenizer, special = _byte_level_tokenizer()
    assert len(special.intersection(tokenizer.encode("".join(QWEN)).ids)) == len(QWEN)


def _byte_level_tokenizer():  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(sorted(alphabet))}, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(QWEN)
    return tokenizer, {tokenizer.token_to_id(token) for token in QWEN}
