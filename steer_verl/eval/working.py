"""What playing and rejudging share: settings that outlive the command, the work, and the finished run.

``out/config.json`` holds the settings of whoever began the folder, paths made absolute, so that ``steer eval retry``
needs nothing but the folder. Keys are never in it: settings name the variables that hold them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from os.path import expanduser
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.console import Console

from steer_verl import __version__
from steer_verl.config import Settings
from steer_verl.data.cards.markdown import inline
from steer_verl.errors import ConfigError, DataError
from steer_verl.eval.config import MAX_RETRIES, WorkedSettings
from steer_verl.eval.judging.agreement import Agreement
from steer_verl.eval.records import EvalDialogue, EvalEnd, Unrated
from steer_verl.eval.runs import ABOUT, SUMMARY, SUMMARY_PAGE, EvalRun, RunAbout, write_run
from steer_verl.eval.shape import Summary
from steer_verl.eval.summary import summarize
from steer_verl.eval.summary_table import summary_markdown
from steer_verl.records import write_whole
from steer_verl.work.job import Job
from steer_verl.work.manifest import account, read_plan
from steer_verl.work.outcomes import read_outcomes
from steer_verl.work.run import agreed_plan, run
from steer_verl.work.step import Outcome, given_up

CONFIG, WORK = "config.json", "work"
FILES = ("rubric", "log")
"""Settings that are paths though they are texts."""

C = TypeVar("C", bound=WorkedSettings)


class Finished(NamedTuple):
    """An evaluation that has come to its end."""

    run: EvalRun
    summary: Summary
    given_up: int
    """Dialogues that were given up because a model failed for the moment."""
    agreement: Agreement | None = None
    """Of a judge with the one before it, where answers were rejudged."""

    @property
    def incomplete(self) -> int:
        """Dialogues of which something is missing that ``steer eval retry`` asks for again: an answer (of a run that
        was played here), or a rating."""
        left = () if self.agreement else (EvalEnd.STUDENT_FAILED, EvalEnd.TUTOR_FAILED)
        unrated = (any(isinstance(turn.judged, Unrated) for turn in d.turns) for d in self.run.dialogues)
        return sum(d.end in left or lacks for d, lacks in zip(self.run.dialogues, unrated, strict=True))


def worked(
    config: WorkedSettings,
    job: Job[Any],
    fingerprint: Mapping[str, Any],
    about: RunAbout,
    images: Callable[[Any], Sequence[tuple[str, ...]]],
    *,
    total: int,
    accept_changes: bool,
    retry: bool,
    console: Console | None,
    training_seed: int | None = None,
) -> Finished:
    """Work through an evaluation, or go on with it, and write the run. See :func:`steer_verl.work.run.run`.

    Args:
        config: its settings, which are kept.
        job: makes an :class:`~steer_verl.eval.records.EvalDialogue` of every item.
        about: the run, but for what it has cost.
        images: the images of an item's turns, where they lie now: the folder or the files may have been moved.
        training_seed: whose student played, as it is said now; unset, as the records say.

    Raises:
        ConfigError: the folder was begun with other settings.
        SteerError: somebody cannot be asked, or the disk is full; the same command goes on.
    """
    agreed_plan(job, fingerprint, accept_changes)
    write_whole(config.out / CONFIG, json.dumps(plain(config), indent=1) + "\n")
    who = {role: getattr(about, role) for role in ("student", "judge", "tutor") if getattr(about, role)}
    again = missing if retry else None
    done = run(job, fingerprint, agents=who, total=total, accept_changes=accept_changes, retry=again, console=console)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    spent = {"usage": done.usage, "seconds": done.seconds, "date": now, "version": __version__}
    shown = {item.id: images(item) for item in job.items()}
    written = write_run(config.out, about.model_copy(update=spent), _dialogues(job.folder, shown, training_seed))
    summary = summarize(written)
    write_whole(config.out / SUMMARY, summary.model_dump_json(indent=1) + "\n")
    write_whole(config.out / SUMMARY_PAGE, f"# {inline(about.name)}\n\n{summary_markdown(summary)}")
    return Finished(written, summary, done.given_up)


def missing(outcome: Outcome) -> bool:
    """Whether something of an item is missing: given up, unrated, left early, or not playable when it was read."""
    value = outcome.done.value
    return given_up(outcome) or value is None or not EvalDialogue.model_validate(value, strict=False).whole


def with_retries(config: C, retry: bool) -> C:
    """The settings with the retries of their folder: one more for a retry, unless an unfinished one goes on.

    Raises:
        ConfigError: another command is at work in the folder.
        DataError: there is nothing to be retried, or a finished run lies there without its work.
    """
    out, kept = config.out, kept_settings(config.out).get("retries")
    retries = max(config.retries, kept if isinstance(kept, int) else 0)
    if retry or read_plan(out / WORK):
        complete = account(out / WORK).complete  # nobody else is at work there
        if retry:
            retries = min(retries + 1, MAX_RETRIES) if complete else max(retries, 1)
    elif (out / ABOUT).exists():
        what = f"a finished run lies there without its {WORK}/, and all of it would be asked for again"
        raise DataError(f"{out}: {what}; give a new folder, or put {WORK}/ back")
    return config.model_copy(update={"retries": retries})


def kept_settings(out: Path) -> dict[str, Any]:
    """The settings by which a folder was begun; empty for a new one. One that cannot be read is a ``ConfigError``."""
    path = out / CONFIG
    hint = "remove it, and start the command that began the folder once more"
    return _json(path, str(path), hint) if path.exists() else {}


def calibration_of(path: Path | None) -> dict[str, Any] | None:
    """The judge's known errors, as ``steer eval calibrate`` wrote them; without the file, a ``ConfigError``."""
    hint = "give the calibration.json of `steer eval calibrate`"
    return _json(path, f"judge.calibration: {path}", hint) if path is not None else None


def digest_of(parts: Iterable[str]) -> str:
    """16 hexadecimal digits over some texts, in their order."""
    return hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()[:16]


def _json(path: Path, where: str, hint: str) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            raise OSError("no regular file")
        if isinstance(found := json.loads(path.read_text(encoding="utf-8")), dict):
            return found
        error: Exception = ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as failure:
        error = failure
    raise ConfigError(f"{where}: cannot be read ({error}); {hint}")


def plain(settings: Settings) -> dict[str, Any]:
    """What was set, as JSON takes it; paths are absolute."""
    return dict(_plain(settings.model_dump(exclude_unset=True)))


def _plain(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    path = isinstance(value, Path) or (name in FILES and isinstance(value, str))
    return str(Path(expanduser(value)).absolute()) if path else value.value if isinstance(value, Enum) else value


def _dialogues(
    folder: Path, images: Mapping[str, Sequence[tuple[str, ...]]], training_seed: int | None
) -> Iterator[EvalDialogue]:
    """The record of every item, whether it was kept or given up, with its images where they are now."""
    for outcome in read_outcomes(folder):
        if outcome.done.value is None:
            raise DataError(f"{folder}: item {outcome.id!r} has no record ({outcome.done}); use a new folder")
        record = EvalDialogue.model_validate(outcome.done.value, strict=False)
        turns = [
            turn.model_copy(update={"user": turn.user.model_copy(update={"images": shown})})
            for turn, shown in zip(record.turns, images[outcome.id], strict=False)
        ]
        run = record.run if training_seed is None else training_seed
        yield record.model_copy(update={"turns": tuple(turns), "run": run})
