"""Short stand-ins for texts and pictures, with which likeness can be told without the originals.

A text is the set of its word shingles; its MinHash signature (Broder 1997, by the ``datasketch`` library) tells the
Jaccard similarity of two such sets. Locality-sensitive hashing cuts a signature into bands, so that texts which are
alike share a band nearly always and others hardly ever. A picture's look is its difference hash.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from steer_verl.errors import ConfigError
from steer_verl.text import folded

if TYPE_CHECKING:
    from datasketch import MinHash

WEIGHTS = (0.05, 0.95)
"""What an unlike pair that shares a band costs, which is only looked at, and what a like pair that shares none does."""
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+")
"""A character of Chinese or Japanese, which write no spaces, or a word."""


def normalised(text: str) -> str:
    """The bare words of a text; a text without any is itself."""
    return folded(text) or " ".join(text.split())


def shingles(text: str, words: int) -> set[str]:
    """Runs of ``words`` words of a normalised text; the whole text if it is shorter."""
    found = _WORD.findall(normalised(text))
    return {" ".join(found[start : start + words]) for start in range(max(1, len(found) - words + 1))}


@lru_cache(maxsize=8)  # an item is looked for and then added
def signature(text: str, words: int, permutations: int) -> np.ndarray:
    """MinHash values of the shingles, ``uint32`` of shape ``(permutations,)``."""
    sketch = _empty(permutations).copy()
    sketch.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in sorted(shingles(text, words))])
    return np.asarray(sketch.hashvalues, dtype=np.uint32)


@lru_cache(maxsize=4)
def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """(how many, values in each): chosen by ``datasketch`` for the threshold, in favour of finding what is alike."""
    try:
        from datasketch import MinHashLSH
    except ImportError:
        raise ConfigError("near-duplicates need the datasketch package; pip install 'steer-verl[data]'") from None
    chosen = MinHashLSH(min(threshold, 0.95), permutations, WEIGHTS)
    return int(chosen.b), int(chosen.r)


def look(image: Image.Image) -> int:
    """The 64-bit difference hash: whether each of 8 x 8 grey fields is darker than its right neighbour."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = (grey[:, :-1] < grey[:, 1:]).flatten()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


@lru_cache(maxsize=4)
def _empty(permutations: int) -> MinHash:
    """Drawing the permutations takes longer than using them."""
    from datasketch import MinHash

    return MinHash(num_perm=permutations, seed=1)
