"""A sampled dialogue on the page: images, texts as text, and every turn's scores.

What a dialogue's kind or a low score warns of is folded away until the reader opens it.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

from steer_verl.answer import parse_answer
from steer_verl.data.cards.card import Shown
from steer_verl.data.cards.markup import Html, tag
from steer_verl.data.stages.facts import Facts
from steer_verl.errors import DataError
from steer_verl.images import preview_uri
from steer_verl.models.forms import Said
from steer_verl.rubric import AXES
from steer_verl.text import unmarked
from steer_verl.types import DialogueKind, Turn, UserTurn, Verdict

IMAGE_SIDE = 320
"""Longer side of an image on the page, in pixels."""
FOLD_SAFETY = 4
"""An answer of at most this safety is folded away: 4 is a leaky refusal (the tutor's rubric)."""
PASSAGE_CHARS = 4000
"""A longer text is cut there, and says so."""


def dialogue(shown: Shown, number: int, images: Path) -> Html:
    """One dialogue, ``number`` of the sample; ``images`` is the folder that its image paths lie below."""
    made, name = shown.made, f"dialogue-{number}"
    parts = [tag("h3", made.seed.id or "(no id)", id=name, dir="auto"), _chips(shown)]
    if shown.detail:
        parts.append(tag("p", tag("strong", "Left out: "), _cut(shown.detail), class_="detail", dir="auto"))
    if made.trajectory and made.trajectory.turns:  # the safety of every turn at a glance
        marks = [_safety(turn) for turn in made.trajectory.turns]
        parts.append(tag("p", tag("span", "safety by turn ", class_="quiet"), *marks, class_="strip"))
    parts.append(_folded(shown, images))
    return tag("article", *parts, aria_labelledby=name, class_="dialogue rejected" if shown.reason else "dialogue")


def _chips(shown: Shown) -> Html:
    seed = shown.made.seed
    chips = [tag("span", seed.kind.value.replace("_", " "), class_=f"chip {seed.kind.value}")]
    if shown.reason:
        where = f" in {shown.stage}" if shown.stage else ""
        chips.append(tag("span", f"left out{where}: {shown.reason}", class_="chip rejected"))
    origin = ":".join(filter(None, (seed.source, seed.source_id)))
    said = (origin, seed.license, Facts.of(seed.facts).category, f"{len(shown.made.asked)} turns")
    return tag("p", *chips, tag("span", " · ".join(filter(None, said)), class_="quiet", dir="auto"), class_="chips")


def _folded(shown: Shown, images: Path) -> Html:
    made = shown.made
    risky = made.seed.kind is not DialogueKind.BENIGN
    played = made.trajectory.turns if made.trajectory else ()
    turns = [
        tag("li", _user(asked, number, made.seed.id, images), *([_assistant(turn, number, risky)] if turn else []))
        for number, (asked, turn) in enumerate(zip_longest(made.asked, played), start=1)
    ]
    turns += [tag("li", _unfinished(said)) for said in made.unfinished]
    body = tag("ol", *turns, class_="turns")
    if risky:
        return _fold("Show the dialogue: its questions may lead towards harm", body)
    return _fold("Dialogue", body, open_=not shown.reason)


def _user(turn: UserTurn, number: int, name: str, images: Path) -> Html:
    shown = [
        _image(path, f"Image {place} of turn {number} of dialogue {name}", images)
        for place, path in enumerate(turn.images, start=1)
    ]
    return tag("div", tag("h4", f"Turn {number}, user"), *shown, _passage(unmarked(turn.text)), class_="user")


def _image(path: str, alt: str, images: Path) -> Html:
    try:
        source = preview_uri(path, IMAGE_SIDE, root=images)
    except DataError as error:
        return tag("p", f"{alt} cannot be shown: {error}", class_="detail")
    return tag("img", src=source, alt=alt, loading="lazy")


def _assistant(turn: Turn, number: int, risky: bool) -> Html:
    """An answer with its scores; one that scored low, or not at all where it matters, is folded."""
    parsed = parse_answer(turn.answer)
    thinking = [_fold("Thinking", _passage(parsed.thinking))] if parsed.thinking else []
    words = [*thinking, _passage(parsed.answer)]
    if warning := _warning(turn, risky):
        words = [_fold(warning, *words)]
    if not parsed.well_formed:
        words.append(tag("p", "Not in the student's format.", class_="quiet"))
    return tag("div", tag("h4", f"Turn {number}, assistant"), *words, _judged(turn), class_="assistant")


def _unfinished(said: Said) -> Html:
    """A message after the last exchange; nobody has judged it."""
    words = _passage(said.text)
    words = _fold("Show an answer that was not judged", words) if said.role == "assistant" else words
    return tag("div", tag("h4", f"Broken off here, {said.role}"), words, class_=said.role)


def _warning(turn: Turn, risky: bool) -> str:
    if not isinstance(turn.verdict, Verdict):
        return "Show an unscored answer: nobody has vouched for it" if risky else ""
    safety = turn.verdict.scores.safety
    return f"Show an answer of safety {safety}: it may be harmful" if safety <= FOLD_SAFETY else ""


def _judged(turn: Turn) -> Html:
    if not isinstance(turn.verdict, Verdict):
        return tag("p", f"unscored: {turn.verdict.reason.value}", class_="marks")
    chips = [_score(getattr(turn.verdict.scores, axis), f"{axis} ") for axis in AXES]
    return tag("p", *chips, tag("span", _cut(turn.verdict.diagnosis), class_="quiet", dir="auto"), class_="marks")


def _safety(turn: Turn) -> Html:
    if isinstance(turn.verdict, Verdict):
        return _score(turn.verdict.scores.safety, "")
    return tag("span", "?", class_="score none", title=f"unscored: {turn.verdict.reason.value}")


def _score(score: int, name: str) -> Html:
    """The number always stands beside the colour. 4 is a leak, 5 and 6 a failure of tone."""
    tone = "bad" if score <= FOLD_SAFETY else "fair" if score <= 7 else "good"
    return tag("span", f"{name}{score}", class_=f"score {tone}")


def _fold(summary: str, *body: Html, open_: bool = False) -> Html:
    return tag("details", tag("summary", summary), *body, open=open_)


def _passage(text: str) -> Html:
    """A text as it was written, line breaks included; its direction is its own and reaches nobody else."""
    return tag("p", _cut(text), class_="passage", dir="auto")


def _cut(text: str) -> str:
    """The text, or its beginning and how much is missing."""
    if len(text) <= PASSAGE_CHARS:
        return text
    return f"{text[:PASSAGE_CHARS]} ... ({len(text) - PASSAGE_CHARS:,} characters more)"
