"""``steer data``: make sets of seeds, check them and convert them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from steer_verl.data.duplicates import DuplicateIndex
from steer_verl.data.jsonl import regular_file
from steer_verl.data.licences import MAX_LISTED, non_commercial
from steer_verl.data.rows.check import Checked, Rules, check_file
from steer_verl.data.rows.overlaps import Overlaps
from steer_verl.data.rows.parquet import KEPT_PROBLEMS, UNKNOWN, Report
from steer_verl.data.rows.parquet import convert as convert_file
from steer_verl.data.rows.schema import MAX_TURN_CHARS
from steer_verl.data.rows.tokens import MAX_TOKENS, StudentTokens
from steer_verl.data.rows.verl import DATA_SOURCE
from steer_verl.data.sources.settings import DuplicateSettings
from steer_verl.data.student_format import STUDENT_FORMAT
from steer_verl.errors import DataError, SteerError
from steer_verl.images import Change
from steer_verl.text import one_line

app = typer.Typer(help="Make training sets out of single-turn seeds; check and convert files.", no_args_is_help=True)
console = Console(stderr=True, highlight=False)

MAX_LICENCE = 80
"""Characters of a licence's name on the terminal."""
MAX_PATH = 200
"""Characters of a path on the terminal."""

ImageRoot = Annotated[
    Path | None,
    typer.Option(help="Folder of the images, which no path may leave [default: the file's own folder]"),
]
TrustPaths = Annotated[
    bool, typer.Option("--trust-paths", help="Accept absolute image paths and '..': for files you wrote yourself")
]
WithImages = Annotated[bool, typer.Option("--require-images", help="Refuse dialogues without an image")]
MaxChars = Annotated[int, typer.Option(min=1, help="Characters of one user turn")]


@app.command()
def build(
    config: Annotated[Path, typer.Argument(help="YAML file of the build (recipes/data has examples)")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, as if it stood in the file: work.in_flight=64")
    ] = None,
    until: Annotated[str | None, typer.Option(help="seeds: stop before anybody is asked")] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try again what was given up while a model failed for the moment")
    ] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="The dialogues as Ray tasks, on the cluster that RAY_ADDRESS names")
    ] = False,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="The folder was begun with other models, prompts or settings: make its dialogues anew under these; "
            "what is asked in the same words costs nothing",
        ),
    ] = False,
) -> None:
    """Single-turn seeds -> STEER-SFT, STEER-RL and STEER-Bench style sets. Start it again to go on."""
    from steer_verl.data.build import SEEDS
    from steer_verl.data.build import build as make
    from steer_verl.data.config import load_config

    if until not in (None, SEEDS):
        _fail(f"--until {until}: no step; {SEEDS} is the only one to stop after")
    with _one_line_errors():
        try:
            manifest = make(
                load_config(config, overrides or ()),
                until=until,
                retry=retry,
                ray=ray,
                accept_changes=accept_changes,
                console=console,
            )
        except KeyboardInterrupt:
            console.print("interrupted; the same command goes on from here", style="yellow")
            raise typer.Exit(130) from None
    for step in manifest.steps:
        told = f"{step.step}: {step.entered} in, {step.kept} kept, rejected: {_counted(step.rejected)}"
        told += f", {step.undone} undone" if step.undone else ""
        console.print(told, markup=False, soft_wrap=True)
        for stage, reasons in step.stages.items():
            console.print(f"  in {stage}: {_counted(reasons)}", markup=False, soft_wrap=True)
    if given_up := sum(step.given_up for step in manifest.steps):
        console.print(f"{given_up} were given up while a model failed; --retry tries them again", soft_wrap=True)


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="JSONL file, one dialogue a line")],
    target: Annotated[Path, typer.Argument(help="parquet file to write")],
    image_root: ImageRoot = None,
    trust_paths: TrustPaths = False,
    require_images: WithImages = False,
    max_chars: MaxChars = MAX_TURN_CHARS,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Write the good rows although there are bad ones")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="JSONL file for every problem found")] = None,
    split: Annotated[str, typer.Option(help="Written to extra_info.split")] = "train",
    data_source: Annotated[str, typer.Option(help="Groups verl's validation metrics")] = DATA_SOURCE,
    system_prompt: Annotated[Path | None, typer.Option(help="Text file, set before every dialogue")] = None,
    student_format: Annotated[
        bool, typer.Option("--student-format", help="Set the built-in <thinking>/<answer> prompt before every dialogue")
    ] = False,
) -> None:
    """Check every row of SOURCE and write verl's parquet file TARGET. Exit status 1 if rows were refused."""
    rules = Rules(image_root, trust_paths, require_images, max_chars)
    with _one_line_errors(), _bar(source) as advance, _report_lines(report) as write:

        def on_row(checked: Checked) -> None:
            write(checked)
            advance(checked)

        outcome = convert_file(
            source,
            target,
            rules=rules,
            skip_bad=skip_bad,
            on_row=on_row,
            split=split,
            data_source=data_source,
            system_prompt=_system_prompt(system_prompt, student_format),
        )
    _print(outcome)
    if outcome.bad_rows and not skip_bad:
        _fail(f"{target} was not written: {outcome.bad_rows} bad rows; fix them, or pass --skip-bad to leave them out")
    console.print(f"wrote {outcome.good_rows} rows to {target}", markup=False, soft_wrap=True)


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="JSONL or parquet files: RL, SFT or bench rows; one of each set")],
    image_root: ImageRoot = None,
    trust_paths: TrustPaths = False,
    require_images: WithImages = False,
    max_chars: MaxChars = MAX_TURN_CHARS,
    student: Annotated[
        str | None, typer.Option(help="Folder or hub name of the student: SFT rows are measured by its tokenizer")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an SFT row, images included")] = MAX_TOKENS,
    report: Annotated[Path | None, typer.Option(help="JSONL file for every problem found")] = None,
) -> None:
    """Check every row of FILES, and that no two of them share a dialogue or image. Exit status 1 on any problem."""
    rules, files = Rules(image_root, trust_paths, require_images, max_chars), list(dict.fromkeys(files))
    with _one_line_errors(), _report_lines(report) as write:
        measure = None if student is None else StudentTokens(student, max_tokens)
        overlaps = Overlaps(DuplicateIndex(DuplicateSettings())) if len(files) > 1 else None
        outcomes = [(file, _checked(file, rules, measure, overlaps, write)) for file in files]
    for file, outcome in outcomes:
        if len(files) > 1:
            console.print(f"{file}:", markup=False, soft_wrap=True)
        _print(outcome, measure)
    if measure and not any(outcome.measured for _, outcome in outcomes):
        console.print("no SFT row among them: nothing was measured for the student")
    bad = [_verdict(file, outcome) for file, outcome in outcomes if outcome.problem_count or not outcome.rows]
    if bad:
        _fail("; ".join(bad))


def _checked(
    file: Path,
    rules: Rules,
    student: StudentTokens | None,
    overlaps: Overlaps | None,
    write: Callable[[Checked], None],
) -> Report:
    """One file's rows, counted."""
    outcome = Report()
    with _bar(file) as advance:
        for checked in check_file(file, rules, compared=overlaps is not None, student=student):
            outcome.add(checked)
            if overlaps is not None and checked.told is not None:
                checked = checked._replace(problems=overlaps.add(file, checked))
                outcome.overlap(checked.problems)
            write(checked)
            advance(checked)
    return outcome


def _verdict(file: Path, outcome: Report) -> str:
    if not outcome.rows:
        return f"{file}: no row"
    shared = f", {outcome.shared_rows} are in another file too" if outcome.shared_rows else ""
    return f"{file}: {outcome.bad_rows} of {outcome.rows} rows are bad{shared}"


def _system_prompt(file: Path | None, student_format: bool) -> str | None:
    if file is None:
        return STUDENT_FORMAT if student_format else None
    if student_format:
        raise DataError("--system-prompt and --student-format exclude each other; drop one")
    try:
        return regular_file(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--system-prompt {file}: cannot be read ({error}); give a UTF-8 text file") from None


@contextmanager
def _bar(file: Path) -> Iterator[Callable[[Checked], None]]:
    """A progress bar over the bytes of a JSONL file or the rows of a parquet file."""
    total = None if file.suffix == ".parquet" or not file.is_file() else file.stat().st_size
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"checking {file.name}", total=total)
        yield lambda checked: progress.advance(task, checked.size)


@contextmanager
def _report_lines(path: Path | None) -> Iterator[Callable[[Checked], None]]:
    with path.open("w", encoding="utf-8") if path else nullcontext() as stream:
        yield lambda checked: _write_problems(stream, checked)


def _write_problems(stream: IO[str] | None, checked: Checked) -> None:
    if stream is not None:
        stream.writelines(json.dumps(problem._asdict(), ensure_ascii=False) + "\n" for problem in checked.problems)


def _print(report: Report, student: StudentTokens | None = None) -> None:
    for problem in report.problems:
        console.print(str(problem), style="red", markup=False, soft_wrap=True)
    if report.problem_count > KEPT_PROBLEMS:
        console.print(f"... and {report.problem_count - KEPT_PROBLEMS} more problems; --report FILE writes them all")
    kinds = ", ".join(f"{count} {one_line(kind, 40)}" for kind, count in sorted(report.kinds.items())) or "none"
    turns = ", ".join(f"{count}x{length}" for length, count in sorted(report.turns.items())) or "none"
    if report.good_rows:
        turns += f"; mean {sum(count * length for length, count in report.turns.items()) / report.good_rows:.2f}"
    good = f"{report.good_rows} good rows of {report.rows}"
    console.print(f"{good}: {kinds}; dialogues x turns: {turns}", markup=False, soft_wrap=True)
    if report.text_only:
        console.print(f"text alone: {report.text_only} of them have no image")
    if student and report.measured:
        (tokens, row), mean = report.longest, report.tokens / report.measured
        told = f"tokens, as {student.student} reads them: the longest row, {row}, has {tokens}; mean {mean:.1f}"
        blind = "" if student.sees else " (text alone: it has no image processor)"
        console.print(told + blind, markup=False, soft_wrap=True)
    if set(report.licenses) - {UNKNOWN}:
        console.print(f"licences: {_licences(report)}", markup=False, soft_wrap=True)
    for change in Change:
        if paths := report.changed.get(change):
            told = f"{len(paths)} {change.value} (first: {one_line(next(iter(paths)), MAX_PATH)})"
            who = "every model" if report.played else "all but verl's SFT trainer"
            console.print(f"images, as {who} will see them: {told}", markup=False, soft_wrap=True)


def _licences(report: Report) -> str:
    names = sorted(report.licenses)
    told = ", ".join(f"{report.licenses[name]} {one_line(name, MAX_LICENCE)}" for name in names[:MAX_LISTED])
    told += f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    bound = any(map(non_commercial, report.licenses))
    return told + ("; rows of a non-commercial source: so is the whole set" if bound else "")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (SteerError, OSError) as error:  # OSError: a report that cannot be written, a full disk
        _fail(str(error))


def _fail(message: str) -> None:
    console.print(message, style="bold red", markup=False, soft_wrap=True)
    raise typer.Exit(1)
