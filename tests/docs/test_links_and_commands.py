"""Links lead somewhere, and command lines parse: nothing is run."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main
from inspect_ai._cli.main import inspect

from steer_verl.cli import app
from tests.docs.pages import DOCS, PAGES, ROOT, command_lines, name, prose, words

HANDED_ON = {
    "data": "steer_verl.data.commands",
    "tutor": "steer_verl.cli.tutor",
    "eval": "steer_verl.eval.commands",
    "report": "steer_verl.report.commands",
}
"""Commands that read their arguments with another typer app."""

Refused: Any = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
"""What a command line that does not parse raises; typer brings a click of its own."""


def anchors(page: Path) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower().replace("`", "")).replace(" ", "-") for title in titles}


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    yield from re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_index_names_every_page() -> None:
    assert {page.name for page in DOCS} == {
        "README.md",
        *(x for x in links(ROOT / "docs" / "README.md") if "/" not in x),
    }


def test_the_four_ways_are_short_and_real() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    ways = [
        re.findall(r"^\| `([^`]+)`", way, re.MULTILINE) for way in page.split("\n# Four ways")[1].split("\n## ")[1:]
    ]
    assert len(ways) == 4 and all(5 <= len(way) <= 12 and len(set(way)) == len(way) for way in ways)
    assert all((ROOT / file).is_file() for way in ways for file in way)


def test_the_floors_are_those_that_import_linter_holds() -> None:
    """From the top; the page leaves small rooms out."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    held = [re.findall(r"[\w.]+", layer.replace("steer_verl.", "")) for layer in contract["layers"]]
    page = (ROOT / "docs" / "architecture.md").read_text().split("\n## One direction\n")[1].split("\n# ")[0]
    drawn = re.findall(r"^    (\S.*)$", page, re.MULTILINE)
    floors = [re.findall(r"\w+", line) for line in drawn]
    assert len(floors) == len(held)
    for floor, layer in zip(floors, held, strict=True):
        assert set(floor) <= set(layer)


def parses(command: Any, args: list[str], called: str) -> None:
    """Fail unless the command and its options exist. An argument that prose leaves out is no fault."""
    try:
        context = command.make_context(called, list(args))
    except typer.Exit:
        return
    except Refused as error:
        if type(error).__name__ in ("MissingParameter", "NoArgsIsHelpError"):
            return
        raise
    left = [*context._protected_args, *context.args]
    if not hasattr(command, "resolve_command") or not left:
        return
    inner_name, inner, inner_args = command.resolve_command(context, left)
    if called == "steer" and inner_name in HANDED_ON:
        module = importlib.import_module(HANDED_ON[inner_name])
        parses(typer.main.get_command(module.app), inner_args, f"steer {inner_name}")
    else:
        parses(inner, inner_args, f"{called} {inner_name}")


def check_steer(args: list[str]) -> None:
    """Fail unless ``steer ARGS`` parses."""
    if args[:1] == ["preflight"]:
        options = {word for word in (args[: args.index("--")] if "--" in args else args) if word.startswith("--")}
        assert options <= {"--config-path", "--config-name", "--help"}, options
    else:
        parses(typer.main.get_command(app), [arg for arg in args if arg != "--help"], "steer")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_command_lines_are_real(page: Path) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in command_lines(page):
        args = words(line)
        try:
            if args and args[0].split("/")[-1] == "steer":
                check_steer(args[1:])
            elif args[:1] == ["inspect"]:
                parses(inspect, args[1:], "inspect")
            elif args[:1] == ["make"]:
                assert set(args[1:]) <= set(targets)
            elif args[:2] == ["python", "-m"] and args[2].startswith(("benchmarks.", "steer_verl.")):
                assert importlib.util.find_spec(args[2])
            elif args[:1] in (["bash"], ["python"]) and args[1:] and args[1].startswith(("recipes/", "benchmarks/")):
                assert (ROOT / args[1]).is_file()
        except (AssertionError, Refused) as error:
            raise AssertionError(f"{name(page)}: {line}: {error}") from None


def test_a_wrong_command_is_seen() -> None:
    check_steer(shlex.split("data check rows.jsonl --require-images"))
    for wrong in ("data check rows.jsonl --require-image", "transcript folder", "tutor chek", "demo --seed one"):
        with pytest.raises(Refused):
            check_steer(shlex.split(wrong))
