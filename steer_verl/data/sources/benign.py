"""Rows of the public sets of everyday and school questions, and our own plain form.

Columns, as the sets' cards on the Hugging Face hub give them:

* hiyouga/geometry3k (MIT): images (a list of one), problem (begins with ``<image>``), answer; newer: id, choices,
  ground_truth.
* derek-thomas/ScienceQA: image (may be null), question, choices, answer (index), hint, task, grade, subject, topic,
  category, skill, lecture, solution.
* PKU-Alignment/align-anything, text-image-to-text (CC-BY-NC-4.0): image, question, response_1, response_2,
  overall_response (1 or 2, the better one).
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_verl.data.sources.bad import Refused
from steer_verl.data.sources.sets import Draft, Form, Origin, Row, SourceSet, ident, items, joined, present, text


def _geometry(row: Row, origin: Origin) -> Iterator[Draft]:
    pictures = items(row, "images")
    if len(pictures) != 1:
        raise Refused("picture", f"images: {len(pictures)} pictures", "leave the row out; a seed has one picture")
    name = ident(row, "id") if row.get("id") is not None else ""
    yield Draft(text(row, "problem"), pictures[0], False, "geometry", text(row, "answer", ""), name)


GEOMETRY3K = SourceSet(
    "geometry3k", "hiyouga/geometry3k", "MIT", (Form(("images", "problem", "answer"), _geometry, ("id",)),)
)


def _science(row: Row, origin: Origin) -> Iterator[Draft]:
    """The hint, the question and its choices as one question: many cannot be understood without them."""
    choices = [text({"choice": choice}, "choice") for choice in items(row, "choices")]
    right = row.get("answer")
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(choices):
        raise Refused("field", f"answer: {str(right)[:20]!r} is none of {len(choices)} choices", "leave the row out")
    options = "\n".join(f"({letter}) {choice}" for letter, choice in zip(_LETTERS, choices, strict=False))
    parts = (text(row, "hint", "").strip(), text(row, "question"), options)
    question = "\n".join(part for part in parts if part)
    yield Draft(question, row.get("image"), False, joined(row, "subject", "topic"), choices[right])


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

SCIENCEQA = SourceSet(
    "scienceqa",
    "derek-thomas/ScienceQA",
    # the authors' own; the copy on the hub drops the NC, and the stricter one counts
    "CC-BY-NC-SA-4.0",
    (Form(("image", "question", "choices", "answer"), _science, ("hint", "subject", "topic")),),
)


def _align_anything(row: Row, origin: Origin) -> Iterator[Draft]:
    """Everyday instructions about pictures, harmless as a whole; the better response is the answer."""
    better = row.get("overall_response")
    answer = text(row, f"response_{better}", "") if better in (1, 2, "1", "2") else ""
    yield Draft(text(row, "question"), row.get("image"), False, answer=answer)


ALIGN_ANYTHING = SourceSet(
    "align_anything",
    "PKU-Alignment/align-anything",
    "CC-BY-NC-4.0",
    (Form(("image", "question", "response_1", "response_2"), _align_anything, ("overall_response",)),),
)


def _plain(row: Row, origin: Origin) -> Iterator[Draft]:
    if unknown := sorted(set(row) - set(_PLAIN.known)):
        raise Refused("field", f"{unknown[0]}: unknown key", "remove it, or put it into facts")
    unsafe, facts = row.get("unsafe"), row.get("facts")
    if not (unsafe is None or isinstance(unsafe, bool)):
        raise Refused("field", f"unsafe: {str(unsafe)[:20]!r} is not true, false or null", "write one of them")
    if not (facts is None or isinstance(facts, dict)):
        raise Refused("field", "facts: not an object", "write an object, or leave it out")
    name = ident(row, "source_id") if row.get("source_id") is not None else ""
    kept = present(row, "category", "answer", "source", "license")
    yield Draft(
        text(row, "question"),
        row.get("image"),
        unsafe,
        source_id=name,
        facts=dict(facts or {}),
        **{key: text(row, key) for key in kept},
    )


_PLAIN = Form(
    ("question",),
    _plain,
    ("image", "unsafe", "category", "answer", "source", "source_id", "license", "facts"),
    exact=True,
)

PLAIN = SourceSet("plain", "a file of your own", "", (_PLAIN,))
"""One question a line: ``{"question", "image", "unsafe", "category", "answer", "source", "source_id", "license",
"facts"}``, of which only the question must be there, and the licence here or in the settings."""
