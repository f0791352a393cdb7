"""``steer report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Finished evaluations: the `out` of `steer eval run`, or an Inspect log (.eval)"),
    ] = None,
    training: Annotated[
        list[Path] | None,
        typer.Option(help="A training's log: verl's console, its file logger's .jsonl, or a demo's folder; may repeat"),
    ] = None,
    out: Annotated[Path, typer.Option(help="The page")] = Path("report.html"),
    title: Annotated[str, typer.Option(help="Of the page")] = "Evaluation under multi-turn attack",
    images: Annotated[int, typer.Option(min=0, max=1024, help="Longer side of images in pixels; 0: none")] = 192,
    no_fold: Annotated[
        bool, typer.Option("--no-fold", help="Do not fold away what may be harmful when the page opens")
    ] = False,
) -> None:
    """Write one self-contained page: results, survival, training curves, and every dialogue."""
    from steer_verl.report.write import write_report

    page = write_report(runs or [], out, training=training or (), title=title, images=images, fold=not no_fold)
    typer.echo(f"{page}: {page.stat().st_size / 1e6:.1f} MB")
