"""``steer eval``: measure a model, ask again for what is missing, rejudge, compare runs, learn a judge's errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from steer_verl.console import stdout
from steer_verl.errors import ConfigError

if TYPE_CHECKING:
    from steer_verl.eval.working import Finished

app = typer.Typer(
    help="Measure any model on dialogues or under adaptive attack, with intervals; compare runs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

AcceptChanges = Annotated[
    bool,
    typer.Option("--accept-changes", help="Work a folder anew that was begun with another student, judge or benchmark"),
]


@app.command()
def run(
    settings: Annotated[
        list[str],
        typer.Argument(help="YAML file of the run (recipes/eval has examples), then key=value as if it stood there"),
    ],
    accept_changes: AcceptChanges = False,
) -> None:
    """Play every dialogue of some benchmarks with a student and rate every answer. Start it again to go on."""
    from steer_verl.eval.config import EvalConfig
    from steer_verl.eval.run import evaluate
    from steer_verl.settings_file import load_settings

    config = load_settings(EvalConfig, *_split(settings))
    with _resumable() as console:
        _show(evaluate(config, accept_changes=accept_changes, console=console), console)


@app.command()
def retry(
    out: Annotated[Path, typer.Argument(help="Folder of `steer eval run` or `rejudge`, whose settings it holds")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="key=value that is otherwise now: benchmarks.NAME.file=..., judge.endpoint.base_url=..."),
    ] = None,
    accept_changes: AcceptChanges = False,
) -> None:
    """Ask again for what is missing in a folder: given up, not rated, left by student or tutor, or not playable then.

    What is there stays, and nothing is paid for twice. Killed, the same command goes on.

    Its settings are its config.json's, but for student.trust_checkpoint: read that first in another's folder.
    """
    from steer_verl.eval.retry import retry_folder

    with _resumable() as console:
        _show(retry_folder(out, settings or (), accept_changes=accept_changes, console=console), console)


@app.command()
def rejudge(
    run: Annotated[Path, typer.Argument(help="Finished run: a folder, or a log of Inspect (.eval); it stays as it is")],
    settings: Annotated[
        list[str],
        typer.Argument(help="YAML file of a run, whose `judge` is taken, then key=value: judge.endpoint.model=NAME"),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new run; the same command goes on in it")],
    accept_changes: AcceptChanges = False,
) -> None:
    """Rate the answers of a run by another judge, panel or rubric, and tell how far it agrees with the former."""
    from steer_verl.eval.rejudge import rejudge as rate
    from steer_verl.eval.rejudge import rejudge_settings

    config = rejudge_settings(run, out, *_split(settings))
    with _resumable() as console:
        _show(rate(config, accept_changes=accept_changes, console=console), console)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs; those of the same name are pooled")],
    out: Annotated[Path | None, typer.Option(help="Folder for comparison.md, .csv and .json")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Name of the run that others are compared with: the first")
    ] = None,
) -> None:
    """Any number of runs side by side: intervals, paired tests on the same dialogues, the paper's figures."""
    from steer_verl.eval.compare.write import compare_folders

    stdout().print(compare_folders(runs, out, baseline))


@app.command()
def calibrate(
    labelled: Annotated[Path, typer.Argument(help="CSV of answers that people have scored (docs/formats.md)")],
    settings: Annotated[
        list[str],
        typer.Argument(
            help="YAML file of a run, whose `judge` and `marks` are taken, then key=value: judge.endpoint.model=NAME"
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for calibration.json; the same command goes on in it")],
    scale: Annotated[str | None, typer.Option(help="What the scores mean: safety, harm, objective, refusal")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Answers at most: the first ones")] = None,
    accept_changes: AcceptChanges = False,
) -> None:
    """How often the judge misses a failure or blames a good answer, by people's scores; for judge.calibration."""
    from steer_verl.eval.config import CalibrateConfig
    from steer_verl.eval.judging.calibrate import Thresholds
    from steer_verl.eval.judging.calibrate import calibrate as learn
    from steer_verl.settings_file import load_settings
    from steer_verl.tutor.labelled import Scale

    if scale is not None and scale not in [known.value for known in Scale]:
        raise ConfigError(f"--scale {scale}: choose one of {', '.join(known.value for known in Scale)}")
    config = load_settings(CalibrateConfig, *_split(settings), only=["judge", "marks"])
    with _resumable() as console:
        found = learn(
            labelled,
            config.judge,
            out,
            scale=Scale(scale) if scale else None,
            limit=limit,
            thresholds=Thresholds(harmless=config.marks.fail_below),
            accept_changes=accept_changes,
            console=console,
        )
    stdout().print(found.report(), markup=False)


def _split(settings: list[str]) -> tuple[Path | None, list[str]]:
    """The file, if the first word is one, and the overrides."""
    first = settings[0]
    if "=" in first and not Path(first).is_file():
        return None, settings
    if wrong := [word for word in settings[1:] if "=" not in word]:
        raise ConfigError(f"{wrong[0]!r}: not of the form key=value; only the first word may be a file")
    return Path(first), settings[1:]


@contextlib.contextmanager
def _resumable() -> Iterator[Console]:
    """Where progress is shown. Ctrl-C and a SIGTERM lose nothing: the calls under way come to their end."""
    from steer_verl.processes.child import terminable

    console = Console(stderr=True, highlight=False)
    try:
        with terminable():
            yield console
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here", style="yellow")
        raise typer.Exit(130) from None


def _show(done: Finished, console: Console) -> None:
    """The table, the judges' agreement, what is missing, and what to do next."""
    from steer_verl.eval.summary_table import summary_table

    folder = done.run.folder
    stdout().print(summary_table(done.summary))
    if done.agreement is not None:
        stdout().print(done.agreement.report(), markup=False)
    if done.incomplete or done.given_up:
        what = f"{done.incomplete:,} of {len(done.run.dialogues):,} dialogues are not whole"
        what += f", {done.given_up:,} were given up while a model failed" if done.given_up else ""
        told = f"{what}: `steer eval retry {folder}` asks again for what is missing"
        console.print(told, style="yellow", markup=False, soft_wrap=True)
    console.print(f"{folder}: next, `steer report {folder}`", markup=False, soft_wrap=True)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or of a training run's transcripts")],
    out: Annotated[Path, typer.Option(help="The log to write: FILE.eval")],
) -> None:
    """Write a run, or the transcripts of a training run, as a log of Inspect; `inspect view` shows it."""
    from steer_verl.eval.inspect.write import write_log, write_transcripts
    from steer_verl.eval.runs import ABOUT, read_run

    if out.suffix != ".eval":
        raise ConfigError(f"--out {out}: a log's name ends in .eval")
    write_log(read_run(run), out) if (run / ABOUT).is_file() or run.is_file() else write_transcripts(run, out)
    told = f"{out}: next, `inspect view --log-dir {out.parent}`"
    Console(stderr=True, highlight=False).print(told, markup=False, soft_wrap=True)
