"""Rows of the public sets about unsafe requests. Columns are those of the sets' own files; no row of theirs is ours.

``unsafe`` is what a set says of the question together with its picture, not of an answer or of the picture alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from steer_verl.data.sources.bad import Refused
from steer_verl.data.sources.sets import Draft, Form, Origin, Row, SourceSet, flag, ident, items, joined, present, text


def _beavertails_answered(row: Row, origin: Origin) -> Iterator[Draft]:
    """``is_response_safe`` is a text, ``yes`` or ``no``; an unsafe response is not an answer to learn."""
    answer = text(row, "response", "") if flag(row, "is_response_safe") else ""
    yield _beavertails(row, answer)


def _beavertails_preferred(row: Row, origin: Origin) -> Iterator[Draft]:
    """Two responses; the safer one is a good answer only where the row says that it is safe."""
    safer = ident(row, "safer_response_id")
    if safer not in ("1", "2"):
        raise Refused("field", f"safer_response_id: {safer[:20]!r} is not 1 or 2", "leave the row out, or mend it")
    good = flag(row, f"is_response_{safer}_safe")
    yield _beavertails(row, text(row, f"response_{safer}", "") if good else "")


def _beavertails(row: Row, answer: str) -> Draft:
    facts = present(row, "image_severity")
    return Draft(
        text(row, "question"), row.get("image"), category=text(row, "category", ""), answer=answer, facts=facts
    )


BEAVERTAILS_V = SourceSet(
    "beavertails_v",
    "PKU-Alignment/BeaverTails-V",
    "CC-BY-NC-4.0",
    (
        Form(
            ("question", "image", "category", "image_severity", "response", "is_response_safe"), _beavertails_answered
        ),
        Form(
            ("question", "image", "response_1", "response_2", "more_helpful_response_id", "safer_response_id"),
            _beavertails_preferred,
            ("category", "image_severity", "is_response_1_safe", "is_response_2_safe"),
        ),
    ),
)
"""One config per category, splits train and evaluation. The severity is the picture's; the question has no label."""


def _spa_vl(row: Row, origin: Origin) -> Iterator[Draft]:
    """The training rows mix easy questions, hard questions and statements, and do not say which is which."""
    yield Draft(
        text(row, "question"),
        row.get("image"),
        category=joined(row, "class1", "class2", "class3"),
        answer=text(row, "chosen"),
        facts=present(row, "image_name"),
    )


def _spa_vl_test(row: Row, origin: Origin) -> Iterator[Draft]:
    """Config ``test``: the split ``harm`` tests harmlessness; ``help`` tests helpfulness on whatever it asks."""
    unsafe = True if origin.split == "harm" else None
    yield Draft(text(row, "question"), row.get("image"), unsafe, joined(row, "class1", "class2", "class3"))


SPA_VL = SourceSet(
    "spa_vl",
    "sqrti/SPA-VL",
    "CC-BY-4.0",
    (
        Form(("image", "question", "chosen", "rejected"), _spa_vl, ("image_name", "class1", "class2", "class3")),
        Form(("image", "question", "class1", "class2", "class3"), _spa_vl_test),
    ),
)


_VLGUARD = {
    # (the picture is safe, key of the instruction): the two together are unsafe
    (True, "safe_instruction"): False,
    (True, "unsafe_instruction"): True,
    (False, "instruction"): True,
}


def _vlguard(row: Row, origin: Origin) -> Iterator[Draft]:
    """One seed for each instruction of ``instr-resp``, with its response, which the set gives as the good one."""
    safe = flag(row, "safe")
    for pair in items(row, "instr-resp"):
        if not isinstance(pair, dict):
            raise Refused("field", "instr-resp: not a list of objects", "leave the row out, or mend it")
        for key in ("safe_instruction", "unsafe_instruction", "instruction"):
            if key not in pair:
                continue
            if safe is None or (safe, key) not in _VLGUARD:
                raise Refused("field", f"instr-resp: {key} where safe is {safe}", "leave the row out, or mend it")
            yield Draft(
                text(pair, key),
                row.get("image"),
                _VLGUARD[safe, key],
                joined(row, "harmful_category", "harmful_subcategory"),
                text(pair, "response", ""),
                f"{origin.split}/{ident(row, 'id')}/{key}",
            )


VLGUARD = SourceSet(
    "vlguard",
    "ys-zong/VLGuard",
    "VLGuard terms of access",
    (Form(("id", "image", "safe", "instr-resp"), _vlguard, ("harmful_category", "harmful_subcategory")),),
)
"""train.json and test.json; pictures in the folders train and test. The set is gated: its own terms hold."""


def _mm_safetybench(row: Row, origin: Origin) -> Iterator[Draft]:
    """Thirteen configs, spelled as the set does (``Illegal_Activitiy``); only ``Text_only`` has no pictures."""
    image = row.get("image")
    if (image is None) != (origin.split == "Text_only"):
        where = f"{origin.config}/{origin.split}"
        found = "no picture" if image is None else "a picture"
        raise Refused("picture", f"image: {found} in {where}", "set `split` to the one that the file holds")
    name = f"{origin.config}/{origin.split}/{ident(row, 'id')}"
    yield Draft(text(row, "question"), image, True, origin.config, source_id=name)


MM_SAFETYBENCH = SourceSet(
    "mm_safetybench",
    "PKU-Alignment/MM-SafetyBench",
    "CC-BY-NC-4.0",
    (Form(("id", "question", "image"), _mm_safetybench),),
)
"""Splits SD, SD_TYPO, TYPO, Text_only; every question is one that a safe assistant does not serve."""


def _vlsbench(row: Row, origin: Origin) -> Iterator[Draft]:
    """The text is harmless and the picture is not: unsafe as a whole, row by row."""
    yield Draft(
        text(row, "instruction"),
        text(row, "image_path"),
        True,
        joined(row, "category", "sub_category"),
        source_id=ident(row, "instruction_id"),
        facts=present(row, "source", "image_description", "safety_reason"),
    )


VLSBENCH = SourceSet(
    "vlsbench",
    "Foreshhh/vlsbench",
    "Apache-2.0",
    (
        Form(
            ("instruction_id", "instruction", "image_path", "category", "sub_category"),
            _vlsbench,
            ("source", "image_description", "safety_reason"),
        ),
    ),
)
"""data.json beside the folder of the pictures; 2,241 rows."""


def _mossbench(row: Row, origin: Origin) -> Iterator[Draft]:
    """Harmless questions that look risky; the config ``contrast`` holds the risky twin of each, under the same pid."""
    contrast = origin.config.startswith("contrast")
    name = ident(row, "pid")
    facts = present(row, "short description", "description")
    yield Draft(
        text(row, "question"),
        row.get("image"),
        contrast,
        _moss_type(row),
        source_id=f"contrast/{name}" if contrast else name,
        facts=facts,
    )


def _moss_type(row: Row) -> str:
    """The kind of over-sensitivity: a column, or a key of ``metadata``, by the version of the set."""
    metadata = row.get("metadata")
    found = metadata.get("over") if isinstance(metadata, dict) else row.get("metadata_over")
    return found if isinstance(found, str) else ""


MOSSBENCH = SourceSet(
    "mossbench",
    "AIcell/MOSSBench",
    "CC, version not stated",
    (
        Form(
            ("pid", "question", "image"),
            _mossbench,
            ("short description", "description", "metadata", "metadata_over"),
        ),
    ),
)
