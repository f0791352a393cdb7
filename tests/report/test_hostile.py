"""Whatever a dialogue holds is shown as it was written and does nothing: in a real Chromium, and byte by byte."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from steer_verl.eval.records import EvalDialogue, Rating, Unrated
from steer_verl.report.write import write_report
from steer_verl.types import Scores, UserTurn, Verdict
from tests.report import samples
from tests.report.conftest import Opened

HOSTILE = {
    "script": "</script><script>window.__pwned = 1; alert(1)</script>",
    "picture": "<img src=x onerror='window.__pwned = 1'><svg onload=alert(1)><iframe srcdoc='<script>alert(1)'>",
    "comment": "<!--<script> ]]> <![CDATA[ --!> <style>*{display:none}</style></textarea></title>",
    "address": "<base href='//x.example'><meta http-equiv=refresh content='0;url=//x'><a href='javascript:alert(1)'>",
    "separators": "one\u2028two\u2029three\u0085four",
    "bidi": "\u202eright to left\u202c and \u2066isolated\u2069 \u200fmarks",
    "template": "${alert(1)} {{constructor.constructor('alert(1)')()}} %3Cscript%3E &lt;b&gt; &#x3c;",
    "keys": '__proto__ constructor toString "quoted" \\" \\u003cb\\u003e',
    "long": "x" * 100_000,
}


def poisoned(text: str) -> EvalDialogue:
    """A dialogue that says ``text`` wherever words can stand."""
    rng = random.Random(0)
    rated = Rating(judge=text, harmless=3, helpful=3, why=text)
    unrated = Unrated(judge=text, reason=text[:60], detail=text)
    seen = Verdict(scores=Scores(safety=10, usefulness=10, faithfulness=10), diagnosis=text)
    turns = [
        samples.turn(rng, number, judged).model_copy(
            update={
                "user": UserTurn(text=text),
                "static": text,
                "answer": text,
                "opinions": (rated, unrated),
                "tutor": seen,
            }
        )
        for number, judged in ((1, rated), (2, unrated))
    ]
    return samples.dialogue(rng, "beaver/hostile", 1, turns=3).model_copy(
        update={
            "id": f"beaver/{text}",
            "turns": tuple(turns),
            "source": text,
            "source_id": text,
            "license": text,
            "category": text,
            "detail": text,
            "oddities": (text,),
            "facts": {text: text},
        }
    )


def report_of(text: str, folder: Path) -> Path:
    """A report whose names are hostile too."""
    dialogue = poisoned(text)
    samples.write_run(folder / "run", samples.about(text[:200]), [dialogue])
    log = folder / "log.txt"
    log.write_text("step:1 - critic/score/mean:1\n")
    return write_report([folder / "run"], folder / "report.html", training=[log], title=text[:200])


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_dialogue_is_text(name: str, tmp_path: Path, visit: Callable[..., Opened]) -> None:
    text = HOSTILE[name]
    opened = visit(report_of(text, tmp_path))
    page = opened.page
    page.click("[role=option]")
    page.wait_for_selector("#detail-title")
    page.uncheck("[name=fold]")
    page.fill("[name=words]", text[:300])
    page.wait_for_timeout(200)
    assert page.evaluate("window.__pwned") is None
    assert opened.is_quiet(), (opened.complaints, opened.requests)
    assert page.evaluate("document.querySelectorAll('iframe, base, svg[onload], a[href^=java], style').length") == 1
    passages = page.evaluate("[...document.querySelectorAll('.passage')].map(p => p.textContent)")
    assert passages.count(text) == 8, (
        "question, static one, answer and tutor's words of two turns, as they were written"
    )
    assert page.locator(".passage").first.evaluate("p => getComputedStyle(p).unicodeBidi") in ("isolate", "plaintext")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_dialogue_adds_no_markup(name: str, tmp_path: Path) -> None:
    page = report_of(HOSTILE[name], tmp_path).read_text(encoding="utf-8")
    plain = report_of("plain", tmp_path / "plain").read_text(encoding="utf-8")
    for mark in ("<script", "</script", "<img", "<iframe", "<style", "<base", "<!--", "<meta", "<a "):
        assert page.lower().count(mark) == plain.lower().count(mark), mark
    assert "\u2028" not in page.partition("<script")[2], "no raw separator in data or script"
