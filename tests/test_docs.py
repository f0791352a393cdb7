"""The documentation is true where a machine can tell: links, command lines, settings and examples."""

from __future__ import annotations

import asyncio
import csv
import importlib
import importlib.util
import json
import re
import shlex
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
import yaml
from PIL import Image
from pydantic import BaseModel

from steer_verl.cli import app
from steer_verl.config import EndpointConfig, SteerConfig, TcsrConfig, steer_config
from steer_verl.data.parquet import verl_row
from steer_verl.data.pipeline.config import BuildConfig
from steer_verl.data.rows import seed_from_rl_row
from steer_verl.data.set_files import check_set
from steer_verl.data.sources.pictures import PictureStore
from steer_verl.data.sources.read import Ids, read_source
from steer_verl.data.sources.seed import SourceSeed
from steer_verl.data.sources.settings import SourceSettings
from steer_verl.eval.config import EvalConfig
from steer_verl.eval.records import EvalDialogue
from steer_verl.eval.runs import RunAbout
from steer_verl.types import Seed, Trajectory
from steer_verl.vetting.labelled import LabelledSet, read_labelled

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS, *sorted((ROOT / "recipes").glob("*/README.md"))]
FENCE = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, unindented by the fence's own measure."""
    return [text for kind, text in FENCE.findall(page.read_text()) if kind == language]


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


# --- links ------------------------------------------------------------------------------------------------------------


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


# --- command lines ----------------------------------------------------------------------------------------------------

HANDED_ON = {
    "data": "steer_verl.data.commands",
    "tutor": "steer_verl.vetting.commands",
    "eval": "steer_verl.eval.commands",
}
"""Commands that read their arguments with another typer app."""


def command_lines(page: Path) -> Iterator[str]:
    """Every line of the shell blocks, and every ``steer ...`` between backticks, without comments."""
    for block in blocks(page, "bash"):
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines())
    yield from (span for span in SPAN.findall(prose(page)) if re.match(r"(steer|python|make|bash) ", span))


def words(line: str) -> list[str]:
    """A command line's words, without assignments before it and placeholders such as ``[key=value ...]``."""
    found = shlex.split(re.sub(r"\[[^\]]*\.\.\.\]|\.\.\.", "", line), comments=True)
    while found and re.match(r"[A-Z_]+=", found[0]):
        found.pop(0)
    if found[:1] == ["timeout"]:
        found = found[2:]
    return found


def parses(command: click.Command, args: list[str], called: str) -> None:
    """Fail unless the command and its options exist; nothing is run. An argument that prose leaves out is no fault."""
    try:
        context = command.make_context(called, list(args))
    except (click.MissingParameter, click.exceptions.NoArgsIsHelpError, click.exceptions.Exit):
        return
    if not isinstance(command, click.Group):
        return
    sub, rest = context.protected_args or context._protected_args, context.args
    inner_name, inner, inner_args = command.resolve_command(context, [*sub, *rest])
    assert inner is not None and inner_name is not None
    if inner_name in HANDED_ON and called == "steer":
        module = importlib.import_module(HANDED_ON[inner_name])
        parses(typer.main.get_command(module.app), inner_args, f"steer {inner_name}")
    elif inner_name != "preflight":
        parses(inner, inner_args, f"{called} {inner_name}")


def check_steer(args: list[str]) -> None:
    if args[:1] == ["preflight"]:
        options = {word for word in (args[: args.index("--")] if "--" in args else args) if word.startswith("--")}
        assert options <= {"--config-path", "--config-name", "--help"}, options
    elif args and args[0] != "--help":
        parses(typer.main.get_command(app), [arg for arg in args if arg != "--help"], "steer")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_command_lines_are_real(page: Path) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in command_lines(page):
        args = words(line)
        try:
            if args and args[0].split("/")[-1] == "steer":
                check_steer(args[1:])
            elif args[:1] == ["make"]:
                assert set(args[1:]) <= set(targets)
            elif args[:2] == ["python", "-m"] and args[2].startswith(("benchmarks.", "steer_verl.")):
                assert importlib.util.find_spec(args[2])
            elif args[:1] in (["bash"], ["python"]) and args[1:] and args[1].startswith(("recipes/", "benchmarks/")):
                assert (ROOT / args[1]).is_file()
        except (AssertionError, click.ClickException) as error:
            raise AssertionError(f"{name(page)}: {line}: {error}") from None


# --- settings ---------------------------------------------------------------------------------------------------------


def verl_defaults() -> Any:
    """verl's own resolved defaults, read from its file: importing verl takes seconds."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("verl is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "trainer" / "config"
    return yaml.safe_load((folder / "_generated_ppo_trainer.yaml").read_text())


def in_class(cls: type[BaseModel], path: list[str]) -> bool:
    """Whether a settings class has this path; list places and free names are passed over."""
    types: list[Any] = [cls]
    for part in path:
        models = [t for t in types if isinstance(t, type) and issubclass(t, BaseModel)]
        fields = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        if not fields and not any(t is Any or typing.get_origin(t) is dict for t in types):
            return False
        types = [leaf for annotation in fields for leaf in leaves(annotation)] or types
    return True


def leaves(annotation: Any) -> Iterator[Any]:
    """What an annotation is made of, containers opened; a dict stays beside what it holds."""
    inner = [arg for arg in typing.get_args(annotation) if arg is not Ellipsis]
    if not inner or typing.get_origin(annotation) is typing.Literal:
        yield annotation
        return
    if typing.get_origin(annotation) is dict:
        yield annotation
    for arg in inner:
        yield from leaves(arg)


def in_verl(defaults: Any, path: list[str]) -> bool:
    """Whether verl's defaults, with our two sections, have this path; what verl leaves empty takes anything."""
    for section, cls in (
        (["actor_rollout_ref", "rollout", "custom", "steer"], SteerConfig),
        (["algorithm", "tcsr"], TcsrConfig),
    ):
        if path[: len(section)] == section:
            rest = path[len(section) :]
            return rest[-1:] == ["preset"] or in_class(cls, rest)
    node = defaults
    for part in path:
        if not node and not isinstance(node, bool | int | float):
            return True
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


STEER = ["actor_rollout_ref", "rollout", "custom", "steer"]
VERL = {"actor_rollout_ref", "algorithm", "data", "reward", "trainer"}
PLACES: dict[str, list[type[BaseModel]]] = {
    "tutor": [SteerConfig, EvalConfig],
    "alarms": [SteerConfig],
    "reward": [SteerConfig],
    "endpoint": [type("_", (BaseModel,), {"__annotations__": {"endpoint": EndpointConfig}})],
    "breaker": [EndpointConfig],
    **{root: [EvalConfig] for root in ("student", "judge", "marks", "benchmarks")},
    **{root: [BuildConfig] for root in BuildConfig.model_fields if root not in ("work", "sources")},
    "work": [BuildConfig, EvalConfig],
}
"""First name of a setting -> the classes that may have it; verl's own are looked up in its file."""


def settings_in(page: Path) -> Iterator[str]:
    """Dotted names between backticks and in shell blocks that begin like a setting."""
    lines = [word for line in command_lines(page) for word in words(line)]
    for span in (*SPAN.findall(prose(page)), *lines):
        key = span.partition("=")[0]
        if key[:1] == "+" and not key.startswith(("+algorithm.tcsr", "+" + ".".join(STEER))):
            key = key.rpartition(".")[0]  # verl's file need not hold what is added to it
        key = key.lstrip("+~")
        if re.fullmatch(r"[a-z_]+(\.[a-z_0-9{},*<>]+)+", key) and key.split(".")[0] in {*VERL, *PLACES, "custom"}:
            yield from spread(key)


def spread(key: str) -> Iterator[str]:
    """``a.{b,c}`` is two names; ``a.*`` and ``a.<name>`` are their beginning."""
    if braces := re.search(r"\{([^}]*)\}", key):
        for part in braces[1].split(","):
            yield from spread(key.replace(braces[0], part))
        return
    yield re.sub(r"\.[*<].*$", "", key)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_exist(page: Path) -> None:
    defaults = verl_defaults()
    for key in settings_in(page):
        path = key.split(".")
        if path[-1] in ("md", "py", "yaml", "json", "jsonl", "parquet", "csv", "log") and len(path) == 2:
            continue  # a file
        if path[:2] == ["custom", "steer"]:
            path = [*STEER, *path[2:]]
        if path == ["reward", "preset"]:
            path = [*STEER, *path]
        found = path[0] in VERL and in_verl(defaults, path)
        assert found or any(in_class(cls, path) for cls in PLACES.get(path[0], [])), f"{name(page)}: {key}"


def test_a_wrong_setting_is_seen() -> None:
    defaults = verl_defaults()
    assert in_verl(defaults, ["actor_rollout_ref", "rollout", "n"])
    assert not in_verl(defaults, ["actor_rollout_ref", "rollout", "m"])
    assert in_verl(defaults, [*STEER, "tutor", "endpoint", "prices", "cached"])
    assert not in_verl(defaults, [*STEER, "tutor", "endpoint", "price"])
    assert in_class(EvalConfig, ["benchmarks", "mine", "limit"]) and not in_class(EvalConfig, ["judge", "rubrik"])


# --- examples ---------------------------------------------------------------------------------------------------------


def section(page: str, title: str, language: str = "json") -> str:
    """The first example below a heading."""
    text = (ROOT / "docs" / page).read_text()
    below = re.split(rf"^## {re.escape(title)}$", text, flags=re.MULTILINE)[1]
    found = re.search(rf"```{language}\n(.*?)```", re.split(r"^## ", below, flags=re.MULTILINE)[0], re.DOTALL)
    assert found, title
    return found[1]


def objects(text: str) -> list[Any]:
    """One value spread over lines, or one a line."""
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


def draw(folder: Path, paths: Iterable[str]) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (56, 56), (200, 90, 40)).save(folder / path)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_json_and_yaml_load(page: Path) -> None:
    for text in blocks(page, "json"):
        assert objects(text)
    for text in blocks(page, "yaml"):
        assert yaml.safe_load(text)


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("formats.md", "RL row"),
        ("formats.md", "SFT row"),
        ("formats.md", "Bench row"),
        ("your_data.md", "Dialogues of your own"),
        ("your_benchmark.md", "Dialogues of your own"),
    ],
)
def test_rows_pass_the_check_of_sets(tmp_path: Path, page: str, title: str) -> None:
    (row,) = objects(section(page, title))
    draw(tmp_path, row["images"] if "images" in row else [row["image"]])
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    (checked,) = check_set(file)
    assert not checked.problems and checked.told is not None


def keys(value: Any) -> Any:
    """The names in a value, without what they hold."""
    if isinstance(value, dict):
        return {key: keys(inner) for key, inner in value.items()}
    return [keys(value[0])] if isinstance(value, list) and value else None


def test_the_parquet_row_has_the_columns_that_are_written() -> None:
    (shown,) = objects(section("formats.md", "RL parquet"))
    seed = seed_from_rl_row(objects(section("formats.md", "RL row"))[0])
    written = verl_row(seed, 0, split="train")
    assert keys(shown) == keys(written)
    assert Seed.model_validate_json(written["extra_info"]["seed"]) == seed


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("formats.md", "Source seed"),
        ("your_data.md", "Sets from single questions"),
        ("your_benchmark.md", "Single questions of your own"),
    ],
)
def test_source_seeds_are_read(tmp_path: Path, page: str, title: str) -> None:
    rows = objects(section(page, title))
    draw(tmp_path, [row["image"] for row in rows if "image" in row])
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = SourceSettings(set="plain", path=file)
    found = list(read_source(settings, PictureStore(tmp_path / "store"), Ids()))
    assert len(found) == len(rows) and all(isinstance(seed, SourceSeed) for seed in found)


RECORDS: dict[str, type[BaseModel]] = {
    "Transcripts": Trajectory,
    "Evaluated dialogues": EvalDialogue,
    "run.json": RunAbout,
}


@pytest.mark.parametrize("title", RECORDS)
def test_records_are_read(title: str) -> None:
    record = RECORDS[title].model_validate_json(section("formats.md", title))
    assert RECORDS[title].model_validate_json(record.model_dump_json()) == record


def labelled(folder: Path) -> LabelledSet:
    """The example of scored answers, with its pictures."""
    text = section("formats.md", "Labelled CSV", "csv")
    draw(folder, [row["image"] for row in csv.DictReader(text.splitlines()) if row["image"]])
    (folder / "labelled.csv").write_text(text)
    return read_labelled(folder / "labelled.csv")


def test_labelled_answers_are_read(tmp_path: Path) -> None:
    assert len(labelled(tmp_path).rows) == 2


def test_the_summary_is_told_whole() -> None:
    from steer_verl.eval.summary_shape import EstimateJson, SubsetJson, SummaryJson

    (shown,) = objects(section("formats.md", "summary.json"))
    assert shown.keys() == EstimateJson.__annotations__.keys()
    rows = re.findall(
        r"^\| (`.*?) \| (.*) \|$", (ROOT / "docs" / "formats.md").read_text().split("## summary.json")[1], re.M
    )
    assert {key for first, _ in rows for key in SPAN.findall(first)} == SummaryJson.__annotations__.keys()
    named = next(SPAN.findall(told) for first, told in rows if first == "`benchmarks`")
    assert set(named) <= SubsetJson.__annotations__.keys()


def test_the_calibration_has_the_fields_that_are_written(tmp_path: Path) -> None:
    from steer_verl.eval.judging.calibration import compare

    (shown,) = objects(section("formats.md", "calibration.json"))
    written = compare("judge", labelled(tmp_path), [3, "bad_json"]).as_dict()
    assert keys({**shown, "unrated": {}}) == keys({**written, "unrated": {}})


A_TUTOR = {"endpoint": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}
AN_EVALUATION = {
    "out": "out",
    "student": {"path": "model"},
    "benchmarks": {"mine": {"file": "bench.jsonl"}},
    "judge": {"endpoint": A_TUTOR["endpoint"]},
}


def test_yaml_sections_are_settings() -> None:
    seen = 0
    for page in DOCS:
        for values in map(yaml.safe_load, blocks(page, "yaml")):
            if isinstance(values, dict) and values.keys() == {"tutor"}:
                steer_config({"tutor": {**A_TUTOR, **values["tutor"]}})
            elif isinstance(values, dict):
                EvalConfig.model_validate({**AN_EVALUATION, **values})
            seen += 1
    assert seen >= 6


def run_blocks(page: str, keep: Callable[[str], bool] = lambda text: True) -> dict[str, Any]:
    """The page's Python, in one namespace."""
    space: dict[str, Any] = {"__name__": "docs"}
    for text in filter(keep, blocks(ROOT / "docs" / page, "python")):
        exec(compile(text, page, "exec"), space)
    return space


def test_the_tutor_of_ones_own_plays(capsys: pytest.CaptureFixture[str]) -> None:
    space = run_blocks("your_tutor.md", lambda text: "agent_loop" not in text)
    assert capsys.readouterr().out.startswith("completed ['What is a tide?', 'Say it again in at most")
    unscored = asyncio.run(space["BrevityTutor"]().respond(_exchange("")))
    assert unscored.judgement.status == "unscored"


def _exchange(answer: str) -> Any:
    from tests.tutor.dialogues import simple

    return simple(answer)


@pytest.mark.slow
def test_the_loop_of_ones_own_is_an_agent_loop() -> None:
    pytest.importorskip("verl")
    from rollout.agent_loop import SteerAgentLoop

    assert issubclass(run_blocks("your_tutor.md")["BrevityLoop"], SteerAgentLoop)


def test_the_set_of_ones_own_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from steer_verl.data.sources import registry

    monkeypatch.setitem(registry.SETS, "my_set", None)
    run_blocks("your_benchmark.md")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "What is this?", "uid": "1", "picture": null}\n')
    settings = SourceSettings(set="my_set", path=tmp_path / "rows.jsonl")
    (seed,) = read_source(settings, PictureStore(tmp_path / "store"), Ids())
    assert isinstance(seed, SourceSeed) and seed.source == "my_set"


@pytest.mark.slow
def test_the_cost_table_is_what_the_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mistral_common")
    from benchmarks.cost import main

    main(["--prompt-price", "1", "--cached-price", "0.1", "--completion-price", "3"])
    printed = capsys.readouterr().out.split("\n\n", 1)[1].strip()
    assert printed in (ROOT / "docs" / "operations.md").read_text()
