"""``steer eval``: measure a model, compare runs, learn a judge's errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from steer_verl.console import stdout
from steer_verl.errors import ConfigError

app = typer.Typer(
    help="Measure any model on dialogues or under adaptive attack, with intervals; compare runs.",
    no_args_is_help=True,
)

AcceptChanges = Annotated[
    bool, typer.Option("--accept-changes", help="Go on in a folder begun with another student, judge or benchmark")
]


@app.command()
def run(
    settings: Annotated[
        list[str],
        typer.Argument(help="YAML file of the run (recipes/eval has examples), then key=value as if it stood there"),
    ],
    ray: Annotated[
        bool, typer.Option("--ray", help="Items as Ray tasks, on the cluster that RAY_ADDRESS names")
    ] = False,
    accept_changes: AcceptChanges = False,
) -> None:
    """Play every dialogue of some benchmarks with a student and rate every answer. Start it again to go on."""
    from steer_verl.eval.config import EvalConfig
    from steer_verl.eval.run import evaluate
    from steer_verl.eval.summary import summarize_run
    from steer_verl.eval.summary_table import summary_table
    from steer_verl.settings_file import load_settings

    file, overrides = _split(settings)
    config = load_settings(EvalConfig, file, overrides)
    console = Console(stderr=True, highlight=False)
    try:
        done = evaluate(config, accept_changes=accept_changes, ray=ray, console=console)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here", style="yellow")
        raise typer.Exit(130) from None
    stdout().print(summary_table(summarize_run(done)))
    console.print(f"{done.folder}: next, `steer report {done.folder}`", markup=False, soft_wrap=True)


def _split(settings: list[str]) -> tuple[Path | None, list[str]]:
    """The file, if the first word is one, and the overrides."""
    first = settings[0]
    if "=" in first and not Path(first).is_file():
        return None, settings
    if wrong := [word for word in settings[1:] if "=" not in word]:
        raise ConfigError(f"{wrong[0]!r}: not of the form key=value; only the first word may be a file")
    return Path(first), settings[1:]
