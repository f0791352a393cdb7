"""Which dialogues of several runs are the same one: asked with the same questions and the same images, as far.

Within a benchmark the key of a dialogue is its digest, whatever its id, its path and its folder, and how many turns
were planned of it: under another ``max_turns`` it is another dialogue. Where a played one has no digest, or a run has
neither digests nor ids of the others, as a log that another program wrote, the dialogues of that benchmark have their
first question for a key: how long they are may be what came of them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from steer_verl.errors import DataError
from steer_verl.eval.records import EvalDialogue
from steer_verl.eval.runs import EvalRun
from steer_verl.text import folded

Keys = Mapping[str, str]
"""Id of a dialogue -> its key, of one run."""

COPY = "\n"
"""Stands in the key of a second dialogue with the same digest, before its number; ids are one line."""

UNASKED = "id "
"""Begins the key of a dialogue of which no question is known."""

UNLIKE = "ids stand for dialogues with other questions, images, kind, reference or number of turns"


def keys_of(runs: Sequence[EvalRun]) -> tuple[list[Keys], list[str]]:
    """The keys of each run's dialogues, and what a reader must know of them; the first run is the baseline's.

    Equal dialogues of a benchmark are numbered by their ids, so that the second one is paired with the second one.

    Raises:
        DataError: two runs have a benchmark of one name and not one dialogue of it in common.
    """
    keys: list[dict[str, str]] = [{} for _ in runs]
    notes: list[str] = []
    for benchmark in dict.fromkeys(d.benchmark for run in runs for d in run.dialogues):
        sides = [sorted(run.subset(benchmark), key=lambda d: d.id) for run in runs]
        asked = [d for side in sides for d in side if d.turns]
        named = all(d.digest for d in asked) and not _strange([side for side in sides if side])
        found = [_by_digest(side) if named else _by_question(side, sides) for side in sides]
        if not named and sum(map(bool, sides)) > 1:
            note = f"{benchmark}: records without our digest; dialogues are paired by their first question"
            notes.append(f"{note}{_uneven(sides, found)}.")
        notes += _compared(benchmark, runs, found)
        for all_keys, some in zip(keys, found, strict=True):
            all_keys.update(some)
    return list(keys), notes


def _strange(sides: Sequence[Sequence[EvalDialogue]]) -> bool:
    """Whether a run shares neither a digest nor an id with the first."""
    names = [{name for d in side for name in (d.id, d.digest)} for side in sides]
    return any(names[0].isdisjoint(other) for other in names[1:])


def _by_digest(side: Sequence[EvalDialogue]) -> dict[str, str]:
    planned = {(d.run, d.digest): d.planned for d in reversed(side)}  # copies are one dialogue, as long as the first
    return _numbered(side, [f"{d.digest} {planned[d.run, d.digest]}" if d.digest else "" for d in side])


def _by_question(side: Sequence[EvalDialogue], sides: Sequence[Sequence[EvalDialogue]]) -> dict[str, str]:
    """By the first question, and the id too where a run asks it more than once (of several images)."""
    asked = [{(d.run, _question(d), name) for d, name in zip(one, _first(one), strict=True)} for one in sides]
    counts = [Counter((run, question) for run, question, _ in some) for some in asked]
    often = {question for count in counts for (_, question), n in count.items() if n > 1 and question}
    names = zip(map(_question, side), _first(side), strict=True)
    return _numbered(side, [f"{question} {name}" if question in often else question for question, name in names])


def _first(side: Sequence[EvalDialogue]) -> list[str]:
    """The id of each dialogue's first copy: epochs of a sample have one digest."""
    first: dict[tuple[int, str], str] = {}
    return [first.setdefault((d.run, d.digest), d.id) if d.digest else d.id for d in side]


def _numbered(side: Sequence[EvalDialogue], names: Sequence[str]) -> dict[str, str]:
    """Id -> key, by what each dialogue was asked, which is empty where it is not known."""
    seen, found = Counter[tuple[int, str]](), {}
    for d, name in zip(side, names, strict=True):
        key = name or f"{UNASKED}{d.id}"
        seen[d.run, key] += 1
        found[d.id] = key if seen[d.run, key] == 1 else f"{key}{COPY}{seen[d.run, key]}"
    return found


def _uneven(sides: Sequence[Sequence[EvalDialogue]], found: Sequence[Keys]) -> str:
    """How many of those that are paired do not have as many turns in every run."""
    turns: dict[str, set[int]] = {}
    for d, keys in ((d, keys) for side, keys in zip(sides, found, strict=True) for d in side):
        turns.setdefault(keys[d.id], set()).add(d.planned)
    uneven = sum(len(planned) > 1 for planned in turns.values())
    return f", though {uneven} of them have more turns in one run than in another" * bool(uneven)


def _question(d: EvalDialogue) -> str:
    if not d.turns:
        return ""
    first = d.turns[0].user
    return hashlib.sha256(f"{len(first.images)} {folded(first.text, signs=True)}".encode()).hexdigest()


def _compared(benchmark: str, runs: Sequence[EvalRun], keys: Sequence[Keys]) -> Iterator[str]:
    """What each run that has a benchmark does not share with the first one that has it."""
    there = [(run, found) for run, found in zip(runs, keys, strict=True) if found]
    first, known = there[0]
    for run, found in there[1:]:
        names = f"{first.name} ({first.folder}) and {run.name} ({run.folder})"
        same, theirs = known.keys() & found.keys(), set(known.values())
        if theirs.isdisjoint(found.values()):
            why = f"{len(same)} {UNLIKE}" if same else "nor one id"
            raise DataError(
                f"{benchmark}: {names} have not one dialogue of it in common ({why}); leave one of them out, or "
                "evaluate both on the same file under the same kind, exact_match and max_turns"
            )
        asked = [i for i in same if not any(keys[i].startswith(UNASKED) for keys in (known, found))]
        if other := sum(found[i] not in theirs for i in asked):
            yield f"{benchmark}: {other} of {len(same)} {UNLIKE} in {names}; not paired."
