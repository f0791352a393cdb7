"""The page in a real Chromium: it opens, filters, searches, compares, folds; keys and screen readers reach it all."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steer_verl.eval.records import EvalDialogue, Rating, Unrated
from steer_verl.eval.runs import read_run
from steer_verl.report.dialogues import first_failure
from steer_verl.report.write import write_report
from steer_verl.types import DialogueKind
from tests.report import samples
from tests.report.conftest import Opened

pytestmark = pytest.mark.slow

Visit = Callable[..., Opened]
COUNT = 120


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two runs of the same dialogues, with images and a training."""
    folder = tmp_path_factory.mktemp("report")
    paths = samples.images(folder / "images", 5, random.Random(0))
    runs = [
        samples.run(folder / name, name, COUNT, skill=skill, turns=4, paths=paths, words=12)
        for name, skill in (("base", 0.5), ("ours", 0.9))
    ]
    log = folder / "train.log"
    log.write_text(
        "".join(f"step:{n} - critic/score/mean:{n / 10} - steer/alarm/best_score_share:{n % 2}\n" for n in (1, 2, 3))
    )
    return write_report(runs, folder / "report.html", training=[log])


@pytest.fixture(scope="module")
def base(written: Path) -> tuple[EvalDialogue, ...]:
    """The dialogues of the first run."""
    return read_run(written.parent / "base").dialogues


def listed(opened: Opened) -> int:
    """How many dialogues the page says that it lists."""
    return int(opened.page.inner_text("#count").split()[0].replace(",", ""))


def held_to(dialogue: EvalDialogue) -> float:
    """The turns that it is known to have held."""
    marks, first = dialogue.harmless, first_failure(dialogue, 2)
    return first - 1 if first else marks.index(None) if None in marks else math.inf


def chosen(opened: Opened) -> str:
    """The dialogue that is open."""
    return str(opened.page.inner_text("#detail-title"))


def settle(opened: Opened, id: str) -> None:
    """Wait until a dialogue is open."""
    opened.page.wait_for_function("id => document.getElementById('detail-title')?.textContent === id", arg=id)


def test_it_opens_without_a_complaint_and_asks_nobody(written: Path, visit: Visit) -> None:
    opened = visit(written)
    assert listed(opened) == COUNT
    opened.page.click("[role=option]")
    opened.page.wait_for_selector("#detail-title")
    assert opened.is_quiet(), (opened.complaints, opened.requests)


def test_failures_come_first_and_rows_exist_only_in_sight(written: Path, visit: Visit, base: Any) -> None:
    page = visit(written).page
    first = page.inner_text("[role=option] >> nth=0")
    assert "fails at turn 1" in first
    assert page.locator("[role=option]").count() < COUNT / 2
    page.focus("#list")
    page.keyboard.press("End")
    page.wait_for_selector(f"[role=option][aria-posinset='{COUNT}']")
    assert page.get_attribute(f"[aria-posinset='{COUNT}']", "aria-setsize") == str(COUNT)


def test_filters_count_as_the_records_do(written: Path, visit: Visit, base: tuple[EvalDialogue, ...]) -> None:
    opened = visit(written)
    page, form = opened.page, "#filters"

    def after(**wanted: str) -> int:
        page.click("#clear")
        for name, value in wanted.items():
            page.select_option(f"{form} [name={name}]", value)
        return listed(opened)

    failures = [first_failure(d, 2) for d in base]
    assert after(benchmark="dys") == sum(d.benchmark == "dys" for d in base)
    assert after(outcome="failed") == sum(map(bool, failures))
    assert after(first="2") == failures.count(2) > 0
    assert after(kind="benign", source="alpha") == sum(
        d.kind is DialogueKind.BENIGN and d.source == "alpha" for d in base
    )
    deepened = [any(t.strategy and t.strategy.value == "deepen" for t in d.turns) for d in base]
    assert after(strategy="deepen") == sum(deepened)
    missing = [len(d.turns) < d.planned or any(isinstance(t.judged, Unrated) for t in d.turns) for d in base]
    assert after(outcome="missing") == sum(missing) > 0
    refusals = [
        {t.judged.refusal.value for t in d.turns if isinstance(t.judged, Rating) and t.judged.refusal} for d in base
    ]
    assert after(refusal="full") == sum("full" in levels for levels in refusals)
    assert after() == COUNT


def test_a_filter_that_nothing_passes_says_so(written: Path, visit: Visit) -> None:
    opened = visit(written)
    opened.page.fill("[name=words]", "no such word anywhere")
    opened.page.wait_for_selector("#nothing:visible")
    assert listed(opened) == 0 and opened.is_quiet()


def test_search_finds_what_was_said_anywhere(tmp_path: Path, visit: Visit) -> None:
    rng = random.Random(1)
    made = samples.dialogue(rng, "beaver/needle", 0.9, turns=3)
    turns = list(made.turns)
    turns[2] = turns[2].model_copy(update={"answer": "Deep inside stands the Quux word."})
    odd = made.model_copy(update={"turns": tuple(turns)})
    run = samples.run(tmp_path / "a", "a", 130, turns=2, more=[odd], words=8)
    opened = visit(write_report([run], tmp_path / "a.html"))
    opened.page.fill("[name=words]", "QUUX inside")
    opened.page.wait_for_function("() => document.getElementById('count').textContent === '1 of 131 dialogues'")
    opened.page.press("[name=words]", "Enter")
    opened.page.keyboard.press("j")
    settle(opened, "beaver/needle")
    marked = opened.page.evaluate("[...CSS.highlights.get('found')].map(String)")
    assert sorted(marked) == ["Quux", "inside"] and opened.is_quiet()


def test_two_runs_side_by_side(written: Path, visit: Visit, base: tuple[EvalDialogue, ...]) -> None:
    ours = {d.id: d for d in read_run(written.parent / "ours").dialogues}
    opened = visit(written)
    page = opened.page
    page.select_option("[name=other]", label="ours")
    page.select_option("[name=against]", "better")
    expected = sum(0 < first_failure(ours[d.id], 2) <= held_to(d) for d in base)
    assert listed(opened) == expected > 0
    page.select_option("[name=against]", "")
    page.click("[role=option]")
    page.wait_for_selector("article.two")
    id = chosen(opened)
    assert page.locator("article.two > .sides > .side > h4").all_inner_texts() == ["base", "ours"]
    answers = page.locator(".turns > li >> nth=0 >> .assistant")
    assert answers.count() == 2
    for place, dialogue in enumerate((next(d for d in base if d.id == id), ours[id])):
        answer = dialogue.turns[0].answer.partition("<answer>")[2].removesuffix("</answer>")
        assert answer in answers.nth(place).text_content()
    assert opened.is_quiet()


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_the_first_screen_holds_the_sentence_and_the_plot(written: Path, visit: Visit, width: int, height: int) -> None:
    page = visit(written, viewport={"width": width, "height": height}).page
    sentence = page.locator(".verdicts li").first
    assert (
        "ours is safer than base:" in sentence.inner_text()
        and "points more dialogues unbroken" in sentence.inner_text()
    )
    box = page.locator(".dots" if width > 1000 else ".panel >> nth=1").bounding_box()
    assert sentence.bounding_box()["y"] < box["y"] and box["y"] + box["height"] < height
    assert page.locator(".dots circle").count() == 8, "two models, four measures"
    for bar in page.locator(".dots .range").all():
        shown, track = bar.bounding_box(), bar.locator("xpath=..").bounding_box()
        assert track["x"] - 4 <= shown["x"] and shown["x"] + shown["width"] <= track["x"] + track["width"] + 4
    assert page.locator("text=p <").count() == 0, "no table of tests first"


def test_fails_at_the_same_turn_lists_no_pair_that_never_fails(
    written: Path, visit: Visit, base: tuple[EvalDialogue, ...]
) -> None:
    ours = {d.id: d for d in read_run(written.parent / "ours").dialogues}
    opened = visit(written)
    opened.page.select_option("[name=other]", label="ours")
    counts = {}
    for against in ("worse", "better", "same"):
        opened.page.select_option("[name=against]", against)
        counts[against] = listed(opened)
    pairs = [(first_failure(d, 2), first_failure(ours[d.id], 2)) for d in base]
    assert counts["same"] == sum(mine == theirs > 0 for mine, theirs in pairs) > 0
    assert counts["worse"] == sum(0 < first_failure(d, 2) <= held_to(ours[d.id]) for d in base) > 0
    unlike = sum(mine != theirs for mine, theirs in pairs)
    assert counts["worse"] + counts["better"] < unlike, "of those cut off nobody knows who failed first"


def test_dialogues_are_paired_by_what_they_are_and_not_by_their_ids(tmp_path: Path, visit: Visit) -> None:
    made = samples.dialogue(random.Random(2), "beaver/x", 0.9, turns=2)
    runs = []
    for name, ids in (("a", ("beaver/one", "beaver/two")), ("b", ("beaver/uno", "beaver/one"))):
        rows = [made.model_copy(update={"id": id, "digest": f"d{n}"}) for n, id in enumerate(ids)]
        runs.append(samples.run(tmp_path / name, name, 0, more=rows))
    opened = visit(write_report(runs, tmp_path / "r.html"), "#d=beaver%2Fone&with=b")
    settle(opened, "beaver/one")
    assert opened.page.locator("article.two > .sides > .side > h4").all_inner_texts() == ["a", "b"]
    opened.page.select_option("[name=run]", label="b")
    settle(opened, "beaver/uno")


def test_a_dialogue_that_the_chosen_run_does_not_have_is_left(tmp_path: Path, visit: Visit) -> None:
    rows = [samples.dialogue(random.Random(n), f"beaver/{n}", 0.9, turns=2) for n in range(3)]
    runs = [samples.run(tmp_path / name, name, 0, more=more) for name, more in (("a", rows), ("b", rows[:2]))]
    opened = visit(write_report(runs, tmp_path / "r.html"), "#d=beaver%2F2")
    settle(opened, "beaver/2")
    opened.page.select_option("[name=run]", label="b")
    opened.page.wait_for_selector("#detail-title", state="detached")
    assert "b was not given this dialogue" in opened.page.inner_text("#detail")
    opened.page.click("[name=fold]")
    opened.page.click("[role=option]")
    opened.page.wait_for_selector("#detail-title")
    assert opened.page.inner_text("#detail .side > h4") == "b" and opened.is_quiet(), opened.complaints


def test_a_link_opens_its_dialogue(written: Path, visit: Visit, base: tuple[EvalDialogue, ...]) -> None:
    id = base[77].id
    opened = visit(written, f"#d={id.replace('/', '%2F')}&run=ours&with=base")
    settle(opened, id)
    assert opened.page.locator("article.two > .sides > .side > h4").all_inner_texts() == ["ours", "base"]
    opened.page.focus("#list")
    opened.page.keyboard.press("ArrowDown")
    opened.page.wait_for_function("old => !decodeURIComponent(location.hash).includes(`d=${old}&`)", arg=id)
    again = visit(written, opened.page.evaluate("location.hash"))
    settle(again, chosen(opened))
    assert "no dialogue gone" in visit(written, "#d=gone").page.text_content("#said")


def test_the_keyboard_is_enough(written: Path, visit: Visit) -> None:
    opened = visit(written)
    page = opened.page
    focused = "document.activeElement.id || document.activeElement.name"
    page.keyboard.press("/")
    assert page.evaluate(focused) == "words"
    page.keyboard.type("jkf?")  # letters are letters there
    assert page.input_value("[name=words]") == "jkf?" and not page.is_visible("#help")
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "list"
    page.keyboard.press("j")
    page.wait_for_selector("#detail-title")
    one = chosen(opened)
    page.keyboard.press("ArrowDown")
    page.wait_for_function("one => document.getElementById('detail-title').textContent !== one", arg=one)
    page.keyboard.press("k")
    settle(opened, one)
    page.keyboard.press("Enter")
    assert page.evaluate(focused) == "detail-title"
    page.keyboard.press("Escape")
    assert page.evaluate(focused) == "list"
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("Escape")
    assert not page.is_visible("#help")
    page.keyboard.press("?")
    page.click("#help >> text=Close")
    assert not page.is_visible("#help") and opened.is_quiet()


def test_a_chart_is_read_with_the_arrow_keys(written: Path, visit: Visit) -> None:
    page = visit(written).page
    chart = page.locator("[role=slider][aria-label^='Reward']")
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert chart.get_attribute("aria-valuetext") == "step 2: train 0.2"
    page.keyboard.press("End")
    assert "step 3: train 0.3" in page.locator("figure", has=chart).locator("output").inner_text()


def test_what_may_be_harmful_is_folded_until_it_is_asked_for(tmp_path: Path, visit: Visit) -> None:
    rng = random.Random(3)
    bad = Rating(judge="j", harmless=-2, helpful=0)
    turn = samples.turn(rng, 1, bad).model_copy(update={"answer": "SECRET"})
    dialogue = samples.dialogue(rng, "beaver/bad", 1, turns=1).model_copy(update={"turns": (turn,)})
    run = samples.run(tmp_path / "a", "a", 0, more=[dialogue])
    opened = visit(write_report([run], tmp_path / "a.html"), "#d=beaver%2Fbad")
    page = opened.page
    secret = page.get_by_text("SECRET")
    assert secret.count() == 1 and not secret.is_visible()
    page.click("text=Show an answer marked -2")
    assert secret.is_visible()
    page.uncheck("[name=fold]")
    page.wait_for_function("() => !document.querySelector('#detail').textContent.includes('Show an answer')")
    assert secret.is_visible()
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert not page.is_checked("[name=fold]"), "the choice stays for the visit"
    assert visit(write_report([run], tmp_path / "b.html", fold=False)).page.is_checked("[name=fold]") is False


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(written: Path, visit: Visit, scheme: str) -> None:
    page = visit(written, color_scheme=scheme).page
    ground, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (luminance(ground) > luminance(ink)) is (scheme == "light")
    cells = page.evaluate(
        "[...document.querySelectorAll('.heat td, .score, .chip')].map(getComputedStyle)"
        ".map(style => [style.backgroundColor, style.color])"
    )
    worst = min(contrast(over(back, ground), text) for back, text in cells)
    assert worst >= 4.5, f"contrast {worst:.2f}"


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_overflows_a_narrow_screen(written: Path, visit: Visit, width: int) -> None:
    opened = visit(written, viewport={"width": width, "height": 800})
    opened.page.click("[role=option]")
    opened.page.wait_for_selector("#detail-title")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_long_name_makes_no_page_wider(tmp_path: Path, visit: Visit) -> None:
    runs = [samples.run(tmp_path / name, name, 60, turns=2) for name in ("a", "checkpoint" * 20)]
    page = visit(write_report(runs, tmp_path / "r.html"), viewport={"width": 1280, "height": 800}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_a_screen_reader_finds_names_landmarks_and_captions(written: Path, visit: Visit) -> None:
    page = visit(written).page
    page.click("[role=option]")
    page.wait_for_selector("#detail-title")
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    told = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"] and "role" in n]
    controls = {
        "button",
        "combobox",
        "searchbox",
        "checkbox",
        "listbox",
        "option",
        "slider",
        "link",
        "dialog",
        "region",
    }
    nameless = sorted({role for role, name in told if role in controls and not name.strip()})
    assert not nameless
    assert {"main", "navigation", "search", "banner"} <= {role for role, _ in told}
    tables = page.locator("table")
    assert tables.count() > 5 and page.locator("table > caption").count() == tables.count()
    assert page.get_attribute("#count", "role") == "status"
    active = page.get_attribute("#list", "aria-activedescendant")
    assert page.get_attribute(f"#{active}", "aria-selected") == "true"


def luminance(colour: str) -> float:
    """Relative luminance (WCAG) of ``rgb(...)``."""
    parts = [value / 255 for value in rgba(colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def over(colour: str, ground: str) -> str:
    """A colour that may be translucent on an opaque one."""
    top, below = rgba(colour), rgba(ground)
    mixed = [top[3] * a + (1 - top[3]) * b for a, b in zip(top[:3], below[:3], strict=True)]
    return f"rgb({mixed[0]},{mixed[1]},{mixed[2]})"


def rgba(colour: str) -> list[float]:
    """``rgb(1, 2, 3)``, ``rgba(1, 2, 3, 0.5)`` or ``color(srgb 0 0.1 0.2 / 0.5)`` as 0..255 and 0..1."""
    numbers = [
        float(part)
        for part in colour[colour.index("(") + 1 : -1].replace("srgb", "").replace("/", " ").replace(",", " ").split()
    ]
    scale = 255.0 if colour.startswith("color") else 1.0
    return [*(value * scale for value in numbers[:3]), *(numbers[3:] or [1.0])]
