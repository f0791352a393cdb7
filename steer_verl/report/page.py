"""The document: one file that needs nothing else and asks nobody for anything.

Its policy allows our own script, by its digest, and images inside the page; no other script, no address, no form.
Trusted Types are required and none is allowed, so that even our own script cannot turn text into markup.

Data is in blocks: ``base64(gzip(JSON))`` in a ``<script type="text/plain">``, which no browser runs. Base64 has no
``<``, so whatever a dialogue holds, it cannot end its block; ``DecompressionStream`` and ``JSON.parse`` read it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from steer_verl.data.cards.markup import Html, tag
from steer_verl.data.cards.page import contents, head

LEVEL = 6
"""Of gzip: 9 takes three times as long for one per cent."""
SCRIPTS = ("store", "filters", "list", "detail", "charts", "main")
"""Files of the page's script, in the order in which they build on each other."""


def script() -> str:
    """The page's whole script, as one function, so that nothing of it is global."""
    parts = [_file(f"{name}.js") for name in SCRIPTS]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


def browser() -> Html:
    """The static part of the browser of dialogues: its form, its two panes, its help. The scripts fill it."""
    return Html(_file("browser.html"))


def policy(text: str) -> str:
    """The content security policy under which ``text`` alone may run."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def opening(title: str, lead: str, sections: Mapping[str, Sequence[Html]], code: str) -> str:
    """The file up to the end of what is read; data and script follow, then :data:`CLOSING`.

    Args:
        title: of the page.
        lead: a sentence beneath it.
        sections: heading -> what stands below it; one without anything is left out.
        code: the script that will follow.
    """
    style = _file("card.css", "steer_verl.data.cards") + _file("page.css")
    body = contents("Evaluation report", title, [tag("p", lead, class_="lead")], sections)
    html_head = head(f"{title}: evaluation report", policy(code), style)
    return f'<!doctype html>\n<html lang="en">{html_head}<body>{body}\n'


def packed(value: Any) -> str:
    """A JSON value as a block's text. Lone surrogates and U+2028 pass through: the JSON is ASCII."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), LEVEL, mtime=0)).decode("ascii")


def block(name: str, text: str) -> str:
    """The element that holds a block; ``name`` is our own and becomes its id, ``text`` is base64 or our own figures."""
    return f'<script type="text/plain" id="{name}">{text}</script>\n'


CLOSING = "</body></html>\n"


def _file(name: str, package: str = "steer_verl.report") -> str:
    return (files(package) / name).read_text(encoding="utf-8")
