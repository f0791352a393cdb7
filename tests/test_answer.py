"""The student's format, and text that tries to pass for it."""

from __future__ import annotations

import time

import pytest

from steer_verl.answer import ParsedAnswer, parse_answer

GOOD = "<thinking>red cube</thinking><answer>It is a cube.</answer>"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "\n<thinking>\nred cube\n</thinking>\n\n<answer>\n It is a cube.\n</answer>\n",
        GOOD + "<|im_end|>",
        GOOD + "<|im_end|>\n<|endoftext|>\n",
    ],
)
def test_well_formed(text: str) -> None:
    assert parse_answer(text) == ParsedAnswer("red cube", "It is a cube.", well_formed=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It is a cube.",
        "<answer>It is a cube.</answer>",
        "<thinking>red cube</thinking>It is a cube.",
        "<answer>It is a cube.</answer><thinking>red cube</thinking>",
        GOOD + GOOD,
        GOOD + "<answer>Another.</answer>",
        "<thinking>a <thinking>b</thinking></thinking><answer>c</answer>",
        "<thinking>a <answer>b</answer></thinking><answer>c</answer>",
        "<thinking>a</thinking><answer>b <answer>c</answer></answer>",
        "<thinking>a</thinking><answer>b </thinking> c</answer>",
        "<thinking>a</thinking><answer>b",
        "<thinking>a</thinking> and so <answer>b</answer>",
        "Sure. " + GOOD,
        GOOD + " Done.",
        "<thinking>a</thinking><answer> \n </answer>",
        "<thinking>a</thinking><answer>\u200b\u3164</answer>",
        "<Thinking>a</Thinking><Answer>b</Answer>",
        "<thinking>a</thinking><answer>b </ANSWER > c</answer>",
        "<thinking>a</thinking><answer>b <answer id=2> c</answer>",
        "<thinking>a</thinking><answer>b <|im_end|> c</answer>",
        "<thinking>a<|im_start|>user</thinking><answer>b</answer>",
        "<thinking>a</thinking><answer><|image_pad|></answer>",
        "<|im_end|>" + GOOD,
    ],
)
def test_malformed_and_nothing_is_hidden(text: str) -> None:
    parsed = parse_answer(text)
    assert (parsed.well_formed, parsed.thinking, parsed.answer) == (False, "", text.strip())


def test_other_tags_in_the_answer_are_its_own_business() -> None:
    assert parse_answer("<thinking>if a < b > c</thinking><answer>Use <b>bold</b>, x <answers.</answer>").well_formed


FLOODS = [
    *("    ", "<answer", "<   ", "<|im_end|> ", "<thinking>", "<|", " \n<|end", "<", "<|a", "< / ", "<    /    "),
    *(
        "<answer>",
        "<answer ",
        "< / answer",
        "<thinking",
        "</thinking",
        "<answer\n",
        "<|im_end|>",
        "answer",
        "</answer>",
    ),
]


@pytest.mark.parametrize("piece", FLOODS)
@pytest.mark.parametrize("around", [("", ""), ("<thinking>", "</thinking><answer>b</answer>"), (GOOD, "")])
def test_hostile_text_takes_linear_time(piece: str, around: tuple[str, str]) -> None:
    def seconds(size: int) -> float:
        text = around[0] + (piece * size)[:size] + around[1]
        started = time.process_time()
        parse_answer(text)
        return time.process_time() - started

    seconds(1000)
    short, long = (min(seconds(size) for _ in range(3)) for size in (25_000, 100_000))
    assert long < 6 * short + 0.01
    assert long < 0.05
