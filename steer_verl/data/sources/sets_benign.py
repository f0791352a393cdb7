"""Rows of the public sets of everyday and school questions, and our own plain form.

Columns, as the sets' cards on the Hugging Face hub give them:

* hiyouga/geometry3k (MIT): images (a list of one), problem (begins with ``<image>``), answer; newer: id, choices,
  ground_truth.
* derek-thomas/ScienceQA: image (may be null), question, choices, answer (index), hint, task, grade, subject, topic,
  category, skill, lecture, solution. Its authors' problems.json is keyed by id, ``image`` a name in a folder of the id.
* PKU-Alignment/align-anything, text-image-to-text (CC-BY-NC-4.0): image, question, response_1, response_2,
  overall_response (1 or 2, the better one).
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_verl.data.sources.sets import (
    KEY,
    LETTERS,
    Draft,
    Form,
    Origin,
    Refused,
    Row,
    SourceSet,
    items,
    joined,
    maybe_ident,
    options,
    present,
    shown,
    text,
)


def _geometry(row: Row, origin: Origin) -> Iterator[Draft]:
    """The problem does not show its choices; the letter is kept where the row has one."""
    images, letter = items(row, "images"), text(row, "ground_truth", "")
    if len(images) != 1:
        raise Refused("image", f"images: {len(images)} images", "leave the row out; a seed has one image")
    letters = LETTERS[: len(options(row, "choices"))] if row.get("choices") is not None else ""
    choice, answer = letter if letter in tuple(letters) else "", text(row, "answer", "")
    yield Draft(text(row, "problem"), images[0], False, "geometry", answer, maybe_ident(row, "id"), choice=choice)


GEOMETRY3K = SourceSet(
    "geometry3k",
    "hiyouga/geometry3k",
    "MIT",
    (Form(("images", "problem", "answer"), _geometry, ("id", "choices", "ground_truth")),),
)


def _science(row: Row, origin: Origin) -> Iterator[Draft]:
    """The hint, the question and its choices as one question: many cannot be understood without them."""
    choices, right, image = options(row, "choices"), row.get("answer"), row.get("image")
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(choices):
        raise Refused("field", f"answer: none of {len(choices)} choices")
    lines = [f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    question = "\n".join(part for part in (text(row, "hint", "").strip(), text(row, "question"), *lines) if part)
    category, name = joined(row, "subject", "topic"), maybe_ident(row, KEY)
    if name and isinstance(image, str):
        folder = f"{text(row, 'split', '')}/{name}"
        image = (image, f"images/{folder}/{image}", f"{folder}/{image}", f"{name}/{image}")
    yield Draft(question, image, False, category, choices[right], name, choice=LETTERS[right])


SCIENCEQA = SourceSet(
    "scienceqa",
    "derek-thomas/ScienceQA",
    # the authors' own; the copy on the hub drops the NC, and the stricter one counts
    "CC-BY-NC-SA-4.0",
    (Form(("image", "question", "choices", "answer"), _science, ("hint", "subject", "topic", "split")),),
)


def _align_anything(row: Row, origin: Origin) -> Iterator[Draft]:
    """Everyday instructions about images, harmless as a whole; the better response is the answer."""
    better = row.get("overall_response")
    answer = text(row, f"response_{better}", "") if better in (1, 2, "1", "2") else ""
    yield Draft(text(row, "question"), row.get("image"), False, answer=answer)


ALIGN_ANYTHING = SourceSet(
    "align_anything",
    "PKU-Alignment/align-anything",
    "CC-BY-NC-4.0",
    (Form(("image", "question", "response_1", "response_2", "overall_response"), _align_anything),),
)


def _plain(row: Row, origin: Origin) -> Iterator[Draft]:
    if unknown := sorted(set(row) - {*_PLAIN.columns, *_PLAIN.more, KEY}):
        raise Refused("field", f"{unknown[0]}: unknown key", "remove it, or put it into facts")
    unsafe, facts = row.get("unsafe"), row.get("facts")
    if isinstance(unsafe, str):  # of a CSV file
        unsafe = {"true": True, "false": False}.get(unsafe.lower(), unsafe)
    if not (unsafe is None or isinstance(unsafe, bool)):
        raise Refused("field", f"unsafe: {shown(unsafe)} is not true, false or null", "write one of them")
    if not (facts is None or isinstance(facts, dict)):
        raise Refused("field", "facts: not an object", "write an object, or leave it out")
    texts = {name: text(row, name) for name in present(row, "category", "answer", "source", "license")}
    name = maybe_ident(row, "source_id", KEY)
    yield Draft(text(row, "question"), row.get("image"), unsafe, source_id=name, facts=dict(facts or {}), **texts)


_PLAIN = Form(
    ("question",),
    _plain,
    ("image", "unsafe", "category", "answer", "source", "source_id", "license", "facts"),
    exact=True,
)

PLAIN = SourceSet("plain", "a file of your own", "", (_PLAIN,))
"""One question a line: only the question must be there, and the licence, here or in the settings."""

BENIGN = (GEOMETRY3K, SCIENCEQA, ALIGN_ANYTHING, PLAIN)
