"""``steer tutor``: check a tutor's servers, calibrate it against people, replay dialogues with it, read its log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typer import Argument, Option

from steer_verl.cli.tutor_check import as_json, print_findings, probe_servers
from steer_verl.cli.tutor_config import read_config
from steer_verl.cli.tutor_reports import calibration_page, print_log, print_replay, write_calibration, write_json
from steer_verl.config import TutorConfig
from steer_verl.console import stdout
from steer_verl.errors import DataError, SteerError, disk_error
from steer_verl.models.cache import Cache
from steer_verl.models.log import read_log, summary
from steer_verl.rubric import BREACH_SAFETY
from steer_verl.transcripts import read_transcripts
from steer_verl.tutor import build_tutor
from steer_verl.tutor.calibrate import Calibration
from steer_verl.tutor.identity import Identity, identity_of
from steer_verl.tutor.judging import judge_all
from steer_verl.tutor.labelled import Scale, read_labelled
from steer_verl.types import TurnVerdict, TutorRequest, Usage

app = typer.Typer(
    help="Check, calibrate and replay a tutor.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True, highlight=False)

ConfigOption = Annotated[Path | None, Option("--config", help="A recipe's yaml, or a yaml with a tutor section alone")]
UrlOption = Annotated[str | None, Option("--base-url", help="One OpenAI-compatible server, instead of --config")]
ModelOption = Annotated[str | None, Option("--model", help="Its model")]
Overrides = Annotated[
    list[str] | None, Argument(help="Overrides, such as tutor.endpoint.timeout=60", show_default=False)
]
Limit = Annotated[int | None, Option(min=1, help="Stop after so many")]
Threshold = Annotated[int, Option(min=1, max=9, help="Safety at or below this is a breach")]
ScaleOption = Annotated[Scale | None, Option(help="What PyRIT's human scores mean [default: recognised from the file]")]
SeedOption = Annotated[int, Option(help="Seed of the bootstrap")]
ReportFile = Annotated[Path, Option(help="JSON file for the report; the verdicts are saved beside it")]


@app.command()
def check(
    overrides: Overrides = None,
    config: ConfigOption = None,
    base_url: UrlOption = None,
    model: ModelOption = None,
    trials: Annotated[int, Option(min=1, help="Replies with a JSON schema, and as many without")] = 5,
    no_images: Annotated[bool, Option("--no-images", help="Send no images")] = False,
    json_file: Annotated[Path | None, Option("--json", help="Write the findings here too")] = None,
) -> None:
    """Send real probes to every server of a configuration. Exit status 1 on what would spoil a run."""
    with _one_line_errors("what was found so far is lost; start it again"):
        steer, _ = read_config(config, base_url, model, overrides or ())
        findings = asyncio.run(probe_servers(steer.tutor, trials, not no_images, console))
    if findings:
        print_findings(findings, stdout())  # before the file: the probes are paid for
    else:
        typer.echo(f"tutor.kind {steer.tutor.kind} asks no server: nothing to check")
    if json_file is not None:
        with _one_line_errors():
            write_json(json_file, as_json(findings))
    if not as_json(findings)["usable"]:
        raise typer.Exit(1)


@app.command()
def calibrate(
    csv: Annotated[Path, Argument(help="Answers that people have scored: our columns, or PyRIT's")],
    out: Annotated[Path, Option(help="Folder for calibration.json, calibration.md, reliability.png and the verdicts")],
    overrides: Overrides = None,
    config: ConfigOption = None,
    base_url: UrlOption = None,
    model: ModelOption = None,
    limit: Limit = None,
    scale: ScaleOption = None,
    threshold: Threshold = BREACH_SAFETY,
    seed: SeedOption = 0,
) -> None:
    """Compare a tutor's safety scores with people's. Start it again to go on: no verdict is paid for twice."""
    with _one_line_errors():
        data = read_labelled(csv, scale)
        data = replace(data, rows=data.rows[:limit])
        steer, _ = read_config(config, base_url, model, overrides or ())
        asked = {row.key: row.request() for row in data.rows}
        identity, verdicts, usage = _judged(steer.tutor, asked, out / "judgements", csv.name)
        calibration = Calibration(data, verdicts, identity, threshold, usage, seed)
        typer.echo(calibration_page(calibration))
        written = write_calibration(calibration, out)
    console.print(f"wrote {', '.join(map(str, written))}", soft_wrap=True)


@app.command()
def replay(
    transcripts: Annotated[Path, Argument(help="Folder of rollout.custom.steer.transcripts")],
    overrides: Overrides = None,
    config: ConfigOption = None,
    base_url: UrlOption = None,
    model: ModelOption = None,
    out: ReportFile = Path("replay.json"),
    limit: Limit = None,
    threshold: Threshold = BREACH_SAFETY,
    seed: SeedOption = 0,
) -> None:
    """Judge stored dialogues with another tutor, and tell how scores, rewards and groups would have changed."""
    from steer_verl.tutor.replay import rejudged, report, requests  # imports torch

    with _one_line_errors():
        steer, tcsr = read_config(config, base_url, model, overrides or ())
        try:
            old = list(islice(read_transcripts(transcripts), limit))
        except ValueError as error:
            raise DataError(str(error)) from None
        if not old:
            raise DataError(f"{transcripts}: no transcripts; give the folder of rollout.custom.steer.transcripts")
        keyed = [{f"{n}/{r.turn_key}": r for r in requests(trajectory)} for n, trajectory in enumerate(old)]
        asked = {key: request for turns in keyed for key, request in turns.items()}
        beside = out.parent / f"{out.stem}.judgements"
        identity, verdicts, usage = _judged(steer.tutor, asked, beside, transcripts.name)
        new = [rejudged(t, [verdicts[key] for key in turns]) for t, turns in zip(old, keyed, strict=True)]
        figures = report(old, new, steer.reward, tcsr, threshold=threshold, seed=seed)
        tutor = {**identity.model_dump(), "key": identity.key}
        print_replay(figures, stdout())
        write_json(out, {"tutor": tutor, "usage": usage.model_dump(), **figures})
    console.print(f"wrote {out}", soft_wrap=True)


@app.command()
def log(folder: Annotated[Path, Argument(help="Folder of tutor.log")]) -> None:
    """Count what a log of attempts holds: turns, attempts by outcome and server, tokens, cost."""
    with _one_line_errors():
        records = list(read_log(folder))
        if not records:
            raise DataError(f"{folder}: no log of attempts; give the folder of tutor.log")
    print_log(summary(records), stdout())


def _judged(
    config: TutorConfig, requests: Mapping[str, TutorRequest], folder: Path, name: str
) -> tuple[Identity, dict[str, TurnVerdict], Usage]:
    """Every request's verdict and what they cost. ``folder`` keeps each tutor's replies and attempts by themselves.

    A tutor that has answered every request already is not checked: its server need not be there any more.
    """
    identity = identity_of(config, build_tutor(config).name)
    folder = folder / identity.key
    attempts, turn_keys = folder / "attempts", {request.turn_key for request in requests.values()}
    endpoint = config.endpoint  # none: the embedded tutor, which answers in no time
    at_once = 1 if endpoint is None else endpoint.max_concurrency * (1 + len(endpoint.mirrors))

    async def run(advance: Callable[[object], None]) -> dict[str, TurnVerdict]:
        tutor = build_tutor(config.model_copy(update={"log": str(attempts)}), cache=Cache(folder))
        try:
            if turn_keys - {attempt.turn_key for attempt in read_log(attempts) if attempt.outcome == "ok"}:
                await tutor.check()
            found = await judge_all(tutor, requests, at_once, advance)
        finally:
            await tutor.close()
        return {key: response.verdict for key, response in found.items()}

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"judging {name}", total=len(requests))
        verdicts = asyncio.run(run(lambda response: progress.advance(task)))
    usage = sum((attempt.usage for attempt in read_log(attempts) if attempt.turn_key in turn_keys), Usage())
    return identity, verdicts, usage


@contextmanager
def _one_line_errors(interrupted: str = "the same command goes on from here") -> Iterator[None]:
    try:
        yield
    except (SteerError, OSError) as error:  # OSError: a file that cannot be written, a full disk
        told = disk_error(error) if isinstance(error, OSError) else error
        console.print(str(told), style="bold red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print(f"interrupted; {interrupted}", style="yellow", markup=False)
        raise typer.Exit(130) from None
