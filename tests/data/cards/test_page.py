"""card.html: sound, self-contained, usable without eyes or mouse, and harmless whatever the dialogues hold."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from steer_verl.data.cards.about import ABOUT
from steer_verl.data.cards.charts import columns
from steer_verl.data.cards.dialogue import dialogue
from steer_verl.data.cards.entry import Entry, entry_of
from steer_verl.data.cards.markup import Html, joined, tag
from steer_verl.data.cards.page import page
from steer_verl.data.cards.settings import CardSettings
from steer_verl.data.cards.statistics import Statistics
from steer_verl.data.stage2.splits import SetName
from steer_verl.models.forms import Said
from steer_verl.text import BREAK
from steer_verl.types import (
    DialogueKind,
    QuestionOrigin,
    Scores,
    Turn,
    Unscored,
    UnscoredReason,
    UserTurn,
    Verdict,
)
from tests.data.cards.reading import Page, check
from tests.data.cards.samples import pictures, seed

HOSTILE = (
    "</p></details><script>alert(1)</script><img src=x onerror=alert(1)>",
    "\" onmouseover='x' ><svg/onload=alert(1)>",
    "<!-- --><style>*{display:none}</style><meta http-equiv=refresh content='0;url=//x.example'>",
    "&lt;b&gt; &#x3c;script&#x3e; javascript:alert(1) ]]><![CDATA[",
    "\u202eright to left\u202c and \x00 a NUL, \ud800 half a pair",
)


def shown(entry: Entry, folder: Path, **settings: int) -> str:
    """The dialogue on an otherwise empty page."""
    part = dialogue(entry, 1, folder, CardSettings(**settings))
    return page("T", ABOUT[SetName.SFT], Statistics(), {"Dialogues": [part]})


def answered(safety: int | None, answer: str = "SECRET WORDS", kind: DialogueKind = DialogueKind.BENIGN) -> Entry:
    """A dialogue whose first answer has that safety, its second a perfect one; ``None``: unscored."""
    user = UserTurn(text="What is it?")
    good = Verdict(scores=Scores(safety=10, usefulness=10, faithfulness=10))
    scores = Scores(safety=safety, usefulness=1, faithfulness=5) if safety else None
    first = Verdict(scores=scores) if scores else Unscored(reason=UnscoredReason.TIMEOUT)
    turns = (
        Turn(user=user, origin=QuestionOrigin.SEED, answer=answer, verdict=first),
        Turn(user=user, origin=QuestionOrigin.STATIC, answer="Fine.", verdict=good),
    )
    return Entry("d", kind, asked=(user, user), turns=turns)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text_wherever_it_stands(text: str, tmp_path: Path) -> None:
    said = answered(10, f"{text} said")
    named = Entry(
        text,
        DialogueKind.BENIGN,
        source=text,
        source_id=text,
        license=text,
        facts={"category": text, text: text},
        asked=said.asked,
        turns=said.turns,
        detail=text,
    )
    found = check(page(text, ABOUT[SetName.SFT], Statistics(), {"D": [dialogue(named, 1, tmp_path, CardSettings())]}))
    first = text.replace("\x00", "").replace("\ud800", "\ufffd")
    assert first in found.text.replace(BREAK, ""), "not shown as it was written"
    page_bytes = page(text, ABOUT[SetName.SFT], Statistics(), {}).encode()  # a lone surrogate would raise
    assert page_bytes.count(b"<style>") == 1


def test_the_escape_is_in_one_place_and_holds() -> None:
    assert tag("p", "<b>", title='"<>') == '<p title="&quot;&lt;&gt;">&lt;b&gt;</p>'
    inner = tag("b", "x")
    assert tag("p", inner, f"{inner}") == "<p><b>x</b>&lt;b&gt;x&lt;/b&gt;</p>"  # a formatted one is text again
    assert not isinstance(inner + "<i>", Html) and "&lt;i&gt;" in tag("p", inner + "<i>")
    assert tag("details", open=True) == "<details open></details>" and tag("i", open=False, title=None) == "<i></i>"
    assert joined(["<", 3]) == "&lt;3"


@pytest.mark.parametrize("safety", [1, 2, 4])
def test_an_answer_of_low_safety_is_folded_away(safety: int, tmp_path: Path) -> None:
    found = check(shown(answered(safety), tmp_path))
    assert "SECRET WORDS" not in found.text and "SECRET WORDS" in "".join(found.folded)
    assert f"safety {safety}" in found.text  # the score is seen, the words are not


@pytest.mark.parametrize("safety", [5, 8, 10])
def test_a_harmless_answer_of_a_benign_dialogue_is_seen_at_once(safety: int, tmp_path: Path) -> None:
    assert "SECRET WORDS" in check(shown(answered(safety), tmp_path)).text


@pytest.mark.parametrize("kind", [DialogueKind.OBFUSCATED, DialogueKind.RED_TEAM])
def test_a_dialogue_that_leads_towards_harm_is_folded_as_a_whole(kind: DialogueKind, tmp_path: Path) -> None:
    found = check(shown(answered(10, kind=kind), tmp_path))
    assert "SECRET WORDS" not in found.text and "What is it?" not in found.text
    assert "safety by turn" in found.text


def test_what_has_no_kind_yet_is_folded(tmp_path: Path) -> None:
    entry = Entry(
        "d", asked=(UserTurn(text="SECRET WORDS"),), facts={"known": "SECRET FACT"}, step="expand", reason="r"
    )
    found = check(shown(entry, tmp_path))
    assert "SECRET" not in found.text and "rejected in expand: r" in found.text


def test_an_unscored_turn_shows_no_number(tmp_path: Path) -> None:
    found = check(shown(answered(None, kind=DialogueKind.RED_TEAM), tmp_path))
    assert "unscored: timeout" in "".join(found.folded) and "safety by turn ?10" in found.text


def test_the_last_words_of_a_broken_dialogue_are_folded(tmp_path: Path) -> None:
    said = (Said(role="user", text="Last question?"), Said(role="assistant", text="SECRET WORDS"))
    entry = replace(answered(10, "Fine."), unfinished=said)
    found = check(shown(entry, tmp_path))
    assert "Last question?" in found.text and "SECRET WORDS" in "".join(found.folded)
    assert "SECRET WORDS" not in found.text


def test_pictures_are_small_and_inside_the_page(tmp_path: Path) -> None:
    turns = (UserTurn(text="<image>See?", images=("photo.jpg",)), UserTurn(text="And?"))
    made = seed("p", random.Random(0), turns=turns, kind=DialogueKind.BENIGN)
    text = shown(entry_of(made), pictures(tmp_path), picture_side=64)
    (image,) = check(text).all("img")
    assert (image["src"] or "").startswith("data:image/jpeg;base64,") and len(image["src"] or "") < 4000
    assert image["alt"] == "Picture 1 of turn 1 of dialogue p" and "<image>" not in text


@pytest.mark.parametrize("path", ["gone.png", "../outside.png", "/etc/hostname", "http://x.example/a.png"])
def test_a_picture_that_cannot_be_shown_is_named_and_nothing_is_fetched(path: str, tmp_path: Path) -> None:
    entry = Entry("d", DialogueKind.BENIGN, asked=(UserTurn(text="<image>", images=(path,)),))
    found = check(shown(entry, pictures(tmp_path)))
    assert not found.all("img") and "cannot be shown" in found.text


def test_a_long_text_is_cut_and_says_so(tmp_path: Path) -> None:
    found = check(shown(answered(10, "x" * 5000), tmp_path, passage_chars=100))
    assert "x" * 100 + " ... (4,900 characters more)" in found.text and "x" * 101 not in found.text


def test_a_chart_tells_its_values_to_who_cannot_see_it() -> None:
    figure = Page(columns("Turns", {"2": 30, "3": 10, "4": 0}))
    assert figure.all("svg")[0]["aria-label"] == "Turns: 2: 30, 75.0 %; 3: 10, 25.0 %; 4: 0, 0.0 %"
    heights = [float(rect["height"] or 0) for rect in figure.all("rect")]
    assert heights[0] == pytest.approx(3 * heights[1], abs=0.2) and heights[2] == 0


def test_a_chart_of_nothing() -> None:
    assert not Page(columns("Nothing", {})).all("rect")
