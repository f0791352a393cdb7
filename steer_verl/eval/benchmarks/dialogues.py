"""Files of dialogues -> drafts: bench rows (steer_verl/data/rows/played.py) or RL rows (schema.py), told by their keys.

``.jsonl`` holds one row a line, ``.json`` a list of them, ``.parquet`` what ``steer data convert`` writes. A row is
read by its form's one reader. Where that refuses it, it is mended as far as that goes: an evaluation counts what it
cannot play. Images are opened here once, through the one door (steer_verl/images.py), so that nothing that hangs or
bites reaches a student or a judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from steer_verl.data.jsonl import check_json, read_json, read_jsonl, regular_file
from steer_verl.data.rows.flaws import RowError
from steer_verl.data.rows.images import Images, Opened
from steer_verl.data.rows.played import BENCH_KEY, BenchRow
from steer_verl.data.rows.schema import KINDS, MAX_TURN_CHARS, NO_WORDS, RlRow, Said
from steer_verl.data.rows.verl import VerlRow, read_verl_row, rows_of_table
from steer_verl.data.sources.sets import Refused
from steer_verl.eval.benchmarks.draft import Draft, label
from steer_verl.eval.benchmarks.oddities import image_oddity
from steer_verl.types import IMAGE_MARK, MAX_TURNS

MAX_IMAGES = 20
"""Of one row. Each is sent to student and judge with every turn."""


def dialogue_drafts(file: Path, root: Path) -> Iterator[Draft]:
    """Every row of a file, in order; one at a time in memory.

    Args:
        file: the dialogues.
        root: folder of their images, which no path may leave.

    Raises:
        DataError: the file cannot be opened.
    """
    images, read = Images(root), _parquet_rows if file.suffix == ".parquet" else _json_rows
    for number, value in read(regular_file(file)):
        draft = value if isinstance(value, Draft) else draft_of(value)
        draft.place = f"{file}: row {number}"
        if not draft.id:
            draft.id = f"row-{number}"
            draft.odd("no_id", not draft.unplayable)
        found = [*map(images.open, draft.images)]
        for flaw in found:
            if not isinstance(flaw, Opened):
                draft.refuse(image_oddity(flaw.what), f"{flaw.what}; {flaw.hint}")
        draft.images = [image.name for image in found if isinstance(image, Opened)]
        yield draft


def draft_of(value: Mapping[str, Any]) -> Draft:
    """A row of either form, told by its keys; its images are as written. Never raises."""
    bench, draft = BENCH_KEY in value, Draft()
    place = value if bench else value.get("metadata")
    if not isinstance(place, Mapping) or not (bench or "question" in value):
        draft.id = next((name for key in ("question_id", "id") if (name := draft.short(value, key))), "")
        keys = label(", ".join(sorted(value))) or "none"
        return draft.refuse("odd_form", f"keys {keys}; a row has {BENCH_KEY}, or question and metadata.rest_messages")
    try:
        seed = (BenchRow if bench else RlRow).read(value, min_turns=1).seed()
        texts, draft.facts = [turn.text for turn in seed.turns], seed.facts
        draft.images = [path for turn in seed.turns for path in turn.images]
    except RowError:
        texts = _mended(draft, value, place, bench)
    _describe(draft, value, place, bench)
    draft.odd("no_image", not draft.images and "image_bad" not in draft.oddities)
    if len(draft.images) > MAX_IMAGES:
        draft.refuse("too_many_images", f"{len(draft.images)} images, more than {MAX_IMAGES}; leave some out")
        draft.images = []
    draft.odd("several_images", len(draft.images) > 1)
    draft.odd("one_turn", len(texts) == 1)
    draft.odd("long_turn", any(len(text) > MAX_TURN_CHARS for text in texts))
    draft.ask(texts)
    return draft


def marked(texts: list[str], images: int) -> list[str]:
    """Texts with one mark for each image: of more marks the last are dropped, those that miss stand first of all."""
    left, found = images, []
    for text in texts:
        parts = text.split(IMAGE_MARK)
        kept = min(left, len(parts) - 1)
        left -= kept
        found.append(IMAGE_MARK.join([*parts[:kept], " ".join(parts[kept:])]))  # a space: its ends spell no new mark
    return [IMAGE_MARK * left + found[0], *found[1:]] if found else []


def _mended(draft: Draft, value: Mapping[str, Any], place: Mapping[str, Any], bench: bool) -> list[str]:
    """What can be played of a row that its reader refuses."""
    draft.images = _paths(draft, value.get("image" if bench else "images"))
    asked, rest = value.get(BENCH_KEY), place.get("rest_messages")
    if not bench:
        asked = [*_listed(value["question"]), *([] if rest is None else _listed(rest))]
    texts = _questions(draft, asked)
    draft.facts = _bench_facts(draft, value) if bench else _facts(draft, place.get("facts"))
    marks = sum(text.count(IMAGE_MARK) for text in texts)
    draft.odd("extra_mark", marks > len(draft.images))
    draft.odd("no_mark", not bench and marks < len(draft.images))
    if bench:  # a mark says where the image stands anyway, and is dropped
        texts = [text.replace(IMAGE_MARK, " ").strip() for text in texts]
    return marked(texts, len(draft.images))


def _describe(draft: Draft, value: Mapping[str, Any], place: Mapping[str, Any], bench: bool) -> None:
    """Who the row is. A label that is a kind counts where there is no other; another one is kept."""
    draft.id = draft.short(place, "question_id", "no_id")
    for name in ("source", "source_id", "license"):
        setattr(draft, name, draft.short(place, name))
    draft.category = draft.short(value if bench else draft.facts, "category")
    tag, kind = value.get("label"), draft.short(place, "kind")
    tagged = isinstance(tag, str) and tag in KINDS
    draft.odd("odd_field", kind not in ("", *KINDS) or (tagged and kind not in ("", tag)))
    draft.kind = kind if kind in KINDS else str(tag) if tagged else ""
    if isinstance(tag, str | int | float) and tag != "" and not tagged:
        draft.facts.setdefault("label", tag)
    right = (value.get("reference"), value.get("answer")) if bench else (draft.facts.get("answer"),)
    texts = [str(one).strip() for one in right if isinstance(one, str | int | float) and not isinstance(one, bool)]
    draft.reference = next(filter(None, texts), "")


def _bench_facts(draft: Draft, value: Mapping[str, Any]) -> dict[str, Any]:
    risks, category = value.get("risk_trajectory") or [], draft.short(value, "source_category")
    if not isinstance(risks, list) or any(type(risk) is not int or not 1 <= risk <= 5 for risk in risks):
        draft.odd("odd_risk")
        risks = []
    return {name: fact for name, fact in (("source_category", category), ("risk_trajectory", risks)) if fact}


def _facts(draft: Draft, value: Any) -> dict[str, Any]:
    with suppress(ValueError):
        check_json(value)
        if isinstance(value, dict):
            return value
    draft.odd("odd_field", value is not None)
    return {}


def _paths(draft: Draft, value: Any) -> list[str]:
    """The images that a row names: a path, a list of them, or nothing."""
    paths = _listed(value)
    if all(path in (None, "") for path in paths):
        return []
    if not all(isinstance(path, str) and path for path in paths):
        draft.refuse("image_bad", "an image is not a path; write images into files and give their paths")
        return []
    return paths


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _questions(draft: Draft, messages: Any) -> list[str]:
    """The user's turns of a list of messages or plain strings, the first ``MAX_TURNS`` of them."""
    if not isinstance(messages, list):
        draft.refuse("no_turns", f"{BENCH_KEY} is no list; give the user's turns as a list")
        return []
    told = [message if isinstance(message, dict) else {"content": message} for message in messages]
    asked = [(number, one) for number, one in enumerate(told, 1) if one.get("role") != "assistant"]
    draft.odd("assistant_turn", len(asked) < len(told))
    draft.odd("too_many_turns", len(asked) > MAX_TURNS)
    if not asked:
        draft.refuse("no_turns", "no question in it; a row has one user turn or more")
    return [_question(draft, number, one.get("role", "user"), one.get("content")) for number, one in asked[:MAX_TURNS]]


def _question(draft: Draft, number: int, role: Any, content: Any) -> str:
    if not isinstance(role, str) or not isinstance(content, str):
        draft.refuse("odd_turn", f"message {number} is not a text in the user's role; write one string")
        return ""
    for flaw in Said(f"message {number}", role, content).user_flaws():
        draft.refuse("empty_turn" if flaw.what == NO_WORDS else "odd_turn", str(flaw))
    return content if role == "user" else ""


Row = tuple[int, Mapping[str, Any] | Draft]
"""A row's number, from 1, and the row or a draft that says why there is none."""


def _json_rows(file: Path) -> Iterator[Row]:
    for line in (read_json if file.suffix == ".json" else read_jsonl)(file):
        why = f"{line.what}; {line.hint}"
        yield line.number, Draft().refuse("broken_line", why) if line.value is None else line.value


def _parquet_rows(file: Path) -> Iterator[Row]:
    """Rows of verl's table in the form of RL rows."""
    for number, row in rows_of_table(file, "extra_info", VerlRow.model_fields):
        if isinstance(row, Refused):
            yield number, Draft().refuse("broken_file", f"{row.what}; {row.hint}")
            continue
        value, flaws = read_verl_row(row)
        yield number, Draft().refuse("odd_form", str(flaws[0])) if value is None else value
