"""HTML from Python values: the one place where text is escaped.

A plain string is text, whoever wrote it: it cannot become markup. Only :func:`tag` makes :class:`Html`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from steer_verl.text import neutralize

VOID = frozenset(("br", "hr", "img", "input", "link", "meta", "rect", "line", "path"))
"""Elements without content: HTML's own, and the shapes of a chart that we leave without a title."""


class Html(str):
    """A string that is HTML already. Made by :func:`tag` and :func:`joined` alone."""

    __slots__ = ()


Child = str | int | float
Attribute = str | int | float | bool | None


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """One element.

    Args:
        name: of the element.
        children: :class:`Html` as it is, anything else as text. Control characters and lone surrogates are dropped.
        attributes: ``class_`` stands for ``class`` and ``aria_label`` for ``aria-label``; ``True`` is an attribute
            without a value, ``None`` and ``False`` none at all.
    """
    head = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if name in VOID and not children:
        return Html(f"<{name}{head}{'/' if name in ('rect', 'line', 'path') else ''}>")
    return Html(f"<{name}{head}>{joined(children)}</{name}>")


def joined(children: Iterable[Child]) -> Html:
    """Children one after the other, without an element around them."""
    return Html("".join(child if isinstance(child, Html) else escaped(str(child)) for child in children))


def escaped(text: str) -> str:
    """Text as HTML that shows it, in content or between double quotes."""
    return html.escape(neutralize(text), quote=True)


def _attribute(key: str, value: Attribute) -> str:
    name = key.rstrip("_").replace("_", "-")
    if isinstance(value, bool):
        return f" {name}" if value else ""
    return f' {name}="{escaped(str(value))}"'
