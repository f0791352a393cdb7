"""Texts with images that are nearly the same, found in an index on disk.

Two items are alike if their pixels are the same, they have the same numbers and signs in the same order, and their
words are alike: by the MinHash estimate of the similarity of their word shingles (Broder 1997, by the ``datasketch``
library), and where a text is long, at its beginning and at its end too. Many questions share a long hint, and "-5 + 3"
is not "5 - 3".

The index is one SQLite file: memory is the same for a hundred items and for a million. Locality-sensitive hashing cuts
a signature into bands, so that texts that are alike share a band nearly always; items that share one are compared. A
band that many share, as texts under one long hint do, takes no more items: there, a text is found by one line of it and
the other lines as they are, so that time grows with the items and not with their square.
"""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from steer_verl.data.sources.settings import DuplicateSettings
from steer_verl.errors import ConfigError, install_command
from steer_verl.text import normalized, visible
from steer_verl.types import IMAGE_MARK

if TYPE_CHECKING:
    from datasketch import MinHash

WINDOW = 40
"""Words at the beginning, and at the end, that must be alike by themselves."""
ENDS = 8
"""As well, of questions: a short one before or behind a long hint, without a new line."""
WEIGHTS = (0.05, 0.95)
"""What an unlike pair that shares a band costs, which is only looked at, and what a like pair that shares none does."""
FULL = 20
"""Items in a band, from which it takes no more."""
HEAD = 12
"""Words that count as the first line of a text that has one line alone."""
LINES = 8
"""Of a text that are looked at by themselves; all further ones are the last."""
_TABLES = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384;
CREATE TABLE item (number INTEGER PRIMARY KEY, id TEXT UNIQUE, about BLOB, text TEXT, signature BLOB);
CREATE TABLE band (key INTEGER, item INTEGER, PRIMARY KEY (key, item)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Item:
    """What is compared."""

    id: str
    text: str
    pixels: str = ""
    """Digest of the pixels, of all images in their order; empty without an image."""
    by_line: bool = False
    """Lines that two texts do not share must be alike themselves: for questions that stand under a hint."""


class DuplicateIndex:
    """All items that were added, in a file that nobody else sees; ConfigError if ``datasketch`` is missing."""

    def __init__(self, settings: DuplicateSettings) -> None:
        self.settings = settings
        self._bands, self._width = bands(settings.threshold, settings.permutations)
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.executescript(_TABLES)

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def first_like(self, item: Item) -> str | None:
        """The id of the first item that is like this one; the same one is like it too."""
        text, about, values, keys = self._seen(item)
        if self._full(keys):
            keys = [*keys, *self._line_keys(text, about)]
        query = f"SELECT item FROM band WHERE key IN ({','.join('?' * len(keys))})"
        query = f"SELECT id, text, signature FROM item WHERE about = ? AND number IN ({query}) ORDER BY number"
        for name, other, signature in self._base.execute(query, (about, *keys)):
            equal = np.count_nonzero(values == np.frombuffer(signature, dtype=np.uint32))
            if equal >= self.settings.threshold * len(values) and self._parts_alike(text, other, item.by_line):
                return str(name)
        return None

    def add(self, item: Item) -> None:
        """Put an item into the index; nothing happens if its id is there."""
        text, about, values, keys = self._seen(item)
        row = (item.id, about, text, values.tobytes())
        added = self._base.execute("INSERT OR IGNORE INTO item (id, about, text, signature) VALUES (?, ?, ?, ?)", row)
        if not added.rowcount:
            return
        if full := self._full(keys):
            keys = [*keys, *self._line_keys(text, about)]
            full = self._full(keys)
        rows = [(key, added.lastrowid) for key in keys if key not in full]
        self._base.executemany("INSERT OR IGNORE INTO band VALUES (?, ?)", rows)

    def _full(self, keys: list[int]) -> set[int]:
        """Those of bands that take no more items."""
        query = f"SELECT key FROM band WHERE key IN ({','.join('?' * len(keys))}) GROUP BY key HAVING COUNT(*) >= ?"
        return {key for (key,) in self._base.execute(query, (*keys, FULL))}

    def _line_keys(self, text: str, about: bytes) -> list[int]:
        """Of a text whose bands are full: a key for the bands of each line, with the other lines as they are."""
        words, lines = text.split(), text.split("\n", LINES - 1)
        if len(lines) == 1:
            lines = [" ".join(words[:HEAD]), " ".join(words[HEAD:])]
        keys = []
        for number, line in enumerate(lines):
            others = "\n".join(lines[:number] + lines[number + 1 :]).encode("utf-8", "surrogatepass")
            keys += self._keys(line, b"%d|%s|%s" % (number, about, blake2b(others, digest_size=16).digest()))
        return keys

    def _seen(self, item: Item) -> tuple[str, bytes, np.ndarray, list[int]]:
        """Words; digest of the pixels and of the numbers and signs in their order; signature; a key for each band.

        Items that are alike share a key nearly always. That pixels, numbers and signs are part of each keeps "What is
        this?" over a thousand images from being compared a thousand times.
        """
        text = normalised(item.text)
        exact = f"{item.pixels}|{' '.join(filter(_is_exact, text.split()))}".encode("utf-8", "surrogatepass")
        about = blake2b(exact, digest_size=16).digest()
        values = _signature(text, self.settings.words, self.settings.permutations)
        return text, about, values, self._keys(text, about)

    def _keys(self, text: str, about: bytes) -> list[int]:
        values, keys = _signature(text, self.settings.words, self.settings.permutations), []
        for band in range(self._bands):
            part = values[band * self._width : (band + 1) * self._width].tobytes()
            digest = blake2b(b"%d|%s|%s" % (band, about, part), digest_size=8).digest()
            keys.append(int.from_bytes(digest, "big", signed=True))
        return keys

    def _parts_alike(self, text: str, other: str, by_line: bool) -> bool:
        if text == other:
            return True
        if by_line:
            lines, others = Counter(text.split("\n")), Counter(other.split("\n"))
            own, theirs = (" ".join(rest.elements()).split() for rest in (lines - others, others - lines))
            if not self._alike(own, theirs):
                return False
        one, two = text.split(), other.split()
        if max(len(one), len(two)) <= WINDOW:
            return True
        windows = (ENDS, WINDOW) if by_line else (WINDOW,)
        return all(self._alike(one[:n], two[:n]) and self._alike(one[-n:], two[-n:]) for n in windows)

    def _alike(self, one: list[str], two: list[str]) -> bool:
        a, b = shingles(one, self.settings.words), shingles(two, self.settings.words)
        return len(a & b) >= self.settings.threshold * len(a | b)


@lru_cache(maxsize=8)  # an item is looked for and then added
def normalised(text: str) -> str:
    """The words of a text, its numbers and its signs, with one space between and lines kept.

    Case, width, hidden characters, image marks and punctuation go. Stays: letters with their marks (a Hindi or Thai
    vowel sign is one), digits, superscripts, brackets, and whatever can be an operator, a unit or a symbol. A text
    without any of them is itself.
    """
    lines = visible(text.replace(IMAGE_MARK, " ")).split("\n")
    return "\n".join(line for line in (" ".join(_tokens(line)) for line in lines) if line) or " ".join(text.split())


def shingles(tokens: list[str], words: int) -> set[str]:
    """Runs of ``words`` words; the whole text if it is shorter."""
    return {" ".join(tokens[start : start + words]) for start in range(max(1, len(tokens) - words + 1))}


@lru_cache(maxsize=4)
def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """(how many, values in each): chosen by ``datasketch`` for the threshold, in favour of finding what is alike."""
    try:
        from datasketch import MinHashLSH
    except ImportError:
        raise ConfigError(f"near-duplicates need the datasketch package: {install_command('data')}") from None
    chosen = MinHashLSH(min(threshold, 0.95), permutations, WEIGHTS)
    return int(chosen.b), int(chosen.r)


@lru_cache(maxsize=8)
def _signature(text: str, words: int, permutations: int) -> np.ndarray:
    """MinHash values of the shingles, ``uint32`` of shape ``(permutations,)``."""
    sketch = _empty(permutations).copy()
    sketch.update_batch([one.encode("utf-8", "surrogatepass") for one in shingles(text.split(), words)])
    return np.asarray(sketch.hashvalues, dtype=np.uint32)


@lru_cache(maxsize=4)
def _empty(permutations: int) -> MinHash:
    """Drawing the permutations takes longer than using them."""
    from datasketch import MinHash

    return MinHash(num_perm=permutations, seed=1)


def _is_exact(token: str) -> bool:
    """Whether a token is a number, a sign, or a letter that stands alone, as a variable does."""
    if len(token) == 1:
        return token not in ("a", "i") and _kind(token) != "C"
    return token[0].isdigit()


# Over the kinds of a line's characters (_kind), one letter each: a sign of a script without spaces with its marks; a
# word, apostrophes inside it too; a number; a ratio's colon; a dash that is no hyphen; a factorial; any other sign.
_TOKEN = re.compile(r"CM*|[LM]+(?:'[LM]+)*|N+(?:\.N+)*|(?<=N):(?=N)|(?<![LM][LM])-|-(?![LM][LM])|(?<=[NS])!|S")


def _tokens(line: str) -> Iterator[str]:
    text = normalized("NFC", "".join(map(_plain, line)).casefold())
    for found in _TOKEN.finditer("".join(map(_kind, text))):
        token = text[found.start() : found.end()]
        kind = found[0][0]
        yield "-" if kind == "-" else "".join(c for c in token if _kind(c) != "'") if kind in "LM" else token


@lru_cache(maxsize=8192)
def _plain(char: str) -> str:
    """A character in its one width and form. Superscripts and the like keep theirs: 5\u00b2 is not 52."""
    form = unicodedata.decomposition(char).partition(" ")[0]
    return char if form in ("<super>", "<sub>", "<fraction>", "<circle>") else unicodedata.normalize("NFKC", char)


_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese write no spaces: each of their letters is a word here."""


@lru_cache(maxsize=8192)
def _kind(char: str) -> str:
    category = unicodedata.category(char)
    if char in _KINDS:
        return _KINDS[char]
    if category[0] == "L":
        return "C" if _UNSPACED.match(char) else "L"
    if category[0] == "M":
        return " " if "\ufe00" <= char <= "\ufe0f" else "M"  # a variation selector changes the look alone
    return _CATEGORIES.get(category, " ")


_KINDS = {"\u2212": "-", ".": ".", ",": ".", "'": "'", "\u2019": "'", ":": ":", "!": "!"}
_KINDS |= dict.fromkeys("^*/%&#@\\_\u00b7\u2022\u2032\u2033\u2030", "S")
_CATEGORIES = {"Pd": "-", "Nd": "N", **dict.fromkeys(("Sm", "Sc", "So", "Ps", "Pe", "No", "Nl"), "S")}
