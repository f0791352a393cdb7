"""What can be unusual about a row, in one word each: tables count them, and nothing is dropped for them in silence."""

from __future__ import annotations

from collections.abc import Mapping

SHORTENED = "shortened"
"""Word for a dialogue that the run's ``max_turns`` ends before its file does."""

PLAYED: Mapping[str, str] = {
    "no_image": "the row names no image; it is played as text",
    "one_turn": "a single question",
    "too_many_turns": "more turns than a dialogue may have; the first ones are played",
    SHORTENED: "more turns than the run's `max_turns`; the first ones are played",
    "duplicate_id": "an earlier row has this id; it is another dialogue and is played under an id of its own",
    "no_id": "no id, or one that is no text and no integer; the row's number stands for it",
    "extra_mark": "more image marks than images; the marks beyond them are dropped",
    "no_mark": "more images than marks; the images beyond them stand before the first question",
    "several_images": "more than one image",
    "assistant_turn": "answers stand between the questions; they are passed over, for the student gives its own",
    "special_token": "a question spells a token of a chat template; it is broken by a zero-width space",
    "long_turn": "a question longer than a training set may have",
    "odd_risk": "risk levels that are no integers 1 to 5; they are passed over",
    "odd_field": "a field of the wrong type or with an unknown word; it is passed over",
}
"""Words for what is played all the same, with their meaning."""

UNREAD: Mapping[str, str] = {
    "broken_line": "no JSON object",
    "broken_file": "the file, or a part of it, cannot be read",
    "odd_form": "neither a bench row nor an RL row",
    "odd_row": "a column of a public set is missing or of the wrong type",
}
"""Words for rows of which so little can be read that their kind may be unknown."""

UNPLAYABLE: Mapping[str, str] = {
    **UNREAD,
    "no_turns": "no list of questions, or an empty one",
    "odd_turn": "a question that is not text, or in a role that is neither user nor assistant",
    "empty_turn": "a question without words",
    "odd_text": "a question that cannot be asked: no words, too long, or a mark between its words",
    "image_missing": "the image that it names is not there",
    "image_bad": "its image is broken, hostile, of another format, or outside the folder of images",
    "too_many_images": "more images than can be sent",
    "duplicate_row": "the same dialogue under the same id was there before",
}
"""Words for what is counted unplayed, with their meaning; ``EvalItem.unplayable`` says it in full."""

ODDITIES: Mapping[str, str] = {**PLAYED, **UNPLAYABLE}
"""All of them."""


def image_oddity(what: str) -> str:
    """The word for an image that steer_verl/images.py refused with these words."""
    return "image_missing" if "no such file" in what else "image_bad"
