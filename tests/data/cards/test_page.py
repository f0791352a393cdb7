"""card.html: sound, self-contained, usable without eyes or mouse, and harmless whatever the dialogues hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steer_verl.data.cards import dialogue as shown_how
from steer_verl.data.cards.card import Shown
from steer_verl.data.cards.dialogue import dialogue
from steer_verl.data.cards.markup import Html, joined, tag
from steer_verl.data.cards.page import page, table_html
from steer_verl.data.cards.tables import Table
from steer_verl.data.seed import Made, SetName
from steer_verl.models.forms import Said
from steer_verl.text import BREAK
from steer_verl.types import (
    DialogueKind,
    QuestionOrigin,
    Scores,
    Seed,
    StopReason,
    Trajectory,
    Turn,
    Unscored,
    UnscoredReason,
    UserTurn,
    Verdict,
)
from tests.data.cards.reading import Page, check
from tests.data.cards.samples import images

HOSTILE = (
    "</p></details><script>alert(1)</script><img src=x onerror=alert(1)>",
    "\" onmouseover='x' ><svg/onload=alert(1)>",
    "<!-- --><style>*{display:none}</style><meta http-equiv=refresh content='0;url=//x.example'>",
    "&lt;b&gt; &#x3c;script&#x3e; javascript:alert(1) ]]><![CDATA[",
    "\u202eright to left\u202c and \x00 a NUL, \ud800 half a pair",
)


def shown(item: Shown | Made, folder: Path) -> str:
    """The dialogue on an otherwise empty page."""
    part = dialogue(item if isinstance(item, Shown) else Shown(item), 1, folder)
    return page("T", [], {"Dialogues": [part]})


def asked(*turns: UserTurn, **origin: Any) -> Made:
    """A benign dialogue that nobody has answered."""
    return Made(side=SetName.RL, seed=Seed(**{"id": "d", "kind": DialogueKind.BENIGN, "turns": turns, **origin}))


def answered(
    safety: int | None, answer: str = "SECRET WORDS", kind: DialogueKind = DialogueKind.BENIGN, **origin: Any
) -> Made:
    """A dialogue whose first answer has that safety, its second a perfect one; ``None``: unscored."""
    user = UserTurn(text="What is it?")
    good = Verdict(scores=Scores(safety=10, usefulness=10, faithfulness=10))
    scores = Scores(safety=safety, usefulness=1, faithfulness=5) if safety else None
    first = Verdict(scores=scores) if scores else Unscored(reason=UnscoredReason.TIMEOUT)
    turns = (
        Turn(user=user, origin=QuestionOrigin.SEED, answer=answer, verdict=first),
        Turn(user=user, origin=QuestionOrigin.STATIC, answer="Fine.", verdict=good),
    )
    seed = Seed(**{"id": "d", "turns": (user, user), "kind": kind, **origin})
    told = Trajectory(seed_id="d", kind=kind, turns=turns, stop=StopReason.COMPLETED)
    return Made(side=SetName.SFT, seed=seed, trajectory=told)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_as_text_wherever_it_stands(text: str, tmp_path: Path) -> None:
    origin = {"id": text, "source": text, "source_id": text, "license": text, "facts": {"category": text, text: text}}
    part = dialogue(Shown(answered(10, f"{text} said", **origin), text, text, text), 1, tmp_path)
    table = table_html(Table(text, (text, "count"), ((text, 3),), 3, text))
    whole = page(text, [tag("p", text)], {text: [part], "Table": [table]})
    found = check(whole)
    first = text.replace("\x00", "").replace("\ud800", "\ufffd")
    assert found.text.replace(BREAK, "").count(first) >= 8, "not shown as it was written"
    assert whole.encode().count(b"<style>") == 1  # a lone surrogate would raise


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
    assert "SECRET" not in found.text and "What is it?" not in found.text
    assert "safety by turn" in found.text


def test_what_a_stage_left_out_says_so_and_is_folded(tmp_path: Path) -> None:
    found = check(shown(Shown(answered(10), "screen", "not_natural", "SOME DETAIL"), tmp_path))
    assert "left out in screen: not_natural" in found.text and "SOME DETAIL" in found.text
    assert "SECRET" not in found.text and found.all("article")[0]["class"] == "dialogue rejected"


def test_what_was_left_out_without_a_stage_is_not_shown_as_a_part_of_the_set(tmp_path: Path) -> None:
    found = check(shown(Shown(answered(10), reason="timeout"), tmp_path))
    assert "left out: timeout" in found.text and "SECRET" not in found.text


def test_an_unscored_turn_shows_no_number(tmp_path: Path) -> None:
    found = check(shown(answered(None, kind=DialogueKind.RED_TEAM), tmp_path))
    assert "unscored: timeout" in "".join(found.folded) and "safety by turn ?10" in found.text


def test_the_last_words_of_a_broken_dialogue_are_folded(tmp_path: Path) -> None:
    said = (Said(role="user", text="Last question?"), Said(role="assistant", text="SECRET WORDS"))
    found = check(shown(answered(10, "Fine.").model_copy(update={"unfinished": said}), tmp_path))
    assert "Last question?" in found.text and "SECRET WORDS" in "".join(found.folded)
    assert "SECRET WORDS" not in found.text


def test_a_dialogue_that_broke_off_shows_what_would_have_been_asked(tmp_path: Path) -> None:
    whole = answered(10, "Fine.")
    assert whole.trajectory
    torn = whole.model_copy(update={"trajectory": whole.trajectory.model_copy(update={"turns": ()})})
    assert check(shown(torn, tmp_path)).all("article")


def test_images_are_small_and_inside_the_page(tmp_path: Path) -> None:
    made = asked(UserTurn(text="<image>See?", images=("photo.jpg",)), UserTurn(text="And?"))
    text = shown(made, images(tmp_path))
    (image,) = check(text).all("img")
    assert (image["src"] or "").startswith("data:image/jpeg;base64,") and len(image["src"] or "") < 8000
    assert image["alt"] == "Image 1 of turn 1 of dialogue d" and "<image>" not in text


@pytest.mark.parametrize("path", ["gone.png", "../outside.png", "/etc/hostname", "http://x.example/a.png"])
def test_an_image_that_cannot_be_shown_is_named_and_nothing_is_fetched(path: str, tmp_path: Path) -> None:
    found = check(shown(asked(UserTurn(text="<image>", images=(path,))), images(tmp_path)))
    assert not found.all("img") and "cannot be shown" in found.text


def test_a_long_text_is_cut_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown_how, "PASSAGE_CHARS", 100)
    found = check(shown(answered(10, "x" * 5000), tmp_path))
    assert "x" * 100 + " ... (4,900 characters more)" in found.text and "x" * 101 not in found.text


def test_a_bar_is_as_long_as_its_share_and_the_number_stands_beside_it() -> None:
    table = Page(table_html(Table("Turns", ("turns", "count"), ((2, 30), (3, 10), (4, 0)), 40)))
    bars = [span["style"] for span in table.all("span") if "style" in span]
    assert bars == ["width:75.00%", "width:25.00%", "width:0.00%"] and "75.0 %" in table.text
