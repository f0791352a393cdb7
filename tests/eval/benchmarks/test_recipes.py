"""The recipes load, and name benchmarks and sets that there are."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from benchmarks.data.public_sets import PUBLIC as PUBLIC_SETS
from benchmarks.data.public_sets import read as read_public
from steer_verl.data.sources.registry import SETS
from steer_verl.eval.benchmarks.items import items_of
from steer_verl.eval.config import BenchmarkSettings, EvalConfig, JudgeSettings, StudentSettings
from steer_verl.eval.published import tables
from steer_verl.eval.records import EvalEnd
from steer_verl.eval.run import evaluate
from steer_verl.eval.runs import read_run
from steer_verl.settings_file import load_settings
from steer_verl.types import DialogueKind
from tests.data.sources.samples import draw, figstep, jailbreakv, write_csv, xstest
from tests.eval.judging.cases import marks
from tests.models.fault_server import MODEL, FaultServer, says

FOLDER = Path(__file__).resolve().parents[3] / "recipes" / "eval"
RECIPES = sorted(FOLDER.glob("*.yaml"))
PUBLIC = Path(__file__).resolve().parents[2] / "public_data"

COUNTS = {
    # benchmark of the recipe -> its file of tests/public_data, the kind of its items, how many are played, how many not
    "over_refusal": {
        "mossbench": ("keyed_json/mossbench_form.json", "benign", 2, 0),
        "vlguard_safe": ("vlguard/test.json", "benign", 2, 1),
        "xstest": ("xstest_safe.csv", "benign", 250, 0),
        "scienceqa": ("keyed_json/scienceqa_form.json", "benign", 1, 1),
        "geometry3k": ("hub/geometry3k", "benign", 10, 0),
    },
    "single_turn": {
        "beavertails_v": ("hub/BeaverTails-V", "red_team", 4, 0),  # of eight rows: each question has two responses
        "mm_safetybench": ("hub/MM-SafetyBench", "red_team", 4, 0),
        "spa_vl": ("hub/SPA-VL", "red_team", 2, 0),
        "vlguard": ("vlguard/test.json", "red_team", 2, 1),
        "vlsbench": ("hub/vlsbench", "red_team", 3, 0),
    },
}

BOTH = [(kind, played) for kind in ("benign", "red_team") for played in (True, False)]

KINDS: dict[tuple[str, str], dict[tuple[str, bool], int]] = {
    # set and its file of tests/public_data -> items as they are when the settings say nothing: kind, played or not
    ("xstest", "xstest_safe.csv"): {("benign", True): 250},
    ("geometry3k", "hub/geometry3k"): {("benign", True): 10},
    ("scienceqa", "keyed_json/scienceqa_form.json"): {("benign", True): 1, ("benign", False): 1},
    ("align_anything", "hub/align-anything"): {("benign", True): 5},
    ("beavertails_v", "hub/BeaverTails-V"): {("red_team", True): 10},
    ("beavertails_v", "hub/BeaverTails-V-pref"): {("red_team", True): 4},
    ("spa_vl", "hub/SPA-VL"): {("red_team", True): 10},
    ("spa_vl", "hub/spa_vl_rlhf"): {("red_team", True): 2},
    ("vlguard", "vlguard/test.json"): {
        (kind, played): 1 + played for kind in ("benign", "red_team") for played in (0, 1)
    },
    ("mm_safetybench", "hub/MM-SafetyBench"): {("red_team", True): 16},
    ("mm_safetybench", "hub/mmsb_github"): {("red_team", True): 4},
    ("vlsbench", "hub/vlsbench"): {("red_team", True): 3},
    ("vlsbench", "hub/vlsbench_old"): {("red_team", True): 2},
    ("mossbench", "keyed_json/mossbench_form.json"): {("benign", True): 2},
}


def recipe(name: str) -> EvalConfig:
    return load_settings(EvalConfig, FOLDER / f"{name}.yaml")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_loads_and_the_readme_tells_of_it(path: Path) -> None:
    config = load_settings(EvalConfig, path, ["student.name=x", "benchmarks.mini={file: a.jsonl}"])
    assert config.student.name == "x"
    assert f"({path.name})" in (FOLDER / "README.md").read_text()


def test_the_readme_names_no_file_that_is_not_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", (FOLDER / "README.md").read_text()):
        assert (FOLDER / link).exists(), link


def test_subsets_have_the_papers_names_and_order() -> None:
    assert tuple(recipe("multi_turn").benchmarks) == tables().multi_turn.benchmarks
    assert tuple(recipe("single_turn").benchmarks) == tables().single_turn.benchmarks
    assert {"mossbench", "vlguard_safe", "xstest"} < set(recipe("over_refusal").benchmarks)


def test_sets_are_the_registrys_own() -> None:
    for config in map(recipe, ("single_turn", "over_refusal")):
        for name, settings in config.benchmarks.items():
            assert settings.source is not None
            assert settings.source.set == name.removesuffix("_safe") and name.removesuffix("_safe") in SETS
            dataset = settings.source.dataset
            assert dataset is None or dataset == SETS[settings.source.set].title


def test_what_each_is_for() -> None:
    assert recipe("multi_turn").attack == "static" and recipe("adaptive").attack == "adaptive"
    mini = recipe("mini")
    assert (mini.student.kind, mini.judge.kind, mini.tutor and mini.tutor.kind) == ("mini", "mini", "mini")
    assert {name for name, one in recipe("over_refusal").benchmarks.items() if one.exact_match} == {
        "scienceqa",
        "geometry3k",
    }


def test_what_stands_in_comments_loads_too() -> None:
    path = FOLDER / "single_turn.yaml"
    text = re.sub(r"^  # (figstep: )", r"  \1", path.read_text(), flags=re.MULTILINE)
    config = EvalConfig.model_validate(yaml.safe_load(text))
    assert [*config.benchmarks][:-1] == [*recipe("single_turn").benchmarks] and "figstep" in config.benchmarks


@pytest.mark.parametrize("name", COUNTS)
def test_it_runs_over_files_in_the_forms_of_the_sets(name: str, tmp_path: Path) -> None:
    """The whole command, a student and a judge over HTTP; of the recipe only places are others."""
    config, benchmarks = recipe(name), {}
    for benchmark, (place, *_) in COUNTS[name].items():
        source = config.benchmarks[benchmark].source
        assert source is not None
        ours = source.model_copy(update={"path": PUBLIC / place, "dataset": None})
        benchmarks[benchmark] = config.benchmarks[benchmark].model_copy(update={"source": ours})
    student, judge = FaultServer(says("The answer is B.")), FaultServer(marks())
    with student.in_thread(), judge.in_thread():
        who = {
            "student": StudentSettings.model_validate({"endpoint": endpoint(student)}),
            "judge": JudgeSettings.model_validate({"endpoint": endpoint(judge)}),
        }
        evaluate(config.model_copy(update={"out": tmp_path / "out", "benchmarks": benchmarks, **who}))
    dialogues = read_run(tmp_path / "out").dialogues
    found = Counter((dialogue.benchmark, dialogue.kind.value, not dialogue.turns) for dialogue in dialogues)
    table = [(benchmark, *row[1:]) for benchmark, row in COUNTS[name].items()]
    wanted = {(benchmark, kind, False): played for benchmark, kind, played, _ in table}
    assert found == wanted | {(benchmark, kind, True): rest for benchmark, kind, _, rest in table if rest}
    assert all(dialogue.end is (EvalEnd.COMPLETED if dialogue.turns else EvalEnd.UNPLAYABLE) for dialogue in dialogues)
    correct = Counter(
        (d.benchmark, d.turns[0].correct) for d in dialogues if d.turns and d.turns[0].correct is not None
    )
    assert correct == ({("scienceqa", True): 1, ("geometry3k", False): 10} if name == "over_refusal" else {})


def endpoint(server: FaultServer) -> dict[str, str]:
    return {"base_url": server.base_url, "model": MODEL, "api_key_env": "STEER_TEST_KEY"}


def one(name: str, path: Path, **more: str) -> BenchmarkSettings:
    return BenchmarkSettings.model_validate({"source": {"set": name, "path": path}, **more})


def kinds(folder: Path, settings: BenchmarkSettings) -> dict[tuple[str, bool], int]:
    found = items_of({"one": settings}, folder / "work")
    return Counter((item.seed.kind.value, not item.unplayable) for item in found)


@pytest.mark.parametrize(("name", "place"), KINDS, ids=lambda value: str(value).replace("/", "-"))
def test_kinds_and_counts_of_every_form(name: str, place: str, tmp_path: Path) -> None:
    settings = one(name, PUBLIC / place)
    every = kinds(tmp_path, settings)
    assert every == KINDS[name, place]
    for kind in ("benign", "red_team"):
        if wanted := {told: count for told, count in every.items() if told[0] == kind}:
            assert kinds(tmp_path, settings.model_copy(update={"only": DialogueKind(kind)})) == wanted


@pytest.mark.parametrize("name", COUNTS)
def test_what_the_recipe_takes_from_the_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `dataset`, with the recipe's own config and split, through the library that downloads it."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    for benchmark, (place, kind, played, _) in COUNTS[name].items():
        settings = recipe(name).benchmarks[benchmark]
        if place.startswith("hub/") and settings.source and settings.source.dataset:
            source = settings.source.model_copy(update={"dataset": str(PUBLIC / place)})
            assert kinds(tmp_path, settings.model_copy(update={"source": source})) == {(kind, True): played}, benchmark


def test_sets_of_which_there_is_no_public_file_here(tmp_path: Path) -> None:
    """FigStep, JailbreakV-28K, XSTest with its unsafe half: look-alikes in their authors' layouts."""
    attacks = tmp_path / "JailBreakV_28k"
    list(draw(tmp_path / "FigStep/data/images", "SafeBench/query_ForbidQI_1_2_6.png"))
    list(draw(attacks, "llm_transfer_attack/blank_1.png"))
    made = {
        "figstep": write_csv(tmp_path / "FigStep/data/question/safebench.csv", [figstep(), figstep(task_id="3")]),
        "jailbreakv_28k": write_csv(attacks / "JailBreakV_28K.csv", [jailbreakv(), jailbreakv(id="6", format="Logic")]),
        "xstest": write_csv(tmp_path / "xstest_prompts.csv", [xstest(), xstest(id="2", prompt="Why?", label="unsafe")]),
    }
    found = {name: kinds(tmp_path, one(name, path)) for name, path in made.items()}
    assert found == {
        "figstep": {("red_team", True): 1, ("red_team", False): 1},
        "jailbreakv_28k": {("red_team", True): 1},  # one request under two templates
        "xstest": {("benign", True): 1, ("red_team", True): 1},
    }
    assert kinds(tmp_path, one("xstest", made["xstest"], only="benign")) == {("benign", True): 1}
    folders = {"figstep": tmp_path / "FigStep/data", "jailbreakv_28k": attacks}
    assert all(kinds(tmp_path, one(name, folder)) == found[name] for name, folder in folders.items())


def test_every_public_file_is_in_the_table() -> None:
    assert set(PUBLIC_SETS) == set(KINDS)


def test_the_docs_name_every_set_and_the_kinds_that_its_rows_have() -> None:
    page = (FOLDER.parents[1] / "docs" / "your_benchmark.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")
    ]
    told = {row[0].strip("`"): row[1:] for row in rows if row[0].strip("`") in SETS}
    assert [*told] == [*SETS]
    assert all(told[name][:2] == [known.title, known.license] for name, known in SETS.items())
    for name, place in KINDS:
        said = read_public(name, place)[1]
        wanted = {{True: "red_team", False: "benign", None: "not said"}[seed.unsafe] for seed in said}
        assert all(word in told[name][2] for word in wanted), name
