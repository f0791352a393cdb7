"""Data inside a page: compressed, spelled in letters that no markup is made of, and decompressed where it is needed.

A block is ``base64(gzip(JSON))`` in a ``<script type="text/plain">``, which no browser runs. Base64 has no ``<``, so
whatever a dialogue holds, it cannot end its block; the page reads it by ``DecompressionStream`` and ``JSON.parse``.
"""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

LEVEL = 6
"""Of gzip: 9 takes three times as long for one per cent."""


def packed(value: Any) -> str:
    """A JSON value as a block's text. Lone surrogates and U+2028 pass through: the JSON is ASCII."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), LEVEL, mtime=0)).decode("ascii")


def block(name: str, text: str) -> str:
    """The element that holds a block; ``name`` is our own and becomes its id, ``text`` is base64 or our own figures."""
    return f'<script type="text/plain" id="{name}">{text}</script>\n'
