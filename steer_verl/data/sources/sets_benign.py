"""Rows of the public sets of everyday and school questions, and our own plain form."""

from __future__ import annotations

from collections.abc import Iterator

from steer_verl.data.sources.sets import KEY, LETTERS, Draft, Form, Origin, Refused, Row, SourceSet


def _geometry(row: Row, origin: Origin) -> Iterator[Draft]:
    """The problem does not show its choices; the letter is kept where the row has one."""
    images, letter = row.elements("images"), row.text("ground_truth", "")
    if len(images) != 1:
        raise Refused("image", f"images: {len(images)} images", "leave the row out; a seed has one image")
    letters = LETTERS[: len(row.options("choices"))] if row.get("choices") is not None else ""
    choice, answer = letter if letter in tuple(letters) else "", row.text("answer", "")
    name = row.ident("id", default="")
    yield Draft(row.text("problem"), images[0], False, "geometry", answer, name, choice=choice)


_GEOMETRY = Form(("images", "problem", "answer"), _geometry, ("id", "choices", "ground_truth"))


def _science(row: Row, origin: Origin) -> Iterator[Draft]:
    """The hint, the question and its choices as one question: many cannot be understood without them.

    Its authors' problems.json is keyed by id, and ``image`` a name in a folder of the id.
    """
    choices, number, image = row.options("choices"), row.ident("answer"), row.get("image")
    if number not in map(str, range(len(choices))):
        raise Refused("field", f"answer: {number[:40]!r} is none of {len(choices)} choices, which count from 0")
    right = int(number)
    lines = [f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    question = "\n".join(part for part in (row.text("hint", "").strip(), row.text("question"), *lines) if part)
    category, name = row.joined("subject", "topic"), row.ident(KEY, default="")
    if name and isinstance(image, str):
        folder = f"{row.text('split', '')}/{name}"
        image = (image, f"images/{folder}/{image}", f"{folder}/{image}", f"{name}/{image}")
    yield Draft(question, image, False, category, choices[right], name, choice=LETTERS[right])


_SCIENCE = Form(("image", "question", "choices", "answer"), _science, ("hint", "subject", "topic", "split"))


def _align_anything(row: Row, origin: Origin) -> Iterator[Draft]:
    """Everyday instructions about images, harmless as a whole; the better response is the answer."""
    better = row.ident("overall_response", default="")
    answer = row.text(f"response_{better}", "") if better in ("1", "2") else ""
    yield Draft(row.text("question"), row.get("image"), False, answer=answer)


_ALIGN_ANYTHING = Form(("image", "question", "response_1", "response_2", "overall_response"), _align_anything)


def _plain(row: Row, origin: Origin) -> Iterator[Draft]:
    """One question a line: only the question must be there, and the licence, here or in the settings."""
    if unknown := sorted(_PLAIN.surplus(row)):
        raise Refused("field", f"{unknown[0]}: unknown key", "remove it, or put it into facts")
    facts = row.get("facts")
    if not (facts is None or isinstance(facts, dict)):
        raise Refused("field", "facts: not an object", "write an object, or leave it out")
    texts = {name: row.text(name) for name in row.present("category", "answer", "source", "license")}
    name, unsafe = row.ident("source_id", KEY, default=""), row.flag("unsafe", "true", "false")
    yield Draft(row.text("question"), row.get("image"), unsafe, source_id=name, facts=dict(facts or {}), **texts)


_PLAIN = Form(
    ("question",),
    _plain,
    ("image", "file_name", "unsafe", "category", "answer", "source", "source_id", "license", "facts", "split"),
    exact=True,
)

BENIGN = (
    SourceSet("geometry3k", "hiyouga/geometry3k", "MIT", (_GEOMETRY,), pictured=True),
    # the authors' own licence; the copy on the hub drops the NC, and the stricter one counts
    SourceSet("scienceqa", "derek-thomas/ScienceQA", "CC-BY-NC-SA-4.0", (_SCIENCE,)),
    SourceSet("align_anything", "PKU-Alignment/align-anything", "CC-BY-NC-4.0", (_ALIGN_ANYTHING,), pictured=True),
    SourceSet("plain", "a file of your own", "", (_PLAIN,)),
)
