"""``steer data``: make sets of seeds, check them and convert them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID

from steer_verl.data.jsonl import regular_file
from steer_verl.data.licences import MAX_LISTED, non_commercial
from steer_verl.data.rows.check import Checked, Rules, check_file
from steer_verl.data.rows.overlaps import Overlaps
from steer_verl.data.rows.parquet import KEPT_PROBLEMS, UNKNOWN, Report
from steer_verl.data.rows.parquet import convert as convert_file
from steer_verl.data.rows.schema import MAX_TURN_CHARS
from steer_verl.data.rows.tokens import MAX_TOKENS, StudentTokens
from steer_verl.data.rows.verl import DATA_SOURCE
from steer_verl.data.student_format import STUDENT_FORMAT
from steer_verl.errors import MAX_MESSAGE, DataError, SteerError, disk_error
from steer_verl.images import Change
from steer_verl.text import one_line

app = typer.Typer(
    help="Make training sets out of single-turn seeds; check and convert files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True, highlight=False)

MAX_NAME = 80
"""Characters of a kind, a licence or a file's name on the terminal."""
MAX_PATH = 200
"""Of an image's path."""

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
        options = load_config(config, overrides or ())
        try:
            manifest = make(options, until=until, retry=retry, ray=ray, accept_changes=accept_changes, console=console)
        except KeyboardInterrupt:
            _say("interrupted; the same command goes on from here", "yellow")
            raise typer.Exit(130) from None
    for step in manifest.steps:
        undone = f", {step.undone} undone" if step.undone else ""
        _say(f"{step.step}: {step.entered} in, {step.kept} kept, rejected: {_counted(step.rejected)}{undone}")
        for stage, reasons in step.stages.items():
            _say(f"- in {stage}: {_counted(reasons)}")
    if given_up := sum(step.given_up for step in manifest.steps):
        _say(f"{given_up} were given up while a model failed; --retry tries them again")


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
    with _one_line_errors(), _listener(report, (source, target)) as hear:
        if target.suffix != ".parquet":
            raise DataError(f"{target}: not the name of a parquet file; give one that ends in .parquet")
        outcome = convert_file(
            source,
            target,
            rules=rules,
            skip_bad=skip_bad,
            on_row=lambda checked: hear(source, checked),
            split=split,
            data_source=data_source,
            system_prompt=_system_prompt(system_prompt, student_format),
        )
    _tell(outcome)
    if outcome.bad_rows and not (skip_bad and outcome.good_rows):
        hint = "fix them" + ", or pass --skip-bad to leave them out" * (not skip_bad)
        _fail(f"{target} was not written: {outcome.bad_rows} of {outcome.rows} rows are bad; {hint}")
    _say(f"wrote {outcome.good_rows} rows to {target}")


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
    outcomes = {file: Report() for file in files}
    overlaps = Overlaps() if len(outcomes) > 1 else None
    rules = Rules(image_root, trust_paths, require_images, max_chars, compared=overlaps is not None)
    with _one_line_errors(), _listener(report, files) as hear:
        for file in files:  # a slip of the pen is told before the first file is read
            regular_file(file)
        measure = None if student is None else StudentTokens(student, max_tokens)
        for file, outcome in outcomes.items():
            for checked in check_file(file, replace(rules, student=measure)):
                outcome.add(checked)
                if overlaps is not None and checked.record is not None:
                    checked = checked._replace(problems=overlaps.add(file, checked))
                    outcome.overlap(checked.problems)
                hear(file, checked)
    for file, outcome in outcomes.items():
        if overlaps is not None:
            _say(f"{file}:")
        _tell(outcome, measure)
    if measure and not any(outcome.measured for outcome in outcomes.values()):
        _say("no SFT row among them: nothing was measured for the student")
    bad = [_verdict(file, outcome) for file, outcome in outcomes.items() if outcome.problem_count or not outcome.rows]
    if bad:
        _fail("; ".join(bad))


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
        return regular_file(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--system-prompt {file}: cannot be read ({error}); give a UTF-8 text file") from None


@contextmanager
def _listener(report: Path | None, files: Sequence[Path]) -> Iterator[Callable[[Path, Checked], None]]:
    """Hears of every row: its problems go to the report, its size to the progress bar of its file."""
    if report and report.resolve() in [file.resolve() for file in files]:
        raise DataError(f"--report {report}: one of the data files; give another name")
    tasks: dict[Path, TaskID] = {}
    lines = report.open("w", encoding="utf-8", errors="replace") if report else nullcontext()
    with lines as stream, Progress(console=console, transient=True, disable=not console.is_terminal) as progress:

        def hear(file: Path, checked: Checked) -> None:
            if file not in tasks:
                total = None if file.suffix == ".parquet" else file.stat().st_size
                tasks[file] = progress.add_task(f"checking {escape(one_line(file.name, MAX_NAME))}", total=total)
            progress.advance(tasks[file], checked.size)
            if stream is not None:
                stream.writelines(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in checked.problems)

        yield hear


def _tell(report: Report, student: StudentTokens | None = None) -> None:
    for problem in report.problems:
        _say(str(problem), "red")
    if report.problem_count > KEPT_PROBLEMS:
        _say(f"... and {report.problem_count - KEPT_PROBLEMS} more problems; --report FILE writes them all")
    turns = ", ".join(f"{count}x{length}" for length, count in sorted(report.turns.items())) or "none"
    if report.good_rows:
        turns += f"; mean {sum(count * length for length, count in report.turns.items()) / report.good_rows:.2f}"
    kinds = _counted(report.kinds, MAX_LISTED)
    _say(f"{report.good_rows} good rows of {report.rows}: {kinds}; dialogues x turns: {turns}")
    if report.text_only:
        _say(f"text alone: {report.text_only} of them have no image")
    if student and report.measured:
        (tokens, row), mean = report.longest, report.tokens / report.measured
        blind = "" if student.sees else " (text alone: it has no image processor)"
        _say(f"tokens, as {student.student} reads them: the longest row, {row}, has {tokens}; mean {mean:.1f}{blind}")
    if set(report.licenses) - {UNKNOWN}:
        bound = "; rows of a non-commercial source: so is the whole set" * any(map(non_commercial, report.licenses))
        _say(f"licences: {_counted(report.licenses, MAX_LISTED)}{bound}")
    who = "every model" if report.played else "all but verl's SFT trainer"
    for change in Change:
        if paths := report.changed.get(change):
            first = one_line(next(iter(paths)), MAX_PATH)
            _say(f"images, as {who} will see them: {len(paths)} {change.value} (first: {first})")


def _counted(counts: Mapping[str, int], most: int | None = None) -> str:
    """Words with their numbers, the first ``most`` of them."""
    told = ", ".join(f"{counts[word]} {one_line(word, MAX_NAME)}" for word in sorted(counts)[:most]) or "none"
    return told if most is None or len(counts) <= most else f"{told} and {len(counts) - most} more"


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except SteerError as error:
        _fail(str(error))
    except OSError as error:  # a report that cannot be written, a full disk
        _fail(str(disk_error(error)))
    except sqlite3.OperationalError as error:  # an index of what was read lies in temporary files
        _fail(f"SQLite's temporary files: {error}; make room in /var/tmp or name another folder by SQLITE_TMPDIR")


def _fail(message: str) -> None:
    _say(message, "bold red")
    raise typer.Exit(1)


def _say(line: str, style: str | None = None) -> None:
    """The one way to the terminal: a line may hold words of others, or the name of a file."""
    console.print(one_line(line, MAX_MESSAGE), style=style, markup=False, soft_wrap=True)
