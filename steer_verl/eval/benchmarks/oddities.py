"""What can be unusual about a row, in one word each: tables count them, and nothing is dropped for them in silence."""

from __future__ import annotations

from collections.abc import Mapping

PLAYED: Mapping[str, str] = {
    "no_picture": "the row names no picture; it is played as text",
    "one_turn": "a single question",
    "too_many_turns": "more turns than a dialogue may have; the first ones are played",
    "duplicate_id": "an earlier row has this id; it is another dialogue and is played under an id of its own",
    "no_id": "no id, or one that is no text and no integer; the row's number stands for it",
    "extra_mark": "more picture marks than pictures; the marks beyond them are dropped",
    "no_mark": "more pictures than marks; the pictures beyond them stand before the first question",
    "several_pictures": "more than one picture",
    "assistant_turn": "answers stand between the questions; they are passed over, for the student gives its own",
    "special_token": "a question spells a token of a chat template; it is broken by a zero-width space",
    "long_turn": "a question longer than a training set may have",
    "odd_risk": "risk levels that are no integers 1 to 5; they are passed over",
    "odd_field": "a field of the wrong type or with an unknown word; it is passed over",
}
"""Words for what is played all the same, with their meaning."""

UNPLAYABLE: Mapping[str, str] = {
    "broken_line": "no JSON object",
    "broken_file": "the file, or a part of it, cannot be read",
    "odd_form": "neither a bench row nor an RL row",
    "no_turns": "no list of questions, or an empty one",
    "odd_turn": "a question that is not text, or in a role that is neither user nor assistant",
    "empty_turn": "a question without words",
    "odd_row": "a column of a public set is missing or of the wrong type",
    "odd_text": "a question that cannot be asked: no words, too long, or a mark between its words",
    "picture_missing": "the picture that it names is not there",
    "picture_bad": "its picture is broken, hostile, of another format, or outside the folder of pictures",
    "too_many_pictures": "more pictures than can be sent",
    "duplicate_row": "the same dialogue under the same id was there before",
}
"""Words for what is counted unplayed, with their meaning; ``EvalItem.unplayable`` says it in full."""

ODDITIES: Mapping[str, str] = {**PLAYED, **UNPLAYABLE}
"""All of them."""


def picture_oddity(what: str) -> str:
    """The word for a picture that steer_verl/images.py refused with these words."""
    return "picture_missing" if "no such file" in what else "picture_bad"
