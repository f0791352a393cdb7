"""A page read back: whether it is sound, and what a reader sees of it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

VOID = {"br", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """Elements, texts and what is wrong with their nesting."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.folded: list[str] = []
        """Texts inside a closed ``details``, its summary aside."""
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes), f"{name}: an attribute twice"
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self._open.append((name, dict(attributes)))

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name: str) -> None:
        assert self._open and self._open[-1][0] == name, f"</{name}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        names = [name for name, _ in self._open]
        if "style" in names:
            return
        closed = [n for n, (name, given) in enumerate(self._open) if name == "details" and "open" not in given]
        within = closed and not (names[-1] == "summary" and closed[0] == len(names) - 2)
        (self.folded if within else self.texts).append(data)

    @property
    def text(self) -> str:
        """Everything that is not folded away."""
        return "".join(self.texts)

    def all(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of every element of that name."""
        return [attributes for found, attributes in self.elements if found == name]


def check(text: str) -> Page:
    """The page, once it is sound, works with a keyboard and a screen reader, and asks for nothing from anywhere."""
    page = Page(text)
    ids = [given["id"] for _, given in page.elements if "id" in given]
    assert len(ids) == len(set(ids)), "an id twice"
    for name, given in page.elements:
        assert name not in ("script", "iframe", "object", "embed", "form", "base", "audio", "video"), name
        assert not any(key.startswith("on") for key in given), (name, given)
        for key in ("src", "href", "srcset", "xlink:href", "action", "poster"):
            target = given.get(key)
            inside = target is None or target.startswith(("data:image/", "#")) or target == "data:,"
            assert inside, (name, key, target)
            if target and target.startswith("#"):
                assert target[1:] in ids, target
        if "aria-labelledby" in given:
            assert given["aria-labelledby"] in ids
    assert all(given.get("alt") for given in page.all("img"))
    assert all(given.get("aria-label") for given in page.all("svg"))
    assert not re.search(r"url\(|@import", text), "the style asks for something"
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels)), "a heading level left out"
    return page
