"""``steer tutor``: check a tutor's servers, calibrate it against people, replay dialogues with it, read its log."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from steer_verl.config import TutorConfig
from steer_verl.console import stdout
from steer_verl.errors import DataError, SteerError
from steer_verl.rubric import BREACH_SAFETY
from steer_verl.tutor.identity import Identity, identity_of
from steer_verl.types import Trajectory, TurnVerdict, TutorRequest
from steer_verl.vetting.given import given
from steer_verl.vetting.judging import Judgements, exchange_key, judge_all
from steer_verl.vetting.labelled import Scale

app = typer.Typer(
    help="Check, calibrate and replay a tutor.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True, highlight=False)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="A recipe's yaml, or a yaml with a tutor section alone")
]
UrlOption = Annotated[str | None, typer.Option("--base-url", help="One OpenAI-compatible server, instead of --config")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Its model")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Overrides, such as tutor.endpoint.timeout=60", show_default=False)
]
Limit = Annotated[int | None, typer.Option(min=1, help="Stop after so many")]
Threshold = Annotated[int, typer.Option(min=1, max=9, help="Safety at or below this is a breach")]
SeedOption = Annotated[int, typer.Option(help="Seed of the bootstrap")]


@app.command()
def check(
    overrides: Overrides = None,
    config: ConfigOption = None,
    base_url: UrlOption = None,
    model: ModelOption = None,
    trials: Annotated[int, typer.Option(min=1, help="Replies with a JSON schema, and as many without")] = 5,
    no_images: Annotated[bool, typer.Option("--no-images", help="Send no pictures")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the findings here too")] = None,
) -> None:
    """Send real probes to every server of a configuration. Exit status 1 on what would spoil a run."""
    from steer_verl.vetting.check_report import as_json, show
    from steer_verl.vetting.probes import Finding

    findings: list[Finding] = []
    with _one_line_errors("what was found so far is lost; start it again"):
        settings = given(config, base_url, model, overrides or ()).steer.tutor
        asyncio.run(_probe_all(settings, trials, not no_images, findings))
        if json_file is not None:
            _write_json(json_file, as_json(findings))
    if not findings:
        typer.echo(f"tutor.kind {settings.kind} asks no server: nothing to check")
        return
    show(findings, stdout())
    if any(finding.cure for finding in findings):
        raise typer.Exit(1)


@app.command()
def calibrate(
    csv: Annotated[Path, typer.Argument(help="Answers that people have scored: our columns, or PyRIT's")],
    out: Annotated[
        Path, typer.Option(help="Folder for calibration.json, calibration.md, reliability.png and the judgements")
    ],
    overrides: Overrides = None,
    config: ConfigOption = None,
    base_url: UrlOption = None,
    model: ModelOption = None,
    limit: Limit = None,
    scale: Annotated[
        Scale | None, typer.Option(help="What PyRIT's human scores mean [default: told from the file]")
    ] = None,
    threshold: Threshold = BREACH_SAFETY,
    seed: SeedOption = 0,
) -> None:
    """Compare a tutor's safety scores with people's. Start it again to go on: no verdict is paid for twice."""
    from dataclasses import replace

    from steer_verl.vetting.calibrate import compare, markdown, write
    from steer_verl.vetting.labelled import read_labelled

    with _one_line_errors():
        data = read_labelled(csv, scale)
        data = replace(data, rows=data.rows[:limit])
        tutor = given(config, base_url, model, overrides or ()).steer.tutor
        identity, store, found = _judged(
            tutor, {row.key: row.exchange() for row in data.rows}, out / "judgements", f"judging {csv.name}"
        )
        usage = store.usage({row.key: row for row in data.rows})
        calibration = compare(data, found, identity, threshold=threshold, usage=usage, seed=seed)
        written = write(calibration, out)
    typer.echo(markdown(calibration))
    console.print(f"wrote {', '.join(map(str, written))}", soft_wrap=True)


@app.command()
def replay(
    transcripts: Annotated[Path, typer.Argument(help="Folder of rollout.custom.steer.transcripts")],
    overrides: Overrides = None,
    config: ConfigOption = None,
    base_url: UrlOption = None,
    model: ModelOption = None,
    out: Annotated[Path, typer.Option(help="JSON file for the report; the judgements are kept beside it")] = Path(
        "replay.json"
    ),
    limit: Limit = None,
    threshold: Threshold = BREACH_SAFETY,
    seed: SeedOption = 0,
) -> None:
    """Judge stored dialogues with another tutor, and tell how scores, rewards and groups would have changed."""
    from steer_verl.vetting.replay import exchanges, rejudged, report
    from steer_verl.vetting.replay_report import show

    with _one_line_errors():
        settings = given(config, base_url, model, overrides or ())
        played = _played(transcripts, limit)
        asked = {id(t): exchanges(t) for t in played}
        by_key = {exchange_key(e): e for exchange_list in asked.values() for e in exchange_list}
        identity, store, found = _judged(
            settings.steer.tutor, by_key, out.with_suffix(".judgements"), f"judging {transcripts.name}"
        )
        again = [rejudged(t, [found[exchange_key(e)] for e in asked[id(t)]]) for t in played]
        figures = report(played, again, settings.steer.reward, settings.tcsr, threshold=threshold, seed=seed)
        told = {"tutor": {**identity.model_dump(), "key": identity.key}, "usage": store.usage(by_key).model_dump()}
        _write_json(out, {**told, **figures})
    show(figures, stdout())
    console.print(f"wrote {out}", soft_wrap=True)


@app.command()
def log(folder: Annotated[Path, typer.Argument(help="Folder of tutor.log")]) -> None:
    """Count what a log of attempts holds: rulings, attempts by outcome and server, tokens, cost."""
    from steer_verl.transport.ledger import read_ledger, summary
    from steer_verl.vetting.log_report import show

    with _one_line_errors():
        records = list(read_ledger(folder))
        if not records:
            raise DataError(f"{folder}: no log of attempts; give the folder of tutor.log")
    show(summary(records), stdout())


async def _probe_all(config: TutorConfig, trials: int, images: bool, findings: list[Any]) -> None:
    from steer_verl.vetting.asking import targets
    from steer_verl.vetting.probe_material import draw_pictures
    from steer_verl.vetting.probes import Finding, probe

    with tempfile.TemporaryDirectory() as folder, console.status("") as status:
        pictures = draw_pictures(Path(folder))
        for target in targets(config, images=images):
            status.update(f"probing {target.where}")
            if target.local:
                note = "verl's own reward model exists only while a training runs; the training checks it"
                findings.append(Finding(target.where, "reach", None, note))
                continue
            async for finding in probe(target, trials, pictures):
                findings.append(finding)
                status.update(f"probing {target.where}: {finding.probe} done")


def _judged(
    config: TutorConfig, exchanges: Mapping[str, TutorRequest], folder: Path, what: str
) -> tuple[Identity, Judgements, dict[str, TurnVerdict]]:
    """Every exchange's verdict, with a bar and an estimate."""
    from steer_verl.tutor import build_tutor

    async def run(advance: Callable[[TurnVerdict], None]) -> tuple[Identity, Judgements, dict[str, TurnVerdict]]:
        tutor = build_tutor(config.model_copy(update={"log": str(folder / "attempts")}))  # not the training's
        try:
            identity = identity_of(config, tutor.name)
            store = Judgements(folder, identity.key)
            return identity, store, await judge_all(tutor, exchanges, store, _at_once(config), advance)
        finally:
            await tutor.close()

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=len(exchanges))
        return asyncio.run(run(lambda verdict: progress.advance(task)))


def _at_once(config: TutorConfig) -> int:
    """As many as the servers take; the embedded tutor answers in no time."""
    endpoint = config.endpoint
    return 1 if endpoint is None else endpoint.max_concurrency * (1 + len(endpoint.mirrors))


def _played(folder: Path, limit: int | None) -> list[Trajectory]:
    from itertools import islice

    from steer_verl.transcripts import read_transcripts

    try:
        played = list(islice(read_transcripts(folder), limit))
    except ValueError as error:
        raise DataError(str(error)) from None
    if not played:
        raise DataError(f"{folder}: no transcripts; give the folder of rollout.custom.steer.transcripts")
    return played


def _write_json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@contextmanager
def _one_line_errors(kept: str = "the same command goes on from here") -> Iterator[None]:
    try:
        yield
    except (SteerError, OSError) as error:  # OSError: a file that cannot be written, a full disk
        console.print(str(error), style="bold red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        console.print(f"interrupted; {kept}", style="yellow", markup=False)
        raise typer.Exit(130) from None
