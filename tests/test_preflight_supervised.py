"""Preflight of Stage II: a run that can work passes; what verl's SFT trainer would stop at later is one line now."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from omegaconf import OmegaConf, open_dict
from PIL import Image

from steer_verl.mini import model as mini_model
from steer_verl.preflight import check, run
from steer_verl.preflight.compose import compose
from steer_verl.preflight.supervised import rows, steps, student, unlike
from steer_verl.preflight.verl_side import misspelt, verl_trains

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "qwen2_5_vl_3b"
ANSWER = "<thinking>I see it.</thinking><answer>A blue triangle.</answer>"


def dialogue(number: int, *, said: str = "What is this?", answer: str = ANSWER, image: bool = True) -> dict[str, Any]:
    picture = io.BytesIO()
    Image.new("RGB", (56, 56), (number, 0, 0)).save(picture, "PNG")
    asked = [{"role": "user", "content": "<image>" * image + said}, {"role": "assistant", "content": answer}]
    return {"id": f"d{number}", "messages": asked, "images": [{"bytes": picture.getvalue()}] * image}


def write(path: Path, values: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(values), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With ``sft.parquet``, 20 dialogues, and an untrained student."""
    folder = tmp_path_factory.mktemp("stage-two")
    write(folder / "sft.parquet", [dialogue(number) for number in range(20)])
    mini_model.build(folder / "student")
    return folder


@pytest.fixture(scope="module")
def composed() -> Any:
    return compose(RECIPE, "sft")


@pytest.fixture
def sft(folder: Path, composed: Any) -> Any:
    """The recipe on two GPUs, with the folder's student and rows, and with changes."""

    def changed(*overrides: str) -> Any:
        config = composed.copy()
        fits = ("data.max_length=1024", "data.train_batch_size=8", f"data.train_files={folder}/sft.parquet")
        for one in (f"model.path={folder}/student", "trainer.n_gpus_per_node=2", *fits, *overrides):
            key, _, value = one.partition("=")
            OmegaConf.update(config, key, yaml.safe_load(value), force_add=True)
        return config

    return changed


def only(found: Any, *wanted: str) -> None:
    (line,) = found
    assert "\n" not in line
    for word in wanted:
        assert word in line


def test_a_run_that_can_work_passes(sft: Any) -> None:
    assert check(sft()) == [] and list(unlike(sft())) == [] and list(misspelt(sft())) == []


def test_the_command_line_finds_out_which_trainer_is_meant(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"model.path={folder}/student", f"data.train_files={folder}/sft.parquet", "data.max_length=1024"]
    arguments = ["--config-path", str(RECIPE), "--config-name", "sft", "--", *given]
    assert run(arguments) == 0 and "all clear" in capsys.readouterr().err
    assert run([*arguments, "trainer.save_freq=0", "+optim.learning_rate=1"]) == 1
    told = capsys.readouterr().err
    assert "trainer.save_freq=0" in told and "optim" in told and "2 to mend" in told


def test_a_yaml_without_a_section_is_another_trainers(sft: Any) -> None:
    config = sft()
    with open_dict(config):
        del config.optim
    only(check(config), "no section optim", "sft_trainer", "a recipe's sft")


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    {
        "shared by GPUs": (["data.train_batch_size=9"], ["train_batch_size=9", "a multiple of 2"]),
        "no batch for each": (["data.train_batch_size=1"], ["train_batch_size=1", "2 GPUs"]),
        "micro": (["data.use_dynamic_bsz=false", "data.micro_batch_size_per_gpu=3"], ["does not divide the 4 rows"]),
        "dynamic": (["data.max_token_len_per_gpu=512"], ["holds 512 tokens", "data.max_length=1024"]),
        "never saved": (
            ["trainer.total_training_steps=5", "trainer.save_freq=3"],
            ["2 epochs of 20 rows end after 4 steps", "total_epochs"],
        ),
        "save_freq": (["trainer.save_freq=0"], ["trainer.save_freq=0", "-1 is never"]),
        "test_freq": (["trainer.test_freq=0"], ["trainer.test_freq=0"]),
        "no step": (["data.train_batch_size=32"], ["data.train_files: 20 rows make no batch"]),
        "few samples": (["data.train_max_samples=4"], ["data.train_files: 4 rows make no batch"]),
        "no validation": (["data.val_max_samples=3", "val"], ["data.val_files: 3 rows make no batch"]),
    }.values(),
)
def test_what_cannot_be_cut_into_steps(sft: Any, folder: Path, overrides: list[str], wanted: list[str]) -> None:
    given = [f"data.val_files={folder}/sft.parquet" if one == "val" else one for one in overrides]
    only(steps(sft(*given)), *wanted)


def test_epochs_that_end_early_may_have_saved_their_student(sft: Any) -> None:
    for often in ("after_each_epoch", "2"):
        assert list(steps(sft("trainer.total_training_steps=5", f"trainer.save_freq={often}"))) == []


def test_a_student_by_whom_no_row_can_be_measured_is_told(sft: Any, folder: Path, tmp_path: Path) -> None:
    student = tmp_path / "student"
    shutil.copytree(folder / "student", student)
    (student / "chat_template.jinja").unlink(missing_ok=True)
    (student / "chat_template.json").unlink(missing_ok=True)
    only(rows(sft(f"model.path={student}")), "model.path: no row can be measured", "no chat template")
    trusted = sft("model.trust_remote_code=true")
    assert check(trusted) == []
    only(unlike(trusted), "no row was measured")


def test_gpus_that_share_a_row_are_one(sft: Any) -> None:
    shared = ["data.max_token_len_per_gpu=512", "engine.ulysses_sequence_parallel_size=2", "data.train_batch_size=9"]
    assert list(steps(sft(*shared))) == [], "twice the tokens, and one batch"


def test_a_student_that_is_not_there_cannot_see_or_is_too_short(sft: Any, folder: Path, tmp_path: Path) -> None:
    only(student(sft("model.path=/no/such")), "model.path: no folder /no/such", "set model.path")
    only(student(sft("data.max_length=5000")), "context is 4096", "5000", "data.max_length")
    (tmp_path / "config.json").write_text("{}")
    only(student(sft(f"model.path={tmp_path}")), "has no processor")
    (tmp_path / "preprocessor_config.json").write_text("{}")
    only(student(sft(f"model.path={tmp_path}")), "model.external_lib", "vision tower would be trained")


def test_rows_are_told_by_file_and_number(sft: Any, tmp_path: Path) -> None:
    only(rows(sft("data.train_files=null")), "data.train_files is not set")
    only(rows(sft(f"data.train_files={tmp_path}/gone.parquet")), "gone.parquet does not exist")
    only(rows(sft(f"data.train_files={tmp_path}")), "is a folder")
    (tmp_path / "text.parquet").write_text("no table")
    only(rows(sft(f"data.train_files={tmp_path}/text.parquet")), "text.parquet")
    long = dialogue(3, said="Tell me of it. " * 300)
    file = write(tmp_path / "long.parquet", [dialogue(1), long, dialogue(2), {**long, "id": "again"}])
    only(rows(sft(f"data.train_files={file}")), f"{file}: row 2", "more than 1024", "(1 more like it)")
    assert list(rows(sft(f"data.train_files={file}", "data.truncation=right"))) == [], "verl cuts it"
    blind = dialogue(4)
    file = write(tmp_path / "blind.parquet", [dialogue(1), {**blind, "images": []}])
    only(rows(sft(f"data.train_files={file}")), f"{file}: row 2", "<image>")


def test_what_verl_can_learn_is_a_notice_at_most(sft: Any, tmp_path: Path) -> None:
    plain = [dialogue(number, answer="A blue triangle.") for number in range(8)]
    file = write(tmp_path / "plain.parquet", [*plain, dialogue(9), dialogue(9)])
    config = sft(f"data.train_files={file}", "checkpoint.save_contents=[model]")
    assert check(config) == []
    lines = list(unlike(config))
    assert [f"{file}: row 1" in line for line in lines] == [False, True]
    assert "hf_model" in lines[0] and "student's format" in lines[1] and "(8 more like it)" in lines[1]


def test_another_form_of_rows_is_not_ours_to_check(sft: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "other.parquet", [{"conversation": "words"}] * 9)
    assert check(sft(f"data.train_files={file}", "data.messages_key=conversation")) == []


def test_verls_words_are_kept(sft: Any) -> None:
    only(verl_trains(sft("optim.learning_rate=1")), "optim", "learning_rate")
    only(verl_trains(sft("model.lora_rnk=1")), "model.lora_rnk: unknown to verl")
    only(verl_trains(sft("model.external_lib=no_such_module")), "model.external_lib", "no_such_module")
    only(misspelt(sft("data.trian_files=1")), "data.trian_files", "data.train_files")
