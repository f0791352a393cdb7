"""Whether an answer is the reference: the hook for general capability on benign sets, by rules and without a judge.

What a student says in the end counts: its last ``\\boxed{...}``, else what follows its last "answer is" or "answer:",
else its whole text, its last line, and there what follows the last ``=``. That claim is compared so:

* a choice, whose reference is ``(B) quartz``: the letter alone, with punctuation or with more behind it, or the text,
  of several lines too; of two letters, or of a "not" that is not the choice's own, none counts;
* a number: by value, as an exact fraction (``0.5``, ``1/2``, ``\\frac{1}{2}``, ``1,000``); a unit of the reference must
  be there, and one that only the answer has is passed over;
* anything else: the same words in the same order, without case, punctuation and LaTeX's spaces.

It is conservative: what cannot be told is not correct. Nothing is evaluated, for an answer is untrusted text and the
libraries that compare mathematics hand such text to Python's ``eval``; so ``2\\sqrt{2}`` is not ``\\sqrt{8}`` here.
"""

from __future__ import annotations

import re
from fractions import Fraction

from steer_verl.answer import parse_answer
from steer_verl.text import folded, normalized, visible

MAX_CHARS = 20_000
"""Of an answer, from its end: a claim is looked for there."""

MAX_QUANTITY = 100
"""Characters of a number with its unit."""

_CHOICE = re.compile(r"\(([A-Z])\)(?:\s+(.*))?", re.DOTALL)
_CLAIM = re.compile(r"\banswer\b\**(?:\s+(?:is|was|should be|would be|must be)\b\s*:?|\s*[:=])[ \t]*", re.IGNORECASE)
_NOT = re.compile(r"\b(?:not|neither|nor|never|cannot|except|none)\b|n['\u2019]t\b", re.IGNORECASE)
_BRACKETED = re.compile(r"\(([A-Za-z])\)")
_LEADING = re.compile(
    r"(?i:(?:the\s+)?(?:option|choice)\s+)?(?:([A-Z])(?:[.):,]|\s*$|\s+[-\u2013]\s)|([a-z])(?:[.):]|\s*$))"
)
_HEDGE = re.compile(r"(?:\b(?:or|and)\b|[,/&])\s*\(?(?i:option\s+|choice\s+)?[A-Za-z](?:[.):,]|\s*$)")
_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?"
_QUANTITY = re.compile(
    rf"(?:[A-Za-z]{{1,2}}=)?(?P<over>{_NUMBER})(?:/(?P<under>\d+))?"
    r"(?P<unit>%|(?!(?:not|or|and|is|if)\b)(?:(?:square |cubic |sq |degrees )?[a-z]+(?:/[a-z]+)?(?:\^[23])?)?)",
    re.IGNORECASE,
)
_SIGNED = re.compile(r"-?\d[\d.,/]*")
"""Numbers among words: signs and points are no punctuation there."""
_FRACTION = re.compile(r"([-+]?)\\[dt]?frac\{([-+]?\d+)\}\{(\d+)\}")
_DEGREES = re.compile(r"\^?\\circ|\u00b0|\bdegrees?\b")
_WRAPPING = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}")
_NOISE = re.compile(r"\\(?:left|right|[,;:! ])|\\[()\[\]]|[$*`]")


def is_correct(answer: str, reference: str) -> bool:
    """Whether a student's answer is the right one; never raises.

    Args:
        answer: as the student wrote it, in its <thinking>/<answer> form or plain; what the user reads counts.
        reference: the benchmark's answer; of a multiple choice, ``(B) quartz``.
    """
    claims = _claims(parse_answer(answer).answer[-MAX_CHARS:])
    if (choice := _CHOICE.fullmatch(reference.strip())) is None:
        return any(_same(claim, reference) for claim in claims)
    letter, text = choice.groups(default="")
    is_letter = re.fullmatch("[a-z]", _words(_plain(text)))  # "A" says which choice, whatever stands under (B)
    right = [reference] if is_letter else [reference, text]
    return any(_same(claim, one) for claim in claims for one in right) or _letter(claims[0]) == letter


def _claims(text: str) -> list[str]:
    """What it says in the end, in several readings; the first one is where a letter is looked for."""
    text = visible(text).strip()
    if boxed := _boxed(text):
        return [boxed]
    if found := list(_CLAIM.finditer(text)):
        rest = text[found[-1].end() :].strip()
        line = rest.partition("\n")[0].strip()
        return [line, _sentence(line), rest]
    last = text.rpartition("\n")[2].strip()
    return [last, text, _sentence(last), last.rpartition("=")[2]]


def _sentence(line: str) -> str:
    return re.split(r"[.;!]\s", line, maxsplit=1)[0]


def _boxed(text: str) -> str:
    """What the last ``\\boxed{...}`` holds, braces inside it too; empty if there is none or it does not end."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return ""
    depth, begin = 0, start + len("\\boxed{")
    for place in range(begin - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place].strip()
    return ""


def _letter(claim: str) -> str:
    """The one letter that a claim chooses, upper case; empty if it chooses none, several, or says "not"."""
    claim = _WRAPPING.sub(r"\1", claim).replace("**", "").replace("$", "").strip()
    if _NOT.search(_sentence(claim)):
        return ""
    bracketed = {letter.upper() for letter in _BRACKETED.findall(claim)}
    leading = _LEADING.match(claim)
    if leading and not claim.startswith("("):
        bracketed.add((leading[1] or leading[2]).upper())
    if len(bracketed) != 1 or _HEDGE.search(claim):
        return ""
    return bracketed.pop()


def _same(claim: str, wanted: str) -> bool:
    claim, wanted = _plain(claim), _plain(wanted)
    if claim == wanted or not wanted:
        return bool(wanted)
    said, right = _quantity(claim), _quantity(wanted)
    if said or right:
        return bool(said and right and said[0] == right[0] and right[1] in ("", said[1]))
    if "\\" in claim or "\\" in wanted:
        return "".join(claim.split()) == "".join(wanted.split())
    words = _words(wanted)
    return bool(words) and _words(claim) == words and _SIGNED.findall(claim) == _SIGNED.findall(wanted)


def _words(text: str) -> str:
    """Compared without case, punctuation and a leading article."""
    return folded(re.sub(r"^(?:the|an?) (?=.)", "", text, flags=re.IGNORECASE))


def _plain(text: str) -> str:
    """One spelling of the same: no LaTeX wrapping, one sign for minus, root and degree, single spaces."""
    text = re.sub(r"(?<=\d)(?=[\u00bc-\u00be\u2150-\u215e])", " ", text)  # else NFKC makes 11/2 of one and a half
    text = " ".join(normalized("NFKC", text.replace("\u00b2", "^2").replace("\u00b3", "^3")).split())
    text = text.replace("\u2044", "/")
    text = _NOISE.sub("", _WRAPPING.sub(r"\1", text.replace("\u2212", "-")))
    text = _DEGREES.sub(" degrees ", text).replace("\\%", "%")
    text = re.sub(r"\s*([{}])\s*", r"\1", text)
    text = re.sub(r"\\sqrt (\d)", r"\\sqrt{\1}", re.sub(r"\u221a\s*(\d+)", r"\\sqrt{\1}", text))
    text = _FRACTION.sub(r"\1\2/\3", text)
    return " ".join(text.split()).strip(" .")


def _quantity(text: str) -> tuple[Fraction, str] | None:
    """(value, unit) of a plain number, ``a/b``, or ``x = 5``; ``None`` for anything else."""
    text = re.sub(r"\s*([/=])\s*", r"\1", text)
    found = _QUANTITY.fullmatch(re.sub(r"^([^A-Za-z]*\d)\s+(?=[A-Za-z%])", r"\1", text))
    if found is None or not re.search(r"\d", found["over"]) or len(text) > MAX_QUANTITY:
        return None
    under = int(found["under"] or "1")
    return (Fraction(found["over"].replace(",", "")) / under, found["unit"].casefold()) if under else None
