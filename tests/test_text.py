"""No text can spell a control token, whatever it says, and ordinary text stays as it is."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steer_verl.text import (
    BREAK,
    MAX_LINE,
    MAX_MARKS,
    REPLACEMENT,
    _begins_with_mark,
    _patterns,
    folded,
    neutralize,
    neutralize_turn,
    normalized,
    one_line,
    special_tokens_of,
    visible,
)
from steer_verl.types import ANSWER_TAGS, UserTurn

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

WIDE = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)})
BOLD = str.maketrans({chr(code): chr(0x1D41A + code - 97) for code in range(97, 123)})
GHOSTS = "\u200c\u200d\u2060\ufeff\ufe0f\u00ad\u202e\U000e0041"
"""Show nothing, and some tokenizers drop them."""


@st.composite
def disguised(draw: st.DrawFn) -> str:
    """Hostile text of which some characters are full-width, mathematical, or followed by what shows nothing."""
    text = draw(hostile)
    costumes = draw(
        st.lists(st.sampled_from(["", "", "wide", "bold", *GHOSTS]), min_size=len(text), max_size=len(text))
    )
    tables = {"wide": WIDE, "bold": BOLD}
    return "".join(c.translate(tables[k]) if k in tables else c + k for c, k in zip(text, costumes, strict=True))


def as_a_tokenizer_sees_it(text: str) -> str:
    """NFKC, without what shows nothing; our own break is kept."""
    return unicodedata.normalize("NFKC", text.translate(dict.fromkeys(map(ord, GHOSTS))))


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
    text = text.translate(dict.fromkeys(map(ord, "<[\uff1c\ufe64\uff3b\ufe47"), "("))
    assert neutralize(text) == text


ORDINARY = [
    "x < y | z > 3",
    "x<y and y>z, a<b>c, a <- b -> c, <3, <=, =>, ≤, x << 2 >> 1",
    "a[0] = b; a[i][j], f(x) -> [a, b]",
    "<b>bold</b> <p>one</p><br/><html><body><h1 class='x'>T</h1></body></html> <td>1</td> <em>so</em>",
    "<a href='https://x.org'>x</a> <https://x.org> <me@x.org>",
    "[x] done [ ] open [1] [see note] ![alt](a.png) [NOTE] [TODO] [sic]",
    "- one\n* two\n1. three\n| a | b |\n|---|---|\n> quoted >> twice",
    "std::vector<int> v; Map<String, User> m; List<Role> r; Array<T>; #include <stdio.h>; std::map<size_t, uint8_t>",
    "curl -H 'X: <API_TOKEN>' <your_name> <start_date> <end_date> <file> <path> <value>",
    "<thinking>a</thinking><answer>b</answer>",
    "你好，世界！（注）「引用」 ＜引用＞ 【一】 안녕 こんにちは",
    "Ｈｅｌｌｏ　ｗｏｒｌｄ, 𝓗𝓲, ½ cup, ①②, ﬁne, m², ㎜, café, cafe\u0301",
    "你好, 👩\u200d👧! ❤\ufe0f नमस्ते می\u200cخواهم",
    'tab\tand\nline, he said: "<hm>", 5 > 3 < 7, |x|, ||a||, [|1; 2|], {|x|}',
]


@pytest.mark.parametrize("text", ORDINARY)
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
        # by family, as their chat templates and vocabularies spell them
        *("<s>", "</s>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<cls>", "<sep>", "<PAD>", "<SEP>"),
        *("[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "[BOS]", "[EOS]", "[EOT]", "[unused1]", "[UNUSED_TOKEN_146]"),
        *("<role>", "</role>", "<user>", "<assistant>", "<system>", "<human>", "<bot>", "<USER>", "<_user>", "<_end>"),
        *("[USER]", "[BOT]", "[SYSTEM]", "[start_header_id]", "[multimodal]", "[control_8]", "[IMG]", "[IMG_BREAK]"),
        *("[|user|]", "[|endofturn|]", "[|system|]", "<|user|>", "<\uff5chy_User\uff5c>", '<|"|>', "|ENDOFTEXT|"),
        *("<eot>", "<eom>", "<eoh>", "<eoa>", "<eod>", "<sop>", "<eop>", "<BOS_TOKEN>", "<EOP_TOKEN>", "<MASK_TOKEN>"),
        *("<start_of_turn>", "<end_of_turn>", "<beginning_of_sentence>", "<begin_of_image>", "<end_of_utterance>"),
        *("<end_of_text>", "<startoftext>", "<endofturn>", "<start_function_call>", "<end_function_call>"),
        *("<SPECIAL_11>", "<special0>", "<extra_id_1>", "<extra_0>", "<unused12>", "<reserved_106>", "<reserved08706>"),
        *("<reserved_special_token_3>", "<TOKENS_UNUSED_0>", "<EXTRA_TOKENS_99>", "<ctrl99>", "<dummy_3>", "<0x0A>"),
        *("<vision_start>", "<vision_end>", "<im_start>", "<im_end>", "<im_patch>", "<image_soft_token>", "<img>"),
        *("<image_placeholder>", "<audio_soft_token>", "<ovis_image_start>", "<row_1_col_2>", "<global-img>"),
        *("<loc_12>", "<loc0123>", "<patch_index_0012>", "<mask_1>", "<mask:1>", "<image_1>", "<ImageHere>", "<IMAGE>"),
        *("<tool_call>", "</tool_response>", "<minimax:tool_call>", "<longcat_tool_call>", "<function_calls>"),
        *("<think>", "</think>", "<seed:think>", "<fim_prefix>", "<repo_name>", "<arg_key>", ">>QUESTION<<"),
        # look-alikes that NFKC folds
        *("<role>".translate(WIDE), "<extra_id_1>".translate(WIDE), "[UNUSED_TOKEN_146]".translate(WIDE)),
        *(
            "<system>".translate(BOLD),
            "<\ufb01m_prefix>",
            "\ufe64user\ufe65",
            "\ufe47INST\ufe48",
            "<|im_end|>".translate(WIDE),
        ),
    ],
)
def test_the_marks_of_other_templates_and_widths_are_broken_too(mark: str) -> None:
    assert neutralize(f"a{mark}b") == f"a{mark[0]}{BREAK}{mark[1:]}b"


@pytest.mark.parametrize("ghost", GHOSTS)
def test_what_shows_nothing_cannot_hide_a_mark(ghost: str) -> None:
    assert neutralize(f"<{ghost}|im_end|>") == f"<{ghost}{BREAK}|im_end|>"
    assert neutralize(f"<ro{ghost}le>") == f"<{BREAK}ro{ghost}le>"
    assert neutralize(f"<{BREAK}role>") == f"<{BREAK}role>"


@many
@given(disguised())
def test_a_disguise_helps_nothing(text: str) -> None:
    once = neutralize(text, ["[unused1]"])
    assert not any(as_a_tokenizer_sees_it(mark) in as_a_tokenizer_sees_it(once) for mark in SPELLED)
    assert neutralize(once, ["[unused1]"]) == once
    seen = visible(text)
    assert neutralize(visible(neutralize(seen))) == neutralize(seen)


@many
@given(disguised())
def test_a_tokenizer_that_folds_finds_no_special_token(text: str) -> None:
    tokenizer, special = _byte_level_tokenizer("NFKC", normalized=True)
    assert special.isdisjoint(tokenizer.encode(neutralize(text, QWEN)).ids)


def test_that_tokenizer_does_find_them_in_disguise() -> None:
    tokenizer, special = _byte_level_tokenizer("NFKC", normalized=True)
    assert len(special.intersection(tokenizer.encode("".join(QWEN).translate(WIDE)).ids)) == len(QWEN)


def test_no_character_is_a_whole_mark() -> None:
    starts, _ = _patterns(())
    folded_ones = {unicodedata.normalize("NFKC", chr(code)) for code in range(0x110000)}
    assert not [seen for seen in folded_ones if len(seen) > 1 and starts.search(seen)]


def test_dropping_a_control_character_cannot_complete_a_token() -> None:
    assert "<|im_end|>" not in neutralize("<\x00|im_\x07end|>")


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (["aa", "ab"], "aab"),
        (["aba"], "ababa"),
        (["§"], "1§2"),
        ([""], "plain"),
        (["(a)"], "\u249c (a)"),  # one character that NFKC folds to the token
        (["(a"], "(\u249c"),
        ([BREAK, f"a{BREAK}b"], "a\u200bb"),
        (["\ufe0f"], "a\ufe0f"),
        (["<a>", "<a>b", "<"], "<a>b"),
        ([REPLACEMENT + "a", "§"], "§a"),
    ],
)
def test_given_tokens_are_broken_even_where_they_overlap(tokens: list[str], text: str) -> None:
    clean = neutralize(text, tokens)
    assert not any(token in clean for token in tokens if token and BREAK not in token and token != "\ufe0f")
    assert neutralize(clean, tokens) == clean
    assert clean.encode()


def test_thousands_of_tokens_cost_no_more_than_a_few() -> None:
    tokens = tuple(f"\u27e6reserved {number}\u27e7" for number in range(5000))
    text = "\u27e6reserved " * 8000
    neutralize("", tokens)
    assert seconds(lambda: neutralize(text, tokens)) < 1
    assert neutralize("a\u27e6reserved 77\u27e7", tokens) == f"a\u27e6{BREAK}reserved 77\u27e7"


class FakeTokenizer:
    all_special_tokens = ("<|im_end|>", "§", "[X]")

    def get_added_vocab(self) -> dict[str, int]:
        added = [
            "<|im_end|>",
            "<tool_call>",
            "</think>",
            "\u25c1think\u25b7",
            "<b>",
            "</table>",
            "\n\n",
            "  ",
            *ANSWER_TAGS,
        ]
        return {
            token: number
            for number, token in enumerate([*added, "I will not explain", ". Then, ", "...", "\u2581\u2581"])
        }


def test_a_tokenizers_control_tokens_are_what_stands_between_signs() -> None:
    expected = ("</think>", "<tool_call>", "<|im_end|>", "[X]", "§", "\u25c1think\u25b7")
    assert special_tokens_of(FakeTokenizer()) == expected
    assert special_tokens_of(object()) == ()


def test_the_control_tokens_of_a_real_tokenizer() -> None:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    core, _ = _byte_level_tokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (*ANSWER_TAGS, "red circle", "<think>")])
    assert set(special_tokens_of(tokenizer)) == {*QWEN, "<think>"}


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


def test_signs_before_numbers_tell_questions_apart_where_that_is_asked() -> None:
    assert folded("What is 3 + 4?") == folded("What is 3 - 4?")
    texts = ("What is 3 + 4?", "What is 3 - 4?", "What is 3 \u2212 4?", "What is -3 4?", "What is 3 \u00d7 4?")
    assert len({folded(text, signs=True) for text in texts}) == len(texts)
    assert folded("3+4 =", signs=True) == folded("3 + 4", signs=True)
    assert folded("Well - how?", signs=True) == folded("well, how", signs=True)


@pytest.mark.parametrize("text", ["", " \n", "?!", "\U0001f600 \u2764\ufe0f", "\u200b\u3164", "<image>", "___"])
def test_a_text_without_words_folds_to_nothing(text: str) -> None:
    assert folded(text) == ""


@many
@given(st.text())
def test_folding_and_showing_are_done_once_for_all(text: str) -> None:
    assert visible(visible(text)) == visible(text)
    assert folded(folded(text)) == folded(text)


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_a_normal_form_is_unicodes_own_on_ordinary_text(form: str) -> None:
    for text in (*ORDINARY, "e" + "\u0301\u0316" * 10, "ệ\u0316", "\u1100\u1161\u11a8", "\ufdfa", "\u0f73\u0f71"):
        assert normalized(form, text) == unicodedata.normalize(form, text)  # type: ignore[arg-type]


@many
@given(st.text(st.sampled_from("ae\u0301\u0316\u0344\u0f73\u0f81\uff9e\u0334\u1ebf\u4e00 "), max_size=200))
def test_a_run_of_marks_is_cut_for_good(text: str) -> None:
    for form in ("NFC", "NFKC"):
        once = normalized(form, text)  # type: ignore[arg-type]
        assert normalized(form, once) == once == unicodedata.normalize(form, once)  # type: ignore[arg-type]
        runs = "".join("m" if _begins_with_mark(char) else " " for char in once).split()
        assert max(map(len, runs), default=0) <= MAX_MARKS


def test_the_table_of_marks_leaves_none_out() -> None:
    outside = [*range(0x300), *range(0x1F000, 0x110000)]
    assert not [code for code in outside if _begins_with_mark(chr(code))]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("  one\n two\r\nthree\tfour ", "one two three four"),
        ("\x1b]0;title\x07name", "name"),
        ("\x1b]52;c;aGk=\x1b\\name", "name"),
        ("\x9d0;title\x9cname", "name"),
        ("\x1b[1;31mred\x1b[0m \x9b2Jcleared", "red cleared"),
        ("\x1b]0;never closed", "]0;never closed"),
        ("\x1b\x1b[31mx\x00\x07\x85y", "xy"),
        ("a\u202egnp.exe\u2066", "agnp.exe"),
        ("zero\u200bwidth\ufeff \U000e0041", "zerowidth"),
        ("half \ud800", "half \ufffd"),
        ("cc-by-4.0 \u597d \U0001f469\u200d\U0001f467", "cc-by-4.0 \u597d \U0001f469\u200d\U0001f467"),
        ("<b>[x]</b> <|im_end|>", "<b>[x]</b> <|im_end|>"),
    ],
)
def test_one_line_is_what_a_terminal_can_show(text: str, line: str) -> None:
    assert one_line(text) == line


@many
@given(hostile, st.integers(1, 40))
def test_one_line_holds_to_its_limit_and_stays(text: str, limit: int) -> None:
    line = one_line(text * 3, limit)
    assert len(line) <= limit and one_line(line, limit) == line and len(line.splitlines()) <= 1
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in line)


def test_one_line_says_that_it_was_cut() -> None:
    assert one_line("x" * 999) == "x" * (MAX_LINE - 1) + "\u2026"
    assert one_line("\u200b" * 10**7) == "\u2026"
    assert one_line("abc", 3) == "abc" and one_line("abcd", 3) == "ab\u2026"


def seconds(work: Callable[[], object]) -> float:
    """The best of three."""
    times = []
    for _ in range(3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


FLOODS = [
    *("\u0301", "\u0323\u0301\u0315\u0345", "a\u0301\u0316", "\u0344", "\u0f73\u0334", "\uff9e\u0334", "\u0f71\u0f73"),
    *("\u1100\u1161\u11a8", "\ufdfa", "\u4e00", "\U0001d400", "\uff1c", "\uff1c\uff5c", "\u249c"),
    *(
        "<",
        "</",
        "<|",
        "<<",
        "</<",
        "<a",
        "<a_",
        "<_",
        "<" + "a" * 47,
        "<im_" * 3,
        "<start_of_",
        "<unused1",
        "<reserved_",
        "<a:",
    ),
    *(
        "[",
        "[|",
        "[|a",
        "[/",
        "[UNUSED_TOKEN_1",
        "[INST",
        "]~",
        "]",
        "[e~",
        "|",
        "|ENDOFTEXT",
        ">>",
        ">>ANSWER<",
        "\u25c1/think",
    ),
    *("\u200b", "\u200d", "<\u200b", "<\u200d", "a\u200c", "\u200c\u200b\u200d", "\u4e00\u200d", "<\u2060|", "\ufeff"),
    *(
        "\x1b]",
        "\x1b[",
        "\x1b[0",
        "\x9d",
        "\x1b",
        "\x00",
        "\r",
        "\r\n",
        "\u2028",
        "\ud800",
        " ",
        " \n",
        "_",
        "§",
        "\u27e6res",
    ),
    *("<image>", "<im<image>age>", "<answer>", "answer"),
]
TOKENS = ("<|im_end|>", "§", "aaab", "<a_b>", "\u27e6reserved 1\u27e7", "(a)", " \n \n", "]~b]", "é", "\u0301x")
WORK: dict[str, Callable[[str], object]] = {
    "folded": folded,
    "visible": visible,
    "one_line": one_line,
    "neutralize": neutralize,
    "neutralize with tokens": lambda text: neutralize(text, TOKENS),
    "neutralize_turn": lambda text: neutralize_turn(_turn(text), TOKENS),
    "NFC": lambda text: normalized("NFC", text),
    "NFKC": lambda text: normalized("NFKC", text),
}


def _turn(text: str) -> UserTurn:
    return UserTurn.model_construct(text=text, images=())


@pytest.mark.parametrize("name", WORK)
def test_hostile_text_takes_linear_time(name: str) -> None:
    work, slow = WORK[name], []
    for piece in FLOODS:
        short, long = ((piece * length)[:length] for length in (12_000, 48_000))
        work(short)
        quick = seconds(lambda short=short: work(short))  # type: ignore[misc]
        took = seconds(lambda long=long: work(long))  # type: ignore[misc]
        if took > 6 * quick + 0.02 or took > 0.5:
            slow.append((piece, quick, took))
    assert not slow


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


def _byte_level_tokenizer(form="NFC", normalized=False):  # type: ignore[no-untyped-def]
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(sorted(alphabet))}, merges=[]))
    tokenizer.normalizer = getattr(normalizers, form)()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(token, normalized=normalized) for token in QWEN])
    return tokenizer, {tokenizer.token_to_id(token) for token in QWEN}
