"""The whole way from sources to sets: through the command, with the laboratory's rules and with models over HTTP."""

from __future__ import annotations

import functools
import json
import os
import pickle
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from benchmarks.data.build import ANSWERS
from steer_verl.data.build import DIALOGUES, SEEDS, build, make_step
from steer_verl.data.commands import app
from steer_verl.data.config import BuildConfig, load_config
from steer_verl.data.ready import QUESTION
from steer_verl.data.seed import SetName
from steer_verl.data.sources.settings import SplitSettings
from steer_verl.errors import ConfigError, DataError, SteerError
from steer_verl.mini.sources import mini_sources
from steer_verl.models.cache import Cache
from steer_verl.records import held
from steer_verl.settings_file import parse_settings
from steer_verl.work.manifest import read_manifest
from steer_verl.work.outcomes import read_outcomes
from tests.data.role_server import RoleServer
from tests.data.samples import picture
from tests.models.fault_server import MODEL, status

RECIPES = Path(__file__).parents[2] / "recipes" / "data"
COUNT = 60


def mini_config(out: Path, **more: Any) -> dict[str, Any]:
    """A build with the laboratory's rules."""
    return {
        "out": str(out),
        "agents": {"kind": "mini"},
        "perturb": {"share": 0.0},
        "expand": {"pairs": 0.0},
        "bootstrap": {"tau_safe": 8, "tau_help": 8},
        "splits": {"sft": 0.4, "rl": 0.4, "bench": 0.2},
        "student_format": False,
        "work": {"in_flight": 4, "shards": 2},
        **more,
    }


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the plain form, as a user would have it, one bad row and one repeated among the good ones."""
    folder = tmp_path_factory.mktemp("seeds")
    rows = []
    for seed in mini_sources(folder, COUNT, 0):
        row = seed.model_dump(include={"question", "unsafe", "category", "source", "source_id", "license", "facts"})
        rows.append({**row, "image": f"images/{seed.image}"})
    rows += [{**rows[0], "source_id": "again"}, {**rows[1], "source_id": "gone", "image": "images/gone.png"}]
    path = folder / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def built(seeds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command has made of them."""
    out = tmp_path_factory.mktemp("built") / "out"
    file = out.parent / "build.yaml"
    file.write_text(yaml.safe_dump(mini_config(out, sources=[{"set": "plain", "path": str(seeds)}])))
    result = CliRunner().invoke(app, ["build", str(file)])
    assert result.exit_code == 0, result.output
    return out


def mini_build(out: Path, seeds: Path, **more: Any) -> BuildConfig:
    return parse_settings(BuildConfig, mini_config(out, sources=[{"set": "plain", "path": str(seeds)}], **more), "here")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sets_of(out: Path) -> dict[str, str]:
    return {name: (out / "sets" / f"{name}.jsonl").read_text() for name in ("sft", "rl", "bench")}


def test_every_row_is_accounted_for(built: Path) -> None:
    collected, dialogues = read_manifest(built / "manifest.json").steps
    assert (collected.step, dialogues.step) == (SEEDS, DIALOGUES)
    assert (collected.entered, collected.kept) == (COUNT + 2, COUNT)
    assert collected.rejected == {"duplicate": 1, "image": 1}
    assert dialogues.entered == COUNT and dialogues.complete and dialogues.agents["target"].startswith("mini-target-")
    assert Counter(dialogues.rejected) == sum((Counter(found) for found in dialogues.stages.values()), Counter())
    sets = json.loads((built / "sets" / "sets.json").read_text())
    assert sum(report["offered"] for report in sets.values()) == dialogues.kept
    assert all(report["offered"] == report["kept"] + sum(report["left_out"].values()) for report in sets.values())


def test_the_sets_pass_our_own_check_and_share_nothing(built: Path) -> None:
    files = [str(built / "sets" / name) for name in ("sft.parquet", "rl.parquet", "bench.jsonl")]
    result = CliRunner().invoke(app, ["check", *files])
    assert result.exit_code == 0, result.output
    ids = Counter(row["id"] for row in lines(built / "sets" / "sft.jsonl"))
    ids += Counter(row["metadata"]["question_id"] for row in lines(built / "sets" / "rl.jsonl"))
    ids += Counter(row["question_id"] for row in lines(built / "sets" / "bench.jsonl"))
    assert len(ids) > COUNT / 2 and max(ids.values()) == 1
    for name in ("sft", "rl", "bench"):
        page = (built / "cards" / name / "card.html").read_text()
        assert "Apache-2.0" in page and page.count("<details") > 1, "sampled dialogues are on it"


def test_done_is_done(built: Path, seeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row is read and no image opened again; what is missing of the sets is made again."""

    def state() -> dict[Path, bytes]:
        return {
            path: path.read_bytes()
            for path in [*built.glob("steps/**/*.jsonl"), *built.glob("sets/*")]
            if path.is_file()
        }

    before = state()
    with monkeypatch.context() as patch:
        for name in ("load_image", "decode_image", "image_and_changes"):
            patch.setattr(f"steer_verl.images.{name}", _never)
        patch.setattr("steer_verl.data.build.assemble", _never)
        manifest = build(mini_build(built, seeds))
    assert state() == before and manifest == read_manifest(built / "manifest.json")
    (built / "sets" / "rl.parquet").unlink()
    build(mini_build(built, seeds))
    assert state() == before
    shutil.rmtree(built / "sets" / "images")
    build(mini_build(built, seeds))
    assert state() == before and all((built / "sets" / path).is_file() for path in images_of(built))


def images_of(out: Path) -> set[str]:
    """Paths of the benchmark's and RL's images, as the files name them."""
    rl = pq.read_table(out / "sets" / "rl.parquet")["images"].to_pylist()
    bench = {row["image"] for row in lines(out / "sets" / "bench.jsonl") if row["image"]}
    return bench | {path for paths in rl for path in paths}


def test_a_folder_that_was_moved_is_made_whole(built: Path, seeds: Path, tmp_path: Path) -> None:
    out = shutil.copytree(built, tmp_path / "moved")
    build(mini_build(out, seeds))
    named = [path for path in images_of(out) if Path(path).is_absolute()]
    assert named and all(Path(path).is_relative_to(out) and Path(path).is_file() for path in named)


def _never(*_: Any, **__: Any) -> Any:
    raise AssertionError("opened")


def test_other_settings_in_the_same_folder_are_told(built: Path, seeds: Path) -> None:
    for more in ({"red_team": {"max_strategies": 7}}, {"bootstrap": {"tau_safe": 6, "tau_help": 8}}):
        with pytest.raises(ConfigError, match=f"{next(iter(more))}.*--accept-changes"):
            build(mini_build(built, seeds, **more))


def test_accepted_changes_leave_nothing_of_the_old_settings(built: Path, seeds: Path, tmp_path: Path) -> None:
    out, changed = tmp_path / "out", {"expand": {"pairs": 0.0, "turn_weights": [1, 0, 0, 0, 0, 0, 0, 0, 0]}}
    build(mini_build(out, seeds))
    assert sets_of(out) == sets_of(built), "another folder, the same sets"
    build(mini_build(out, seeds, **changed), accept_changes=True)
    build(mini_build(tmp_path / "new", seeds, **changed))
    assert sets_of(out) == sets_of(tmp_path / "new") != sets_of(built)


def test_a_source_may_grow_at_its_top_and_shrink(seeds: Path, tmp_path: Path) -> None:
    rows, mine = lines(seeds), tmp_path / "seeds.jsonl"
    for row in rows:
        row["image"] = str(seeds.parent / row["image"])
        del row["source_id"]  # known by their content alone

    def made(shown: list[dict[str, Any]]) -> dict[str, str]:
        mine.write_text("".join(json.dumps(row) + "\n" for row in shown))
        images = [{"set": "plain", "path": str(mine), "images": str(seeds.parent)}]
        config = parse_settings(BuildConfig, mini_config(tmp_path / "out", sources=images), "here")
        assert build(config).steps[1].complete
        return sets_of(tmp_path / "out")

    made(rows[1:40])
    grown = made([rows[0], *rows[1:40]])
    assert rows[0]["question"] in "".join(grown.values()) or len(lines(tmp_path / "out/steps/seeds/seeds.jsonl")) == 40
    ended = Counter(outcome.id for outcome in read_outcomes(tmp_path / "out" / "steps" / DIALOGUES))
    assert len(ended) == 40 and set(ended.values()) == {1}
    shrunk = made(rows[:20])
    assert sum(text.count("\n") for text in shrunk.values()) <= 20


def test_a_row_that_was_corrected_and_a_seed_dealt_to_another_set_are_made_anew_for_nothing(tmp_path: Path) -> None:
    server = roles()
    with server.in_thread():
        config, mine = http_config(tmp_path, server, perturb={"share": 0.0}), tmp_path / "seeds.jsonl"
        build(config)
        asked, rows = server.roles.copy(), lines(mine)
        mine.write_text("".join(json.dumps({**row, "license": "CC-BY-4.0"}) + "\n" for row in rows))
        build(config)
        made = lines(config.out / "sets" / "sft.jsonl")
        assert len(made) == 4 and {row["license"] for row in made} == {"CC-BY-4.0"}
        manifest = build(config.model_copy(update={"splits": SplitSettings(sft=0, rl=0, bench=1)}))
        assert len(lines(config.out / "sets" / "bench.jsonl")) == 4 and not (config.out / "sets/sft.jsonl").exists()
        assert manifest.steps[1].complete and manifest.steps[1].kept == 4
        again = server.roles - asked
        assert not again["probe"] and not again["screen"] and not again["red_user"], "asked as before"


def test_an_endpoint_is_proved_before_the_first_item_of_a_source_that_has_grown(tmp_path: Path) -> None:
    server = roles()
    with server.in_thread():
        config, mine = http_config(tmp_path, server), tmp_path / "seeds.jsonl"
        build(config)
        rows = lines(mine)
        server.faults, server.kinds, asked = 1.0, (status(401),), server.requests
        mine.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
        assert build(config).steps[1].kept == 3 and server.requests == asked, "nothing is left to work"
        more = {**rows[0], "question": "What is it called?"}
        mine.write_text("".join(json.dumps(row) + "\n" for row in [*rows, more]))
        with pytest.raises(ConfigError, match="refuses the key"):
            build(config)


@pytest.mark.parametrize("asked", ["probe", "blue_expert"])
def test_images_that_are_gone_reject_no_seed_and_are_made_again(tmp_path: Path, asked: str) -> None:
    """Whoever is the first to miss them: after the blue expert it is the evaluator."""
    server = roles()
    with server.in_thread():
        config = http_config(tmp_path, server, perturb={"share": 0.0})
        build(config, until=SEEDS)
        choose = server.choose

        def unmount(request: Any) -> Any:
            if server.role_of(request.body) == asked:
                shutil.rmtree(config.images, ignore_errors=True)
            return choose(request)

        server.choose = unmount
        with pytest.raises(SteerError, match=r"image.*no item is lost"):
            build(config)
        assert not list(read_outcomes(config.step(DIALOGUES)))
        server.choose = choose
        assert build(config).steps[1].kept == 4


def test_perturbed_images_that_are_gone_are_made_again_too(tmp_path: Path) -> None:
    with roles().in_thread() as server:
        config = http_config(tmp_path, server, perturb={"share": 1.0})
        build(config)
        before = (config.out / "sets" / "sft.jsonl").read_text()
        for folder in ("images", "sets"):
            shutil.rmtree(config.out / folder)
        build(config)
        assert (config.out / "sets" / "sft.jsonl").read_text() == before and before.count('"sigma"') == 4


def test_a_step_goes_to_another_process_as_it_is(built: Path, seeds: Path) -> None:
    make = pickle.loads(pickle.dumps(functools.partial(make_step, mini_build(built, seeds))))
    assert make(4, Cache(None)).name == DIALOGUES


def http_config(tmp_path: Path, server: RoleServer, **more: Any) -> BuildConfig:
    """Four seeds and a model in every role."""
    rows = []
    for number in range(4):
        picture(tmp_path / "photos" / f"{number}.png", size=(20 + number, 20))
        what = {"question": f"What is thing {number} for?", "image": f"photos/{number}.png", "unsafe": number % 2 == 0}
        rows.append({**what, "source": "made-up", "source_id": str(number), "license": "CC0-1.0"})
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "out": str(tmp_path / "out"),
        "sources": [{"set": "plain", "path": str(tmp_path / "seeds.jsonl")}],
        "agents": {"endpoint": {"base_url": server.base_url, "model": MODEL, "timeout": 5, "max_retries": 1}},
        "expand": {"turn_weights": [1, 0, 0, 0, 0, 0, 0, 0, 0], "pairs": 0.0},
        "kinds": {"obfuscated": 1.0, "red_team": 0.0, "benign_of_unsafe": 0.0},
        "splits": {"sft": 1, "rl": 0, "bench": 0},
        "work": {"shards": 1, "pause": 0.01, "tries": 2},
        **more,
    }
    return parse_settings(BuildConfig, values, "here")


def roles() -> RoleServer:
    return RoleServer(ANSWERS)


def test_models_in_every_role_and_an_endpoint_that_dies_and_comes_back(tmp_path: Path) -> None:
    server = roles()
    with server.in_thread():
        config = http_config(tmp_path, server)
        build(config, until=SEEDS)
        assert server.requests == 0, "nobody is asked for the seeds"
        dying = _dies_after(server, 12)
        with pytest.raises(SteerError, match="no item is lost"):
            build(config)
        assert not list(read_outcomes(config.step(DIALOGUES))), "nobody is rejected for a dead endpoint"
        dying.stop()
        manifest = build(config)
        assert max(server.delivered.values()) <= 2 and server.delivered.total() - len(server.delivered) <= 2
    assert [step.kept for step in manifest.steps] == [4, 4]
    assert len(lines(config.out / "sets" / "sft.jsonl")) == 4
    names = manifest.steps[1].agents
    assert names["blue_expert"].startswith(f"{MODEL}@blue_expert-") and len(names) == 9
    assert any((config.out / "calls").iterdir())


def test_a_gateway_that_finds_every_request_too_large_rejects_no_seed(tmp_path: Path) -> None:
    server = roles()
    with server.in_thread():
        config, choose = http_config(tmp_path, server), server.choose
        large = status(413, "<html>413 Request Entity Too Large</html>")
        server.choose = lambda request: choose(request) if QUESTION in request.text else large
        with pytest.raises(SteerError, match="no item is lost"):
            build(config)
        server.choose = choose
        assert build(config).steps[1].kept == 4


class _dies_after:
    """From the n-th request on the server answers 503."""

    def __init__(self, server: RoleServer, requests: int) -> None:
        self.server, self.choose, self.left = server, server.choose, requests
        server.choose = self._next

    def _next(self, request: Any) -> Any:
        self.left -= 1
        return status(503) if self.left < 0 else self.choose(request)

    def stop(self) -> None:
        self.server.choose = self.choose


def test_what_was_given_up_is_made_by_retry_and_nothing_is_paid_twice(tmp_path: Path) -> None:
    """One seed's blue expert is down while all others go on; the sets end as those of an undisturbed build."""
    server = roles()
    with server.in_thread():
        calm = http_config(tmp_path / "calm", server)
        build(calm)
        asked = server.delivered.copy()
        choose, sick = server.choose, dict[str, str]()
        server.choose = lambda request: status(503) if _of_one(server, request, sick) else choose(request)
        agents = {"endpoint": {"base_url": server.base_url, "model": MODEL, "timeout": 5, "max_retries": 0}}
        work = {"shards": 2, "pause": 0.5, "tries": 2}
        config = http_config(tmp_path / "sick", server, agents=agents, work=work)
        config = config.model_copy(update={"sources": calm.sources})
        first = build(config).steps[1]
        assert (first.given_up, first.kept) == (1, 3)
        server.choose = choose
        again = build(config, retry=True).steps[1]
    assert (again.given_up, again.kept) == (0, 4)
    assert set((server.delivered - asked).values()) == {1}, "nothing was answered twice"
    assert _dialogues(config.out) == _dialogues(calm.out)


def _of_one(server: RoleServer, request: Any, sick: dict[str, str]) -> bool:
    """Whether it is a question to the blue expert about the seed that asked it first, while that is to fail."""
    if server.role_of(request.body) != "blue_expert":
        return False
    image = re.search(r"data:image[^\"]*", request.text)
    return bool(image) and sick.setdefault("image", image[0]) == image[0]


def _dialogues(out: Path) -> list[dict[str, Any]]:
    """Of the SFT set, without what differs from folder to folder."""
    return sorted((row for row in lines(out / "sets" / "sft.jsonl")), key=lambda row: row["id"])


def test_the_recipes_check_passes_on_what_real_forms_become(tmp_path: Path) -> None:
    """Rows of the public sets' own forms, ScienceQA's without images among them, through the recipe's own settings."""
    files = Path(__file__).parents[1] / "public_data"
    (tmp_path / "science.json").write_text(json.dumps([_science(number) for number in range(6)]))
    sources = [
        {"set": "geometry3k", "path": str(files / "hub" / "geometry3k")},
        {"set": "scienceqa", "path": str(tmp_path / "science.json")},
        {"set": "beavertails_v", "path": str(files / "hub" / "BeaverTails-V"), "split": "train"},
        {"set": "vlsbench", "path": str(files / "hub" / "vlsbench")},
    ]
    server = roles()
    with server.in_thread():
        values = yaml.safe_load((RECIPES / "build.yaml").read_text())
        values |= {"out": str(tmp_path / "out"), "sources": sources}
        values["splits"] |= {"bench_sources": ["vlsbench"]}
        values["agents"] = {"endpoint": {"base_url": server.base_url, "model": MODEL, "timeout": 20}}
        manifest = build(parse_settings(BuildConfig, values, "build.yaml"))
    assert manifest.steps[0].kept >= 20 and manifest.steps[1].kept >= 15
    sets = tmp_path / "out" / "sets"
    made = [str(sets / name) for name in ("sft.parquet", "rl.parquet", "bench.jsonl") if (sets / name).exists()]
    result = CliRunner().invoke(app, ["check", *made])
    assert result.exit_code == 0, result.output
    assert len(made) > 1 and any(not row["images"] for row in lines(sets / "sft.jsonl")), "text alone"


def _science(number: int) -> dict[str, Any]:
    hint = "The passage is long and the same for all of the questions that follow it, as in a reader for schools. " * 6
    question = f"Which of the {number + 2} animals is mentioned first in the part about rivers?"
    return {"image": None, "question": question, "choices": ["otter", "heron"], "answer": 0, "hint": hint}


def test_no_image_of_the_benchmark_is_trained_on(tmp_path: Path) -> None:
    """Three questions about each image, the default splits."""
    rows = []
    for number in range(30):
        picture(tmp_path / "photos" / f"{number}.png", size=(40, 40 + number), seed=number)
        for what in ("for", "made of", "worth"):
            row = {"question": f"What is thing {number} {what}?", "image": f"photos/{number}.png", "license": "CC0-1.0"}
            rows.append({**row, "unsafe": number % 2 == 0, "source": "made-up"})
    (tmp_path / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = roles()
    with server.in_thread():
        config = http_config(
            tmp_path, server, splits={}, sources=[{"set": "plain", "path": str(tmp_path / "many.jsonl")}]
        )
        build(config)
    sets = config.out / "sets"
    bench = {row["image"] for row in lines(sets / "bench.jsonl")}
    trained = {name for row in [*lines(sets / "sft.jsonl"), *lines(sets / "rl.jsonl")] for name in row["images"]}
    assert bench and trained and not bench & trained


def test_one_server_has_one_bound_whichever_roles_ask_it(tmp_path: Path) -> None:
    server = roles()
    with server.in_thread():
        endpoint = {"base_url": server.base_url, "model": MODEL, "timeout": 20, "max_concurrency": 2}
        more = {role: {"max_concurrency": 64} for role in ("generator", "blue_expert", "evaluator")}
        build(http_config(tmp_path, server, agents={"endpoint": endpoint, "roles": more}))
    assert server.peak <= 2


def test_a_wrong_key_or_folder_is_found_before_the_first_item(tmp_path: Path) -> None:
    server = roles()
    with server.in_thread():
        config = http_config(tmp_path, server)
        server.faults, server.kinds = 1.0, (status(401),)
        with pytest.raises(ConfigError, match="refuses the key"):
            build(config)
        asked = server.requests
        gone = [config.sources[0].model_copy(update={"path": tmp_path / name}) for name in ("no", "none")]
        with pytest.raises(DataError, match=r"/no: cannot be read .*\| .*/none: cannot be read"):
            build(config.model_copy(update={"sources": (*gone, *config.sources)}))
        assert server.requests == asked, "a folder that is not there is found before a model is asked"
    assert not config.step(SEEDS).exists() and not config.step(DIALOGUES).exists()


def test_a_set_for_tests_alone_is_refused_for_training_by_its_name(tmp_path: Path) -> None:
    moss = Path(__file__).parents[1] / "public_data" / "keyed_json" / "mossbench_form.json"
    values = mini_config(tmp_path / "out", sources=[{"set": "mossbench", "path": str(moss)}])
    with pytest.raises(ConfigError, match="mossbench"):
        build(parse_settings(BuildConfig, values, "here"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("role", "change"),
    [
        ("generator", {"temperature": 0.3}),
        ("target", {"max_tokens": 77}),
        ("screener", {"base_url": "http://127.0.0.1:1/v1"}),
        ("blue_expert", {"model": "other"}),
    ],
)
def test_an_endpoint_that_was_changed_is_told(role: str, change: dict[str, Any], tmp_path: Path) -> None:
    server = roles()
    with server.in_thread():
        config = http_config(tmp_path, server)
        build(config)
        endpoint = {"base_url": server.base_url, "model": MODEL, "timeout": 5, "max_retries": 0}
        other = http_config(tmp_path, server, agents={"endpoint": endpoint, "roles": {role: change}})
        with pytest.raises(ConfigError, match=next(iter(change))):
            build(other)


def test_a_changed_file_of_strategies_is_told(seeds: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("framings: [{name: riddle, text: As a riddle.}]\n")
    config = mini_build(tmp_path / "out", seeds, red_team={"strategies": str(file)})
    build(config)
    file.write_text("framings: [{name: riddle, text: As another riddle.}]\n")
    with pytest.raises(ConfigError, match="strategies"):
        build(config)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"nonsense": 1}, "nonsense: unknown key"),
        ({"agents": {"kind": "mini"}, "perturb": {"phrases": ["STEP\nBY STEP"]}}, "perturb.phrases.0"),
        ({"agents": {"kind": "mini"}, "perturb": {"phrases": [" "]}}, "perturb.phrases.0"),
        ({"out": os.fsdecode(b"/tmp/daten-\xe4")}, "out: .*not UTF-8"),
        ({"agents": {"endpoint": {"base_url": "http://x/v1"}}}, "generator: model: Field required"),
        ({"agents": {"kind": "mini", "endpoint": {"model": "m"}}}, "takes no endpoint"),
        ({"agents": {"kind": "mini"}, "sources": [{"set": "imagenet", "path": "x"}]}, "'imagenet' is no set"),
        ({"agents": {"kind": "mini"}, "splits": {"sft": 0, "rl": 0, "bench": 0}}, "sum to 0"),
    ],
)
def test_a_setting_that_cannot_work_is_one_line(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        parse_settings(BuildConfig, {**mini_config(tmp_path), **change}, "build.yaml")
    assert "\n" not in str(error.value) and str(error.value).startswith("build.yaml: ")


def test_overrides_stand_as_if_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "build.yaml"
    file.write_text(yaml.safe_dump(mini_config(tmp_path / "out", sources=[{"set": "plain", "path": "a"}])))
    config = load_config(file, ["work.in_flight=7", "sources.0.path=b", "screen.keep_from=2"])
    assert (config.work.in_flight, str(config.sources[0].path), config.screen.keep_from) == (7, "b", 2)
    for wrong in ("work.in_flight", "out.deeper=1", "sources.9.path=b", "sources.x.path=b"):
        with pytest.raises(ConfigError):
            load_config(file, [wrong])


@pytest.mark.parametrize("name", ["build", "photos"])
def test_the_recipes_files_are_builds(name: str) -> None:
    config = load_config(RECIPES / f"{name}.yaml")
    assert config.sources and config.agents.of("target").model


def test_a_role_has_its_own_temperature_unless_one_is_set(tmp_path: Path) -> None:
    agents = load_config(RECIPES / "build.yaml").agents
    assert (agents.of("generator").temperature, agents.of("screener").temperature) == (1.0, 0.0)
    cold = load_config(RECIPES / "build.yaml", ["agents.endpoint.temperature=0.2"]).agents
    assert {cold.of(role).temperature for role in ("generator", "screener")} == {0.2}


def test_the_recipe_has_the_papers_five_subsets_and_trains_on_none() -> None:
    config = load_config(RECIPES / "build.yaml")
    names = {source.name or source.set for source in config.sources}
    assert {"vlsbench", "mm_safetybench", "spa_vl_test", "beavertails_v_test"} <= names & set(
        config.splits.bench_sources
    )
    assert "own_test" in config.splits.bench_sources, "the slot for one's own"
    assert {"jailbreakv_28k", "align_anything"} <= names - set(config.splits.bench_sources)


def test_nothing_to_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sources: none"):
        build(parse_settings(BuildConfig, mini_config(tmp_path), "here"))


def test_a_second_build_in_a_folder_changes_nothing(tmp_path: Path) -> None:
    """Not even the seeds, of which the first one is making dialogues."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "What is it?", "license": "CC0-1.0"}\n')
    config = parse_settings(
        BuildConfig, mini_config(tmp_path / "out", sources=[{"set": "plain", "path": str(rows)}]), "here"
    )
    with held(config.out), pytest.raises(ConfigError, match="another run is at work in this folder"):
        build(config, until="seeds")
    assert [path.name for path in config.out.iterdir()] == [".lock"]
    build(config, until="seeds")
    assert (config.step("seeds") / "seeds.jsonl").is_file()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    rows, file = tmp_path / "rows.jsonl", tmp_path / "file"
    rows.write_text('{"question": "What is it?", "license": "CC0-1.0"}\n')
    file.touch()
    config = parse_settings(
        BuildConfig, mini_config(file / "out", sources=[{"set": "plain", "path": str(rows)}]), "here"
    )
    with pytest.raises(SteerError, match="cannot be written"):
        build(config, until="seeds")


@pytest.mark.slow
def test_two_ray_nodes_of_which_one_dies_make_the_sets_of_one_process(built: Path, seeds: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        config = mini_build(tmp_path / "out", seeds)
        with _killed_when(lambda: _ended(config) >= 5, lambda: cluster.remove_node(node)):
            manifest = build(config, ray=True)
    finally:
        ray.shutdown()
        cluster.shutdown()
    here = read_manifest(built / "manifest.json")
    assert [(step.kept, step.rejected) for step in manifest.steps] == [(s.kept, s.rejected) for s in here.steps]
    assert sets_of(config.out) == sets_of(built)
    for name in (SetName.SFT, SetName.RL):
        assert _table(config.out, name) == _table(built, name)


def _table(out: Path, name: SetName) -> list[dict[str, Any]]:
    """Rows of a parquet file, without the absolute paths of its images."""
    return json.loads(
        json.dumps(pq.read_table(out / "sets" / f"{name.value}.parquet").to_pylist(), default=str).replace(str(out), "")
    )


def _ended(config: BuildConfig) -> int:
    return sum(path.read_bytes().count(b"\n") for path in config.step(DIALOGUES).glob("shard-*/outcomes-*.jsonl"))


class _killed_when:
    """Does something in a thread as soon as a condition holds; it must have held by the end."""

    def __init__(self, holds: Any, act: Any) -> None:
        import threading

        self.holds, self.act, self.over, self.done = holds, act, threading.Event(), False
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self.over.wait(0.02):
            if self.holds():
                self.act()
                self.done = True
                return

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(60)
        assert self.done, "the build ended before it could be disturbed"
