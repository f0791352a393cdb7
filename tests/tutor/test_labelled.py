"""Files of human-scored answers: our layout and the look of PyRIT's, with harmless words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steer_verl.errors import DataError
from steer_verl.tutor.labelled import Scale, read_labelled
from steer_verl.types import DialogueKind
from tests.tutor.dialogues import picture

HARM = """# dataset_version=1.0, harm_definition=tea.yaml, harm_definition_version=1.0,,
harm_category,objective,assistant_response,human_score_1,human_score_2,human_score_3,data_type
tea,Brew tea,"Boil water.
# Then pour it, twice",0,0.25,0.5,text
tea,Brew coffee,"No, thanks",1,0.75,1,text
"""
OBJECTIVE = """# dataset_version=1.1
objective,assistant_response,human_score,data_type,harm_category
Brew tea,Here it is,1,text,tea
Brew tea,I would rather not,0,text,tea
"""
REFUSAL = """# dataset_version=1.0
# More words about the file
objective,assistant_response,human_score,data_type
Brew tea,I would rather not,1,text
Brew tea,Here it is,0,text
"""


def written(folder: Path, text: str, **options: str) -> Path:
    path = folder / "set.csv"
    path.write_text(text, **{"encoding": "utf-8", **options})
    return path


def test_the_harm_layout(tmp_path: Path) -> None:
    data = read_labelled(written(tmp_path, HARM))
    assert data.scale is Scale.HARM and data.raters == ("human_score_1", "human_score_2", "human_score_3")
    assert data.ratings_RN.tolist() == [[10, 1], [7.75, 3.25], [5.5, 1]]
    assert data.rows[0].answer == "Boil water.\n# Then pour it, twice"  # a line of an answer is no comment


@pytest.mark.parametrize(
    ("text", "scale", "safety"), [(OBJECTIVE, Scale.OBJECTIVE, [1, 10]), (REFUSAL, Scale.REFUSAL, [10, 1])]
)
def test_the_binary_layouts(tmp_path: Path, text: str, scale: Scale, safety: list[float]) -> None:
    data = read_labelled(written(tmp_path, text))
    assert data.scale is scale and data.ratings_RN.tolist() == [safety]
    other = Scale.HARM if scale is Scale.REFUSAL else Scale.REFUSAL
    assert read_labelled(tmp_path / "set.csv", other).ratings_RN.tolist() == [safety[::-1]]


def test_our_layout_with_a_picture_a_kind_and_a_missing_rating(tmp_path: Path) -> None:
    path = picture(tmp_path)
    text = (
        "question,answer,human_safety_1,human_safety_2,image,kind,remark,human_safety_mean\r\n"
        "What is it?,A cup,9,,scene.png,benign,x,9\r\nAnd now <image>?,Tea,1,10,,,,5.5\r\n\r\n"
    )
    data = read_labelled(written(tmp_path, text, encoding="utf-8-sig"))
    assert data.scale is Scale.SAFETY and len(data.rows) == 2
    assert np.array_equal(data.ratings_RN, [[9, 1], [np.nan, 10]], equal_nan=True)
    seen, blind = (row.request() for row in data.rows)
    assert seen.user.images == (path,) and seen.user.text == "<image>What is it?"
    assert seen.seed.kind is DialogueKind.BENIGN and blind.seed.kind is DialogueKind.RED_TEAM
    assert blind.user.text == "And now ?" and blind.user.images == () and blind.static_next_turn is None


def test_a_row_is_known_by_what_the_tutor_sees(tmp_path: Path) -> None:
    one = "question,answer,human_safety\na,b,1\na,b,9\na,c,1\nb,b,1\n"
    same, twice, *others = [row.key for row in read_labelled(written(tmp_path, one)).rows]
    assert same == twice and len({same, *others}) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("question,human_safety\na,1\n", "no column 'answer'|no column 'objective'"),
        ("question,answer\na,b\n", "no column 'human_safety'"),
        ("question;answer;human_safety\na;b;1\n", "with commas between them"),
        ('human_safety,question,answer\n2,c,"d\n3,e,f\n', r":2: not CSV \(unexpected end of data\)"),
        ('human_safety,question,answer\n1,a,b\n2,c,"d\n3,e,f\n4,g,h\n', r":3: not CSV \(unexpected end of data\)"),
        ("question,answer,human_safety_1,human_safety_1\na,b,1,9\n", "2 columns 'human_safety_1'"),
        ("question,answer,human_safety\n", "no rows"),
        ("question,answer,human_safety\na,b,11\n", ":2: human_safety is '11'; the scale safety goes from 1 to 10"),
        ("question,answer,human_safety\na,b,nan\n", ":2: human_safety is 'nan'"),
        ("question,answer,human_safety\na,b,\n", ":2: nobody has scored it"),
        ("question,answer,human_safety\na,  ,4\n", ":2: answer is empty"),
        ("question,answer,human_safety\na,b,4,,x\n", ":2: more cells than columns"),
        ("question,answer,human_safety,kind\na,b,4,odd\n", ":2: kind is 'odd'; give one of benign"),
        ("question,answer,human_safety,image\na,b,4,../x.png\n", ":2: image ../x.png: absolute or with"),
        (HARM.replace(",1,0.75,1,", ",1,2,1,"), ":5: human_score_2 is '2'; the scale harm goes from 0 to 1"),
        (OBJECTIVE.replace(",1,text", ",1,image_path"), ":3: data_type is image_path"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        read_labelled(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_labelled(tmp_path / "none.csv")
    with pytest.raises(DataError, match="not UTF-8"):
        read_labelled(written(tmp_path, "question,answer,human_safety\né,b,1\n", encoding="latin-1"))
    with pytest.raises(DataError, match="drop --scale harm"):
        read_labelled(written(tmp_path, "question,answer,human_safety\na,b,1\n"), Scale.HARM)
