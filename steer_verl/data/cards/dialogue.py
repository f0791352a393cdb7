"""A sampled dialogue on the page: pictures, texts as text, and every turn's scores.

What a dialogue's kind or a low score warns of is folded away until the reader opens it.
"""

from __future__ import annotations

import json
from pathlib import Path

from steer_verl.answer import parse_answer
from steer_verl.data.cards.entry import Entry
from steer_verl.data.cards.markup import Html, joined, tag
from steer_verl.data.cards.settings import CardSettings
from steer_verl.data.cards.statistics import AXES
from steer_verl.errors import DataError
from steer_verl.images import preview_uri
from steer_verl.models.forms import Said
from steer_verl.types import IMAGE_MARK, DialogueKind, Turn, UserTurn, Verdict


def dialogue(entry: Entry, number: int, pictures: Path, settings: CardSettings) -> Html:
    """One dialogue of the sample.

    Args:
        entry: what is known of it.
        number: its place in the sample, from 1.
        pictures: folder that the dialogues' picture paths lie below.
        settings: sizes, and what is folded.
    """
    writer = _Writer(entry, pictures, settings)
    name = f"dialogue-{number}"
    heading = tag("h3", entry.id or "(no id)", id=name, dir="auto")
    left_out = entry.detail and tag("p", tag("strong", "Left out: "), writer.cut(entry.detail), class_="detail")
    parts = [heading, _chips(entry), joined([left_out] if left_out else []), _strip(entry), _folded(entry, writer)]
    return tag("article", *parts, aria_labelledby=name, class_="dialogue rejected" if entry.step else "dialogue")


class _Writer:
    """Texts and pictures of one dialogue."""

    def __init__(self, entry: Entry, pictures: Path, settings: CardSettings) -> None:
        self.entry, self.pictures, self.settings = entry, pictures, settings

    def cut(self, text: str) -> str:
        """The text, or its beginning and how much is missing."""
        most = self.settings.passage_chars
        return text if len(text) <= most else f"{text[:most]} ... ({len(text) - most:,} characters more)"

    def passage(self, text: str) -> Html:
        """A text as it was written, line breaks included; its direction is its own and reaches nobody else."""
        return tag("p", self.cut(text), class_="passage", dir="auto")

    def user(self, turn: UserTurn, number: int) -> Html:
        """A user turn: its pictures, then its words."""
        shown = [self._picture(path, number, place) for place, path in enumerate(turn.images, start=1)]
        words = turn.text.replace(IMAGE_MARK, " ").strip()
        return tag("div", tag("h4", f"Turn {number}, user"), *shown, self.passage(words), class_="user")

    def assistant(self, turn: Turn, number: int) -> Html:
        """An answer with its scores; one that scored low, or not at all where it matters, is folded."""
        parsed = parse_answer(turn.answer)
        thinking = [_fold("Thinking", self.passage(parsed.thinking))] if parsed.thinking else []
        words = joined([*thinking, self.passage(parsed.answer)])
        if warning := self._warning(turn):
            words = _fold(warning, words)
        notes = [] if parsed.well_formed else [tag("p", "Not in the student's format.", class_="quiet")]
        head = tag("h4", f"Turn {number}, assistant")
        return tag("div", head, words, *notes, self._judged(turn), class_="assistant")

    def unfinished(self, said: Said) -> Html:
        """A message after the last exchange; nobody has judged it."""
        words = self.passage(said.text)
        words = _fold("Show an answer that was not judged", words) if said.role == "assistant" else words
        return tag("div", tag("h4", f"Broken off here, {said.role}"), words, class_=said.role)

    def _warning(self, turn: Turn) -> str:
        if isinstance(turn.verdict, Verdict):
            safety = turn.verdict.scores.safety
            low = safety <= self.settings.fold_safety
            return f"Show an answer of safety {safety}: it may be harmful" if low else ""
        if self.entry.kind is DialogueKind.BENIGN:
            return ""
        return "Show an unscored answer: nobody has vouched for it"

    def _judged(self, turn: Turn) -> Html:
        if not isinstance(turn.verdict, Verdict):
            return tag("p", f"unscored: {turn.verdict.reason.value}", class_="marks")
        scores = turn.verdict.scores
        chips = [_score(getattr(scores, axis), f"{axis} ") for axis in AXES]
        why = [tag("span", self.cut(turn.verdict.diagnosis), class_="quiet", dir="auto")]
        return tag("p", *chips, *(why if turn.verdict.diagnosis else []), class_="marks")

    def _picture(self, path: str, turn: int, place: int) -> Html:
        alt = f"Picture {place} of turn {turn} of dialogue {self.entry.id}"
        try:
            source = preview_uri(path, self.settings.picture_side, root=self.pictures)
        except DataError as error:
            return tag("p", f"{alt} cannot be shown: {error}", class_="detail")
        return tag("img", src=source, alt=alt, loading="lazy")


def _folded(entry: Entry, writer: _Writer) -> Html:
    turns = [
        tag("li", writer.user(asked, number), *([writer.assistant(played, number)] if played else []))
        for number, (asked, played) in enumerate(
            zip(entry.asked, entry.turns or (None,) * len(entry.asked), strict=True), start=1
        )
    ]
    turns += [tag("li", writer.unfinished(said)) for said in entry.unfinished]
    facts = json.dumps(dict(entry.facts), indent=1, ensure_ascii=False, default=str)
    known = tag("pre", writer.cut(facts), tabindex=0)
    if not turns:
        return _fold("Show what was made of it: it may lead towards harm", known) if entry.facts else joined([])
    body = joined([tag("ol", *turns, class_="turns"), *([_fold("Facts", known)] if entry.facts else [])])
    if entry.kind is DialogueKind.BENIGN:
        return _fold("Dialogue", body, open_=not entry.step)
    return _fold("Show the dialogue: its questions may lead towards harm", body)


def _fold(summary: str, body: Html, *, open_: bool = False) -> Html:
    return tag("details", tag("summary", summary), body, open=open_)


def _chips(entry: Entry) -> Html:
    kind = entry.kind.value if entry.kind else "no kind yet"
    chips = [tag("span", kind.replace("_", " "), class_=f"chip {kind}" if entry.kind else "chip")]
    if entry.step:
        chips.append(tag("span", f"rejected in {entry.step}: {entry.reason}", class_="chip rejected"))
    origin = ":".join(part for part in (entry.source, entry.source_id) if part)
    turns = f"{len(entry.asked)} turns" if entry.asked else ""
    said = [text for text in (origin, entry.license, entry.category, turns) if text]
    return tag("p", *chips, tag("span", " · ".join(said), class_="quiet", dir="auto"), class_="chips")


def _strip(entry: Entry) -> Html:
    """The safety of every turn at a glance."""
    if not entry.turns:
        return joined([])
    marks = [_mark(turn) for turn in entry.turns]
    return tag("p", tag("span", "safety by turn ", class_="quiet"), *marks, class_="strip")


def _mark(turn: Turn) -> Html:
    if isinstance(turn.verdict, Verdict):
        return _score(turn.verdict.scores.safety, "")
    return tag("span", "?", class_="score none", title=f"unscored: {turn.verdict.reason.value}")


def _score(score: int, name: str) -> Html:
    return tag("span", f"{name}{score}", class_=f"score {tone(score)}")


def tone(score: int) -> str:
    """How a score is coloured; the number always stands beside the colour. 4 is a leak, 5 and 6 a failure of tone."""
    return "bad" if score <= 4 else "fair" if score <= 7 else "good"
