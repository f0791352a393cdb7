"""``steer eval rejudge``: the answers of a finished run under another judge; nobody answers anew.

::

    new/run.json ...       a run like every other (steer_verl/eval/runs.py): its turns keep the former ratings
    new/agreement.json     how far the two judges agree (steer_verl/eval/judging/agreement.py)
    new/config.json, work/, calls/   as of ``steer eval run``
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from steer_verl.errors import DataError
from steer_verl.eval.config import RejudgeConfig
from steer_verl.eval.images import UNREADABLE, image_digest, locator
from steer_verl.eval.judging import EvalJudge, build_judge
from steer_verl.eval.judging.agreement import agreement_of
from steer_verl.eval.judging.protocol import Case, Rated, case_of
from steer_verl.eval.records import EvalDialogue, EvalTurn
from steer_verl.eval.run import IMAGES
from steer_verl.eval.runs import EvalRun, read_run, with_images
from steer_verl.eval.step import ended, word_of
from steer_verl.eval.summary import known_errors
from steer_verl.eval.working import WORK, Finished, calibration_of, digest_of, with_retries, worked
from steer_verl.models.cache import ReplyCache
from steer_verl.models.failure import AgentFailed
from steer_verl.models.place import Place
from steer_verl.models.replies import AskFault
from steer_verl.records import write_whole
from steer_verl.settings_file import load_settings
from steer_verl.statistics.intervals import student_t
from steer_verl.text import one_line
from steer_verl.types import QuestionOrigin
from steer_verl.work.job import Job
from steer_verl.work.step import Done

logger = logging.getLogger(__name__)

AGREEMENT = "agreement.json"
OF_FILE = ("judge", "marks", "work", "retries")
"""What is taken of a run's file."""


class RejudgeStep:
    """Rates the answers of one dialogue (:class:`~steer_verl.work.step.Step`).

    Args:
        judge: who rates.
        located: finds the images of the run, and no other file; unset, all that are named are its own.
    """

    name = "rejudge"

    def __init__(self, judge: EvalJudge, located: Callable[[str], Path | None] = Path) -> None:
        self.judge, self.open, self.close = judge, judge.check, judge.close
        self.located = located

    async def work(self, item: EvalDialogue, place: Place) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        own = [turn.origin is not QuestionOrigin.TUTOR for turn in item.turns]
        cases = [
            case_of(item.turns[:n], reference=item.reference if n == item.planned and own[-1] else "", facts=item.facts)
            for n in range(1, len(item.turns) + 1)
        ]
        shown = {image: was for turn in item.turns for image, was in zip(turn.user.images, turn.shown, strict=False)}
        ratings = (self._rate(case, shown, place.part(f"turn{n}")) for n, case in enumerate(cases, 1))
        rated = await asyncio.gather(*ratings, return_exceptions=True)
        turns = [_rejudged(*both) for both in zip(item.turns, (word_of(self.judge, one) for one in rated), strict=True)]
        return ended(item.model_copy(update={"turns": tuple(turns)}), *rated)

    async def _rate(self, case: Case, shown: Mapping[str, str], place: Place) -> Rated:
        """Rate what is the student's own case: an image elsewhere, or another one than was ``shown``, is not sent."""
        for image in (image for said in case.said for image in said.images):
            file = self.located(image)
            if file is None:
                what = "lies outside the folders of this run's images"
            elif (now := image_digest(str(file))) not in (shown.get(image, now), UNREADABLE):
                what = "is another image than the student was shown"
            else:
                continue
            raise AgentFailed(AskFault.IMAGE.value, f"{Path(image).name} {what}; it was not sent")
        return await self.judge.rate(case, place)


def _rejudged(turn: EvalTurn, word: Rated) -> EvalTurn:
    now = {"judged": word.judged, "opinions": word.opinions, "earlier": (*turn.earlier, turn.judged)}
    return turn.model_copy(update=now)


def rejudge(
    config: RejudgeConfig, *, accept_changes: bool = False, retry: bool = False, console: Console | None = None
) -> Finished:
    """Rate, or go on rating, and write the new run. See :func:`steer_verl.eval.run.evaluate`.

    Raises:
        DataError: the run is none, or holds no dialogue.
    """
    student_t(1)
    source, config = read_run(config.run), with_retries(config, retry)
    if not source.dialogues:
        raise DataError(f"{config.run}: a run without dialogues; give another one")
    about = source.about.model_copy(
        update={
            "judge": build_judge(config.judge, config.out).name,
            "benchmarks": {name: _placed(source, name, one) for name, one in source.about.benchmarks.items()},
            "marks": config.marks.model_dump() if config.marks else source.about.marks,
            "calibration": calibration_of(config.judge.calibration),
        }
    )
    known_errors(about)  # a calibration that cannot be used is told now
    located = functools.cache(locator(source))

    def known(image: str) -> str:
        return image_digest(str(located(image) or ""))

    _warn_of_lost_images(source, known)

    def make_step(processes: int, cache: ReplyCache) -> RejudgeStep:
        judge = build_judge(config.judge, config.out, processes=processes, retries=config.retries, cache=cache)
        return RejudgeStep(judge, located)

    job: Job[EvalDialogue] = Job(
        RejudgeStep.name,
        config.out / WORK,
        make_step=make_step,
        items=lambda: source.dialogues,
        settings=config.work,
        content=lambda one: digest_of([with_images(one, known).model_dump_json()]),
    )
    done = worked(
        config,
        job,
        {"judge": about.judge, "items": digest_of(one.id for one in source.dialogues)},
        about,
        lambda one: [turn.user.images for turn in one.turns],
        total=len(source.dialogues),
        accept_changes=accept_changes,
        retry=retry,
        console=console,
    )
    agreement = agreement_of(done.run.dialogues, about.mark_settings.fail_below)
    write_whole(config.out / AGREEMENT, json.dumps(agreement.as_dict(), indent=1, allow_nan=False) + "\n")
    return done._replace(agreement=agreement)


def _warn_of_lost_images(source: EvalRun, known: Callable[[str], str]) -> None:
    shown = dict.fromkeys(image for one in source.dialogues for turn in one.turns for image in turn.user.images)
    if lost := [image for image in shown if known(image) == UNREADABLE]:
        told = "%s: %d of %d images cannot be opened, and answers about them stay unrated; the first: %s; "
        hint = "where they were moved, `steer eval retry %s benchmarks.NAME.file=...` writes their new place down first"
        logger.warning(told + hint, source.folder, len(lost), len(shown), one_line(lost[0], 200), source.folder)


def _placed(source: EvalRun, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A benchmark's settings, and where its images lie: a single-turn set's in the run that played it, a log's in the
    folder into which they were read."""
    if source.folder.is_file():
        images = [image for d in source.subset(name) for turn in d.turns for image in turn.user.images]
        folders = {str(Path(image).parent) for image in images}
        return {**settings, "images": os.path.commonpath(folders)} if folders else settings
    own = settings.get("source") and not settings.get("images")
    return {**settings, "images": str(source.folder.resolve() / IMAGES)} if own else settings


def rejudge_settings(run: Path, out: Path, file: Path | None, overrides: Sequence[str]) -> RejudgeConfig:
    """The settings of a command: of a run's file, what is said of judging. A ``ConfigError``: one cannot work."""
    return load_settings(RejudgeConfig, file, overrides, only=OF_FILE, run=run, out=out)
