"""The card of a trained student: what the hub reads of it, and what it must not tell."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from omegaconf import OmegaConf
from typer.testing import CliRunner

from steer_verl.cli import app
from steer_verl.errors import ConfigError, DataError
from steer_verl.eval.runs import read_run, write_run
from steer_verl.preflight.compose import compose
from steer_verl.report.model_card import read_training_config, write_model_card
from tests.eval.evaluations import evaluation

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "steer-3b"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What Hydra leaves of a training by the recipe, whose data are still there."""
    monkeypatch.setenv("STEER_TUTOR_API_KEY", "sk-very-secret")
    data = tmp_path / "train.parquet"
    data.write_bytes(b"rows")
    words = [f"data.train_files={data}", "++algorithm.tcsr.alpha=0.4"]
    config = compose(RECIPES / "qwen2_5_vl_3b", "grpo", words)
    file = tmp_path / "run" / ".hydra" / "config.yaml"
    file.parent.mkdir(parents=True)
    OmegaConf.save(config, file)  # unresolved, as Hydra does
    return tmp_path / "run"


def test_the_hub_reads_base_tags_and_figures(tmp_path: Path, model: Path, training: Path) -> None:
    evaluation(tmp_path / "base", 0.6)
    evaluation(tmp_path / "ours", 0.1)
    runs = [tmp_path / "base", tmp_path / "ours"]
    card = ModelCard.load(write_model_card(model, runs, training=training, licence="apache-2.0"))
    assert card.data.base_model == "Qwen/Qwen2.5-VL-3B-Instruct" and card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "image-text-to-text" and "steer-verl" in card.data.tags
    figures = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert card.data.model_name == "steer-3b" and 0 < figures["harmless_pass"] < 100
    assert {one.dataset_name for one in card.data.eval_results} == {"mini"}
    text = card.content
    assert "## Results" in text and "Beside other students" in text and "| adaptive" in text.replace("attack | ", "| ")
    assert "[9" in text.replace("\\[", "["), "figures have intervals"
    assert str(tmp_path) not in text


def test_every_benchmark_has_its_own_figures_on_the_hub(tmp_path: Path, model: Path) -> None:
    evaluation(tmp_path / "good", 0.0)
    evaluation(tmp_path / "bad", 1.0)
    good, bad = (read_run(tmp_path / name) for name in ("good", "bad"))
    other = [d.model_copy(update={"benchmark": "spa", "id": f"spa/{d.id}"}) for d in bad.dialogues]
    about = good.about.model_copy(update={"benchmarks": {"mini": {}, "spa": {}}})
    write_run(tmp_path / "both", about, [*good.dialogues, *other])
    card = ModelCard.load(write_model_card(model, [tmp_path / "both"]))
    passed = {r.dataset_name: r.metric_value for r in card.data.eval_results if r.metric_type == "harmless_pass"}
    assert passed["mini"] == 100 and passed["spa"] < 50
    assert len(card.data.to_dict()["model-index"][0]["results"]) == 2


def test_the_student_beside_others_is_the_one_of_the_card(tmp_path: Path, model: Path) -> None:
    names = ("base/eval", "ours/eval")
    for name, broken in zip(names, (0.6, 0.1), strict=True):
        evaluation(tmp_path / name, broken)
    base = read_run(tmp_path / names[0])
    about = base.about.model_copy(update={"marks": {"harmless": -3.0, "fail_below": -2}, "judge": "/home/me/k"})
    write_run(base.folder, about, base.dialogues)
    text = write_model_card(model, [tmp_path / name for name in names]).read_text().replace("\\", "")
    (beside,) = (line for line in text.splitlines() if line.startswith("| eval (ours/eval) |"))
    (own,) = (line for line in text.splitlines() if line.startswith("| mini | harmless pass (%)"))
    assert "| thresholds | harmless 2.8, helpful 2.5, single 3, fail below 2, horizon 10 |" in text
    assert own.split("|")[3] in beside and str(tmp_path) not in text
    assert "Not the same judges: k, j. Differences are not the students' alone." in text


def test_the_method_is_what_was_trained_with_and_can_be_checked(model: Path, training: Path) -> None:
    text = write_model_card(model, [], training=training).read_text()
    for said in ("TCSR: preset released, alpha 0.4", "| KL coefficient | 0.1 |", "| rollouts a prompt | 5 |"):
        assert said in text.replace("\\_", "_"), said
    config = training / ".hydra" / "config.yaml"
    for file in (config, training.parent / "train.parquet"):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in text


def test_no_key_address_or_path_of_the_machine_is_told(
    model: Path, training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEER_TUTOR_BASE_URL", "http://10.1.2.3:8000/v1")
    monkeypatch.setenv("STEER_TUTOR_MODEL", "org/tutor-32b")
    text = write_model_card(model, [], training=training).read_text()
    assert "org/tutor" in text
    for private in ("sk-very-secret", "10.1.2.3", str(training.parent)):
        assert private not in text


def test_a_model_that_a_server_calls_by_its_folder_is_told_by_its_name(
    tmp_path: Path, model: Path, training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEER_TUTOR_MODEL", "/home/me/models/tutor-32b")
    run = tmp_path / "ours"
    evaluation(run, 0.1)
    about = json.loads((run / "run.json").read_text())
    about["judge"] = "median of 2/3: /home/me/a@judge-1, org/b@judge-1, ~/c@judge-1"
    (run / "run.json").write_text(json.dumps(about))
    text = write_model_card(model, [run], training=training).read_text()
    assert "| tutor-32b |" in text and "home" not in text
    assert "| median of 2/3: a@judge-1, org/b@judge-1, c@judge-1 |" in text.replace("\\", "")


@pytest.mark.parametrize("path", ["${oc.env:NO_SUCH}/qwen", "C:/qwen", "hdfs:/qwen", "./qwen"])
def test_what_is_no_name_of_the_hub_is_no_base(model: Path, training: Path, path: str) -> None:
    file = training / ".hydra" / "config.yaml"
    config = OmegaConf.load(file)
    config.actor_rollout_ref.model.path = path
    config.data.train_files = ["${oc.env:NO_SUCH}/a.parquet", "/data/b.parquet"]
    OmegaConf.save(config, file)
    card = ModelCard.load(write_model_card(model, [], training=training))
    assert card.data.base_model is None
    assert "| a.parquet | no longer" in card.content and "| b.parquet | no longer" in card.content


def test_what_the_environment_no_longer_says_is_named(
    model: Path, training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STEER_TUTOR_MODEL", raising=False)
    assert "STEER_TUTOR_MODEL" in write_model_card(model, [], training=training).read_text().replace("\\_", "_")


def test_files_are_those_of_where_it_was_trained(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, training: Path
) -> None:
    config = training / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace(str(tmp_path / "train.parquet"), "train.parquet"))
    OmegaConf.save({"hydra": {"runtime": {"cwd": str(tmp_path)}}}, config.with_name("hydra.yaml"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Path("train.parquet").write_bytes(b"other rows")
    assert hashlib.sha256(b"rows").hexdigest() in write_model_card(model, [], training=training).read_text()


def test_anothers_card_stays(model: Path) -> None:
    (model / "README.md").write_text("# Qwen2.5-VL")
    with pytest.raises(DataError, match="move it away"):
        write_model_card(model, [])
    assert (model / "README.md").read_text() == "# Qwen2.5-VL"
    (model / "README.md").unlink()
    assert write_model_card(model, []).read_text() == write_model_card(model, []).read_text()


@pytest.mark.parametrize("given", [{"base": "http://u:Key123@h/x"}, {"licence": "MIT License"}, {"base": "/home/me/x"}])
def test_what_the_hub_would_refuse_is_told_before(model: Path, given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="of the hub's; give one such as") as told:
        write_model_card(model, [], **given)
    assert "Key123" not in str(told.value) and not (model / "README.md").exists()


def test_a_students_own_folder_is_no_base_of_the_hub(tmp_path: Path, model: Path, training: Path) -> None:
    file = training / ".hydra" / "config.yaml"
    config = OmegaConf.load(file)
    config.actor_rollout_ref.model.path = str(tmp_path / "sft")
    OmegaConf.save(config, file)
    card = ModelCard.load(write_model_card(model, [], training=training))
    assert card.data.base_model is None and str(tmp_path) not in card.content
    assert ModelCard.load(write_model_card(model, [], training=training, base="org/x")).data.base_model == "org/x"


def test_a_name_is_a_name(tmp_path: Path, model: Path) -> None:
    evaluation(tmp_path / "ours", 0.1)
    card = ModelCard.load(write_model_card(model, [tmp_path / "ours"], title="a: [b](http://c) <b>\n---"))
    assert "[b](http://c)" not in card.text and "<b>" not in card.text
    assert card.data.model_name == "a: [b](http://c) <b> ---", "front matter is data"


@pytest.mark.parametrize(
    ("text", "said"), [("a: [", "not YAML"), ("a: 1", "not of a training"), ("- 1", "not of a training")]
)
def test_a_configuration_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(DataError, match=said):
        read_training_config(tmp_path)


def test_what_is_missing_is_told(tmp_path: Path, model: Path) -> None:
    with pytest.raises(DataError, match=r"no config\.json"):
        write_model_card(tmp_path, [])
    with pytest.raises(DataError, match=r"\.hydra/config\.yaml"):
        read_training_config(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no finished evaluation"):
        write_model_card(model, [tmp_path / "nowhere"])
    assert not (model / "README.md").exists()


def test_the_command(tmp_path: Path, model: Path, training: Path) -> None:
    evaluation(tmp_path / "ours", 0.1)
    words = ["card", str(model), "--eval", str(tmp_path / "ours"), "--training", str(training), "--license", "mit"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert ModelCard.load(model / "README.md").data.license == "mit"
