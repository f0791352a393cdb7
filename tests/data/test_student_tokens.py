"""SFT rows held to a student's tokenizer: their length as verl trains on it, and tokens that texts spell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from steer_verl.data.commands import app
from steer_verl.data.rows.check import Checked, Rules, check_file
from steer_verl.data.rows.tokens import StudentTokens
from steer_verl.errors import ConfigError
from steer_verl.mini import model as mini_model
from tests.data.samples import picture, row, write_rows
from tests.data.test_set_rows import GOOD, changed, sft


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature student's files without its weights."""
    folder = tmp_path_factory.mktemp("student")
    mini_model.make_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text_model(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tokenizer in the folder of a model that sees nothing."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("text")
    AutoTokenizer.from_pretrained(student).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "a.png", (84, 84))
    picture(tmp_path / "wide.png", (300, 90), "blue")
    picture(tmp_path / "tiny.png", (20, 31), "green")
    return tmp_path


def table(folder: Path) -> Path:
    """Rows with images of several sizes and with none; the images of a table stand in it."""
    rows = [sft("one"), sft("two", turns=5, images=["wide.png"]), sft("tiny", images=["tiny.png"])]
    rows.append(changed(sft("three", images=[]), "messages.0.content", "What is a box?"))
    rows[1]["messages"].insert(0, {"role": "system", "content": "Be brief."})
    for value in rows:
        value["images"] = [{"bytes": (folder / name).read_bytes()} for name in value["images"]]
    pq.write_table(pa.Table.from_pylist(rows), folder / "sft.parquet")
    return folder / "sft.parquet"


def measured(file: Path, student: Path, max_tokens: int = 32768) -> list[Checked]:
    return list(check_file(file, Rules(student=StudentTokens(str(student), max_tokens))))


def steer_check(*words: object) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, words)], env={"COLUMNS": "400"})


def as_the_processor_counts(file: Path, student: Path) -> list[int]:
    from transformers import AutoProcessor
    from verl.utils.dataset.vision_utils import process_image

    processor, lengths = AutoProcessor.from_pretrained(student), []
    for value in pq.read_table(file).to_pylist():
        parts: list[dict[str, Any]] = []
        for message in value["messages"]:
            before, *after = message["content"].split("<image>")
            content = [{"type": "text", "text": before}] if before else []
            for piece in after:
                content += [{"type": "image"}, {"type": "text", "text": piece}]
            parts.append({"role": message["role"], "content": content})
        text = processor.apply_chat_template(parts, tokenize=False)
        images = [process_image(image) for image in value["images"]]
        lengths.append(len(processor(text=[text], images=images or None)["input_ids"][0]))
    return lengths


def test_rows_are_as_long_as_the_students_processor_makes_them(folder: Path, student: Path) -> None:
    file = table(folder)
    checked = measured(file, student)
    assert not any(row.problems for row in checked)
    assert [row.tokens for row in checked] == as_the_processor_counts(file, student)


@pytest.mark.slow
def test_rows_are_as_long_as_verls_dataset_makes_them(folder: Path, student: Path) -> None:
    pytest.importorskip("verl")
    from omegaconf import OmegaConf
    from verl.utils import hf_tokenizer
    from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
    from verl.utils.tokenizer import hf_processor

    file = table(folder)
    mini_model.make_model(mini_model.make_tokenizer()).config.save_pretrained(student)
    options = OmegaConf.create({"max_length": 4096, "pad_mode": "no_padding"})
    dataset = MultiTurnSFTDataset(str(file), hf_tokenizer(str(student)), options, hf_processor(str(student)))
    lengths = [len(dataset[number]["input_ids"]) for number in range(len(dataset))]
    assert [row.tokens for row in measured(file, student)] == lengths


def test_a_processor_that_does_not_tell_by_size_is_run(folder: Path, student: Path) -> None:
    file, measure = table(folder), StudentTokens(str(student))
    wanted = [row.tokens for row in check_file(file, Rules(student=measure))]

    class Opaque:
        """An image processor of another family."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __call__(self, *args: Any, **options: Any) -> Any:
            return self.inner(*args, **options)

        def __getattr__(self, name: str) -> Any:
            if name == "get_number_of_image_patches":
                raise AttributeError(name)
            return getattr(self.inner, name)

    measure._processor.image_processor = Opaque(measure._processor.image_processor)
    assert [row.tokens for row in check_file(file, Rules(student=measure))] == wanted


def test_rows_beyond_the_length_are_problems_and_the_longest_is_told(folder: Path, student: Path) -> None:
    file = table(folder)
    tokens = [row.tokens for row in measured(file, student)]
    longest, mean = max(tokens), sum(tokens) / 4
    fine = steer_check(file, "--student", student, "--max-tokens", longest)
    assert fine.exit_code == 0, fine.output
    assert f"the longest row, 2, has {longest}; mean {mean:.1f}" in fine.output
    over = steer_check(file, "--student", student, "--max-tokens", longest - 1)
    assert over.exit_code == 1 and f"row 2: messages: {longest} tokens, more than {longest - 1}; " in over.output
    assert "data.max_length" in over.output and f"has {longest}" in over.output


@pytest.mark.parametrize(
    ("text", "token"),
    [("an <|image_pad|> here", "<|image_pad|>"), ("<|endoftext|>", "<|endoftext|>"), ("plain words", "")],
)
def test_a_text_that_spells_a_control_token_is_told(folder: Path, student: Path, text: str, token: str) -> None:
    value = changed(sft(), "messages.1.content", GOOD.replace("a box", text))
    (checked,) = measured(write_rows(folder / "sft.jsonl", [value]), student)
    told = [problem for problem in checked.problems if "control token" in problem.what]
    assert [(problem.field, token in problem.what) for problem in told] == [("messages[1].content", True)] * bool(token)


def test_tokens_of_the_student_that_no_list_knows_are_told(folder: Path, text_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(text_model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["\u00a7end"]})
    tokenizer.save_pretrained(folder / "odd")
    value = changed(sft(), "messages.2.content", "What does \u00a7end mean?")
    (checked,) = measured(write_rows(folder / "sft.jsonl", [value]), folder / "odd")
    assert [problem.field for problem in checked.problems] == ["messages[2].content"]
    assert "\u00a7end" in checked.problems[0].what


def test_a_model_that_sees_nothing_measures_the_text_and_that_is_said(
    folder: Path, student: Path, text_model: Path
) -> None:
    file = table(folder)
    assert all(
        0 < blind.tokens <= seeing.tokens - 6 * len(seeing.images)
        for blind, seeing in zip(measured(file, text_model), measured(file, student), strict=True)
    )
    assert "text alone: it has no image processor" in steer_check(file, "--student", text_model).output


def test_a_row_that_the_chat_template_refuses_is_a_problem(folder: Path, student: Path, tmp_path: Path) -> None:
    strict = tmp_path / "strict"
    processor = mini_model.make_processor()
    processor.chat_template = "{{ raise_exception('no \x1b[31m system turn') }}"
    processor.save_pretrained(strict)
    (checked,) = measured(write_rows(folder / "sft.jsonl", [sft()]), strict)
    assert [problem.field for problem in checked.problems] == ["messages"]
    assert "refuses it" in checked.problems[0].what and "\x1b" not in str(checked.problems[0])


@pytest.mark.parametrize("what", ["missing", "empty", "no template"])
def test_a_student_without_a_chat_tokenizer_is_one_line(folder: Path, text_model: Path, what: str) -> None:
    from transformers import AutoTokenizer

    place = folder / "model"
    if what != "missing":
        place.mkdir()
    if what == "no template":
        tokenizer = AutoTokenizer.from_pretrained(text_model)
        tokenizer.chat_template = None
        tokenizer.save_pretrained(place)
    with pytest.raises(ConfigError):
        StudentTokens(str(place))
    result = steer_check(write_rows(folder / "sft.jsonl", [sft()]), "--student", place)
    assert result.exit_code == 1 and len(result.output.strip().splitlines()) == 1 and str(place) in result.output


def test_files_without_sft_rows_are_not_measured_and_that_is_said(folder: Path, student: Path) -> None:
    result = steer_check(write_rows(folder / "rl.jsonl", [row()]), "--student", student)
    assert result.exit_code == 0 and "nothing was measured" in result.output
