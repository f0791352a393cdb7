"""``steer eval calibrate``: a judge rates answers that people have scored, as it rates those of a run.

::

    out/calibration.json   its known errors, for ``judge.calibration`` of a run
    out/work/              what a killed run goes on from (steer_verl/work)
    out/calls/             every attempt at the judge
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic_core import to_json
from rich.console import Console

from steer_verl.errors import ConfigError
from steer_verl.eval.config import JudgeSettings
from steer_verl.eval.judging import build_judge
from steer_verl.eval.judging.calibration import JudgeCalibration, Thresholds, compare
from steer_verl.eval.judging.protocol import Case, EvalJudge, Rated
from steer_verl.eval.records import Rating
from steer_verl.models.cache import ReplyCache
from steer_verl.models.forms import Said
from steer_verl.models.place import Place
from steer_verl.records import write_whole
from steer_verl.tutor.labelled import Labelled, Scale, read_labelled
from steer_verl.types import Usage
from steer_verl.work.outcomes import read_outcomes
from steer_verl.work.run import Job, run
from steer_verl.work.step import Done, Kept, Outcome, WorkSettings, value_of

CALIBRATION = "calibration.json"
WORK = WorkSettings(in_flight=128, shards=4)


class CalibrateStep:
    """Rates one scored answer (:class:`~steer_verl.work.step.Step`).

    Args:
        judge: who rates.
    """

    name = "calibrate"

    def __init__(self, judge: EvalJudge) -> None:
        self.judge = judge

    async def open(self) -> None:
        """See :class:`~steer_verl.work.step.Step`."""
        await self.judge.check()

    async def work(self, item: Labelled, place: Place) -> Done:
        """See :class:`~steer_verl.work.step.Step`."""
        said = (
            Said(role="user", text=item.question, images=item.images),
            Said(role="assistant", text=item.answer),
        )
        return Kept(value=value_of(await self.judge.rate(Case(said=said), place)))

    async def close(self) -> None:
        """Close the judge."""
        await self.judge.close()


def calibrate(
    labelled: Path,
    settings: JudgeSettings,
    out: Path,
    *,
    scale: Scale | None = None,
    limit: int | None = None,
    thresholds: Thresholds | None = None,
    work: WorkSettings = WORK,
    accept_changes: bool = False,
    seed: int = 0,
    console: Console | None = None,
) -> JudgeCalibration:
    """Rate what people have scored, or go on rating, and write ``out/calibration.json``.

    Args:
        labelled: CSV of scored answers (steer_verl/tutor/labelled.py).
        settings: the judge.
        out: folder.
        scale: what PyRIT's human scores mean; unset, told from the file.
        limit: the first rows only.
        thresholds: where an answer becomes a bad one, to people and to the judge.
        work: bounds of the work.
        accept_changes: a folder that was begun with another judge is worked anew.
        seed: of the bootstrap.
        console: where progress is shown.

    Raises:
        ConfigError: the judge's settings cannot work, or the folder was begun with another judge.
        DataError: the file cannot be used, or not one answer was rated.
        SteerError: the judge cannot be asked; the same command goes on.
    """
    _refuse_mini(settings, labelled)
    data = read_labelled(labelled, scale)
    data = replace(data, rows=data.rows[:limit])
    unique = {row.key: row for row in data.rows}
    judge = build_judge(settings, out).name
    job: Job[Labelled] = Job(
        CalibrateStep.name,
        out / "work",
        make_step=functools.partial(_make_step, settings, out),
        items=unique.values,
        settings=work,
        key=_key,
    )
    run(
        job,
        {"judge": judge},
        agents={"judge": judge},
        total=len(unique),
        accept_changes=accept_changes,
        console=console,
    )
    found = {outcome.id: outcome for outcome in read_outcomes(job.folder) if outcome.id in unique}
    usage = sum((outcome.usage for outcome in found.values()), Usage())
    marks = [_mark(found, row.key) for row in data.rows]
    calibration = compare(judge, data, marks, thresholds=thresholds, usage=usage, seed=seed)
    write_whole(out / CALIBRATION, json.dumps(calibration.as_dict(), indent=1, allow_nan=False) + "\n")
    return calibration


def _refuse_mini(settings: JudgeSettings, labelled: Path) -> None:
    if settings.kind == "mini":
        what = "kind mini rates the laboratory's own rows alone"
        raise ConfigError(f"judge: {what}, and {labelled} holds none of their facts; set judge.endpoint")


def _make_step(settings: JudgeSettings, out: Path, processes: int, cache: ReplyCache) -> CalibrateStep:
    return CalibrateStep(build_judge(settings, out, processes=processes, cache=cache))


def _key(row: Labelled) -> str:
    return row.key


def _mark(found: Mapping[str, Outcome], key: str) -> int | str:
    """``harmless``, or why there is none."""
    done = found[key].done
    if not isinstance(done, Kept):
        return done.reason
    judged = Rated.model_validate_json(to_json(done.value)).judged
    return judged.harmless if isinstance(judged, Rating) else judged.reason
