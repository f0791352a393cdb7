"""The ``steer`` command. Importing this module is cheap: whatever is heavy is imported by the command that needs it."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from steer_verl.errors import SteerError, disk_error

app = typer.Typer(
    help="Tutor-in-the-loop GRPO for vision-language models, as a verl plugin.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
recipes = typer.Typer()
app.add_typer(recipes, name="recipes")
mini = typer.Typer(help="The miniature laboratory: data, student, evaluation.", no_args_is_help=True)
app.add_typer(mini, name="mini")

ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Settings of a command that hands everything on."""

SeedOption = Annotated[int, typer.Option(help="Seed of everything random")]


@recipes.callback(invoke_without_command=True)
def list_recipes(context: typer.Context) -> None:
    """List the recipes, yaml and run scripts on top of verl's trainers; copy one, or run one."""
    from steer_verl.recipes import recipes as every

    for recipe in [] if context.invoked_subcommand else every():
        typer.echo(f"{recipe.name:<16}{recipe.title}\n{'':<16}{', '.join(recipe.scripts) or recipe.folder}")


@recipes.command("copy")
def copy_recipe(
    name: str,
    to: Annotated[Path | None, typer.Argument(help="A new folder; ./NAME unless given")] = None,
) -> None:
    """Copy a recipe, to be changed; its scripts run from wherever they lie."""
    from steer_verl.recipes import copy

    typer.echo(copy(name, to or Path(name)))


@recipes.command("run", context_settings={"ignore_unknown_options": True})
def run_recipe(
    name: Annotated[str, typer.Argument(help="A recipe, or the folder of a copy")],
    overrides: Annotated[list[str] | None, typer.Argument(help="verl's overrides: key=value")] = None,
    script: Annotated[str | None, typer.Option(help="grpo, sft, ...: which of its scripts")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, and print the composed configuration in place of training")
    ] = False,
) -> None:
    """Run a recipe's script with verl's overrides appended."""
    from steer_verl.recipes import launch

    raise typer.Exit(launch(name, overrides or (), script=script, dry_run=dry_run))


@app.command()
def doctor() -> None:
    """Check versions, platform and every registration, and print how to fix what is missing."""
    from steer_verl.doctor import run

    raise typer.Exit(run())


@app.command(context_settings=ANY_ARGUMENTS)
def data(context: typer.Context) -> None:
    """Make training sets out of single-turn seeds; check files and convert them for verl."""
    from steer_verl.data.commands import app as commands

    commands(args=context.args, prog_name="steer data")


@app.command(context_settings=ANY_ARGUMENTS)
def tutor(context: typer.Context) -> None:
    """Check a tutor's servers, calibrate it against people, replay dialogues with it."""
    from steer_verl.cli.tutor import app as commands

    commands(args=context.args, prog_name="steer tutor")


@app.command("eval", context_settings=ANY_ARGUMENTS)
def eval_(context: typer.Context) -> None:
    """Measure a model on dialogues or under adaptive attack, with intervals; compare runs."""
    from steer_verl.eval.commands import app as commands

    commands(args=context.args, prog_name="steer eval")


@app.command(context_settings=ANY_ARGUMENTS)
def report(context: typer.Context) -> None:
    """Write one page about finished evaluations and trainings, with every dialogue."""
    from steer_verl.report.commands import app as commands

    commands(args=context.args, prog_name="steer report")


@app.command()
def card(
    model: Annotated[Path, typer.Argument(help="Folder of the trained student; its README.md is written")],
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--eval",
            help="A finished evaluation; may repeat, the student's own last: those before it are"
            " what it is compared with",
        ),
    ] = None,
    training: Annotated[
        Path | None, typer.Option(help="The training's configuration: Hydra's .hydra/config.yaml, or its folder")
    ] = None,
    base: Annotated[str | None, typer.Option(help="The hub's name of the model that it began as")] = None,
    licence: Annotated[str | None, typer.Option("--license", help="The hub's identifier, such as apache-2.0")] = None,
    title: Annotated[str | None, typer.Option(help="Its name; the folder's unless given")] = None,
) -> None:
    """Write a trained student's model card for the Hugging Face hub."""
    from steer_verl.report.model_card import write_model_card

    typer.echo(write_model_card(model, runs or (), training=training, base=base, licence=licence, title=title))


@app.command(context_settings=ANY_ARGUMENTS)
def preflight(context: typer.Context) -> None:
    """Check a training command before any model is loaded: the arguments of verl's main_ppo."""
    from steer_verl.preflight import run

    sys.path.append(str(Path.cwd()))  # where the run scripts' python -m finds a loop or a reward of one's own
    raise typer.Exit(run(context.args))


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder of everything it writes; what is done there is not done again")
    ] = Path("out/demo"),
    seed: SeedOption = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps of everything: shows that the machinery works")
    ] = False,
) -> None:
    """Train and evaluate the miniature student: data, SFT, GRPO, table and plot. Start it again to go on."""
    from steer_verl.demo.report import run_demo

    try:
        run_demo(out.resolve(), seed=seed, quick=quick)
    except KeyboardInterrupt:
        typer.secho("steer: interrupted; the same command goes on from here", fg="yellow", err=True)
        raise typer.Exit(130) from None


@app.command()
def transcripts(
    folder: Annotated[
        Path, typer.Argument(help="Folder of transcript files (JSONL), such as out/demo/grpo/transcripts")
    ],
) -> None:
    """Summarise training dialogues by step: safety by turn, how they ended, tutor time, unscored share."""
    from steer_verl.eval.transcripts import print_summary

    print_summary(folder)


@mini.command("data")
def mini_data(
    out: Annotated[Path, typer.Option(help="Folder to write to")],
    seed: SeedOption = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A small set: shows that the machinery works")] = False,
) -> None:
    """Draw the images and write every data set: pretraining, SFT, RL seeds as JSONL and as verl's parquet."""
    from steer_verl.demo.data import build_data
    from steer_verl.records import named

    with named(out):
        build_data(out, seed=seed, quick=quick)


@mini.command("model")
def mini_model(
    out: Annotated[Path, typer.Option(help="Folder to write to")],
    seed: SeedOption = 0,
    size: Annotated[str, typer.Option(help="Weights, in millions: 1m, 2m or 5m")] = "2m",
    family: Annotated[str, typer.Option(help="qwen2_5_vl or qwen3_vl")] = "qwen2_5_vl",
) -> None:
    """Write the tokenizer, the processor and a randomly initialised student."""
    from steer_verl.mini.model import build
    from steer_verl.records import named

    with named(out):
        build(out, seed=seed, size=size, family=family)


def main(args: list[str] | None = None) -> None:
    """Entry point: an error that a user can act on is one red line and exit status 1, never a traceback."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a locale without UTF-8, or a file's name that is no text
    try:
        app(args=args)
    except (SteerError, OSError, ImportError) as error:
        told: Exception = error
        if isinstance(error, OSError):  # a folder that cannot be written, a full disk
            told = disk_error(error)
        elif isinstance(error, ImportError):  # also where STEER_CPU is not set on a machine without a GPU
            told = SteerError(f"{error}; `steer doctor` says what is missing here, and how to fix it")
        typer.secho(f"steer: {told}", fg="red", err=True)
        sys.exit(1)
